"""Code of plugins that changes while a run is interrupted: refused, or accepted and noted; told where the run is tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runs.test_resume import unfinish

from dlframe.cli import main
from dlframe.config import load
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.registry import Registry, models, plugins
from dlframe.registry.plugins import code_of
from dlframe.runs import journal
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")

MODEL = """
from torch import nn

from dlframe.registry import models
from dlframe.types import DataSpec
from .layers import head


@models.register("{name}")
class Own(nn.Module):
    \"\"\"A model.\"\"\"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.head = head(spec.input.shape, len(spec.classes))

    def forward(self, images):
        return self.head(images.flatten(1))
"""
LAYERS = """
import math

from torch import nn


def head(shape, classes):
    return nn.Linear(math.prod(shape), classes)
"""


@pytest.fixture
def plugin(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A plugin of one file, which imports another one; a third lies beside them."""
    name = f"own_{len(models.entries)}"
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "mine.py").write_text(MODEL.format(name=name))
    (folder / "layers.py").write_text(LAYERS)
    (folder / "unused.py").write_text("a = 1\n")
    yield folder / "mine.py"
    models.entries.pop(name, None)


def options(plugin: Path, tmp_path: Path, *more: str) -> list[str]:
    name = plugin.read_text().split('register("')[1].split('"')[0]
    return [f"model={name}", f"plugin_paths={plugin}", "epochs=1", "tracking=none", f"runs={tmp_path / 'runs'}", *more]


@pytest.mark.parametrize("file", ["mine.py", "layers.py"])
def test_a_run_does_not_go_on_with_other_code(file: str, plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run(load(options(plugin, tmp_path))).folder
    assert folder
    code = json.loads((folder / "environment.json").read_text())["plugins"]
    assert {name: sorted(files) for name, files in code.items()} == {"mine": ["layers.py", "mine.py"]}
    unfinish(folder)
    (plugin.parent / "unused.py").write_text("a = 2\n")
    changed = plugin.parent / file
    changed.write_text(changed.read_text() + "\n# changed\n")
    with pytest.raises(
        ConfigError, match=rf"^resume: .* was begun with other code: {file} of plugin 'mine' changed\. To contin"
    ):
        run(load(options(plugin, tmp_path, "resume=auto")))
    assert journal.ended(folder) == ""
    capsys.readouterr()
    assert run(load(options(plugin, tmp_path, "resume=auto", "changed_code=accept"))).folder == folder
    assert f"warning: {file} of plugin 'mine' changed; results may differ" in capsys.readouterr().err
    starts = [record for record in journal.read(folder) if record["kind"] == "start"]
    assert [start["tags"].get("changed_code") for start in starts] == [None, f"{file} of plugin 'mine' changed"]
    evaluate_run(folder, plugin_paths=[str(plugin)])
    assert f"warning: {file} of plugin 'mine' changed; results may differ" in capsys.readouterr().err


def test_the_same_code_goes_on_and_is_tested_without_a_word(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = run(load(options(plugin, tmp_path))).folder
    assert folder
    unfinish(folder)
    assert run(load(options(plugin, tmp_path, "resume=auto"))).folder == folder
    evaluate_run(folder, plugin_paths=[str(plugin)])
    assert "warning" not in capsys.readouterr().err


def test_a_run_that_did_not_note_its_code_is_told(plugin: Path, tmp_path: Path) -> None:
    folder = run(load(options(plugin, tmp_path))).folder
    assert folder
    unfinish(folder)
    file = folder / "environment.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "plugins"}))
    with pytest.raises(ConfigError, match="the run began with an earlier version of dlframe, which did not note the code"):
        run(load(options(plugin, tmp_path, "resume=auto")))


@pytest.mark.parametrize("content", ["[]", '{"plugins": 1}', '{"plugins": {"a": [1]}}', "{", "\x00"])
def test_a_record_that_is_none_is_refused(content: str, plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run(load(options(plugin, tmp_path))).folder
    assert folder
    unfinish(folder)
    (folder / "environment.json").write_text(content)
    assert main(options(plugin, tmp_path, "resume=auto")) == 2
    assert "is damaged: " in capsys.readouterr().err


def test_the_version_of_a_distribution_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the one that brings the plugin, and of the one whose class it adopts."""
    from dataclasses import replace

    registry = Registry("model", injected=("spec",))
    monkeypatch.setitem(vars(__import__("dlframe.registry.plugins", fromlist=["REGISTRIES"]))["REGISTRIES"], "model", registry)
    file = tmp_path / "brought.py"
    file.write_text("")
    entry = replace(models.entries["mlp"], origin="brought", code=file, distribution="dl-brought 1.2", target="numpy:ndarray")
    registry.entries["x"] = entry
    (own,) = code_of([("model", "x")]).values()
    assert own.pop("brought.py")
    assert own == {"dl-brought": "1.2", "numpy": __import__("numpy").__version__}


@pytest.mark.usefixtures("plugin")
def test_files_beyond_the_most_share_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a folder; tests and hidden ones do not count."""
    code = tmp_path / "code"
    (code / "__init__.py").write_text("from . import mine\n")
    for name in (".venv/lib.py", "test_mine.py"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text("")
    chosen = load(options(code / "mine.py", tmp_path, f"plugin_paths={code}")).chosen
    monkeypatch.setattr(plugins, "MOST", 2)
    before = code_of(chosen)["code"]
    assert sorted(before) == ["__init__.py", "a further *.py", "layers.py"]
    (code / "unused.py").write_text("a = 2\n")
    assert [name for name, own in code_of(chosen)["code"].items() if own != before[name]] == ["a further *.py"]
