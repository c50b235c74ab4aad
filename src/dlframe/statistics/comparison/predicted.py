"""Metrics from a table of predictions, with their leave-one-group-out values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlframe.statistics.comparison import areas, boxes, events
from dlframe.statistics.comparison.jackknife import of_group_sums

Columns = Mapping[str, Any]
"""Columns of a table of predictions by name, (samples, ...): classes as names, numbers as floats."""


@dataclass(frozen=True)
class Form:
    """How a metric follows from a table of predictions: as sums over its rows, or from all rows in the order of their scores.

    Attributes:
        name: Its name in `FORMS` or `ORDERED`.
        options: Its options: "column", the column of a mean, or of the scores of the class "positive"; "average", "macro",
            "weighted" or "positive", and "positive", the name of that class; "by", what ranks the samples of a class; "metric",
            that of detections; "undefined", "skip" for a mean of the defined values.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in (*FORMS, *ORDERED):
            raise ValueError(f"a metric of predictions is one of {', '.join((*FORMS, *ORDERED))}. Received: {self.name!r}")

    def values(self, columns: Columns, groups: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the metric, and its leave-one-group-out values (groups,).

        Args:
            columns: The table.
            groups: (samples,) numbers from 0, see `dlframe.statistics.comparison.jackknife.groups_of`.

        Raises:
            KeyError: A column is missing.
            ValueError: A column has other values than the metric takes.
        """
        if self.name in ORDERED:
            return ORDERED[self.name](columns, groups, self.options)
        count = int(groups.max(initial=-1)) + 1
        sums, value = FORMS[self.name](columns, groups, count, self.options)
        return of_group_sums(value, sums)

    def losses(self, columns: Columns) -> np.ndarray | None:
        """Return the loss (samples,) of each forecast, squared for the RMSE and absolute for the MAE; None of other metrics."""
        if self.name not in LOSSES:
            return None
        target, prediction = _numbers(columns, "target", "prediction")
        return LOSSES[self.name](prediction - target).mean(1)

    def each(self, columns: Columns) -> np.ndarray | None:
        """Return what each sample adds (samples,), in the direction of the metric: its loss, its mean, whether it is right.

        None of metrics of lists, and where the columns do not say it.
        """
        if self.name in ("mean", "ratio"):
            values = np.asarray(columns[self.options["column"]], dtype=float)
            by = np.asarray(columns[self.options["by"]], dtype=float) if self.name == "ratio" else 1.0
            values = values / np.maximum(by, 1.0)
            return np.nan_to_num(values.reshape(len(values), -1).mean(1))
        if self.name in ("rmse", "mae", "mape"):
            target, prediction = _numbers(columns, "target", "prediction")
            return np.abs(prediction - target).mean(1)
        if self.is_ragged or "prediction" not in columns:
            return None
        return (np.asarray(columns["target"]) == np.asarray(columns["prediction"])).astype(float)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the columns that it takes."""
        if self.name in ("mean", "ratio"):
            return tuple(str(self.options[key]) for key in ("column", "by") if key in self.options)
        if "column" in self.options:
            return "target", str(self.options["column"])
        return NEEDED.get(self.name, PREDICTED)

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Names of the columns that it takes where they are there."""
        return boxes.FACTS if self.name == "detection" else ()

    @property
    def is_ragged(self) -> bool:
        """Whether it takes lists of varying length."""
        return self.name == "detection"

    @property
    def most_groups(self) -> int | None:
        """Number of groups above which they are put together, as each costs a computation of the metric; None for the usual."""
        return boxes.MOST_GROUPS if self.name == "detection" else None

    @property
    def tolerance(self) -> float:
        """Relative error of the metric of a run, which may have been computed in single precision."""
        return 1e-4 if self.name in ORDERED else 1e-5

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


def _r2(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    target, prediction = _numbers(columns, "target", "prediction")
    centered = target - target.mean()  # so that large numbers do not cancel
    parts = np.c_[np.square(prediction - target).sum(1), np.square(centered).sum(1), centered.sum(1)]
    parts = np.c_[parts, np.full(len(parts), target.shape[1])]

    def value(sums: np.ndarray) -> np.ndarray:
        errors, squares, total, n = np.moveaxis(sums, -1, 0)
        spread = squares - total**2 / n
        return np.where(spread > 1e-12 * squares, 1 - errors / np.where(spread > 0, spread, 1.0), math.nan)

    return _of_rows(parts, groups, count), value


def _mase(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    target, prediction = _numbers(columns, "target", "prediction")
    (scale,) = _numbers(columns, "scale")
    known = scale[:, 0] > 0
    errors = np.divide(np.abs(prediction - target).mean(1), scale[:, 0], out=np.zeros(len(scale)), where=known)
    return _of_rows(np.c_[errors, known], groups, count), _ratio


def _mean(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    name = options["column"]
    values = np.asarray(columns[name], dtype=float)
    known = np.ones(len(values), dtype=bool)
    if options.get("undefined") == "skip":
        known = ~np.isnan(values.reshape(len(values), -1)).any(1)
        columns = {name: np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)}
    (values,) = _numbers(columns, name)
    return _of_rows(np.c_[values.mean(1) * known, known], groups, count), _ratio


def _quotient(columns: Columns, groups: np.ndarray, count: int, options: Mapping[str, Any]) -> Sums:
    above, below = _numbers(columns, options["column"], options["by"])
    return _of_rows(np.c_[above.sum(1), below.sum(1)], groups, count), _ratio


def _of_ranks(area: Callable[..., tuple[float, np.ndarray]]) -> Callable[..., tuple[float, np.ndarray]]:
    """Return a form from an area under a curve of one class against the others."""

    def form(columns: Columns, groups: np.ndarray, options: Mapping[str, Any]) -> tuple[float, np.ndarray]:
        target = np.asarray(columns["target"])
        if "column" in options:
            (score,) = _numbers(columns, options["column"])
            return area(target == options["positive"], score[:, 0], groups)
        names = np.asarray(columns["classes"])
        (probability,) = _numbers(columns, "probabilities")
        if probability.shape[1] not in (1, len(names)):
            raise ValueError(f"probabilities must be {len(names)} a sample, one a class. Received: {probability.shape[1]}")
        average = options.get("average", "macro")
        chosen = [options.get("positive")] if average == "positive" else np.unique(target).tolist()
        found, weights = [], []
        for name in chosen:
            right = target == name
            places = np.flatnonzero(names == name)
            if not len(places):
                raise ValueError("a target is none of the classes of the probabilities")
            found.append(area(right, _scores(probability, int(places[0]), options), groups))
            weights.append(right.sum() - np.r_[0, np.bincount(groups, right)] if average == "weighted" else None)
        # (classes, 1 + groups): with all samples, then without each group.
        values = np.array([np.r_[value, deleted] for value, deleted in found])
        each = np.ones_like(values) if average != "weighted" else np.array(weights, dtype=float)
        each = np.where(np.isnan(values), 0.0, each)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (each * np.nan_to_num(values)).sum(0) / each.sum(0)
        return float(mean[0]), mean[1:]

    return form


def _scores(probability: np.ndarray, place: int, options: Mapping[str, Any]) -> np.ndarray:
    """Return what ranks the samples of a class: its probability, or its odds, which are not rounded to 1 as that is."""
    if probability.shape[1] == 1:  # nothing is known of the classes
        return probability[:, 0]
    own = probability[:, place]
    if options.get("by") != "odds":
        return own
    with np.errstate(divide="ignore"):
        return own / np.delete(probability, place, axis=1).sum(1)


PREDICTED, SCORED = ("target", "prediction"), ("target", "prediction", "probabilities", "classes")
"""Columns of most forms, and of those that rank samples; "classes" are the names of the probabilities."""

NEEDED = {
    "auroc": SCORED,
    "average_precision": SCORED,
    "detection": boxes.COLUMNS,
    "event_f1": events.COLUMNS,
    "event_recall": events.COLUMNS,
    "mase": (*PREDICTED, "scale"),
}
"""Name of a form -> columns that it takes, where these are not target and prediction."""

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
    "r2": _r2,
    "mase": _mase,
    "mean": _mean,
    "ratio": _quotient,
}
"""Name -> form: sums over the samples of each group, and the metric that follows from sums. "mean" is of a column, each sample
alike; "ratio" is the sum of a column divided by that of another ("by"), such as errors by words."""

ORDERED: dict[str, Callable[[Columns, np.ndarray, Mapping[str, Any]], tuple[float, np.ndarray]]] = {
    "auroc": _of_ranks(areas.auroc),
    "average_precision": _of_ranks(areas.average_precision),
    "detection": boxes.values,
    "event_f1": events.f1,
    "event_recall": events.recall,
}
"""Name -> form of a metric that is no function of sums: the metric, and without each group. Areas are means over classes, each
against the others; a class that is missing is left out. An event is one however many of its steps are flagged."""
