"""Things that people have, registered as a user would: each in at most five lines, and none ends in a traceback."""

from __future__ import annotations

import importlib
import math
import re
import sys
from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.runs.journal import history

pytestmark = pytest.mark.usefixtures("no_figures")

THINGS = Path(__file__).parent / "things"
MOST = 5
BRIEF = [f"plugin_paths={THINGS}", "epochs=1", "trainer.limit_batches=3", "tracking=none", "log_every_n_steps=1"]
MLP = ["model=mlp", "model.width=8"]
WORK = {
    "LeNet of a CIFAR repository": ["model=their_lenet", "trainer.channels_last=false"],
    "ResNet of a CIFAR repository": ["model=their_resnet"],
    "model that returns a tuple": ["model=their_auxiliary"],
    "torchvision model": ["model=tv_shufflenet", "trainer.limit_batches=1"],
    "timm model by class": ["model=timm_vit"],
    "timm model by name": ["model=timm_model", "trainer.limit_batches=1"],
    "scikit-learn classifier": ["model=sklearn_centroids", "trainer.limit_batches=0"],
    "Lion": [*MLP, "optimizer=their_lion"],
    "schedule-free SGD": [*MLP, "optimizer=their_schedule_free"],
    "optimizer of torch": [*MLP, "optimizer=torch_adamax"],
    "optimizer of timm": [*MLP, "optimizer=timm_adabelief"],
    "schedule of torch": [*MLP, "scheduler=warm_restarts"],
    "transform of torchvision": [*MLP, "augmentation=[tv_rotation]"],
    "Cutout of a CIFAR repository": [*MLP, "augmentation=[their_cutout]"],
    "torch Dataset": [*MLP, "data=their_digits"],
    "focal loss": [*MLP, "task=their_focal", "data=digits"],
    "metric of torchmetrics": [*MLP, "metric=[hamming]"],
    "CSVLogger": [*MLP, "callback=[csv_logger]"],
    "LearningRateMonitor": [*MLP, "callback=[learning_rates]"],
    "DeviceStatsMonitor": [*MLP, "callback=[device_stats]"],
    "Timer": [*MLP, "callback=[timer]"],
    "ModelSummary": [*MLP, "callback=[model_summary]"],
    "TQDMProgressBar": [*MLP, "callback=[bar]"],
}
REFUSED = {
    "LeNet of a CIFAR repository": (["model=their_lenet"], r"view size is not compatible.*Try x\.flatten\(1\), or trainer\."),
    "model that returns a tuple": (["model=their_auxiliary", "model.first=false"], "must return a tensor of shape .* tuple of"),
    "optimizer that evaluates the loss itself": ([*MLP, "optimizer=torch_lbfgs"], "evaluates the loss itself, by a closure"),
    "ModelCheckpoint": ([*MLP, "callback=[model_checkpoint]"], "has no effect here. Try: checkpoint.every_n_epochs=1"),
    "StochasticWeightAveraging": ([*MLP, "callback=[averaging]"], "has no effect here. Try: callback=swa"),
}
"""What cannot work as it is, with the sentence that says so."""


def glue() -> dict[str, int]:
    """Lines of glue for each thing, beside the line with which it is registered."""
    _, *blocks = re.split(r"^# --- (.*)\n", (THINGS / "glue.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [[line for line in text.splitlines() if line.strip() and not line.startswith("@")] for text in blocks[1::2]]
    return {name: len(own) for name, own in zip(blocks[::2], lines, strict=True)}


def test_each_takes_few_lines():
    assert {*glue()} == {*WORK, *REFUSED}
    assert len(glue()) >= 24
    assert {name: lines for name, lines in glue().items() if lines > MOST} == {}


@pytest.mark.parametrize("thing", WORK)
def test_it_works(thing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(load([*BRIEF, *WORK[thing]]))
    assert result.folder
    assert all(map(math.isfinite, history(result.folder)["val/loss"][-1]))
    written = list(tmp_path.glob("csv/**/metrics.csv"))
    assert len(written) == (thing == "CSVLogger")
    assert not written or {"val/accuracy", "train/loss"} <= {*written[0].read_text().partition("\n")[0].split(",")}


@pytest.mark.parametrize("thing", REFUSED)
def test_it_is_refused_in_a_sentence(thing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options, reason = REFUSED[thing]
    assert main([*BRIEF, *options]) == 2
    error = capsys.readouterr().err
    assert re.match(rf"error: .*{reason}", error.splitlines()[-1])
    assert "Traceback" not in error


def test_a_pandas_frame(tmp_path, monkeypatch):
    """One line: it is a file to a table reader."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(THINGS)
    importlib.import_module("theirs").get_dataframe().to_csv("mine.csv", index=False)
    sys.modules.pop("theirs")
    options = ["data=table", "data.path=mine.csv", "data.target=churn", "epochs=20", "tracking=none"]
    assert run(load(options)).metrics["accuracy"] > 0.6
