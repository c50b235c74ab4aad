"""Base class of tasks: loss, scores, metrics and outputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Ragged, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = dict[str, Any]
"""Per-sample results by name: tensors (samples, ...), or `Ragged` tensors."""

Totals = dict[str, Any]
"""Denominators of a loss, summed over an optimizer step: "samples", and the counts of the task."""


class Normalizer(nn.Module):
    """Normalization per image channel (first axis) or feature (last axis).

    Of a column that is declared float64, in double precision: a large mean is subtracted before values are rounded, since
    single precision cannot tell 200000001 from its neighbors.
    """

    mean: Tensor
    std: Tensor
    exact: Tensor | None

    def __init__(self, field: Field) -> None:
        super().__init__()
        trailing = len(field.shape) - 1 if field.kind == "image" else 0
        for name in ("mean", "std"):
            values = torch.tensor(getattr(field, name)).view(-1, *[1] * trailing)
            self.register_buffer(name, values, persistent=False)
        exact = None
        if field.dtype == "float64":
            # The bits of mean and std: integers stay as they are when a module is converted to half precision.
            exact = torch.tensor([field.mean, field.std], dtype=torch.float64).view(torch.int64)
        self.register_buffer("exact", exact, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        if self.exact is not None:
            mean, std = self.exact.view(torch.float64)
            return ((values.double() - mean) / std).to(self.mean.dtype)
        return (values.to(self.mean.dtype) - self.mean) / self.std


class Task(nn.Module, ABC):
    """Base class of tasks, with the model.

    The registration states metadata: `targets` (supported kinds of target) and `requires` (required kinds), `scores`
    (names that `score` returns), `metrics` (names that `metrics` returns, each with direction, range and unit, see
    `dlframe.types.Metric`), `headline` (the primary metric) and `monitor` (the metric that selects the best epoch; empty
    for the primary metric). A subclass implements `score`, `metrics`, `predict`, `outputs`, `baseline`,
    `table`, and `loss` or `partial_fit`.

    Args:
        spec: Specification of the data.
        model: Network, from the model registry.
    """

    scores_training = False
    """Whether training samples can be scored as test samples are, which learning curves then show."""

    _place: Tensor

    def __init__(self, spec: DataSpec, model: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        self.normalizers = nn.ModuleDict({name: Normalizer(field) for name, field in spec.inputs.items() if field.mean})
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    @staticmethod
    def model_spec(spec: DataSpec, *, networks: tuple[str, ...], **options: Any) -> DataSpec:
        """Return the specification that the model is built for: that of the data, or one with the outputs that the task needs.

        Args:
            spec: Specification of the data.
            networks: Networks of the model that gradients train.
            **options: Options of the task.
        """
        return spec

    @property
    def device(self) -> torch.device:
        """Device of the task."""
        return self._place.device

    # --- data

    def memory_format(self, channels_last: bool, accelerator: str) -> torch.memory_format:
        """Return the memory order of images and weights.

        On a CPU not NHWC where the model has a strided 1x1 convolution of fewer than 16 channels: its gradient writes beyond
        its memory there (uxlfoundation/oneDNN issue 6035; torch 2.14.1).
        """
        if not channels_last or (accelerator == "cpu" and any(map(_overruns, self.modules()))):
            return torch.contiguous_format
        return torch.channels_last

    def features(self, batch: Batch) -> Batch:
        """Convert a batch for augmentations and the model, deterministically.

        Images become floats in [0, 1]; floats become double if the task is, else single: half precision is for the
        network only. A column that is declared float64 keeps it, until `normalize` or a loss has subtracted what is large.
        """
        dtype = torch.promote_types(self._place.dtype, torch.float32)
        changed: dict[str, Tensor | Ragged] = {}
        fields = self.spec.fields
        for name, column in batch.columns.items():
            values = column.values if isinstance(column, Ragged) else column
            if name in fields and fields[name].dtype == "float64":
                continue
            if values.dtype == torch.uint8 and name in self.spec.inputs and self.spec.inputs[name].kind == "image":
                values = values.to(dtype).div_(255)
            elif values.is_floating_point() and values.dtype != dtype:
                values = values.to(dtype)
            else:
                continue
            changed[name] = column.like(values) if isinstance(column, Ragged) else values
        return batch.replace(**changed) if changed else batch

    def normalize(self, batch: Batch) -> Any:
        """Return the normalized input of the model; several as a dictionary."""
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
        """Fit class weights, scalers, etc. on the training split, into buffers."""

    def refitted(self, tensors: Mapping[str, Tensor], train: Split | None) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint as this task has them, where `scoring` options are others than the training's.

        Args:
            tensors: Of the checkpoint.
            train: The training split; None if it is not at hand.
        """
        return {**tensors}

    def sampling_weights(self, train: Split) -> np.ndarray | None:
        """Return sampling weights (samples,); None to draw each sample once."""
        return None

    def network(self, name: str) -> nn.Module:
        """Return a declared network of the model; each has its own optimizer."""
        return self.model if name == "model" else getattr(self.model, name)

    def output_shape(self) -> tuple[int, ...] | None:
        """Return the shape of what the model returns for a sample; None for what is not one tensor."""
        return None

    def counts(self, batch: Batch) -> Totals:
        """Count what the loss averages over: labeled samples, tokens, boxes.

        If overridden, `loss(batch, network, totals)` receives the sums over the optimizer step and returns a sum divided
        by a total. Otherwise `loss(batch, network)` returns a mean over the samples, which the learner weights.
        """
        return {}

    def loss(self, batch: Batch, network: str) -> Tensor:
        """Return the scalar that a network minimizes."""
        raise NotImplementedError

    @property
    def has_counts(self) -> bool:
        """Whether `counts` is overridden."""
        return type(self).counts is not Task.counts

    def loss_part(self, batch: Batch, network: str, totals: Totals, samples: int | None = None) -> Tensor:
        """Return the part of a batch in the loss of an optimizer step.

        Args:
            batch: One of the batches of the step.
            network: Network that minimizes the loss.
            totals: Sums over the step: "samples", and those of `counts`.
            samples: Number of samples that count; None for all, 0 for a batch that must not contribute.
        """
        samples = len(batch) if samples is None else samples
        if self.has_counts:
            loss = self.loss(batch, network, totals)  # type: ignore[call-arg]
            return loss if samples else loss * 0
        loss, fraction = self.loss(batch, network), samples / totals["samples"]
        return loss if fraction == 1 else loss * fraction

    def partial_fit(self, batch: Batch) -> None:
        """Learn from a batch without gradients, into buffers."""
        raise NotImplementedError

    # --- scoring

    def begin_scoring(self) -> None:
        """Prepare for scoring: solve for weights, encode items, build an index."""

    @abstractmethod
    def score(self, batch: Batch) -> Scores:
        """Return per-sample results for metrics, intervals, figures and predictions."""

    def calibrate(self, scores: Scores) -> None:
        """Choose thresholds or temperatures on validation scores; stored in buffers."""

    @abstractmethod
    def metrics(self, scores: Scores) -> dict[str, float]:
        """Compute the metrics of a split from all scores; NaN if undefined."""

    @abstractmethod
    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Return the name and test metrics of the trivial baseline."""

    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        """Return a metric that has no form with its 95 % interval over samples or `groups`; without one by default.

        The interval of a metric with a form follows from it, as in comparisons. `Estimate.of(value, bootstrap(...))` tells how
        many resamples are undefined.
        """
        return Estimate(self.metrics(scores)[metric], math.nan, math.nan)

    @abstractmethod
    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return the predictions by column: target, prediction, score."""

    def by_class(self, scores: Scores) -> dict[str, list]:
        """Return the metrics of each class by column: class, metrics, and a count; empty where the task has none."""
        return {}

    def forms(self) -> dict[str, dict[str, Any]]:
        """Return how metrics follow from the columns of `table`: {"f1": {"form": "f1", "average": "macro"}}.

        Intervals and comparisons follow from it. The forms are those of `dlframe.statistics.comparison.predicted`; a metric
        without one is not compared.
        """
        return {}

    def baseline_predictions(self, dataset: Dataset) -> dict[str, list] | list | None:
        """Return the predictions of the trivial baseline for the test split; None where it has none.

        The column "prediction" of `table`, or by name all columns of which `forms` take others than those of the model.
        """
        return None

    def blocks(self, samples: int) -> int:
        """Return the number of blocks of neighbors in the test split, which depend on each other; 0 for independent samples."""
        return 0

    def notes(self, scores: Scores) -> list[str]:
        """Return sentences for the summary, such as on samples that a metric leaves out."""
        return []

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Return figures of the test split by name, including those of the model."""
        return dict(self.model.figures()) if hasattr(self.model, "figures") else {}  # type: ignore[operator]

    def final_metrics(self, dataset: Dataset) -> dict[str, float]:
        """Return additional metrics after training, also those of the model."""
        return dict(self.model.final_metrics(dataset)) if hasattr(self.model, "final_metrics") else {}  # type: ignore[operator]

    # --- use

    @abstractmethod
    def outputs(self) -> dict[str, Field]:
        """Declare the outputs of `predict` by name."""

    def encode(self, file: Path) -> dict[str, np.ndarray] | None:
        """Return the input columns of a file; None for the default reader."""
        return None

    def stream(self, source: BinaryIO) -> Iterator[tuple[str, dict[str, np.ndarray]]] | None:
        """Yield names and input columns of samples as they come from standard input; None if the task reads no such."""
        return None

    def lookup(self, text: str) -> list[tuple[str, dict[str, np.ndarray]]] | None:
        """Return names and input columns of the samples that an argument of `predict` stands for; None for a file or folder."""
        return None

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, Any]:
        """Return the outputs of the exported model, tensors (batch, ...) or `Ragged`."""


def _overruns(module: nn.Module) -> bool:
    """Return whether oneDNN's gradient of a layer writes beyond its memory in NHWC order."""
    if not isinstance(module, nn.Conv2d):
        return False
    return module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels // module.groups < 16
