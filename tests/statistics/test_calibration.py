"""Calibration on a real classifier, against scikit-learn and by hand."""

import re

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer
from sklearn.naive_bayes import GaussianNB

from dlframe.statistics.calibration import expected_calibration_error, reliability


def test_reliability_agrees_with_scikit_learn_on_a_naive_bayes_classifier():
    inputs, targets = load_breast_cancer(return_X_y=True)
    probability = GaussianNB().fit(inputs[::2], targets[::2]).predict_proba(inputs[1::2])[:, 1]
    points = reliability(probability, targets[1::2], bins=10)
    accuracy, confidence = calibration_curve(targets[1::2], probability, n_bins=10)
    filled = points.count > 0
    assert points.count.sum() == len(probability)
    np.testing.assert_allclose(points.accuracy[filled], accuracy)
    np.testing.assert_allclose(points.confidence[filled], confidence)


def test_bins_are_closed_above_and_empty_ones_are_nan():
    points = reliability([0.0, 0.5, 0.51, 1.0], [0, 1, 0, 1], bins=4)
    assert points.count.tolist() == [1, 1, 1, 1]
    points = reliability(np.float32([0.35, 0.4, 0.41]), [1, 0, 1])
    assert points.count[5:7].tolist() == [2, 1]
    points = reliability([0.9, 0.8], [True, False], bins=2)
    assert points.count.tolist() == [0, 2]
    assert np.isnan([points.accuracy[0], points.confidence[0]]).all()
    assert (points.accuracy[1], points.confidence[1]) == pytest.approx((0.5, 0.85))


def test_expected_calibration_error_by_hand():
    """Three of four right at 0.9, none of one right at 0.6: 4/5 x |0.75 - 0.9| + 1/5 x 0.6."""
    assert expected_calibration_error([0.9, 0.9, 0.9, 0.9, 0.6], [1, 1, 1, 0, 0]) == pytest.approx(0.24)
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0


def test_a_float32_softmax_that_rounds_above_1_is_taken():
    assert reliability(np.float32([1.0000001]), [True]).count[-1] == 1


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "calibration requires one confidence and one outcome per sample. Received: shapes (0,) and (0,)"),
        ([0.5], [1, 0], "calibration requires one confidence and one outcome per sample. Received: shapes (1,) and (2,)"),
        ([1.2], [1], "a confidence must be within [0, 1]"),
        ([float("nan")], [1], "a confidence must be within [0, 1]"),
    ],
)
def test_reliability_refuses(confidence, correct, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        reliability(confidence, correct)
