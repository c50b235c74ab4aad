"""Errors of predicted values, against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_diabetes

from dlframe.statistics.errors import mae, mape, rmse


def test_errors_are_scikit_learns():
    inputs, target = load_diabetes(return_X_y=True)
    prediction = target.mean() + 500 * inputs[:, 2]
    assert rmse(prediction, target) == pytest.approx(metrics.root_mean_squared_error(target, prediction))
    assert mae(prediction, target) == pytest.approx(metrics.mean_absolute_error(target, prediction))
    assert mape(prediction, target) == pytest.approx(100 * metrics.mean_absolute_percentage_error(target, prediction))


def test_single_precision_loses_nothing_to_a_high_level():
    target = np.arange(100, dtype=np.float32) + np.float32(1e5)
    assert rmse(target + np.float32(0.5), target) == 0.5


def test_mape_of_targets_of_zero_is_undefined():
    assert mape([1.0, 3.0], [0.0, 2.0]) == 50
    assert math.isnan(mape([1.0], [0.0]))
