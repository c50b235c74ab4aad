"""Tests of other designs: two forecasts of one series, several random splits, several data sets."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dlframe.statistics.comparison.differences import Difference, Mean, Parts, holm


def diebold_mariano(one: ArrayLike, other: ArrayLike, horizon: int = 1) -> float:
    """Return the p-value of equal expected losses of two forecasts of one series (Diebold and Mariano 1995).

    With the small-sample correction and Student's t of Harvey, Leybourne and Newbold (1997, International Journal of
    Forecasting 13:281). It is over time only: of networks that were trained once.

    Args:
        one: (times,) losses of the first forecast, in order.
        other: (times,) losses of the second one.
        horizon: Steps ahead: losses this close together depend on each other.

    Returns:
        Two-sided p-value; NaN where the losses do not differ, or the estimated variance is not positive.

    Raises:
        ValueError: The lengths differ, or there are not more losses than `horizon`.
    """
    from scipy.special import stdtr

    difference = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    n = len(difference)
    if n <= horizon or difference.ndim != 1:
        raise ValueError(f"losses (times,), more than horizon={horizon}. Received: shape {difference.shape}")
    centered = difference - difference.mean()
    autocovariances = [float(centered[lag:] @ centered[: n - lag]) / n for lag in range(horizon)]
    variance = (autocovariances[0] + 2 * sum(autocovariances[1:])) / n
    if variance <= 0:
        return math.nan
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    statistic = difference.mean() / math.sqrt(variance) * math.sqrt(correction)
    return 2 * float(stdtr(n - 1, -abs(statistic)))


def over_splits(one: ArrayLike, other: ArrayLike, *, train: int, test: int, level: float = 0.95) -> Difference:
    """Compare two models that were trained and tested on several random splits: the corrected resampled t-test.

    Splits share samples, so that the variance over them is too small: it counts 1 / J + test / train instead of 1 / J
    (Nadeau and Bengio 2003, Machine Learning 52:239).

    Args:
        one: (splits,) values of the first model.
        other: (splits,) of the second one, on the same splits.
        train: Number of training samples of a split.
        test: Number of test samples.
        level: Confidence level.

    Raises:
        ValueError: There are not two splits, or not as many values.
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise ValueError(f"values (splits,), as many of both models and two or more. Received: {one.shape} and {other.shape}")
    return _corrected(one - other, train / test, level)


def mean_over_splits(values: ArrayLike, *, train: int, test: int, level: float = 0.95) -> Mean:
    """Return the mean of a model over random splits, with the variance of `over_splits`."""
    found = _corrected(np.asarray(values, dtype=float), train / test, level)
    return Mean(found.value, found.low, found.high, found.parts)


def _corrected(values: np.ndarray, ratio: float, level: float) -> Difference:
    from scipy.special import stdtr, stdtrit

    count, value = len(values), float(values.mean())
    parts = Parts((), (1 / count + 1 / ratio) * float(values.var(ddof=1)), (), count)
    if parts.variance <= 0:
        return Difference(value, math.nan, math.nan, math.nan, parts)
    error = math.sqrt(parts.variance)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return Difference(value, value - half, value + half, 2 * float(stdtr(count - 1, -abs(value) / error)), parts)


def over_datasets(values: ArrayLike) -> np.ndarray:
    """Return p-values (models, models) of equal models over data sets: Wilcoxon's signed-rank test with Holm's correction.

    For all pairs (Demšar 2006, JMLR 7:1; Benavoli, Corani and Mangili 2016, JMLR 17:5, on why not by ranks among all models).

    Args:
        values: (data sets, models) the metric of each model on each data set, larger or smaller being better throughout.

    Returns:
        Adjusted p-values; NaN on the diagonal, and where two models are equal everywhere.

    Raises:
        ValueError: There are not two data sets and two models.
    """
    from scipy.stats import wilcoxon

    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"values (data sets, models), at least two of each. Received: {values.shape}")
    models = values.shape[1]
    pairs = [(i, j) for i in range(models) for j in range(i)]
    found = [
        math.nan if np.array_equal(values[:, i], values[:, j]) else float(wilcoxon(values[:, i] - values[:, j]).pvalue)  # type: ignore[attr-defined]
        for i, j in pairs
    ]
    p_values = np.full((models, models), math.nan)
    for (i, j), p_value in zip(pairs, holm(found), strict=True):
        p_values[i, j] = p_values[j, i] = p_value
    return p_values


def mean_ranks(values: ArrayLike, *, is_larger_better: bool) -> np.ndarray:
    """Return the mean rank (models,) over data sets, 1 for the best; equal values share theirs.

    Args:
        values: (data sets, models).
        is_larger_better: Direction of the metric.
    """
    from scipy.stats import rankdata

    values = np.asarray(values, dtype=float)
    return rankdata(-values if is_larger_better else values, axis=1).mean(axis=0)
