"""Figures of classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, GRAY, label, short, style
from dlframe.statistics import calibration
from dlframe.statistics.intervals import wilson


@style
def confusion(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """Plot a confusion matrix: counts, colored by the fraction of the true class.

    Args:
        matrix: (classes, classes) counts, rows true, columns predicted.
        classes: Class names.
    """
    counts = np.asarray(matrix)
    n = len(classes)
    fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.42 * n + 2.2, 4.4, 13))
    figure = Figure(figsize=(side + 0.9, side), layout="compressed")
    axes = figure.add_subplot()
    # The square root keeps small fractions visible next to a diagonal near 1.
    image = axes.imshow(fraction, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    shown = range(0, n, -(-n // 50))
    names = [short(classes[i]) for i in shown]
    size = 10 if n <= 20 else 7
    axes.set_xticks(shown, names, rotation=90 if n > 4 or max(map(len, names)) > 6 else 0, fontsize=size)
    axes.set_yticks(shown, names, fontsize=size)
    axes.grid(False)
    if n <= 25:
        for row, column in np.argwhere(counts):
            color = "white" if fraction[row, column] > 0.35 else "black"
            axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=color, fontsize=8)
    right = np.trace(counts)
    label(axes, f"{right:g} of {counts.sum():g} right", "predicted class", "true class")
    bar = figure.colorbar(image, fraction=0.046, format=PercentFormatter(1), ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.set_label("fraction of the true class")
    bar.outline.set_visible(False)
    return figure


@style
def reliability(confidence: ArrayLike, correct: ArrayLike) -> Figure:
    """Plot accuracy against confidence in 15 bins with 95 % Wilson intervals.

    Args:
        confidence: (samples,) probability of the prediction.
        correct: (samples,) whether the prediction is correct.
    """
    points = calibration.reliability(confidence, correct)
    error = calibration.expected_calibration_error(confidence, correct)
    filled = points.count > 0
    x, y, n = points.confidence[filled], points.accuracy[filled], points.count[filled]
    bounds = np.array([wilson(round(a * k), k) for a, k in zip(y, n, strict=True)]).T
    figure = Figure(figsize=(5, 5.6))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=GRAY, label="perfectly calibrated")
    upper.errorbar(x, y, np.abs(bounds - y), fmt="o-", ms=4, lw=1.5, elinewidth=1, color=BLUE, label="model, 95 % interval")
    upper.set_ylim(-0.02, 1.02)
    upper.legend()
    label(upper, f"expected calibration error {error:.3f}", "", "accuracy")
    edges = np.linspace(0, 1, len(points.count) + 1)
    lower.bar(edges[:-1], points.count, edges[1], align="edge", color=BLUE, edgecolor="white")
    lower.set_xlim(0, 1)
    label(lower, "", "confidence", "samples")
    return figure
