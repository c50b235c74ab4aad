"""Every optimizer, schedule and callback goes on from a saved state as if it had never stopped, to the bit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dlframe.config import load
from dlframe.engine.fit import fit
from dlframe.jobs.train import load_data
from dlframe.jobs.verify_resume import difference
from dlframe.registry import GROUPS, plugins
from dlframe.runs.recorder import Recorder
from dlframe.storage import checkpoint
from dlframe.types import Dataset

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
