"""Errors of predicted values."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def rmse(prediction: ArrayLike, target: ArrayLike) -> float:
    """Return the root mean squared error over all values, arrays of one shape."""
    return float(np.sqrt(np.square(_difference(prediction, target)).mean()))


def mae(prediction: ArrayLike, target: ArrayLike) -> float:
    """Return the mean absolute error over all values, arrays of one shape."""
    return float(np.abs(_difference(prediction, target)).mean())


def mape(prediction: ArrayLike, target: ArrayLike) -> float:
    """Return the MAPE in percent over nonzero targets; NaN without any."""
    difference, target = _difference(prediction, target), np.asarray(target, dtype=float)
    nonzero = target != 0
    return float(100 * np.abs(difference[nonzero] / target[nonzero]).mean()) if nonzero.any() else math.nan


def mase(prediction: ArrayLike, target: ArrayLike, scale: ArrayLike) -> float:
    """Return the mean absolute scaled error over windows with a scale; NaN without any.

    Hyndman and Koehler 2006 (International Journal of Forecasting 22:679).

    Args:
        prediction: (windows, steps) predicted values.
        target: (windows, steps) values.
        scale: (windows,) mean absolute difference of a season in the training part of the series; 0 if unknown or constant.
    """
    errors, scale = np.abs(_difference(prediction, target)), np.asarray(scale, dtype=float)
    known = scale > 0
    return float((errors[known].mean(1) / scale[known]).mean()) if known.any() else math.nan


def pinball(quantiles: ArrayLike, target: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """Return the pinball loss, averaged over levels: half the absolute error for the median.

    Koenker and Bassett 1978.

    Args:
        quantiles: (..., levels) predicted quantiles.
        target: (...) values.
        levels: (levels,) levels of the quantiles.
    """
    below = _difference(np.asarray(target, dtype=float)[..., None], quantiles)
    levels = np.asarray(levels, dtype=float)
    return np.maximum(levels * below, (levels - 1) * below).mean(-1)


def r2(prediction: ArrayLike, target: ArrayLike) -> float:
    """Return the coefficient of determination over all values; NaN if all targets are equal."""
    target = np.asarray(target, dtype=float)
    total = np.square(target - target.mean()).sum()
    return float(1 - np.square(_difference(prediction, target)).sum() / total) if total else math.nan


def _difference(prediction: ArrayLike, target: ArrayLike) -> np.ndarray:
    return np.asarray(prediction, dtype=float) - np.asarray(target, dtype=float)
