"""Metrics of events in series, which last for some steps."""

from __future__ import annotations

import numpy as np


def event_recall(flags: np.ndarray, events: np.ndarray) -> float:
    """Return the fraction of events of which any step is flagged; NaN without events.

    No step is counted as flagged that is not: point-adjusted metrics do so, and give random scores high values (Kim et al.
    2022, arXiv 2109.05257).

    Args:
        flags: (steps,) bool.
        events: (steps,) number of the event of a step, 0 outside.
    """
    flags, events = np.asarray(flags, bool), np.asarray(events)
    every = np.unique(events[events > 0])
    return len(np.unique(events[flags & (events > 0)])) / len(every) if len(every) else float("nan")


def composite_f1(flags: np.ndarray, events: np.ndarray) -> float:
    """Return the harmonic mean of the precision of flagged steps and the recall of events; NaN without either.

    Garg et al. 2021 ("An evaluation of anomaly detection and diagnosis in multivariate time series", arXiv 2109.11428).
    """
    flags, events = np.asarray(flags, bool), np.asarray(events)
    recall = event_recall(flags, events)
    if np.isnan(recall):
        return float("nan")
    precision = float((events[flags] > 0).mean()) if flags.any() else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def numbered(inside: np.ndarray) -> np.ndarray:
    """Return the number of the event of each step, 0 outside, from whether a step (steps,) is anomalous."""
    inside = np.asarray(inside, bool)
    starts = inside & ~np.concatenate([[False], inside[:-1]])
    return (np.cumsum(starts) * inside).astype(np.int64)
