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


def r2(prediction: ArrayLike, target: ArrayLike) -> float:
    """Return the coefficient of determination over all values; NaN if all targets are equal."""
    target = np.asarray(target, dtype=float)
    total = np.square(target - target.mean()).sum()
    return float(1 - np.square(_difference(prediction, target)).sum() / total) if total else math.nan


def _difference(prediction: ArrayLike, target: ArrayLike) -> np.ndarray:
    return np.asarray(prediction, dtype=float) - np.asarray(target, dtype=float)
