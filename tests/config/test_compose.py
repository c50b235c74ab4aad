"""Composed configs are kept, until something changes that they depend on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dlframe.config import load
from dlframe.registry import models
from dlframe.storage import stamps
from dlframe.types import ConfigError

compose = sys.modules["dlframe.config.compose"]
"""The module, of which the package has the function."""


@pytest.fixture(autouse=True)
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The choices that Hydra has composed, in a folder with a YAML file of its own."""
    monkeypatch.setattr(stamps, "FRESH_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("epochs: 7\n")
    compose._composed.clear()
    seen: list[dict] = []
    original = compose._compose

    def counted(choices, locations):
        seen.append(choices)
        return original(choices, locations)

    monkeypatch.setattr(compose, "_compose", counted)
    return seen


def test_equal_choices_are_composed_once(composed):
    first = load(["model=mlp", "seed=1", "optimizer.lr=0.1"])
    second = load(["model=mlp", "seed=2"])
    assert len(composed) == 1
    assert (first.run.seed, second.run.seed) == (1, 2)
    assert second.values["optimizer"]["lr"] != 0.1
    load(["model=cnn"])
    assert len(composed) == 2


def test_what_is_kept_is_not_what_is_given(composed):
    first = load(["model=mlp"])
    expected = first.values["model"]["width"]
    first.values["model"]["width"] = -1
    assert load(["model=mlp"]).values["model"]["width"] == expected
    assert len(composed) == 1


def test_a_changed_file_is_read_again(composed):
    assert load(["experiment=mine"]).run.epochs == 7
    Path("conf/experiment/mine.yaml").write_text("epochs: 12\n")
    assert load(["experiment=mine"]).run.epochs == 12
    Path("conf/experiment/mine.yaml").unlink()
    with pytest.raises(ConfigError, match="experiment=mine: no such experiment"):
        load(["experiment=mine"])


def test_a_file_that_comes_before_a_packaged_one_is_seen(composed):
    assert load(["trainer=ddp", "model=mlp"]).trainer.strategy == "ddp"
    Path("conf/trainer").mkdir()
    Path("conf/trainer/ddp.yaml").write_text("num_threads: 3\n")
    config = load(["trainer=ddp", "model=mlp"])
    assert (config.trainer.strategy, config.trainer.num_threads) == ("auto", 3)


def test_another_folder_has_other_files(composed, tmp_path, monkeypatch):
    assert load(["experiment=mine"]).run.epochs == 7
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(ConfigError, match="experiment=mine: no such experiment"):
        load(["experiment=mine"])


def test_a_plugin_that_appears_is_seen(composed):
    with pytest.raises(ConfigError, match="model=tiny_twin: no such model"):
        load(["model=tiny_twin"])
    load(["model=mlp"])
    Path("plugins").mkdir()
    Path("plugins/twin.py").write_text(
        "from torch import nn\nfrom dlframe.registry import models\n\n\n@models.register('tiny_twin')\n"
        "class Twin(nn.Module):\n    '''A linear model.'''\n\n    def __init__(self, *, spec, width: int = 3) -> None:\n"
        "        super().__init__()\n"
    )
    assert load(["model=tiny_twin"]).values["model"]["width"] == 3
    assert "tiny_twin" in models.entries


def test_the_place_of_a_fault_is_told_each_time(composed):
    Path("conf/experiment/mine.yaml").write_text("epochs: -7\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"mine\.yaml:1: epochs: must be"):
            load(["experiment=mine"])
    assert len(composed) == 1


def test_few_are_kept(composed, monkeypatch):
    monkeypatch.setattr(compose, "MOST", 2)
    for model in ("mlp", "cnn", "rnn"):
        load([f"model={model}"])
    assert len(compose._composed) == 2
    load(["model=rnn"])
    assert len(composed) == 3
    load(["model=mlp"])
    assert len(composed) == 4
