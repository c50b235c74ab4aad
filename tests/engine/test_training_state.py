"""Every optimizer, schedule and callback goes on from a saved state as if it had never stopped, to the bit."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dlframe.config import load
from dlframe.engine.fit import fit
from dlframe.jobs.train import load_data, run
from dlframe.jobs.verify_resume import difference
from dlframe.registry import GROUPS, plugins
from dlframe.runs.recorder import Recorder, states
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, Dataset

plugins.discover()
TINY = ["model=cnn", "epochs=2", "batch_size=16", "augmentation=[flip]"]


@functools.cache
def few_digits() -> Dataset:
    """Enough for two epochs of four batches."""
    dataset = load_data(load(TINY))
    few = np.arange(64)
    dataset.train, dataset.validation, dataset.test = (
        split.take(few) for split in (dataset.train, dataset.validation, dataset.test)
    )
    return dataset


class Every(Recorder):
    """Keeps the state after every step, and goes on from one that is given."""

    def __init__(self, folder: Path, start: Path | None = None, best: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.folder, self.start, self.best = folder, start, best

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.best = {name: tensor.clone() for name, tensor in weights.items()}

    def best_weights(self) -> Mapping[str, Tensor] | None:
        return self.best

    def should_save(self, step: int, epoch: int) -> bool:
        return True

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        checkpoint.save(self.folder / str(facts["step"]), tree, facts)

    def latest_checkpoint(self) -> Path | None:
        return self.start


def goes_on(tmp_path: Path, *overrides: str, start: int = 5, end: int = 8) -> None:
    """Train, go on in fresh objects from the state of a step, and compare all that follow."""
    config = load([*TINY, *overrides])
    dataset = few_digits()
    whole = Every(tmp_path / "whole")
    assert fit(config, dataset, whole, Path()).steps == end
    heir = Every(tmp_path / "heir", whole.folder / str(start), whole.best)
    fit(config, dataset, heir, Path())
    later = [str(step) for step in range(start + 1, end + 1)]
    assert sorted(path.name for path in heir.folder.iterdir()) == later
    for name in later:
        expected, received = (checkpoint.load(recorder.folder / name)[0] for recorder in (whole, heir))
        assert difference(expected, received) is None


@pytest.mark.parametrize("optimizer", sorted(GROUPS["optimizer"].entries))
def test_every_optimizer_goes_on(tmp_path, optimizer):
    """From the middle of the second epoch. Weights of convolutions, and what is averaged over them, are channels-last."""
    goes_on(tmp_path, f"optimizer={optimizer}")


@pytest.mark.parametrize("scheduler", sorted(GROUPS["scheduler"].entries))
def test_every_scheduler_goes_on(tmp_path, scheduler):
    goes_on(tmp_path, f"scheduler={scheduler}", "optimizer=sgd")


@pytest.mark.parametrize("callback", sorted(GROUPS["callback"].entries))
def test_every_callback_goes_on(tmp_path, callback):
    goes_on(tmp_path, f"callback=[{callback}]")


def test_two_networks_go_on(tmp_path):
    goes_on(tmp_path, "model=gan")


def test_an_accumulation_goes_on(tmp_path):
    """Of four batches in an epoch three are a step, and the last is one of its own."""
    goes_on(tmp_path, "accumulate_grad_batches=3", start=1, end=4)


CRAFTED = {
    "no progress": ({"progress": None}, {}),
    "text as a step": ({"progress": {"steps": "many"}}, {}),
    "unknown progress": ({"progress": {"color": 1}}, {}),
    "negative steps": ({"progress": {"steps": -1}}, {}),
    "no weights": ({"task": {}}, {}),
    "another shape": ({"task": {"model.body.0.weight": np.zeros(3)}}, {}),
    "no optimizers": ({"optimizers": []}, {}),
    "no parameter groups": ({"optimizers": [{"state": {}, "param_groups": []}]}, {}),
    "text for an optimizer": ({"optimizers": ["adam"]}, {}),
    "no schedules": ({"schedulers": []}, {}),
    "no random numbers": ({"random": {}}, {}),
    "other random numbers": ({"random": {"torch": np.zeros(3)}}, {}),
    "no best": ({}, {"best": "gone"}),
    "no step": ({}, {"step": None}),
    "text as an epoch": ({}, {"epoch": "three"}),
    "a step of the best that is text": ({}, {"best": {"step": "7"}}),
    "no seconds": ({}, {"seconds": None}),
}
"""What somebody changed in a state, and in its facts."""


BRIEF = ["model=cnn", "model.width=4", "epochs=2", "tracking=none", "checkpoint.every_n_epochs=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run whose states are there."""
    return run(load([*BRIEF, f"runs={tmp_path_factory.mktemp('runs')}"])).folder


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("kind", CRAFTED)
def test_a_state_that_was_made_by_hand_is_told_in_one_line(kind, finished, tmp_path, capsys):
    """Its checksum is right, as anybody can compute it. A state whose facts are wrong is passed over for an earlier one."""
    folder = tmp_path / finished.name
    shutil.copytree(finished, folder)
    for name in ("result.json", "predictions.parquet"):
        (folder / name).unlink()
    records = (folder / "journal.jsonl").read_text().splitlines()
    (folder / "journal.jsonl").write_text("".join(f"{line}\n" for line in records if '"kind": "end"' not in line))
    latest, *_ = states(folder)
    tree, facts = checkpoint.load(latest)
    changes, said = CRAFTED[kind]
    checkpoint.save(latest, {**tree, **changes}, {**facts, **said})
    again = load([*BRIEF, f"runs={tmp_path}", f"resume={folder}"])
    if said:
        run(again)
        assert f"warning: {latest}: the checkpoint is damaged: its facts are not those of a state." in capsys.readouterr().err
    else:
        with pytest.raises(CheckpointError) as error:
            run(again)
        assert str(error.value).startswith(f"{latest}: does not match this training: ")
        assert "\n" not in str(error.value)


STRANGE = """
import torch
from dlframe.registry import Positive, optimizers


@optimizers.register("strange")
class Strange(torch.optim.SGD):
    '''Keeps a set.

    Args:
        lr: Learning rate.
    '''

    def __init__(self, params, *, lr: Positive = 0.1) -> None:
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["seen"] = {1}
        return super().step(closure)
"""


def test_what_no_checkpoint_can_hold_is_found_after_the_first_step(tmp_path):
    (tmp_path / "own.py").write_text(STRANGE)
    with pytest.raises(CheckpointError, match=r"^optimizers/0/state/0/seen: a checkpoint must hold .* Received: set\.$"):
        run(load([*BRIEF, f"runs={tmp_path}", f"plugin_paths={tmp_path / 'own.py'}", "optimizer=strange"]))
    assert not list(tmp_path.rglob("state-*"))
