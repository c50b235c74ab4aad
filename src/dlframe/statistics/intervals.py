"""Confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of `successes` out of `n` samples.

    Unlike the normal interval, it stays within [0, 1] and is valid for few samples and for proportions near 0 and 1
    (Wilson 1927; Brown, Cai and DasGupta 2001).

    Raises:
        ValueError: `n` is not positive, or `successes` is outside 0..n.
    """
    from scipy.stats import binomtest  # importing SciPy takes 0.6 s

    if n < 1:
        raise ValueError(f"a proportion requires at least one sample. Received: n={n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be within 0..{n}. Received: {successes}")
    interval = binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Interval:
    """Bootstrap interval.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        undefined: Number of resamples without a value, which are left out.
        resamples: Number of all resamples.
    """

    low: float
    high: float
    undefined: int = 0
    resamples: int = 0


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    block: int = 1,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of `statistic(*arrays)`.

    Dependent neighbors, as in a time series, are drawn in blocks of `block` consecutive samples (Künsch 1989), on a circle
    for equal probabilities (Politis and Romano 1992). `block=1` is the bootstrap of independent samples (Efron 1979).
    Dependence beyond a block is lost: a forecast over `horizon` steps needs at least `block=horizon`. Block intervals are
    slightly narrow: 95 % intervals contained the mean of an AR(1) series (coefficient 0.8, 1000 samples, `block=40`) in
    92 % of 500 trials.

    Args:
        statistic: Function from arrays like `arrays` to a number; NaN where it is undefined.
        *arrays: Arrays (samples, ...); a resample takes the same samples of all.
        block: Length of the blocks in samples.
        groups: (samples,) names; samples of a group are drawn together (cluster bootstrap, Field and Welsh 2007). Not with
            blocks.
        resamples: Number of resamples.
        level: Confidence level.
        seed: Seed of the resampling.

    Returns:
        Interval over the resamples whose statistic is defined, and the number of the others. Bounds are NaN without any, or
        with fewer than two blocks or groups.

    Raises:
        ValueError: No samples, arrays of different lengths, or a NaN among the samples.
    """
    columns = [np.asarray(array) for array in arrays]
    n = len(columns[0])
    if n == 0 or any(len(column) != n for column in columns):
        lengths = [len(column) for column in columns]
        raise ValueError(f"a bootstrap requires samples, equally many in each array. Received: lengths {lengths}")
    if any(np.issubdtype(column.dtype, np.inexact) and np.isnan(column).any() for column in columns):
        raise ValueError("a bootstrap requires samples without NaN")
    members = _members(groups, n)
    if n < 2 * block or len(members) == 1:
        return Interval(math.nan, math.nan)
    random = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for draw in range(resamples):
        if members:
            index = np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        else:
            starts = random.integers(0, n, math.ceil(n / block))
            index = (starts[:, None] + np.arange(block)).ravel()[:n] % n
        draws[draw] = statistic(*(column[index] for column in columns))
    defined = draws[~np.isnan(draws)]
    undefined = resamples - len(defined)
    if not len(defined):
        return Interval(math.nan, math.nan, undefined, resamples)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), undefined, resamples)


def _members(groups: ArrayLike | None, n: int) -> list[np.ndarray]:
    """Return the sample indices of each group; empty for independent samples."""
    if groups is None:
        return []
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    if len(inverse) != n:
        raise ValueError(f"groups must have {n} names, one per sample. Received: {len(inverse)}")
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1])
