"""The contract between a task, which says what is learned, and the learner, which says when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Ragged, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = dict[str, Any]
"""What a task keeps of each sample, by name: tensors (samples, ...), or `Ragged` tensors."""

Totals = dict[str, Any]
"""What a loss averages over, summed over a whole optimizer step: "samples", and what the task counts."""


class Normalizer(nn.Module):
    """Brings a field to zero mean and unit variance per channel (the first axis of an image) or feature (the last)."""

    mean: Tensor
    std: Tensor

    def __init__(self, field: Field) -> None:
        super().__init__()
        trailing = len(field.shape) - 1 if field.kind == "image" else 0
        for name in ("mean", "std"):
            values = torch.tensor(getattr(field, name)).view(-1, *[1] * trailing)
            self.register_buffer(name, values, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return (values.to(self.mean.dtype) - self.mean) / self.std


class Task(nn.Module, ABC):
    """What is learned, with the model that learns it.

    Its registration states what must be known before it is built: `targets` (kinds of target that it takes) and `requires`
    (those that must be there), `scores` (every name that `score` returns), `metrics` (every name that `metrics` returns:
    direction, range and unit, see `dlframe.types.Metric`), `headline` (the metric that heads the table) and `monitor` (the
    one that picks the best epoch; empty for the headline). Only `score`, `metrics`, `predict`, `outputs`, `baseline`,
    `interval`, `table` and a way to learn must be written.

    Args:
        spec: What the data is like.
        model: The network, from the model registry.
    """

    _place: Tensor

    def __init__(self, spec: DataSpec, model: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        self.normalizers = nn.ModuleDict({name: Normalizer(field) for name, field in spec.inputs.items() if field.mean})
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the task is."""
        return self._place.device

    # --- data

    def features(self, batch: Batch) -> Batch:
        """The batch as augmentations and the model take it, the same each time.

        Images become floats in [0, 1]; floats become double where the task is, and single otherwise: half precision is for
        the network.
        """
        dtype = torch.promote_types(self._place.dtype, torch.float32)
        changed: dict[str, Tensor | Ragged] = {}
        for name, column in batch.columns.items():
            values = column.values if isinstance(column, Ragged) else column
            if values.dtype == torch.uint8 and name in self.spec.inputs and self.spec.inputs[name].kind == "image":
                values = values.to(dtype).div_(255)
            elif values.is_floating_point() and values.dtype != dtype:
                values = values.to(dtype)
            else:
                continue
            changed[name] = column.like(values) if isinstance(column, Ragged) else values
        return batch.replace(**changed) if changed else batch

    def normalize(self, batch: Batch) -> Any:
        """What the model is called with: the only input, or a dictionary of them by name, of zero mean and unit variance."""
        found = {name: self._normalized(name, batch[name]) for name in self.spec.inputs}
        return found if len(found) > 1 else next(iter(found.values()))

    def _normalized(self, name: str, column: Tensor | Ragged) -> Tensor | Ragged:
        values = column.values if isinstance(column, Ragged) else column
        if name in self.normalizers:
            values = self.normalizers[name](values)
        elif values.is_floating_point():
            values = values.to(self._place.dtype)
        return column.like(values) if isinstance(column, Ragged) else values

    # --- learning

    def prepare(self, train: Split) -> None:
        """Fit what is fitted on the training split, once per run: class weights, scalers; kept in buffers or extra state."""

    def sampling_weights(self, train: Split) -> np.ndarray | None:
        """(samples,) weights by which an epoch draws samples, with replacement; None has each of them once."""
        return None

    def network(self, name: str) -> nn.Module:
        """The network that the model declares by that name: its parameters are moved by one optimizer."""
        return self.model if name == "model" else getattr(self.model, name)

    def counts(self, batch: Batch) -> Totals:
        """What the loss averages over, if not samples: labeled samples, tokens, boxes; from the batch as the data hold it.

        A task that overrides it is given the sums over the whole optimizer step by `loss(batch, network, totals)`, and
        returns its part of the step's loss: a sum divided by a total. Without, `loss(batch, network)` is a mean over the
        samples of the batch, which the learner weights.
        """
        return {}

    def loss(self, batch: Batch, network: str) -> Tensor:
        """The scalar that a network lowers."""
        raise NotImplementedError

    def partial_fit(self, batch: Batch) -> None:
        """Learn from a batch without gradients, for a model without networks; what it learns is kept in buffers."""
        raise NotImplementedError

    # --- scoring

    def begin_scoring(self) -> None:
        """Prepare for scoring a split: solve for weights, encode all items, build an index."""

    @abstractmethod
    def score(self, batch: Batch) -> Scores:
        """What is kept of each sample to compute metrics, intervals, figures and the table of predictions."""

    def calibrate(self, scores: Scores) -> None:
        """Choose thresholds or temperatures on the scores of the validation split; kept in buffers."""

    @abstractmethod
    def metrics(self, scores: Scores) -> dict[str, float]:
        """The metrics of a split, from the scores of all its samples; an undefined one is NaN."""

    @abstractmethod
    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """The trivial baseline: its name, and its metrics on the test split, the headline among them."""

    @abstractmethod
    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        """`metric` with its 95 % interval over the samples of the split; `groups` (samples,) are resampled as wholes."""

    @abstractmethod
    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Columns of the table of predictions, a row for each sample of the split: target, prediction, score."""

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Figures of the test split by name; a model may have some of its own."""
        return dict(self.model.figures()) if hasattr(self.model, "figures") else {}  # type: ignore[operator]

    def final_metrics(self, dataset: Dataset) -> dict[str, float]:
        """Further metrics, computed once with the best weights when training has ended; a model may have some of its own."""
        return dict(self.model.final_metrics(dataset)) if hasattr(self.model, "final_metrics") else {}  # type: ignore[operator]

    # --- use

    @abstractmethod
    def outputs(self) -> dict[str, Field]:
        """What `predict` returns, declared by name."""

    def encode(self, file: Path) -> dict[str, np.ndarray] | None:
        """The input columns of one file of a user's; None leaves it to the reader of the input's kind."""
        return None

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, Any]:
        """Predictions by output, tensors (batch, ...) or `Ragged`: what the exported model returns."""
