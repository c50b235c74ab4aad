"""Leave-one-group-out values of a metric, from which its covariances over test examples follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

MOST_GROUPS = 1000
"""Groups above which they are put together at random."""
RANDOM_GROUPS = 500


def groups_of(
    samples: int, groups: ArrayLike | None = None, blocks: int = 0, seed: int = 0, *, most: int | None = None
) -> np.ndarray:
    """Number the groups that a jackknife leaves out one at a time.

    What depends on each other must be in one group. More than `MOST_GROUPS` are put together into `RANDOM_GROUPS` random ones
    of about equal size, which leaves the covariances unbiased and costs less.

    Args:
        samples: Number of test examples.
        groups: (samples,) names of users, speakers, days; None where examples are independent.
        blocks: Number of blocks of consecutive examples, of a series whose neighbors depend on each other; 0 for none.
        seed: Seed of the random groups.
        most: Above this number of groups, as many random ones are made; None for the usual numbers.

    Returns:
        (samples,) int64, from 0 without gaps.

    Raises:
        ValueError: There are not as many names as samples, or both groups and blocks.
    """
    if blocks and groups is not None:
        raise ValueError("a jackknife is over groups or over blocks of neighbors. Received: both")
    if blocks:
        return np.arange(samples) * min(blocks, samples) // max(samples, 1)
    if groups is None:
        numbers = np.arange(samples)
    else:
        names = np.asarray(groups)
        if names.shape != (samples,):
            raise ValueError(f"groups must have {samples} names, one per sample. Received: shape {names.shape}")
        numbers = np.unique(names, return_inverse=True)[1].reshape(samples).astype(np.int64)
    count = int(numbers.max(initial=-1)) + 1
    if count > (most or MOST_GROUPS):
        place = np.random.default_rng(seed).permutation(count) % (most or RANDOM_GROUPS)
        numbers = place[numbers]
    return numbers


def of_sums(value: Callable[[np.ndarray], np.ndarray], parts: ArrayLike, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a metric that is a function of sums over examples, and its leave-one-group-out values.

    Args:
        value: From sums (..., columns) to the metric (...).
        parts: (samples, columns) what each example adds, such as 1 and whether it is right.
        groups: (samples,) numbers from 0, see `groups_of`.

    Returns:
        The metric, and (groups,) values without each group.
    """
    parts = np.asarray(parts, dtype=float)
    count = int(groups.max(initial=-1)) + 1
    return of_group_sums(value, np.stack([np.bincount(groups, column, count) for column in parts.T], axis=1))


def of_group_sums(value: Callable[[np.ndarray], np.ndarray], sums: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a metric of sums over examples, see `of_sums`, from the sums (groups, columns) of each group."""
    total = sums.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(value(total)), np.asarray(value(total - sums), dtype=float)


def of_subsets(
    metric: Callable[[np.ndarray], float], groups: np.ndarray, most_groups: int = RANDOM_GROUPS
) -> tuple[float, np.ndarray]:
    """Return any metric, and its leave-one-group-out values, by computing it once for each group.

    Args:
        metric: From the indices of examples to the metric.
        groups: (samples,) numbers from 0, see `groups_of`.
        most_groups: Above this, groups are put together: each costs the metric once.

    Returns:
        The metric, and (groups,) values without each group.
    """
    count = int(groups.max(initial=-1)) + 1
    if count > most_groups:
        groups = (np.random.default_rng(0).permutation(count) % most_groups)[groups]
        count = most_groups
    everything = np.arange(len(groups))
    return metric(everything), np.array([metric(everything[groups != group]) for group in range(count)])
