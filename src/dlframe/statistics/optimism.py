"""Optimism of the best of several candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dlframe.statistics.comparison.differences import over_seeds


@dataclass(frozen=True)
class Winner:
    """Best candidate of a search.

    Attributes:
        candidate: Its index.
        value: Mean of the values that it was selected by.
        optimism: Estimate of how much better `value` is than the candidate, positive for both directions; NaN if unknown.
        seeds: Number of values that it was selected by.
        candidates: Number of candidates with as many values.
        fresh: Mean over fresh seeds, and its Student's t interval over seeds: mean, low, high; NaN if unknown.
    """

    candidate: int
    value: float
    optimism: float
    seeds: int
    candidates: int
    fresh: tuple[float, float, float]


def winner(
    values: Sequence[Sequence[float] | np.ndarray],
    *,
    better: Literal["min", "max"],
    alive: np.ndarray | None = None,
    fresh: Sequence[float] | np.ndarray = (),
) -> Winner:
    """Return the best candidate with the optimism of its value, the winner's curse.

    The optimism is estimated by splitting over seeds: each seed in turn is left out, the best candidate by the others is
    selected, and its mean over these is compared with its value for the seed left out. This is unbiased for a selection with
    one seed less; as the error of a mean falls with the root of the number of seeds k, it is multiplied by sqrt((k - 1) / k).
    In the simulations of `benchmarks/racing.py` it is right on average or a little high, though uncertain in a single search;
    a parametric bootstrap at the observed means finds 40 to 90 % of the optimism in most of them. With a single seed the
    search cannot tell: its spread over candidates is not that over seeds. Fresh seeds can: `fresh` is free of optimism.

    Args:
        values: For each candidate its values, in the order of the seeds. Candidates are compared by their mean over the seeds
            that the most repeated one has; those with fewer values left the race before and do not take part.
        better: Direction of the values.
        alive: (candidates,) bool, who may win; None for all.
        fresh: Values of the winner for seeds that had no part in the search.

    Raises:
        ValueError: No candidate with finite values, or an unknown direction.
    """
    if better not in ("min", "max"):
        raise ValueError(f"better must be min or max. Received: {better!r}")
    sign = 1.0 if better == "max" else -1.0
    rows = [sign * np.asarray(row, dtype=float).ravel() for row in values]
    defined = [i for i, row in enumerate(rows) if row.size and np.isfinite(row).all() and (alive is None or alive[i])]
    if not defined:
        raise ValueError("a winner requires a candidate with finite values")
    seeds = max(len(rows[i]) for i in defined)
    members = [i for i in defined if len(rows[i]) == seeds]
    table = np.array([rows[i] for i in members])
    best = int(table.mean(1).argmax())
    optimism = math.nan
    if seeds > 1:
        others = (table.sum(1, keepdims=True) - table) / (seeds - 1)
        selected, seed = others.argmax(0), np.arange(seeds)
        gap = others[selected, seed] - table[selected, seed]
        optimism = max(0.0, float(gap.mean()) * math.sqrt((seeds - 1) / seeds))
    found = over_seeds(fresh) if len(fresh) else None
    interval = (found.value, found.low, found.high) if found else (math.nan, math.nan, math.nan)
    return Winner(members[best], sign * float(table[best].mean()), optimism, seeds, len(members), interval)
