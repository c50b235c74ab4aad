"""The contract between a task, which says what is learnt, and the learner, which says when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlframe.types import Batch, Dataset, DataSpec, Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = dict[str, Tensor]
"""What a task keeps of each sample, by name, each (samples, ...). "index" is the position in the split."""


class Task(nn.Module, ABC):
    """What is learnt, with the networks that learn it.

    Its registration states the facts that must be known before it is built: `targets` (kinds of target that it takes),
    `metrics` (every name that `metrics` returns, with its better direction, "min" or "max"), `monitor` (the metric that
    picks the best epoch and heads the table), `players` (the networks that own an optimizer, in the order in which they
    move) and `unlabelled` (whether it learns from samples without a label).

    Args:
        spec: What the data is like.
        model: The network, from the model registry.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec, model: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        channels = (len(spec.mean), *[1] * (len(spec.shape) - 1))
        self.register_buffer("mean", torch.tensor(spec.mean).view(channels), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(channels), persistent=False)

    def normalize(self, inputs: Tensor) -> Tensor:
        """Images, uint8 or floats in [0, 1], to zero mean and unit variance per channel."""
        scale = 255 if inputs.dtype == torch.uint8 else 1
        return (inputs.to(self.mean.dtype) / scale - self.mean) / self.std

    def network(self, player: str) -> nn.Module:
        """The network whose parameters `player`'s optimizer moves."""
        return self.model

    def loss(self, batch: Batch, player: str) -> Tensor:
        """The scalar that `player` lowers: a mean over the batch. A task with players has one."""
        raise NotImplementedError

    def observe(self, batch: Batch) -> None:
        """Learn from a batch without gradient. A task without players does; what it learns is kept in buffers."""
        raise NotImplementedError

    @abstractmethod
    def score(self, batch: Batch) -> Scores:
        """What is kept of each sample to compute metrics, intervals, figures and the table of predictions."""

    @abstractmethod
    def metrics(self, scores: Scores) -> dict[str, float]:
        """The metrics of a split, from the scores of all its samples."""

    @abstractmethod
    def predict(self, inputs: Tensor) -> Tensor:
        """Predictions from raw inputs as the data set holds them: what the exported model returns."""

    @abstractmethod
    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """The trivial baseline: its name, and its metrics on the test split."""

    @abstractmethod
    def interval(self, metric: str, scores: Scores) -> Estimate:
        """`metric` with its 95 % interval over the samples of the split."""

    @abstractmethod
    def table(self, scores: Scores, dataset: Dataset) -> dict[str, list]:
        """Columns of the table of test predictions, in the order of `scores`: target, prediction, score."""

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Figures of the test split by name."""
        return {}

    def finish(self, dataset: Dataset) -> dict[str, float]:
        """Further metrics, computed once with the best weights when training has ended."""
        return {}
