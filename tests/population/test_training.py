"""A stack computes what its members compute alone: weights, metrics, schedules, random numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlframe.config import load
from dlframe.engine.fit import fit
from dlframe.jobs.train import load_data
from dlframe.jobs.verify_resume import difference
from dlframe.population.members import Member
from dlframe.population.stack import NotStackableError
from dlframe.population.training import Speed, StackTraining
from dlframe.registry import models, plugins
from dlframe.runs.recorder import InMemoryRecorder
from dlframe.storage import checkpoint
from dlframe.types import Dataset, RunPruned, TrainingError

plugins.discover()
TINY = ["epochs=2", "batch_size=16", "trainer.precision=64-true"]
OWN = [["seed=0", "optimizer.lr=0.003"], ["seed=1", "optimizer.lr=0.01"], ["seed=2", "optimizer.lr=0.001"]]


@functools.cache
def few(*overrides: str) -> Dataset:
    """72 samples of each split: in batches of 16 the last one has 8."""
    dataset = load_data(load(overrides))
    index = np.arange(72)
    dataset.train, dataset.validation, dataset.test = (
        split.take(index) for split in (dataset.train, dataset.validation, dataset.test)
    )
    return dataset


class Kept(InMemoryRecorder):
    """Keeps metrics, and the state after some steps."""

    def __init__(self, folder: Path, steps: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.folder, self.steps = folder, steps
        self.logged: dict[str, dict[int, float]] = {}

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.logged.setdefault(name, {})[step] = value

    def should_save(self, step: int, epoch: int) -> bool:
        return step in self.steps

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        checkpoint.save(self.folder / str(facts["step"]), tree, facts)

    def state(self, step: int) -> dict[str, Any]:
        return checkpoint.load(self.folder / str(step))[0]


def members_of(common: list[str], own: list[list[str]] = OWN, data: tuple[str, ...] = ()) -> list[Member]:
    configs = [load([*TINY, *common, *each]) for each in own]
    return [Member.build(config, few(*data)) for config in configs]


def recorded(members: list[Member], folder: Path, steps: tuple[int, ...] = ()) -> list[Kept]:
    kept = [Kept(folder / str(i), steps) for i in range(len(members))]
    for member, recorder in zip(members, kept, strict=True):
        member.recorder = recorder
    return kept


def close(received: Any, expected: Any, rtol: float, where: str = "") -> None:
    """Compare trees whose floats are about the same, and all else exactly."""
    if isinstance(expected, Mapping):
        assert received.keys() == expected.keys(), where
        for name in expected:
            close(received[name], expected[name], rtol, f"{where}/{name}")
    elif isinstance(expected, (list, tuple)):
        assert len(received) == len(expected), where
        for i, pair in enumerate(zip(received, expected, strict=True)):
            close(*pair, rtol, f"{where}/{i}")
    elif (isinstance(expected, Tensor) and expected.is_floating_point()) or isinstance(expected, float):
        received, expected = torch.as_tensor(received), torch.as_tensor(expected)
        assert received.stride() == expected.stride(), where
        scale = expected.nan_to_num().abs().max().item() if expected.numel() else 0
        torch.testing.assert_close(received, expected, rtol=0, atol=rtol * scale, equal_nan=True, msg=f"{where}: {{}}".format)
    elif isinstance(expected, Tensor):
        assert received.equal(expected), where
    else:
        assert received == expected, where


CASES = {
    "dropout, own random numbers": ["model=mlp", "model.width=8", "model.dropout=0.5"],
    "plateau and clipping": [
        "model=mlp",
        "optimizer=adam",
        "scheduler=plateau",
        "scheduler.patience=0",
        "gradient_clip_val=0.1",
    ],
    "sgd and augmentation": ["model=mlp", "optimizer=sgd", "scheduler=warmup_cosine", "augmentation=[flip,affine]"],
    "sgd without momentum": ["model=mlp", "optimizer=sgd", "optimizer.momentum=0", "scheduler=constant", "validate_every=2"],
    "amsgrad": ["model=mlp", "optimizer.amsgrad=true", "scheduler=step", "optimizer.weight_decay=0", "log_every_n_steps=2"],
    "cycled momentum": ["model=mlp", "scheduler.cycle_momentum=true", "metric=[auroc]"],
    "running statistics": ["model=cnn", "model.width=4", "model.norm=batch", "model.hidden_dim=16"],
    "balanced": ["model=mlp", "task.sampling=balanced", "task.class_weight=balanced", "task.label_smoothing=0.1"],
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_as_alone(tmp_path, overrides):
    """Double precision: to 1e-9 of the largest value, random states and learning rates exactly."""
    members = members_of(overrides)
    together = recorded(members, tmp_path / "together", (7,))
    StackTraining(members).run()
    for i, member in enumerate(members):
        scored = member.scored(Path())
        own = Kept(tmp_path / "alone" / str(i), (7,))
        alone = fit(member.config, member.dataset, own, Path())
        assert scored.steps == alone.steps == 10
        for step in (7, 10):
            expected = own.state(step)
            received = together[i].state(step)
            # The Trainer's own callbacks have empty states, which are not needed to continue.
            expected.pop("callbacks"), received.pop("callbacks")
            # Scores are in single precision, and with them metrics.
            for tree in (expected, received):
                del tree["progress"]["metrics"], tree["progress"]["best"]
            close(received, expected, 1e-9)
        close(together[i].logged, own.logged, 2e-7)
        close(scored.metrics, alone.metrics, 2e-7)
        close(scored.scores, alone.scores, 2e-7)


def test_single_precision(tmp_path):
    """To 1e-4 of the largest weight after ten steps: sums in another order, amplified by Adam's division."""
    members = members_of(["model=mlp", "trainer.precision=32-true"])
    kept = recorded(members, tmp_path)
    StackTraining(members).run()
    for i, member in enumerate(members):
        own = Kept(tmp_path / "alone" / str(i))
        fit(member.config, member.dataset, own, Path())
        close(kept[i].state(10)["task"], own.state(10)["task"], 1e-4)


def test_an_lstm(tmp_path):
    """Its layer has no batched form of scoring: the members score one by one."""
    members = members_of(["model=rnn", "model.width=8"], OWN[:2])
    kept = recorded(members, tmp_path)
    StackTraining(members).run()
    for i, member in enumerate(members):
        own = Kept(tmp_path / "alone" / str(i))
        fit(member.config, member.dataset, own, Path())
        close(kept[i].state(10)["task"], own.state(10)["task"], 1e-9)


def test_a_series(tmp_path):
    members = members_of(["task=forecasting"], OWN[:2], ("task=forecasting",))
    recorded(members, tmp_path)
    StackTraining(members).run()
    for i, member in enumerate(members):
        own = Kept(tmp_path / "alone" / str(i))
        alone = fit(member.config, member.dataset, own, Path())
        close(member.scored(Path()).metrics, alone.metrics, 2e-7)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_continues(tmp_path, optimizer):
    """From the middle of the second epoch, bitwise; the checkpoint is also that of a run alone."""
    overrides = ["model=mlp", f"optimizer={optimizer}", "augmentation=[flip]", "trainer.precision=32-true"]
    whole = members_of(overrides)
    before = recorded(whole, tmp_path / "whole", (7, 8))
    StackTraining(whole).run()
    members = members_of(overrides)
    after = recorded(members, tmp_path / "rest", (8,))
    for member, own in zip(members, before, strict=True):
        member.restore(own.state(7))
        member.recorder.save_best(own.weights or {}, {})
    StackTraining(members).run()
    for own, other in zip(before, after, strict=True):
        for step in (8, 10):
            assert difference(own.state(step), other.state(step)) is None

    class Alone(Kept):
        def latest_checkpoint(self) -> Path:
            return before[0].folder / "7"

    alone = Alone(tmp_path / "alone")
    alone.weights = before[0].weights
    fit(members[0].config, members[0].dataset, alone, Path())
    close(alone.state(10)["task"], before[0].state(10)["task"], 1e-4)


def test_one_ends_the_others_continue(tmp_path):
    """A diverging member, and one that a search has ended."""
    own = [["seed=0", "optimizer.lr=0.01"], ["seed=1", "optimizer.lr=1e300"], ["seed=2", "optimizer.lr=0.02"], ["seed=3"]]
    common = ["model=mlp", "optimizer=sgd", "scheduler=constant", "epochs=3"]
    members = members_of(common, own)
    kept = recorded(members, tmp_path / "together", (8,))

    def prune(epoch: int, metrics: Mapping[str, float]) -> None:
        raise RunPruned(f"pruned after epoch {epoch}")

    kept[2].validated = prune  # type: ignore[method-assign]
    ended: list[Member] = []
    StackTraining(members).run(ended.append)
    assert ended == [members[1], members[2]]
    assert isinstance(members[1].failure, TrainingError)
    with pytest.raises(TrainingError) as alone:
        fit(members[1].config, members[1].dataset, Kept(tmp_path / "bad"), Path())
    assert str(members[1].failure).split(" (")[0] == str(alone.value).split(" (")[0]
    assert str(members[2].failure) == "pruned after epoch 1"
    for i in (0, 3):
        own_recorder = Kept(tmp_path / "alone" / str(i))
        fit(members[i].config, members[i].dataset, own_recorder, Path())
        close(kept[i].state(15)["task"], own_recorder.state(15)["task"], 1e-9)


def test_a_wrong_gradient_is_found():
    """A stack is compared with its members before it is used: here a constant of the first one is taken for all."""
    members = members_of(["model=mlp"])
    for i, member in enumerate(members):
        layers = member.task.model.layers  # type: ignore[union-attr]
        assert isinstance(layers, nn.Sequential)
        layers.append(Scale(1.0 + i))
    with pytest.raises(NotStackableError, match="another gradient than the model alone"):
        StackTraining(members).measure()


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


def test_measuring_changes_nothing(tmp_path):
    overrides = ["model=mlp", "model.width=8", "augmentation=[flip]", "epochs=1"]
    measured, fresh = members_of(overrides), members_of(overrides)
    for members, folder, measures in ((measured, "measured", True), (fresh, "fresh", False)):
        recorded(members, tmp_path / folder)
        training = StackTraining(members)
        if measures:
            assert training.measure().ratio > 0
        training.run()
    for one, other in zip(measured, fresh, strict=True):
        assert difference(one.state(), other.state()) is None


def test_when_it_pays():
    assert Speed(stacked=0.001, single=0.005, tracing=1, steps=1000).pays
    assert not Speed(stacked=0.001, single=0.005, tracing=1, steps=100).pays
    assert not Speed(stacked=0.001, single=0.00105, tracing=1, steps=10**6).pays
    assert Speed(stacked=0.001, single=0.005, tracing=1, steps=100).ratio == pytest.approx(5)


def test_random_numbers_elsewhere_are_refused():
    @models.register("noisy")
    class Noisy(nn.Module):
        """Noise."""

        def __init__(self, spec) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, images):
            return self.layer(images.flatten(1) + torch.randn(64))

    training = StackTraining(members_of(["model=noisy"]))
    with pytest.raises(NotStackableError, match="draws random numbers in training by other means than dropout"):
        training.measure()


def test_what_has_no_batched_form_is_refused():
    @models.register("branching")
    class Branching(nn.Module):
        """Branches."""

        def __init__(self, spec) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, images):
            logits = self.layer(images.flatten(1))
            return logits if logits.sum() > 0 else -logits

    training = StackTraining(members_of(["model=branching"]))
    with pytest.raises(NotStackableError, match="data-dependent control flow"):
        training.measure()


def test_a_model_that_changes_with_the_epoch_is_refused():
    @models.register("changing")
    class Changing(nn.Module):
        """Changes."""

        def __init__(self, spec) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def start_epoch(self, epoch, epochs):
            self.factor = epoch

        def forward(self, images):
            return self.layer(images.flatten(1))

    with pytest.raises(NotStackableError, match=r"Changing.start_epoch changes the model"):
        StackTraining(members_of(["model=changing"]))
