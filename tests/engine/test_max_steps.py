"""Trainings whose length is a number of steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.jobs.verify_resume import difference
from dlframe.runs.journal import history
from dlframe.runs.recorder import states
from dlframe.storage import checkpoint
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "model.width=8", "tracking=none", "figures=none"]
STEPS = len(range(0, 1078, 64))
"""Steps of an epoch."""


def train(runs: Path, *overrides: str) -> Path:
    return run(load([*SHORT, f"runs={runs}", *overrides])).folder


def last(folder: Path) -> dict:
    return checkpoint.load(states(folder)[0])[0]


@pytest.mark.parametrize(
    ("options", "steps", "validated"),
    [
        ([f"trainer.max_steps={STEPS + 5}"], STEPS + 5, [STEPS, STEPS + 5]),
        (["trainer.max_steps=3"], 3, [3]),
        (["trainer.max_steps=3", "validate_every=5"], 3, [3]),
        (["trainer.max_steps=10", "accumulate_grad_batches=4"], 10, [5, 10]),
        (["trainer.max_steps=5", "trainer.limit_batches=2"], 5, [2, 4, 5]),
        (["trainer.max_steps=5", "steps_per_execution=4"], 5, [5]),
    ],
)
def test_a_training_ends_after_so_many_steps(tmp_path, options, steps, validated):
    folder = train(tmp_path, *options)
    assert (last(folder)["progress"]["steps"], last(folder)["progress"]["done"]) == (steps, True)
    assert [step for step, _ in history(folder)["val/loss"]] == validated


def test_the_schedule_has_this_length(tmp_path):
    folder = train(tmp_path, f"trainer.max_steps={STEPS + 5}", "scheduler=one_cycle")
    assert last(folder)["schedulers"][0]["total_steps"] == STEPS + 5


def test_whole_epochs_are_those_of_epochs(tmp_path):
    by_steps = train(tmp_path / "steps", f"trainer.max_steps={2 * STEPS}")
    assert difference(last(by_steps), last(train(tmp_path / "epochs", "epochs=2"))) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["epochs=2", "trainer.max_steps=5"], "trainer.max_steps: steps or epochs decide"),
        (["trainer.max_steps=-1"], "trainer.max_steps"),
        (["trainer.max_steps=1.5"], "trainer.max_steps"),
        (["batch_elements=100", "trainer.max_steps=5"], "trainer.max_steps: needs epochs of equal length"),
    ],
)
def test_what_makes_no_length_is_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        load([*SHORT, *options])


def test_such_a_run_is_not_continued_by_epochs(tmp_path):
    folder = train(tmp_path, "trainer.max_steps=3")
    with pytest.raises(ConfigError, match="steps or epochs decide"):
        run(load([f"resume={folder}", "epochs=60"]))
