"""Trainings whose length, or time between two validations, is a number of steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlframe.config import load
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data, run
from dlframe.jobs.verify_resume import difference
from dlframe.runs.journal import history
from dlframe.runs.recorder import states
from dlframe.storage import checkpoint
from dlframe.types import ConfigError, Dataset

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "model.width=8", "tracking=none", "figures=none"]
BY_STEPS = ["validate_unit=steps", "validate_every=10"]
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


# --- validations


@pytest.mark.parametrize(
    ("options", "validated", "epochs"),
    [
        (["epochs=3"], [10, 20, 30, 40, 50, 51], [0, 1, 1, 2, 2, 2]),
        (["epochs=1", "validate_every=100"], [17], [0]),
        (["trainer.max_steps=34", "validate_every=17"], [17, 34], [0, 1]),
        (["epochs=2", "trainer.limit_batches=4", "validate_every=3"], [3, 6, 8], [0, 1, 1]),
        (["epochs=2", "accumulate_grad_batches=4", "validate_every=4"], [4, 8, 10], [0, 1, 1]),
        (["epochs=2", "steps_per_execution=7"], [10, 20, 30, 34], [0, 1, 1, 1]),
    ],
)
def test_the_steps_and_the_end_are_validated(tmp_path, options, validated, epochs):
    curves = history(train(tmp_path, *BY_STEPS, *options))
    assert [step for step, _ in curves["val/loss"]] == validated
    assert [epoch for _, epoch in curves["epoch"]] == epochs


def test_the_weights_do_not_depend_on_when_they_are_validated(tmp_path):
    by_steps, by_epochs = train(tmp_path / "steps", *BY_STEPS, "epochs=2"), train(tmp_path / "epochs", "epochs=2")
    for part in ("task", "optimizers", "schedulers"):
        assert difference(last(by_steps)[part], last(by_epochs)[part]) is None


def words() -> Dataset:
    plugin = Path(__file__).parent.parent / "foreign" / "tokens"
    return load_data(load([f"plugin_paths={plugin}", "task=tagging", "data=words", "model=tagger"]))


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    "order",
    [Order(16, seed=3), Order(16, seed=3, accumulate=3), Order(16, batch_elements=150, seed=3), Order(7, seed=1, limit=5)],
)
def test_rounds_have_the_steps_of_the_passes_one_after_another(order, world_size):
    dataset, passes = words(), 3

    def loader() -> BatchLoader:
        return BatchLoader(dataset.train, dataset.spec, order, context=lambda: ProcessContext(torch.device("cpu")))

    whole, rounds = loader(), loader()
    rounds.validate_by_steps(4, passes, world_size)
    expected = [step for number in range(passes) for step in whole.plan(number, world_size)]
    count = rounds.epochs(passes, world_size)
    plans = [rounds.plan(number, world_size) for number in range(count)]
    found = [step for plan in plans for step in plan]
    assert [len(plan) for plan in plans] == [rounds.steps(number, world_size) for number in range(count)]
    assert rounds.total_steps(count, world_size) == len(expected) == len(found)
    assert all(torch.equal(a, b) for one, other in zip(expected, found, strict=True) for a, b in zip(one, other, strict=True))
    ends = np.cumsum([len(whole.plan(number, world_size)) for number in range(passes)])
    assert [rounds.passes(0, step, world_size) for step in range(len(expected))] == [
        int(np.searchsorted(ends, step, side="right")) for step in range(len(expected))
    ]


@pytest.mark.parametrize(("patience", "steps"), [(1, 30), (2, 50)])  # 17 / 10 and 34 / 10 validations, rounded up
def test_patience_is_counted_in_epochs(tmp_path, patience, steps):
    stopping = [
        "callback=[early_stopping]",
        f"callback.early_stopping.patience={patience}",
        "callback.early_stopping.min_delta=9",
    ]
    folder = train(tmp_path, *BY_STEPS, "epochs=9", *stopping, "callback.early_stopping.monitor=val/loss")
    assert history(folder)["val/loss"][-1][0] == steps


def test_a_run_goes_on_with_more_epochs_but_not_with_other_rounds(tmp_path, capsys):
    folder = train(tmp_path, *BY_STEPS, "epochs=2")
    for other in ("validate_every=5", "validate_unit=epochs"):
        with pytest.raises(ConfigError, match=f"resume: {other.partition('=')[0]} is "):
            train(tmp_path, *BY_STEPS, "epochs=3", f"resume={folder}", other)
    with pytest.raises(ConfigError, match="epochs: must be more than the 2"):
        train(tmp_path, *BY_STEPS, "epochs=1", f"resume={folder}")
    capsys.readouterr()
    assert train(tmp_path, *BY_STEPS, "epochs=3", f"resume={folder}") == folder
    assert "continues after epoch 2, step 34" in capsys.readouterr().out
    assert last(folder)["progress"]["steps"] == 3 * STEPS
    assert [step for step, _ in history(folder)["val/loss"]] == [10, 20, 30, 34, 40, 50, 51]


def test_a_pruner_that_counts_epochs_is_refused(tmp_path):
    from dlframe.studies import sweep

    space = ["sweep", "model.width=choice(4,8)", "trials=2", "pruner=hyperband"]
    with pytest.raises(ConfigError, match="which validate_unit=steps does not count"):
        sweep.main([*SHORT, f"runs={tmp_path}", *BY_STEPS, *space[1:]])
