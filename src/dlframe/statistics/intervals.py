"""Intervals around a number: arrays in, (low, high) out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion: `successes` out of `n` independent samples.

    Stays within [0, 1] and is sound for few samples and for proportions near 0 and 1, where the normal interval is not
    (Wilson 1927; Brown, Cai and DasGupta 2001).

    Raises:
        ValueError: `n` is not positive, or `successes` is outside 0..n.
    """
    from scipy.stats import binomtest  # 0.6 s: not at the head of the file

    if n < 1:
        raise ValueError(f"a proportion needs at least one sample. Received: n={n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be within 0..{n}. Received: {successes}")
    interval = binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_of_groups(correct: ArrayLike, groups: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion whose samples depend on one another within groups.

    The number of samples is the effective one: that of independent samples whose proportion would vary as much as this one
    does from group to group (Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts"); at most the samples, and where all are alike, the groups.

    Args:
        correct: (samples,) bool.
        groups: (samples,) names.
        level: Fraction of the intervals that hold the true value.

    Returns:
        The interval, (NaN, NaN) of a single group, of which nothing can be said.
    """
    from scipy.special import ndtri

    correct = np.asarray(correct, dtype=float)
    members = _members(groups, len(correct))
    n, count, proportion = len(correct), len(members), float(correct.mean())
    if count < 2:
        return math.nan, math.nan
    residuals = np.array([(correct[index] - proportion).sum() for index in members])
    variance = float((residuals**2).sum()) / n**2 * count / (count - 1)
    effective = min(n, proportion * (1 - proportion) / variance) if variance else count
    z = float(ndtri((1 + level) / 2)) ** 2 / effective
    center, half = (proportion + z / 2) / (1 + z), math.sqrt(proportion * (1 - proportion) * z + z * z / 4) / (1 + z)
    return max(0.0, center - half), min(1.0, center + half)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    block: int = 1,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic(*arrays)`.

    Samples that depend on their neighbours, as in a time series, are drawn in blocks of `block` consecutive ones
    (Künsch 1989), on a circle, so that each is as likely as any other (Politis and Romano 1992). `block=1` is the
    bootstrap of independent samples (Efron 1979). Dependence beyond a block is lost: a forecast over `horizon` steps
    needs at least `block=horizon`. Block intervals are a little narrow: those of 95 % held the mean of an AR(1) series
    (coefficient 0.8, 1000 samples, `block=40`) in 92 % of 500 trials.

    Args:
        statistic: Takes arrays like `arrays` and returns a number. Resamples where it is NaN are left out.
        *arrays: Each (samples, ...), paired: a resample takes the same samples of all.
        block: Length of the blocks in samples.
        groups: (samples,) names; samples of one name depend on one another and are drawn together (Field and Welsh 2007,
            the cluster bootstrap). Not with blocks.
        resamples: Number of resamples.
        level: Share of the intervals that hold the true value.
        seed: Seed of the resampling: the same call gives the same interval.

    Returns:
        The interval, (NaN, NaN) where there are fewer than two blocks or groups and nothing can be said.

    Raises:
        ValueError: No samples, arrays of different lengths, or a NaN among the samples.
    """
    columns = [np.asarray(array) for array in arrays]
    n = len(columns[0])
    if n == 0 or any(len(column) != n for column in columns):
        lengths = [len(column) for column in columns]
        raise ValueError(f"a bootstrap needs samples, as many in each array. Received: lengths {lengths}")
    if any(np.issubdtype(column.dtype, np.inexact) and np.isnan(column).any() for column in columns):
        raise ValueError("a bootstrap needs samples without NaN")
    members = _members(groups, n)
    if n < 2 * block or len(members) == 1:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for draw in range(resamples):
        if members:
            index = np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        else:
            starts = random.integers(0, n, math.ceil(n / block))
            index = (starts[:, None] + np.arange(block)).ravel()[:n] % n
        draws[draw] = statistic(*(column[index] for column in columns))
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return math.nan, math.nan
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _members(groups: ArrayLike | None, n: int) -> list[np.ndarray]:
    """The positions of the samples of each group; none where samples are independent."""
    if groups is None:
        return []
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    if len(inverse) != n:
        raise ValueError(f"groups must name each of {n} samples. Received: {len(inverse)}")
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1])


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values, such as one metric of several seeds, with Student's t interval: (mean, low, high).

    One value says nothing about the spread: its interval is (NaN, NaN). A NaN among the values makes all three NaN.

    Raises:
        ValueError: There are no values.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    n = values.size
    if n == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(values.mean())
    if n == 1:
        return mean, math.nan, math.nan
    half = float(stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half
