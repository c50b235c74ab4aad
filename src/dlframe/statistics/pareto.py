"""Points that no other point dominates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def pareto_front(values: ArrayLike, better: Sequence[str]) -> np.ndarray:
    """Return which points are on the Pareto front: no other is as good in each objective and better in one.

    Equal points are both on it. A point that is not finite is not on it.

    Args:
        values: (points, objectives) values.
        better: Direction of each objective, "min" or "max".

    Returns:
        (points,) bool.

    Raises:
        ValueError: A direction is missing or unknown.
    """
    points = np.asarray(values, float).reshape(-1, len(better))
    if not {*better} <= {"min", "max"}:
        raise ValueError(f"better: must be 'min' or 'max' for each objective. Received: {list(better)}")
    costs = points * np.where(np.asarray(better) == "max", -1.0, 1.0)
    front = np.asarray(np.isfinite(costs).all(1))
    for i in np.flatnonzero(front):
        if front[i]:  # what it dominates dominates nothing that it does not
            front[front] = ~((costs[front] >= costs[i]).all(1) & (costs[front] > costs[i]).any(1))
    return front
