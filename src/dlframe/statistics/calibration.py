"""Calibration: is a classifier that says 0.8 right eight times in ten?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Reliability:
    """Samples in bins of equal width over the confidence, the first bin from 0, the last to 1.

    Attributes:
        confidence: (bins,) mean confidence of the samples in each bin; NaN in an empty one.
        accuracy: (bins,) share of them that is right; NaN in an empty one.
        count: (bins,) number of samples.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """The points of a reliability diagram (DeGroot and Fienberg 1983), a bin being (low, high].

    Args:
        confidence: (samples,) probability that the model gives to its prediction, within [0, 1].
        correct: (samples,) whether the prediction is right.
        bins: Number of bins.

    Raises:
        ValueError: No samples, as many `correct` are not given, or a confidence is outside [0, 1] or NaN.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if not len(confidence) or confidence.shape != correct.shape:
        shapes = f"{confidence.shape} and {correct.shape}"
        raise ValueError(f"calibration needs one confidence and one outcome a sample. Received: shapes {shapes}")
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError("a confidence must be within [0, 1]")  # a float32 softmax may exceed 1 by a rounding error
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty bin
        mean = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place, correct, bins) / count
    return Reliability(mean, accuracy, count)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins, each weighted by its samples.

    Naeini, Cooper and Hauskrecht 2015, as in Guo et al. 2017 (arXiv 1706.04599). Arguments and errors of `reliability`.
    """
    points = reliability(confidence, correct, bins)
    return float(np.nansum(points.count * np.abs(points.accuracy - points.confidence)) / points.count.sum())
