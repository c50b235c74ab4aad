"""Comparison of training procedures over seeds and test examples, by the analysis of Obuchowski and Rockette.

Two things vary in `y[model, seed, example]`: the seed (initial weights, order, augmentation) and the examples of the test set.
Radiology has the same problem with readers and cases, and its solution is used here: variances over seeds, and covariances
over examples from a jackknife over groups (Obuchowski and Rockette 1995, Communications in Statistics 24:285; Hillis 2007,
Statistics in Medicine 26:596, and 2014, 33:330, for seeds nested in models; for classifiers Chen, Gallas and Yousef 2012,
Pattern Recognition 45:2661). It differs in that each model has its own variance over seeds, as in Welch's test, and that the
degrees of freedom count the groups, which matters where they are few blocks. `benchmarks/error_rates.py` prints error rates
and coverages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Over = Literal["both", "seeds", "examples"]
"""What an interval generalizes over: seeds, test examples, or both."""
Design = Literal["nested", "crossed"]
"""Whether seeds of two models are different draws, or matched: the same split, kept labels or pretrained weights."""


@dataclass(frozen=True)
class Scores:
    """Values of a metric of one model.

    Attributes:
        values: (seeds,) the metric of each run. A model without randomness has one.
        deleted: (seeds, groups) the metric without each group of test examples, the same groups for all models.
        is_random: Whether another seed would give another value; False for a closed form or a rule.
    """

    values: np.ndarray
    deleted: np.ndarray
    is_random: bool = True

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return len(self.values)

    @property
    def groups(self) -> int:
        """Number of groups of examples."""
        return self.deleted.shape[1]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(self.values.mean())

    @property
    def seed_variance(self) -> float:
        """Variance of the mean over seeds; 0 for a single one, which cannot tell."""
        return float(self.values.var(ddof=1)) / self.seeds if self.seeds > 1 else 0.0


def scores(values: ArrayLike, deleted: ArrayLike, *, is_random: bool = True) -> Scores:
    """Return the values of a metric of one model.

    Raises:
        ValueError: The shapes do not fit, there are fewer than two groups, or a value is not finite.
    """
    values, deleted = np.atleast_1d(np.asarray(values, dtype=float)), np.atleast_2d(np.asarray(deleted, dtype=float))
    if values.ndim != 1 or deleted.ndim != 2 or not len(values) or deleted.shape[0] != len(values):
        raise ValueError(f"values (seeds,) and deleted (seeds, groups). Received: {values.shape} and {deleted.shape}")
    if deleted.shape[1] < 2:
        raise ValueError(f"a covariance over examples requires two groups. Received: {deleted.shape[1]}")
    if not (np.isfinite(values).all() and np.isfinite(deleted).all()):
        raise ValueError("the metric must be defined for every seed and without each group. Received: NaN or infinite values")
    return Scores(values, deleted, is_random)


@dataclass(frozen=True)
class Parts:
    """Variance of a mean, or of a difference of two, by where it comes from.

    Attributes:
        seeds: Variance that further seeds reduce, of each model.
        examples: Variance that further test examples reduce.
        counts: Number of seeds of each model.
        groups: Number of groups of examples.
    """

    seeds: tuple[float, ...]
    examples: float
    counts: tuple[int, ...]
    groups: int

    @property
    def variance(self) -> float:
        """Sum of all parts."""
        return sum(self.seeds) + self.examples

    @property
    def freedom(self) -> float:
        """Degrees of freedom, by Satterthwaite's approximation."""
        used = sum(v**2 / (n - 1) for v, n in zip(self.seeds, self.counts, strict=True) if n > 1)
        used += self.examples**2 / (self.groups - 1)
        return self.variance**2 / used if used > 0 else math.inf

    def at(self, seeds: Sequence[float], examples: float) -> Parts:
        """Return the parts with other numbers of seeds, and that many times the examples."""
        changed = tuple(v * n / s for v, n, s in zip(self.seeds, self.counts, seeds, strict=True))
        counts = tuple(max(2, round(s)) if v else 1 for v, s in zip(self.seeds, seeds, strict=True))
        return Parts(changed, self.examples / examples, counts, max(2, round(self.groups * examples)))


@dataclass(frozen=True)
class Mean:
    """Mean of a metric over the seeds of a model, with its interval.

    Attributes:
        value: The mean.
        low: Lower bound; NaN where there is none.
        high: Upper bound.
        parts: Its variance.
    """

    value: float
    low: float
    high: float
    parts: Parts


@dataclass(frozen=True)
class Difference:
    """Difference of two models, the first minus the second.

    Attributes:
        value: The difference of the means.
        low: Lower bound of its interval; NaN without a test.
        high: Upper bound.
        p_value: Two-sided; NaN where nothing varies.
        parts: Its variance.
        warnings: Sentences on what makes the test less sure.
    """

    value: float
    low: float
    high: float
    p_value: float
    parts: Parts
    warnings: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Standard error."""
        return math.sqrt(self.parts.variance)


def covariance(one: Scores, other: Scores) -> np.ndarray:
    """Return the jackknife covariances (seeds of one, seeds of the other) over groups of examples.

    Raises:
        ValueError: The groups are not as many.
    """
    if one.groups != other.groups:
        raise ValueError(f"two models must have the same groups of examples. Received: {one.groups} and {other.groups}")
    centered = [s.deleted - s.deleted.mean(axis=1, keepdims=True) for s in (one, other)]
    return (one.groups - 1) / one.groups * centered[0] @ centered[1].T


def _between_seeds(model: Scores) -> float:
    """Return the mean covariance of two different seeds of a model; of one seed its variance."""
    own = covariance(model, model)
    n = model.seeds
    return float((own.sum() - np.trace(own)) / (n * (n - 1))) if n > 1 else float(own[0, 0])


def mean(
    model: Scores,
    *,
    over: Over = "both",
    low: float = -math.inf,
    high: float = math.inf,
    is_proportion: bool = False,
    level: float = 0.95,
) -> Mean:
    """Return the mean of a model over its seeds, with its interval.

    Of a proportion, Wilson's interval (1927) with the effective sample size, which covers near 1 where the symmetric one does
    not; of another metric with two finite bounds, an interval on the logit scale; else a symmetric one.

    Args:
        model: Its values.
        over: What the interval generalizes over.
        low: Smallest possible value.
        high: Largest possible value.
        is_proportion: Whether the metric is the fraction of examples that are right.
        level: Confidence level.

    Returns:
        The mean. Where nothing varies, the bounds of a proportion are those of as many examples as there are groups, and other
        bounds are NaN.
    """
    from scipy.special import expit, logit, stdtrit

    parts = mean_parts(model, over)
    value, variance = model.mean, parts.variance
    if variance <= _rounding(model):
        if is_proportion:
            from dlframe.statistics.intervals import wilson

            low, high = wilson(round(value * model.groups), model.groups, level)
            return Mean(value, low, high, parts)
        return Mean(value, math.nan, math.nan, parts)
    quantile = float(stdtrit(min(parts.freedom, 1e9), (1 + level) / 2))
    half = quantile * math.sqrt(variance)
    if is_proportion:
        effective = value * (1 - value) / variance
        z = quantile**2 / effective
        center, half = (value + z / 2) / (1 + z), math.sqrt(value * (1 - value) * z + z * z / 4) / (1 + z)
        return Mean(value, max(0.0, center - half), min(1.0, center + half), parts)
    if math.isfinite(low) and math.isfinite(high) and low < value < high:
        place = (value - low) / (high - low)
        step = half / (high - low) / (place * (1 - place))
        bottom, top = low + (high - low) * expit(logit(place) + np.array([-step, step]))
        return Mean(value, float(bottom), float(top), parts)
    return Mean(value, value - half, value + half, parts)


def over_seeds(values: ArrayLike, *, low: float = -math.inf, high: float = math.inf, level: float = 0.95) -> Mean:
    """Return the mean of the values of several seeds, with its interval over seeds alone (Student's t), see `mean`.

    Raises:
        ValueError: There are none.
    """
    values = np.asarray(values, dtype=float).ravel()
    if not len(values):
        raise ValueError("a mean requires at least one value")
    return mean(Scores(values, np.zeros((len(values), 2))), over="seeds", low=low, high=high, level=level)


def mean_parts(model: Scores, over: Over = "both") -> Parts:
    """Return the variance of the mean of a model over its seeds."""
    seeds = model.seed_variance if over != "examples" else 0.0
    if over == "seeds":
        examples = 0.0
    elif over == "examples":
        examples = float(covariance(model, model).mean())  # of this mean of these runs
    else:
        examples = max(_between_seeds(model), 0.0)
    return Parts((seeds,), examples, (model.seeds,), model.groups)


def difference(
    one: Scores, other: Scores, *, over: Over = "both", design: Design = "nested", level: float = 0.95
) -> Difference:
    """Compare two models, whose seeds are different draws even where they bear the same numbers, unless they are matched.

    Args:
        one: Values of the first model.
        other: Values of the second model, on the same examples.
        over: What the test generalizes over: "both" asks whether the procedure is better; "seeds" whether it is on these
            examples (Welch's t-test); "examples" whether these trained networks are.
        design: "crossed" for seeds that are matched, run by run.
        level: Confidence level.

    Returns:
        The difference, first minus second. Where nothing varies there is no test: bounds and p-value are NaN.

    Raises:
        ValueError: The groups are not as many, `over="seeds"` and a model that is random has a single seed, or matched seeds
            are not as many.
    """
    from scipy.special import stdtr, stdtrit

    parts = difference_parts(one, other, over, design)
    value = one.mean - other.mean
    if parts.variance <= max(_rounding(one), _rounding(other)):
        return Difference(value, math.nan, math.nan, math.nan, parts)
    error, freedom = math.sqrt(parts.variance), min(parts.freedom, 1e9)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(value) / error))
    return Difference(value, value - half, value + half, p_value, parts, _warnings(one, other, over))


def difference_parts(one: Scores, other: Scores, over: Over = "both", design: Design = "nested") -> Parts:
    """Return the variance of the difference of two models.

    Of matched seeds, the variance over seeds is that of their differences: with two models, what `crossed` divides by.
    """
    seeds, examples = (0.0, 0.0), 0.0
    if design == "crossed" and over != "examples" and one.is_random and other.is_random:
        return _crossed_parts(one, other, over)
    if over != "examples":
        if over == "seeds" and any(m.is_random and m.seeds < 2 for m in (one, other)):
            raise ValueError("a test over seeds requires two seeds of each model that is random")
        seeds = (one.seed_variance, other.seed_variance)
    if over == "both":
        examples = _between_seeds(one) + _between_seeds(other) - 2 * float(covariance(one, other).mean())
    elif over == "examples":
        own = covariance(one, one).mean() + covariance(other, other).mean()
        examples = float(own) - 2 * float(covariance(one, other).mean())
    # Of networks that agree on every example but for a few, the difference of large covariances may round to below zero.
    return Parts(seeds, max(examples, 0.0), (one.seeds, other.seeds), one.groups)


def _crossed_parts(one: Scores, other: Scores, over: Over) -> Parts:
    count = one.seeds
    if other.seeds != count or count < 2:
        raise ValueError(f"matched seeds must be as many, two or more. Received: {count} and {other.seeds}")
    seeds = float((one.values - other.values).var(ddof=1)) / count
    examples = 0.0
    if over == "both":
        across = covariance(one, other)
        between = float(across.sum() - np.trace(across)) / (count * (count - 1))  # of different seeds
        examples = _between_seeds(one) + _between_seeds(other) - 2 * between
    return Parts((seeds,), max(examples, 0.0), (count,), one.groups)


def _warnings(one: Scores, other: Scores, over: Over) -> tuple[str, ...]:
    if over == "examples":
        return ()
    found = []
    if over == "both" and any(m.is_random and m.seeds == 1 for m in (one, other)):
        found.append("one seed: the noise of training is left out")
    counts = sorted(m.seeds for m in (one, other) if m.is_random)
    if counts == [2]:
        found.append("two seeds beside a model without randomness: the test is too bold; three are needed")
    spreads = sorted(float(m.values.var(ddof=1)) for m in (one, other) if m.is_random and m.seeds > 1)
    if len(spreads) == 2 and min(counts) < 4 and spreads[1] > 10 * spreads[0]:
        found.append("fewer than four seeds whose variances differ more than tenfold: the test is a little too bold")
    return tuple(found)


def _rounding(model: Scores) -> float:
    """Return the variance that is nothing but rounding."""
    return (1e-13 * float(np.abs(model.values).max(initial=0.0))) ** 2


@dataclass(frozen=True)
class Crossed:
    """Test of equal means of models whose seeds are matched.

    Attributes:
        statistic: F.
        freedom: Degrees of freedom of the denominator; those of the numerator are the number of models minus 1.
        p_value: Of the F distribution.
        between: Mean square of models.
        interaction: Mean square of models and seeds.
        denominator: What F divides `between` by.
    """

    statistic: float
    freedom: float
    p_value: float
    between: float
    interaction: float
    denominator: float


def crossed(values: ArrayLike, cov2: float, cov3: float) -> Crossed:
    """Compare models whose seeds are bound, such as by the same split or the same pretrained weights.

    Args:
        values: (models, seeds) the metric of each run.
        cov2: Mean covariance over examples of two seeds of one model.
        cov3: Mean covariance over examples of two seeds of different models.

    Raises:
        ValueError: There are not two models and two seeds.
    """

    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"values (models, seeds), at least two of each. Received: {values.shape}")
    models, seeds = values.shape
    of_model, of_seed = values.mean(axis=1), values.mean(axis=0)
    between = seeds * float(((of_model - values.mean()) ** 2).sum()) / (models - 1)
    residuals = values - of_model[:, None] - of_seed + values.mean()
    interaction = float((residuals**2).sum()) / ((models - 1) * (seeds - 1))
    return crossed_test(between, interaction, cov2, cov3, models=models, seeds=seeds)


def crossed_test(between: float, interaction: float, cov2: float, cov3: float, *, models: int, seeds: int) -> Crossed:
    """Return the test of `crossed` from its mean squares (Hillis 2007)."""
    from scipy.special import fdtrc

    denominator = interaction + max(seeds * (cov2 - cov3), 0.0)
    freedom = denominator**2 / (interaction**2 / ((models - 1) * (seeds - 1)))
    statistic = between / denominator
    return Crossed(statistic, freedom, float(fdtrc(models - 1, freedom, statistic)), between, interaction, denominator)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return p-values (tests,) adjusted for the number of tests (Holm 1979); NaN where there is no test."""
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p_values), math.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted
