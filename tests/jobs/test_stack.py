"""Several runs as one stacked training: folders, results, ends, resumption."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from dlframe.config import load
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.stack import run_stack, stackable
from dlframe.jobs.train import run
from dlframe.jobs.verify_resume import difference
from dlframe.runs import journal
from dlframe.runs.recorder import BEST, RunRecorder, states
from dlframe.runs.signals import RunInterrupted
from dlframe.storage import checkpoint
from dlframe.types import Result, RunPruned, TrainingError

pytestmark = pytest.mark.usefixtures("no_figures")
OWN = [["seed=0", "optimizer.lr=0.003"], ["seed=1", "optimizer.lr=0.01"], ["seed=2", "optimizer.lr=0.001"]]


def configs(folder: Path, *common: str, own: list[list[str]] = OWN):
    small = ["model=mlp", "epochs=2", "tracking=none", f"runs={folder}"]
    return [load([*small, *common, *each]) for each in own]


def stack(*args, **options) -> list[Result]:
    found = run_stack(*args, always=True, pending=[], **options)
    assert all(isinstance(result, Result) for result in found), found
    return found  # type: ignore[return-value]


def last(result: Result) -> dict:
    assert result.folder
    tree, _ = checkpoint.load(states(result.folder)[0])
    return tree


def test_each_run_has_what_it_has_alone(tmp_path, capsys):
    results = stack(configs(tmp_path / "together"))
    assert "note: stacked: a step of 3 runs takes " in capsys.readouterr().err
    for result, config in zip(results, configs(tmp_path / "alone"), strict=True):
        alone = run(config, pending=[])
        assert result.folder
        assert alone.folder
        names = {path.name for path in alone.folder.rglob("*")}
        assert {path.name for path in result.folder.rglob("*")} == names
        assert result.metrics == pytest.approx(alone.metrics, rel=1e-3)
        assert journal.ended(result.folder) == "FINISHED"
        one, other = journal.history(result.folder), journal.history(alone.folder)
        assert {name: [step for step, _ in curve] for name, curve in one.items()} == {
            name: [step for step, _ in curve] for name, curve in other.items()
        }
        # The same weights score the same, to the bit, when they are tested again.
        assert evaluate_run(result.folder).metrics == result.metrics
        starts = [json.loads((r.folder / journal.FILE).read_text().splitlines()[0]) for r in (result, alone) if r.folder]
        assert starts[0]["identity"] == starts[1]["identity"]


def test_finished_runs_are_not_trained_again(tmp_path):
    first = stack(configs(tmp_path))
    again = run_stack(configs(tmp_path, "resume=auto"), pending=[])
    assert [result.folder for result in again if isinstance(result, Result)] == [result.folder for result in first]


class Interrupt:
    """Sends Ctrl-C to this process after the first epoch."""

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_interrupted_and_resumed(tmp_path):
    """All members are saved, and end as if they had never stopped, to the bit."""
    common = ["epochs=3", "checkpoint.every_n_epochs=1"]
    whole = stack(configs(tmp_path / "whole", *common))
    with pytest.raises(RunInterrupted):
        run_stack(configs(tmp_path / "parts", *common), always=True, pending=[], watches=[None, Interrupt(), None])
    folders = sorted((tmp_path / "parts").glob("mlp-*"))
    assert [journal.ended(folder) for folder in folders] == ["KILLED"] * 3
    assert [len(states(folder)) for folder in folders] == [1] * 3
    resumed = stack(configs(tmp_path / "parts", *common, "resume=auto"))
    assert sorted(result.folder for result in resumed if result.folder) == folders
    for one, other in zip(whole, resumed, strict=True):
        assert difference(last(one), last(other)) is None
        assert one.metrics == other.metrics
        assert one.folder
        assert other.folder
        assert difference(checkpoint.load(one.folder / BEST)[0], checkpoint.load(other.folder / BEST)[0]) is None


class KilledError(BaseException):
    """As kill -9: nothing is written after it."""


def test_killed_while_it_saves(tmp_path, monkeypatch):
    """Some members have a later checkpoint than others: all continue from the one that all have."""
    common = ["checkpoint.every_n_steps=10", "checkpoint.max_to_keep=1"]
    whole = stack(configs(tmp_path / "whole", *common))
    write, written = RunRecorder.write, []

    def killed(self, tree, facts):
        written.append(facts["step"])
        if written.count(20) == 3:
            raise KilledError
        return write(self, tree, facts)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "write", killed)
        patch.setattr("dlframe.jobs.stack._end", lambda run, *_: run.recorder.journal.close())
        with pytest.raises(KilledError):
            run_stack(configs(tmp_path / "parts", *common), always=True, pending=[])
    steps = sorted(len(states(folder)) for folder in (tmp_path / "parts").glob("mlp-*"))
    assert steps == [1, 2, 2]
    resumed = stack(configs(tmp_path / "parts", *common, "resume=auto"))
    for one, other in zip(whole, resumed, strict=True):
        assert difference(last(one), last(other)) is None
        assert one.metrics == other.metrics


def test_a_run_that_fails_and_one_that_is_pruned(tmp_path):
    def prune(epoch: int, metrics: Mapping[str, float]) -> None:
        raise RunPruned("others do better")

    own = [["optimizer.lr=0.01"], ["optimizer.lr=1e38"], ["optimizer.lr=0.02"]]
    found = run_stack(configs(tmp_path, "optimizer=sgd", own=own), always=True, pending=[], watches=[None, None, prune])
    assert isinstance(found[0], Result)
    assert isinstance(found[1], TrainingError)
    assert isinstance(found[2], RunPruned)
    ends = {}
    for folder in tmp_path.glob("mlp-*"):
        (end,) = [record for record in journal.read(folder) if record["kind"] == "end"]
        ends[(folder / "overrides.txt").read_text().split("optimizer.lr=")[1]] = (end["status"], end["message"])
    assert ends["0.01"] == ("FINISHED", "")
    assert ends["0.02"] == ("KILLED", "others do better")
    assert ends["1e38"][0] == "FAILED"
    assert ends["1e38"][1].startswith("TrainingError: ")


def test_where_it_does_not_pay(tmp_path, capsys, monkeypatch):
    """The measurement decides; one line says so, and the runs are trained one after the other."""
    monkeypatch.setattr("dlframe.population.training.MARGIN", 1e9)
    found = run_stack(configs(tmp_path, "epochs=1", own=OWN[:2]), pending=[])
    assert all(isinstance(result, Result) for result in found)
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: not stacked, but one after the other: a step of 2 runs takes ")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["optimizer=lion"], "optimizer=lion: a stack has adam, adamw and sgd"),
        (["model=gan"], "model=gan: has 2 networks, must have one"),
        (["model=lda"], "model=lda: has 0 networks, must have one"),
        (["callback=[ema]"], "callback: a stack has []. Received: ['ema']"),
        (["trainer.precision=bf16-mixed"], "trainer.precision: a stack has 32-true and 64-true. Received: bf16-mixed"),
        (["accumulate_grad_batches=2"], "accumulate_grad_batches: a stack has 1. Received: 2"),
        (["on_nan=skip"], "on_nan: a stack has raise. Received: skip"),
        (["batch_size=auto"], "batch_size: a stack has a number. Received: auto"),
        (["labels_per_class=3"], "labels_per_class: seeds choose other labels"),
    ],
)
def test_what_cannot_be_stacked(tmp_path, overrides, reason):
    assert stackable(configs(tmp_path, *overrides, own=[["seed=0"], ["seed=1"]])) == reason


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("model.width=8", "model.width=16", "model.width: must be the same in all runs of a stack. Received: 16, 8"),
        ("optimizer=adam", "optimizer=adamw", "optimizer.name: must be the same in all runs of a stack. Received: adam, adamw"),
        (
            "optimizer.weight_decay=0",
            "optimizer.weight_decay=1",
            "optimizer.weight_decay: must be zero in all runs of a stack or",
        ),
        ("augmentation=[flip]", "augmentation=[]", "augmentation: must be the same in all runs of a stack. Received: "),
        ("optimizer.betas=[0.8,0.9]", "optimizer.betas=[0.9,0.9]", ""),
    ],
)
def test_in_what_runs_may_differ(tmp_path, one, other, reason):
    received = stackable(configs(tmp_path, own=[[one], [other]]))
    assert received.startswith(reason)
    assert bool(received) == bool(reason)


def test_one_run_is_a_run(tmp_path, capsys):
    (result,) = run_stack(configs(tmp_path, "epochs=1", own=[[]]), pending=[])
    assert isinstance(result, Result)
    assert capsys.readouterr().err == ""
