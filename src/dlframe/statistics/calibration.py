"""Calibration of classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy in bins of equal width from 0 to 1.

    Attributes:
        confidence: (bins,) mean confidence per bin; NaN if empty.
        accuracy: (bins,) accuracy per bin; NaN if empty.
        count: (bins,) number of samples.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Return the points of a reliability diagram, with bins (low, high].

    DeGroot and Fienberg 1983.

    Args:
        confidence: (samples,) probability of the prediction, in [0, 1].
        correct: (samples,) whether the prediction is correct.
        bins: Number of bins.

    Raises:
        ValueError: No samples, different lengths, or a confidence outside [0, 1] or NaN.
    """
    given, correct = np.asarray(confidence), np.asarray(correct, dtype=float)
    confidence = given.astype(float)
    if not len(confidence) or confidence.shape != correct.shape:
        shapes = f"{confidence.shape} and {correct.shape}"
        raise ValueError(f"calibration requires one confidence and one outcome per sample. Received: shapes {shapes}")
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError("a confidence must be within [0, 1]")  # a float32 softmax may exceed 1 by a rounding error
    # In the precision given: 0.4 of single precision is a bound of 15 bins, but in double precision exceeds it.
    place = np.clip(np.ceil(given * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty bin
        mean = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place, correct, bins) / count
    return Reliability(mean, accuracy, count)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Return the mean distance of confidence and accuracy, weighted by samples.

    Naeini, Cooper and Hauskrecht 2015, as in Guo et al. 2017 (arXiv 1706.04599). Arguments and errors of `reliability`.
    """
    points = reliability(confidence, correct, bins)
    return float(np.nansum(points.count * np.abs(points.accuracy - points.confidence)) / points.count.sum())
