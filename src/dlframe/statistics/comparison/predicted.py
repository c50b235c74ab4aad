"""Metrics from a table of predictions, with their leave-one-group-out values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlframe.statistics.comparison.jackknife import of_group_sums

Columns = Mapping[str, Any]
"""Columns of a table of predictions by name, (samples, ...): classes as names, numbers as floats."""


@dataclass(frozen=True)
class Form:
    """How a metric follows from a table of predictions, as sums over its rows.

    Attributes:
        name: Its name in `FORMS`.
        options: Its options: "column", the column of a mean; "average", "macro", "weighted" or "positive", and "positive", the
            name of that class.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in FORMS:
            raise ValueError(f"a metric of predictions is one of {', '.join(FORMS)}. Received: {self.name!r}")

    def values(self, columns: Columns, groups: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the metric, and its leave-one-group-out values (groups,).

        Args:
            columns: The table.
            groups: (samples,) numbers from 0, see `dlframe.statistics.comparison.jackknife.groups_of`.

        Raises:
            KeyError: A column is missing.
            ValueError: A column has other values than the metric takes.
        """
        count = int(groups.max(initial=-1)) + 1
        sums, value = FORMS[self.name](columns, groups, count, self.options)
        return of_group_sums(value, sums)

    def losses(self, columns: Columns) -> np.ndarray | None:
        """Return the loss (samples,) of each forecast, squared for the RMSE and absolute for the MAE; None of other metrics."""
        if self.name not in LOSSES:
            return None
        target, prediction = _numbers(columns, "target", "prediction")
        return LOSSES[self.name](prediction - target).mean(1)

    @property
    def is_proportion(self) -> bool:
        """Whether the metric is the fraction of samples that are right."""
        return self.name == "accuracy"


Sums = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]
"""Sums (groups, columns) over the samples of each group, and the metric of sums (..., columns)."""


def _numbers(columns: Columns, *names: str) -> list[np.ndarray]:
    found = [np.asarray(columns[name], dtype=float) for name in names]
    if any(values.shape != found[0].shape for values in found):
        raise ValueError(f"columns must have one shape. Received: {', '.join(str(v.shape) for v in found)}")
    if not all(np.isfinite(values).all() for values in found):
        raise ValueError(f"{' and '.join(names)} must be finite. Received: NaN or infinite values")
    return [values.reshape(len(values), -1) for values in found]


def _of_rows(parts: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(groups, column, count) for column in parts.T], axis=1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _accuracy(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    right = np.asarray(columns["target"]) == np.asarray(columns["prediction"])
    return _of_rows(np.c_[right, np.ones(len(right))], groups, count), _ratio


def _of_classes(score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., Sums]:
    """Return a form from a score of true positives, predicted and actual samples (..., classes)."""

    def form(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
        target, prediction = np.asarray(columns["target"]), np.asarray(columns["prediction"])
        names, places = np.unique(np.concatenate([target, prediction]), return_inverse=True)
        target, prediction = np.split(places.reshape(-1), 2)
        size, average = len(names), options.get("average", "macro")
        chosen = np.flatnonzero(names == options.get("positive")) if average == "positive" else np.arange(size)

        def counted(classes: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
            cells = np.bincount(groups[rows] * size + classes[rows], minlength=count * size)
            return cells.reshape(count, size)[:, chosen]

        right = np.flatnonzero(target == prediction)
        sums = np.stack([counted(target, right), counted(prediction), counted(target)], axis=-1).astype(float)

        def value(sums: np.ndarray) -> np.ndarray:
            hits, predicted, actual = np.moveaxis(sums.reshape(*sums.shape[:-1], len(chosen), 3), -1, 0)
            scored = score(hits, predicted, actual)  # NaN for 0 / 0
            if average == "positive":
                return scored[..., 0] if len(chosen) else np.full(sums.shape[:-1], math.nan)
            scored = np.nan_to_num(scored)
            weights = actual if average == "weighted" else (predicted + actual > 0).astype(float)
            return (weights * scored).sum(-1) / weights.sum(-1)

        return sums.reshape(count, -1), value

    return form


def _of_errors(error: Callable[[np.ndarray], np.ndarray], end: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Sums]:
    """Return a form from the errors of predicted numbers."""

    def form(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
        target, prediction = _numbers(columns, "target", "prediction")
        errors = error(prediction - target)
        parts = np.c_[errors.sum(1), np.full(len(errors), errors.shape[1])]
        return _of_rows(parts, groups, count), lambda sums: end(_ratio(sums))

    return form


def _mape(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    target, prediction = _numbers(columns, "target", "prediction")
    known = target != 0
    errors = np.abs(np.divide(prediction - target, target, out=np.zeros_like(target), where=known))
    return _of_rows(np.c_[100 * errors.sum(1), known.sum(1)], groups, count), _ratio


def _mean(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    (values,) = _numbers(columns, options["column"])
    return _of_rows(np.c_[values.mean(1), np.ones(len(values))], groups, count), _ratio


def _quotient(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    above, below = _numbers(columns, options["column"], options["by"])
    return _of_rows(np.c_[above.sum(1), below.sum(1)], groups, count), _ratio


LOSSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"rmse": np.square, "mae": np.abs}
"""Metrics of forecasts -> loss of an error."""

FORMS: dict[str, Callable[[Columns, np.ndarray, int, Mapping[str, Any]], Sums]] = {
    "accuracy": _accuracy,
    "f1": _of_classes(lambda hits, predicted, actual: 2 * hits / (predicted + actual)),
    "precision": _of_classes(lambda hits, predicted, actual: hits / predicted),
    "recall": _of_classes(lambda hits, predicted, actual: hits / actual),
    "rmse": _of_errors(LOSSES["rmse"], np.sqrt),
    "mae": _of_errors(LOSSES["mae"], lambda means: means),
    "mape": _mape,
    "mean": _mean,
    "ratio": _quotient,
}
"""Name -> form: sums over the samples of each group, and the metric that follows from sums. "mean" is of a column, each sample
alike; "ratio" is the sum of a column divided by that of another ("by"), such as errors by words."""
