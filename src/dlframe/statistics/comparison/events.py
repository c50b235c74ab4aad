"""Metrics of events in series, with their values without each group of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

COLUMNS = ("event", "prediction")


def recall(columns: Mapping[str, Any], groups: np.ndarray, options: Mapping[str, Any]) -> tuple[float, np.ndarray]:
    """Return the fraction of events of which any step is flagged, and without each group of steps, exactly.

    An event that lasts beyond a group is there without it, as what is left of it.

    Args:
        columns: "event", the number of the event of each step, 0 outside, and "prediction".
        groups: (steps,) numbers from 0, see `dlframe.statistics.comparison.jackknife.groups_of`.
        options: "positive", the prediction of a flagged step.

    Returns:
        The metric, and (groups,) values without each group; NaN without events.
    """
    flags, events = _flagged(columns, options)
    count = int(groups.max(initial=-1)) + 1
    with np.errstate(invalid="ignore"):
        return _each(_left(events, groups, flags, count) / _left(events, groups, events > 0, count))


def f1(columns: Mapping[str, Any], groups: np.ndarray, options: Mapping[str, Any]) -> tuple[float, np.ndarray]:
    """Return the harmonic mean of the precision of flagged steps and the recall of events; see `recall`."""
    flags, events = _flagged(columns, options)
    count = int(groups.max(initial=-1)) + 1
    flagged, right = (_without(np.bincount(groups, rows, count)) for rows in (flags, flags & (events > 0)))
    precision = right / np.maximum(flagged, 1)
    found = np.r_[*recall(columns, groups, options)]
    return _each(2 * precision * found / np.where(precision + found == 0, 1.0, precision + found))


def _flagged(columns: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(columns["prediction"]) == options["positive"], np.asarray(columns["event"])


def _left(events: np.ndarray, groups: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return (1 + groups,) the number of events with any of these rows: with all groups, then without each."""
    rows = rows & (events > 0)
    pairs = np.unique(np.c_[events[rows], groups[rows]], axis=0)
    _, first, spread = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    return _without(np.bincount(pairs[first[spread == 1], 1], minlength=count), len(first))


def _without(sums: np.ndarray, total: float | None = None) -> np.ndarray:
    """Return a total, by default that of the groups, and it without what each group has."""
    total = sums.sum() if total is None else total
    return np.r_[total, total - sums].astype(float)


def _each(values: np.ndarray) -> tuple[float, np.ndarray]:
    return float(values[0]), values[1:]
