"""Workers as tasks of a real Ray cluster of two nodes on loopback addresses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import until
from tests.services import RayNodes, short_folder

from dlframe.runs import journal
from dlframe.studies.study import Study, read_manifest

pytestmark = pytest.mark.slow

if not importlib.util.find_spec("ray"):
    pytest.skip("no Ray: pip install 'dlframe[ray]'", allow_module_level=True)

SECOND = "127.0.0.3"
SWEEP = ["sweep", "model=mlp", "model.depth=4", "epochs=60", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"]
SWEEP += ["tracking=none", "name=try", "search.fresh_seeds=0", "sampler=random", "optimizer.lr=tag(log,interval(1e-3,1e-1))"]


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RayNodes]:
    """Two nodes; for the second one, the folder in the marker `without` is empty."""
    marker = request.node.get_closest_marker("parametrize")
    without = tmp_path / request.node.callspec.params["without"] if marker else None
    if without:
        without.mkdir()
    with short_folder() as folder:
        nodes = RayNodes(folder, tmp_path / "ray.log")
        try:
            nodes.start(RayNodes.HEAD, cpus=1)
            nodes.wait(1)
            nodes.start(SECOND, cpus=1, without=without)
            nodes.wait(2)
            yield nodes
        finally:
            nodes.close()


def started(nodes: RayNodes, folder: Path, trials: int) -> subprocess.Popen:
    options = [*SWEEP, f"trials={trials}", "workers=2", "executor=ray", f"executor.address={nodes.address}"]
    command = [sys.executable, "-m", "dlframe", *options]
    return subprocess.Popen(
        command, cwd=folder, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_trial_of_a_lost_node_goes_on_elsewhere(nodes, tmp_path):
    sweep = started(nodes, tmp_path, 3)
    for number in (0, 1):
        until(lambda n=number: [*tmp_path.glob(f"runs/try-{n:04d}/checkpoints/state-*")], 200)
    nodes.kill(SECOND)
    said, errors = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, said + errors
    folder = tmp_path / "runs" / "sweeps" / "try"
    trials = Study(folder, read_manifest(folder)).trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    runs = [tmp_path / "runs" / f"try-{number:04d}" for number in range(3)]
    assert all(len(journal.history(run)["val/accuracy"]) == 60 for run in runs)
    assert max(sum(r["kind"] == "start" for r in journal.read(run)) for run in runs) == 2, "none was continued"


def test_a_cluster_that_dies_is_told_in_one_line(nodes, tmp_path):
    sweep = started(nodes, tmp_path, 50)
    until(lambda: [*tmp_path.glob("runs/try-0000/checkpoints/state-*")], 200)
    for address in (SECOND, RayNodes.HEAD):
        nodes.kill(address)
    _, errors = sweep.communicate(timeout=100)
    assert sweep.returncode == 2
    assert "error: executor.address: the Ray cluster is gone" in errors
    assert "Traceback" not in errors


PLUGIN = '''"""A model of a plugin."""

from torch import nn

from dlframe.registry import models


@models.register("own", inputs=("image",))
class Own(nn.Sequential):
    """Logistic regression on pixels."""

    def __init__(self, spec) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
'''


@pytest.mark.parametrize("without", ["plugins", "photos", "shared"])
def test_a_machine_that_lacks_something_is_told_and_the_others_work_on(nodes, tmp_path, without):
    """The plugin, the data, the folder of the study."""
    folder = tmp_path / "shared"
    folder.mkdir(exist_ok=True)
    run = ["model=mlp", "epochs=2"]
    if without == "plugins":
        (tmp_path / "plugins" / "own.py").write_text(PLUGIN)
        run = ["model=own", f"plugin_paths=[{tmp_path / 'plugins'}]", "epochs=2"]
    if without == "photos":
        for label in ("cat", "dog"):
            (tmp_path / "photos" / label).mkdir()
            for number in range(20):
                photo = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(photo).save(tmp_path / "photos" / label / f"{number}.png")
        run = ["model=mlp", "epochs=2", "data=image_folder", f"data.path={tmp_path / 'photos'}", "data.image_size=8"]
    options = ["sweep", *run, "tracking=none", "name=try", "search.fresh_seeds=0", "sampler=random"]
    options += ["optimizer.lr=tag(log,interval(1e-3,1e-1))", "trials=6", "workers=2", "executor=ray"]
    command = [sys.executable, "-m", "dlframe", *options, f"executor.address={nodes.address}"]
    done = subprocess.run(command, cwd=folder, env=nodes.environment, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr
    records = Study(folder / "runs/sweeps/try", read_manifest(folder / "runs/sweeps/try")).records()
    said = {
        "plugins": "worker 1 ended with status 2: model=own: no such model.",
        "photos": "worker 1 ended with status 2: data that an earlier trial had cannot be read here: image_folder: ",
        "shared": "worker 1 ended with status 1: a machine of the cluster cannot work: ",
    }[without]
    if without == "photos" and [record.state for record in records].count("failed") == 1:
        # It was this machine's turn before any trial had read the data: that could be the trial's own fault.
        assert done.returncode == 1
        return
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("worker 1"))
    assert line.startswith(said)
    assert done.returncode == 0
    assert [record.state for record in records] == ["complete"] * 6
