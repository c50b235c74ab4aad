"""The scores of a whole split: collected batch by batch, from all processes, in the split's order."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dlframe.engine import internals
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, DataError, Ragged

Gather = Callable[[Tensor], Tensor]
"""From this process's tensor (n, ...) to those of all: (processes, n, ...)."""


class Evaluation:
    """Scores a split.

    Args:
        task: Gives the scores.
        extra: Further metrics by name, each with the names of the scores that it sees.
    """

    def __init__(self, task: Task, extra: Mapping[str, tuple[Any, Sequence[str]]] | None = None) -> None:
        self.task = task
        self.extra = extra or {}
        self.scores: Scores = {}
        """Of the split that was scored last, on the CPU."""
        self.index = torch.zeros(0, dtype=torch.int64)
        """Which samples of it were scored, ascending."""
        self._kept: list[tuple[Scores, Tensor]] = []

    def begin(self) -> None:
        """Before the first batch of a split."""
        self._kept = []
        self.task.begin_scoring()

    def add(self, batch: Batch) -> None:
        """Score a batch.

        Raises:
            DataError: A score has not one row for each sample.
        """
        with internals.whole_precision(batch.index.device):
            batch = self.task.features(batch)
        scores = self.task.score(batch)
        for name, score in scores.items():
            if len(score) != len(batch):
                raise DataError(f"task: score '{name}' must have {len(batch)} rows, one a sample. Received: {len(score)}.")
        self._kept.append((scores, batch.index))

    def finish(self, world_size: int, gather: Gather) -> None:
        """After the last batch: put together what this process and the others have."""
        kept, self._kept = self._kept, []
        index = torch.cat([index for _, index in kept])
        scores = {name: _joined([scores[name] for scores, _ in kept]) for name in kept[0][0]}
        if world_size > 1:
            scores = {name: _gathered(score, gather) for name, score in scores.items()}
            index = _of_all(index, gather)
        order = index.argsort(stable=True)
        ordered = index[order]
        order = order[torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered.diff() > 0])]  # without stand-ins
        self.index = index[order].cpu()
        self.scores = {name: _ordered(score, order) for name, score in scores.items()}

    def metrics(self) -> dict[str, float]:
        """The metrics of the split that was scored last: the task's, and the further ones."""
        found = self.task.metrics(self.scores)
        for name, (metric, seen) in self.extra.items():
            found[name] = computed(metric, self.scores, seen)
        return found


UNDEFINED = re.compile("meaningless|undefined|NaN values|at least two samples")
"""What a warning or an error of torchmetrics says of an undefined value."""
ROUNDING = 1e-6
"""Error of a probability in single precision."""


def computed(metric: Any, scores: Scores, names: Sequence[str]) -> float:
    """Compute a metric from the scores that it names; NaN if it is undefined, or a score is NaN.

    What is undefined torchmetrics gives as 0 or 1 with a warning, or as an error. Probabilities of which one exceeds 1, be it
    by a rounding error, it takes for logits: those named "probability" are clamped. Values (samples,) and (samples, n) are
    given in double precision, for it subtracts sums of squares.

    Args:
        metric: A metric of torchmetrics, or another object with `reset`, `update` and `compute`.
        scores: Of a whole split, in every process.
        names: Which of the scores `update` takes.

    Raises:
        DataError: A probability is outside [0, 1].
    """
    seen = [_prepared(name, scores[name]) for name in names]
    if any(_has_nan(score) for score in seen):
        return math.nan
    for part in metric.modules() if isinstance(metric, Metric) else ():
        if isinstance(part, Metric):
            part.distributed_available_fn = lambda: False  # each process has the samples of all
    with internals.recorded_warnings() as caught:
        try:
            metric.reset()
            metric.update(*seen)
            value = float(metric.compute())
        except ValueError as error:
            if not UNDEFINED.search(str(error)):
                raise
            value = math.nan
    for warning in caught:
        if UNDEFINED.search(str(warning.message)):
            value = math.nan
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return value


def _prepared(name: str, score: Any) -> Any:
    """Return a score as a metric sees it; the task's own is unchanged."""
    values = score.values if isinstance(score, Ragged) else score
    if not values.is_floating_point() or not values.numel():
        return score
    if name == "probability":
        outside = values[(values < 0) | (values > 1)]
        if not outside.numel():
            return score
        if ((outside < -ROUNDING) | (outside > 1 + ROUNDING)).any():
            raise DataError(f"task: score 'probability' must be within [0, 1]. Received: {outside[0]:g}.")
        values = values.clamp(0, 1)
    elif values.ndim <= 2:
        values = values.double()
    return score.like(values) if isinstance(score, Ragged) else values


def _has_nan(score: Any) -> bool:
    values = score.values if isinstance(score, Ragged) else score
    return bool(values.is_floating_point() and values.isnan().any())


def _joined(parts: list[Any]) -> Tensor | Ragged:
    if not isinstance(parts[0], Ragged):
        return torch.cat(parts)
    lengths = torch.cat([part.lengths for part in parts])
    return Ragged(torch.cat([part.values for part in parts]), _offsets(lengths))


def _offsets(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _gathered(score: Tensor | Ragged, gather: Gather) -> Tensor | Ragged:
    if not isinstance(score, Ragged):
        return _of_all(score, gather)
    return Ragged(_of_all(score.values, gather), _offsets(_of_all(score.lengths, gather)))


def _of_all(rows: Tensor, gather: Gather) -> Tensor:
    """The rows of all processes, one after the other; each may have another number of them, or none."""
    sizes = gather(torch.tensor([len(rows)], device=rows.device)).flatten().tolist()
    padding = rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])
    parts = gather(torch.cat([rows, padding]))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _ordered(score: Tensor | Ragged, order: Tensor) -> Tensor | Ragged:
    if not isinstance(score, Ragged):
        return score[order].cpu()
    on_cpu = Ragged(score.values.cpu().numpy(), score.offsets.cpu().numpy()).take(order.cpu().numpy())
    return Ragged(torch.from_numpy(on_cpu.values), torch.from_numpy(on_cpu.offsets))
