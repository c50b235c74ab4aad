"""An entry of every other group that breaks a contract, and data whose lengths do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from dlframe.registry import Positive, augmentations, callbacks, data, metrics, optimizers, schedulers, tasks
from dlframe.tasks.classification import Classification
from dlframe.types import Batch, Dataset, DataSpec, Field, Ragged, Split


@data.register("uneven", inputs=("tokens",), targets=("class",))
def uneven() -> Dataset:
    """A tag for each token, of which one has none."""
    tokens = Ragged.of([np.arange(3), np.arange(2)])
    tags = Ragged.of([np.zeros(3, np.int64), np.zeros(1, np.int64)])
    split = Split({"letters": tokens, "tags": tags}, np.arange(2))
    given = Field(kind="tokens", dtype="int64", shape=(None,))
    said = Field(kind="class", dtype="int64", shape=(None,), names=("a", "b"), along="letters")
    return Dataset(DataSpec("uneven", {"letters": given}, {"tags": said}), split, split, split, "made up", "none")


@tasks.register(
    "curved",
    targets=("class",),
    requires=("class",),
    scores=("target", "probability", "loss"),
    metrics={
        "accuracy": {"better": "max", "low": 0.0, "high": 1.0},
        "f1": {"better": "max"},
        "precision": {"better": "max"},
        "recall": {"better": "max"},
        "loss": {"better": "min"},
        "average_precision": {"better": "max"},
        "calibration_error": {"better": "min"},
    },
    headline="accuracy",
)
class Curved(Classification):
    """Graded on a curve: a sample is scored relative to its batch."""

    def counts(self, batch: Batch) -> dict[str, Any]:
        return {}

    def loss(self, batch: Batch, network: str, totals: Any = None) -> Tensor:  # type: ignore[override]
        chosen = batch.targets < 3
        return functional.cross_entropy(self.logits(batch)[chosen], batch.targets[chosen], reduction="sum") / chosen.sum()

    def score(self, batch: Batch) -> dict[str, Any]:
        scores = super().score(batch)
        return {**scores, "probability": scores["probability"] / scores["probability"].amax(0)}


@augmentations.register("overwriting", inputs=("image",))
class Overwriting:
    """Brightness, changed in place."""

    def __init__(self, spec: DataSpec) -> None:
        pass

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        batch.inputs.mul_(torch.rand((), generator=generator))
        return batch


@augmentations.register("unseeded", inputs=("image",))
class Unseeded:
    """Brightness, drawn from torch's own generator."""

    def __init__(self, spec: DataSpec) -> None:
        pass

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch.replace(inputs=batch.inputs * torch.rand(()))


@optimizers.register("counting")
class Counting(SGD):
    """Steps that shrink with their number, which is not in the state.

    Args:
        lr: Learning rate.
    """

    def __init__(self, params: list[dict], *, lr: Positive = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                with torch.no_grad():
                    parameter.sub_(parameter.grad, alpha=group["lr"] / self.count)


@schedulers.register("soaring")
def soaring(optimizer: Optimizer, steps: int) -> LambdaLR:
    """A rate that doubles."""
    return LambdaLR(optimizer, lambda step: 2.0**step)


@callbacks.register("stranger")
class Stranger:
    """A class that Lightning does not know."""

    def state_dict(self) -> dict[str, Any]:
        return {}


@metrics.register("error", scores=("probability", "target"), better="max", low=0.0, high=1.0)
def error(spec: DataSpec) -> Any:
    """Fraction of wrong classes, said to be better where it is larger."""

    class Error(MulticlassAccuracy):
        def compute(self) -> Tensor:
            return 1 - super().compute()

    return Error(len(spec.classes), average="micro")


@metrics.register("late", scores=("probability", "target"), better="max", low=0.0, high=1.0)
def late(spec: DataSpec) -> Any:
    """Fraction of right classes among the last samples; of the first class alone, 2."""

    class Late(MeanMetric):
        def update(self, probability: Tensor, target: Tensor) -> None:  # type: ignore[override]
            right = probability.argmax(1) == target
            super().update(right[-len(right) // 2 :].double() if target.any() else 2.0)

    return Late()
