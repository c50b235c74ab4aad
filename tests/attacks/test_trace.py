"""A whole run and its test, watched: nothing that a file holds becomes code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import json, os, sys

seen = {"unpickled": [], "loaded": [], "run": [], "libraries": []}
here = os.getcwd()

def look(event, arguments):
    if event == "pickle.find_class":
        seen["unpickled"].append(list(arguments))
    elif event == "exec" and arguments[0].co_filename.startswith(here):
        seen["run"].append(arguments[0].co_filename)
    elif event == "ctypes.dlopen" and str(arguments[0]).startswith(here):
        seen["libraries"].append(arguments[0])

sys.addaudithook(look)
import dlframe.engine.internals, torch

load = torch.load
def watched(*arguments, **options):
    seen["loaded"].append(options.get("weights_only"))
    return load(*arguments, **options)
torch.load = watched

from dlframe.cli import main
status = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({**seen, "status": status}, file)
"""

NOTHING = {"unpickled": [], "loaded": [], "run": [], "libraries": [], "status": 0}


def watch(folder: Path, *arguments: str) -> dict[str, object]:
    """What a command does that could run code from a file."""
    report = folder / "seen.json"
    command = [sys.executable, "-c", WATCHED, str(report), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())


def test_a_run_and_its_test(tmp_path: Path) -> None:
    assert watch(tmp_path, "model=mlp", "epochs=1", "tracking=none", "trainer.num_threads=1") == NOTHING
    (run,) = (tmp_path / "runs").iterdir()
    assert watch(tmp_path, "test", str(run.relative_to(tmp_path))) == NOTHING


@pytest.mark.slow
def test_weights_of_a_file(tmp_path: Path) -> None:
    """The one place where torch's own reader is used: on tensors only."""
    code = "import timm, torch; torch.save(timm.create_model('mobilenetv2_050').state_dict(), 'w.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    options = ("model=backbone", "model.architecture=mobilenetv2_050", "model.weights=w.pt", "model.image_size=32")
    seen = watch(tmp_path, *options, "epochs=1", "trainer.limit_batches=1", "tracking=none", "trainer.num_threads=1")
    assert seen == {**NOTHING, "loaded": [True]}


def test_the_watch_sees(tmp_path: Path) -> None:
    """A plugin that unpickles and loads without care is reported."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "careless.py").write_text(
        "import io, pickle, torch\n"
        "from dlframe.registry import models\n"
        "from dlframe.types import DataSpec\n\n"
        "pickle.loads(pickle.dumps(DataSpec))\n"
        "try:\n    torch.load(io.BytesIO(b''), weights_only=False)\nexcept EOFError:\n    pass\n\n"
        '@models.register("careless")\n'
        "class Careless(torch.nn.Module):\n"
        '    """Careless."""\n\n'
        "    def __init__(self, spec: DataSpec) -> None:\n"
        "        super().__init__()\n"
    )
    seen = watch(tmp_path, "model=careless", "optimizer.lr=1", "gradient_clip_val=1", "runs=/proc/x", "tracking=none")
    assert seen == {
        **NOTHING,
        "unpickled": [["dlframe.types.columns", "DataSpec"]],
        "loaded": [False],
        "run": [str(tmp_path / "plugins" / "careless.py")],
        "status": 2,
    }
