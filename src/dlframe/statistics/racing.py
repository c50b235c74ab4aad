"""Races of configurations over seeds: which ones deserve another seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

PILOT = 4
"""Candidates with the best first values, which are repeated first: their spread over seeds is the first estimate of noise."""
OPPONENTS = 100
"""Candidates with the best means, which each candidate is compared with."""
PILOT_SEEDS = 3
"""Values of each of them."""
UNREPEATED = 2.0
"""Noise of a candidate with a single value, in units of that of the repeated ones: it may be larger than theirs."""


@dataclass(frozen=True)
class Elimination:
    """Why a candidate left a race.

    Attributes:
        candidate: Its index.
        seeds: Number of seeds compared.
        by: Index of the candidate that is better; None if one of its own values is not finite.
        difference: How much better `by` is on average, positive for both directions; NaN without `by`.
        p_value: One-sided p-value of this difference.
        level: Level of this test, which p_value is below: alpha divided by the number of all tests of the race.
    """

    candidate: int
    seeds: int
    by: int | None
    difference: float
    p_value: float
    level: float


@dataclass(frozen=True)
class Race:
    """State of a race.

    Attributes:
        alive: (candidates,) bool, who is still in the race.
        wanted: (candidates,) number of values that each needs before the race can go on; at its end, that each needed.
        eliminations: Who left and why, in order.
        noise: Estimated standard deviation of a typical candidate over seeds; NaN before any is repeated.
    """

    alive: np.ndarray
    wanted: np.ndarray
    eliminations: tuple[Elimination, ...]
    noise: float


def race(
    values: Sequence[Sequence[float] | np.ndarray], *, seeds: int, better: Literal["min", "max"], alpha: float = 0.05
) -> Race:
    """Return which candidates are still in the race, and how many values each needs next.

    The race is a function of the values alone: call it again whenever there are more of them, until none are wanted. First
    the `PILOT` candidates with the best first values are repeated; then there is a look at all candidates, and another one
    before each further seed of those that are still in the race. A look compares the means of each pair over the seeds that
    both have, by a t-test whose variances borrow strength from all repeated candidates (Smyth 2004, "Linear models and
    empirical Bayes methods for assessing differential expression", moderated t), after what a seed adds to all of them has
    been subtracted. In a race of two this is the paired t-test.

    The probability that the best candidate is ever eliminated is at most `alpha`, by Bonferroni's inequality over looks and
    opponents, if noise is about normal. Noise differs between candidates, such as learning rates, so unlike in Smyth's test a
    variance is never shrunk downward, a pair has the smaller of both degrees of freedom, and a single value counts as
    `UNREPEATED` times as noisy as those that are repeated. `benchmarks/racing.py` prints the error rates. Not covered: the
    best candidate is lost if it fails with its first seed; and if it is several times as noisy as all others without being
    clearly better, it may be lost twice as often as alpha says.

    Args:
        values: For each candidate its values, in the order of the seeds, which are the same for all.
        seeds: Values of a candidate that stays to the end.
        better: Direction of the values.
        alpha: Probability of eliminating the best candidate.

    Returns:
        State of the race. A candidate with a value that is not finite is eliminated. If repeated candidates have no variance
        at all, there is no test, and nobody else is eliminated.

    Raises:
        ValueError: No candidates, seeds below 1, alpha outside (0, 1), or an unknown direction.
    """
    if not len(values) or seeds < 1 or not 0 < alpha < 1 or better not in ("min", "max"):
        received = f"{len(values)} candidates, seeds={seeds}, alpha={alpha}, better={better!r}"
        raise ValueError(f"a race requires candidates, seeds >= 1, 0 < alpha < 1, better min or max. Received: {received}")
    sign = 1.0 if better == "max" else -1.0
    rows = [sign * np.asarray(row, dtype=float).ravel()[:seeds] for row in values]
    alive, wanted, noise = np.ones(len(rows), dtype=bool), np.ones(len(rows), dtype=int), math.nan
    level = alpha / max(1, (len(rows) - 1) * (seeds - 1))
    found: list[Elimination] = []

    def have(number: int, members: np.ndarray) -> bool:
        """Want values of members; whether they are there. Drops members with one that is not finite."""
        wanted[members] = np.maximum(wanted[members], number)
        if any(len(rows[i]) < wanted[i] for i in members):
            return False
        for i in members:
            if not np.isfinite(rows[i][: wanted[i]]).all():
                alive[i] = False
                found.append(Elimination(int(i), int(wanted[i]), None, math.nan, math.nan, level))
        return True

    for k in range(1, seeds + 1):
        if not have(k, np.flatnonzero(alive)):
            break
        if k == 1 and alive.sum() > 1:
            pilot = np.array(sorted(np.flatnonzero(alive), key=lambda i: -rows[i][0])[:PILOT])
            if not have(min(PILOT_SEEDS, seeds), pilot):
                break
        if k == seeds or alive.sum() < 2:
            break
        used = [row[:n] if np.isfinite(row[:n]).all() else row[:0] for row, n in zip(rows, wanted, strict=True)]
        variance, freedom, noise = _variances(used)
        left = _eliminated(used, np.flatnonzero(alive), variance, freedom, level)
        alive[[elimination.candidate for elimination in left]] = False
        found += left
    return Race(alive, wanted, tuple(found), noise)


def _variances(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return variances over seeds, their degrees of freedom, and the standard deviation of a typical candidate.

    Without any variance all are NaN.
    """
    from scipy.special import digamma, polygamma

    undefined = np.full(len(rows), math.nan)
    repeated = [i for i, row in enumerate(rows) if len(row) > 1]
    if not repeated:
        return undefined, undefined, math.nan
    residuals = _residuals([rows[i] for i in repeated])
    shared = 1.0 if len(repeated) == 1 else 1 - 1 / len(repeated)  # what subtracting the seeds' effects has cost
    own_freedom = shared * np.array([len(row) - 1 for row in residuals])
    own = np.array([float((row**2).sum()) for row in residuals]) / own_freedom
    rounding = np.array([1e-14 * float(np.abs(rows[i]).max()) for i in repeated])
    own[own <= rounding**2] = 0.0
    if not own.any():
        return undefined, undefined, 0.0
    total = float(own_freedom.sum())
    prior, typical = total, float((own_freedom * own).sum()) / total
    if len(repeated) > 2:
        positive = np.maximum(own, 1e-5 * (np.median(own) or own.max()))
        half = own_freedom / 2
        logs = np.log(positive) - digamma(half) + np.log(half)
        excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
        if excess > 0:
            prior = min(total, 2 * _trigamma_inverse(excess))
            typical = math.exp(logs.mean() + float(digamma(prior / 2)) - math.log(prior / 2))
    variance = np.full(len(rows), UNREPEATED**2 * typical)
    freedom = np.full(len(rows), prior)
    variance[repeated] = np.maximum(own, (prior * typical + own_freedom * own) / (prior + own_freedom))
    freedom[repeated] = np.minimum(total, prior + own_freedom)
    return variance, freedom, math.sqrt(typical)


def _residuals(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Subtract each row's mean, and each seed's effect on all rows."""
    residuals = [row - row.mean() for row in rows]
    if len(rows) > 1:
        for seed in range(max(map(len, rows))):
            column = [row for row in residuals if len(row) > seed]
            found = [row[seed] for row in column]
            effect = np.median(found) if len(found) > 4 else np.mean(found)  # of many, one may be far more noisy
            for row in column:
                row[seed] -= effect
    return residuals


def _trigamma_inverse(value: float) -> float:
    from scipy.optimize import root_scalar
    from scipy.special import polygamma

    # 1 / x < trigamma(x) < 1 / x + 1 / x**2
    low, high = 1 / value, (1 + math.sqrt(1 + 4 * value)) / (2 * value)
    return float(root_scalar(lambda x: float(polygamma(1, x)) - value, bracket=(0.9 * low, 1.1 * high)).root)


def _eliminated(
    rows: Sequence[np.ndarray], alive: np.ndarray, variance: np.ndarray, freedom: np.ndarray, level: float
) -> list[Elimination]:
    """Return the candidates that are worse than another, each beside the most significant one."""
    from scipy.special import stdtr

    means = np.array([rows[i].mean() for i in alive])
    others = np.sort(np.argsort(-means, kind="stable")[:OPPONENTS])
    length = np.array([len(rows[i]) for i in alive])
    sums = np.zeros((len(alive), length.max() + 1))
    for place, i in enumerate(alive):
        sums[place, 1 : length[place] + 1] = np.cumsum(rows[i])
    common = np.minimum(length[:, None], length[others])
    difference = (sums[others, common] - sums[np.arange(len(alive))[:, None], common]) / common
    error = np.sqrt((variance[alive][:, None] + variance[alive[others]]) / common)
    p_value = stdtr(np.minimum(freedom[alive][:, None], freedom[alive[others]]), -difference / error)
    p_value[np.isnan(p_value) | (alive[:, None] == alive[others])] = 1.0
    by = p_value.argmin(axis=1)
    return [
        Elimination(
            candidate=int(alive[i]),
            seeds=int(common[i, j]),
            by=int(alive[others[j]]),
            difference=float(difference[i, j]),
            p_value=float(p_value[i, j]),
            level=level,
        )
        for i, j in enumerate(by)
        if p_value[i, j] < level
    ]
