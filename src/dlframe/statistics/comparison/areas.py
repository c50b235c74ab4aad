"""Areas under curves of ranked examples, with their values without each group of examples: sorted once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def auroc(target: ArrayLike, score: ArrayLike, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the area under the ROC curve, and without each group of examples.

    The area is the fraction of pairs of a positive and a negative example in which the positive one has the larger score; equal
    scores count half (Mann and Whitney 1947). Without a group, its pairs are subtracted, so that the values are exact and take
    the time of a sort. With one example a group, their covariances are those of DeLong, DeLong and Clarke-Pearson (1988,
    Biometrics 44:837) but for a factor near 1.

    Args:
        target: (samples,) bool, the positive examples.
        score: (samples,) larger where an example is rather positive.
        groups: (samples,) numbers from 0, see `dlframe.statistics.comparison.jackknife.groups_of`.

    Returns:
        The area, and (groups,) values without each group; NaN where positive or negative examples are missing.
    """
    target, rank = np.asarray(target, dtype=bool), _ranks(score)
    count, size = int(groups.max(initial=-1)) + 1, int(rank.max(initial=-1)) + 1
    positives, negatives = (np.bincount(rank[own], minlength=size) for own in (target, ~target))
    below = negatives.cumsum() - negatives + negatives / 2
    above = positives.sum() - positives.cumsum() + positives / 2
    own = np.where(target, below[rank], above[rank])  # pairs of each example that count
    total = float(own[target].sum())
    pairs = np.bincount(groups, own, count) - _within(target, rank, groups, count)
    left = [kind.sum() - np.bincount(groups, kind, count) for kind in (target, ~target)]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.divide(total, float(positives.sum()) * float(negatives.sum()))
        return float(value), (total - pairs) / (left[0] * left[1])


def _within(target: np.ndarray, rank: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Return (groups,) the pairs that count of two examples of one group."""
    if len(groups) == count:
        return np.zeros(count)
    size = int(rank.max()) + 1
    keys, place = np.unique(groups.astype(np.int64) * size + rank, return_inverse=True)
    positives, negatives = (np.bincount(place[own], minlength=len(keys)) for own in (target, ~target))
    group = keys // size
    before = negatives.cumsum() - negatives
    below = before - before[np.searchsorted(group, group)]  # in the same group
    return np.bincount(group, positives * (below + negatives / 2), count)


def average_precision(target: ArrayLike, score: ArrayLike, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the average precision, and without each group of examples.

    The mean over positive examples of the precision of all examples with scores as large (Salton and McGill 1983), as
    scikit-learn computes it. It is computed without each single example, exactly, by sums over the sorted scores; what is
    without a group of several differs by the sum of the differences of its examples, which leaves out how they act together.

    Args:
        target: (samples,) bool, the positive examples.
        score: (samples,) larger where an example is rather positive.
        groups: (samples,) numbers from 0, see `dlframe.statistics.comparison.jackknife.groups_of`.

    Returns:
        The average precision, and (groups,) values without each group; NaN where no positive example is left.
    """
    target, rank = np.asarray(target, dtype=bool), _ranks(score)
    count, size = int(groups.max(initial=-1)) + 1, int(rank.max(initial=-1)) + 1
    total = int(target.sum())
    left = total - np.bincount(groups, target, count)
    if not total:
        return math.nan, np.full(count, math.nan)
    positives, everyone = np.bincount(rank[target], minlength=size), np.bincount(rank, minlength=size)
    hits, taken = (each[::-1].cumsum()[::-1] for each in (positives, everyone))  # with scores as large
    fewer = np.maximum(taken - 1, 1)  # 0 only where there is no positive example but the one that is left out
    whole, no_negative, no_positive = positives * hits / taken, positives * hits / fewer, positives * (hits - 1) / fewer
    after = whole.sum() - whole.cumsum()
    value = float(whole.sum()) / total
    of_negative = (no_negative.cumsum() + after) / total
    lost = no_positive.cumsum() - (hits - 1) / fewer + after
    of_positive = lost / (total - 1) if total > 1 else np.full(size, math.nan)
    without = np.where(target, of_positive[rank], of_negative[rank]) - value
    return value, np.where(left > 0, value + np.bincount(groups, without, count), math.nan)


def _ranks(score: ArrayLike) -> np.ndarray:
    """Return scores (samples,) as integers from 0 in their order; equal ones are equal."""
    return np.unique(np.asarray(score), return_inverse=True)[1].reshape(-1)
