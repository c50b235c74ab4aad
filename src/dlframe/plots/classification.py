"""Figures of classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, GRAY, GREEN, ORANGE, RED, label, legend_below, short, style
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


@style
def operating_points(
    probability: ArrayLike,
    positive: ArrayLike,
    cutoff: float,
    *,
    name: str,
    costs: tuple[float, float] | None = None,
) -> Figure:
    """Plot precision against recall over all thresholds, and the cost over the fraction of alarms, with the chosen threshold.

    Args:
        probability: (samples,) probability of the positive class.
        positive: (samples,) whether a sample is positive.
        cutoff: Probability from which on the prediction is positive; infinite for none.
        name: Name of the positive class.
        costs: Cost of a false negative and of a false positive; None draws no cost.
    """
    scores, right = np.asarray(probability, float), np.asarray(positive, bool)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are one step
    alarms, hits = ends + 1, right[order].cumsum()[ends]
    total = max(1, int(right.sum()))
    chosen = scores >= cutoff
    own_hits, own_alarms = int((chosen & right).sum()), int(chosen.sum())
    figure = Figure(figsize=(9.6 if costs else 5.4, 4.4))
    axes = figure.subplots(1, 2 if costs else 1, squeeze=False)[0]
    axes[0].step(hits / total, hits / alarms, where="post", color=BLUE, label="all thresholds")
    axes[0].axhline(right.mean(), color=GRAY, ls="--", lw=1, label="base rate")
    if own_alarms:
        axes[0].plot(own_hits / total, own_hits / own_alarms, "o", color=RED, label="chosen threshold")
    axes[0].set_xlim(-0.02, 1.02)
    axes[0].set_ylim(-0.02, 1.04)
    legend_below(axes[0], columns=2)
    label(axes[0], f"'{short(name)}': {int(right.sum()):,} of {len(right):,}", "recall", "precision")
    if costs:
        miss, alarm = costs
        means = (miss * (total - hits) + alarm * (alarms - hits)) / len(scores)
        own = (miss * (total - own_hits) + alarm * (own_alarms - own_hits)) / len(scores)
        axes[1].plot(alarms / len(scores), means, color=BLUE, label="all thresholds")
        axes[1].axhline(miss * total / len(scores), color=GRAY, ls="--", lw=1, label="no alarm")
        axes[1].plot(max(own_alarms, 0.5) / len(scores), own, "o", color=RED, label="chosen threshold")
        axes[1].set_xscale("log")
        axes[1].xaxis.set_major_formatter("{x:g}")
        axes[1].set_ylim(0, 2.5 * max(miss * total / len(scores), own))
        legend_below(axes[1], columns=2)
        label(axes[1], f"missed {miss:g}, false alarm {alarm:g}", "fraction of samples with an alarm", "mean cost of a sample")
    return figure


@style
def by_class(found: Mapping[str, Sequence]) -> Figure:
    """Plot precision, recall and F1 of each class, in the order of F1.

    Args:
        found: By name, the columns class, precision, recall, f1 and samples, (classes,) each.
    """
    order = np.argsort(np.nan_to_num(found["f1"]), kind="stable")
    shown = order if len(order) <= 40 else np.concatenate([order[:20], order[-20:]])
    figure = Figure(figsize=(6.4, float(np.clip(0.34 * len(shown) + 1.4, 2.6, 13))))
    axes = figure.subplots()
    rows = np.arange(len(shown))
    for shift, name, color in zip((0.27, 0, -0.27), ("precision", "recall", "f1"), (ORANGE, GREEN, BLUE), strict=True):
        values = np.nan_to_num(np.asarray(found[name], float)[shown])
        axes.barh(rows + shift, values, 0.27, color=color, label=name.replace("f1", "F1"))
    axes.set_yticks(rows, [f"{short(str(found['class'][i]))} ({found['samples'][i]:,})" for i in shown.tolist()])
    axes.set_xlim(0, 1)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    left_out = f"20 worst and 20 best of {len(order):,} classes" if len(shown) < len(order) else ""
    label(axes, "", left_out or "value on the test split", "class (test samples)")
    return figure


@dataclass(frozen=True)
class ReadText:
    """Text with what each of its words adds to the prediction.

    Attributes:
        words: Words in the order of the text.
        weights: (words,) contributions to the log odds of the predicted class.
        target: True class.
        prediction: Predicted class.
        confidence: Its probability.
    """

    words: Sequence[str]
    weights: np.ndarray
    target: str
    prediction: str
    confidence: float


WORDS = 60
"""Words of a text that are shown, around those that decide."""
CHARACTERS = 96
"""Characters of a line."""


@style
def words(texts: Sequence[ReadText]) -> Figure:
    """Draw texts, each word colored by its contribution to the predicted class: blue for it, orange against it.

    Args:
        texts: The texts.
    """
    laid = [_laid_out(text) for text in texts]
    lines = sum(len(rows) + 1.6 for _, rows in laid)
    figure = Figure(figsize=(0.0675 * CHARACTERS + 0.3, 0.23 * lines + 0.4))  # a character of 8 points has 0.067 inches
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, CHARACTERS)
    axes.set_ylim(lines + 1.4, -1)
    axes.text(0, 0, "blue: for the prediction, orange: against it", color=GRAY, va="center", fontsize=8)
    y = 1.4
    for text, (scale, rows) in zip(texts, laid, strict=True):
        right = text.target == text.prediction
        head = f"{short(text.prediction)}, {text.confidence:.1%}" + ("" if right else f"; true: {short(text.target)}")
        axes.text(0, y, head, weight="bold", color="black" if right else RED, va="center", fontsize=9)
        for row in rows:
            y += 1
            for place, word, weight in row:
                strength = min(1.0, abs(weight) / scale)
                axes.text(
                    *(place, y, word),
                    va="center",
                    fontsize=8,
                    family="monospace",
                    bbox={"facecolor": BLUE if weight > 0 else RED, "alpha": 0.55 * strength, "lw": 0, "pad": 1.0},
                )
        y += 1.6
    return figure


def _laid_out(text: ReadText) -> tuple[float, list[list[tuple[int, str, float]]]]:
    """Return the largest contribution, and lines of place, word and contribution, around the words that decide."""
    sums = np.convolve(np.abs(text.weights), np.ones(min(WORDS, len(text.words))), "valid")
    start = int(sums.argmax())
    rows: list[list[tuple[int, str, float]]] = [[]]
    place = 0
    for word, weight in list(zip(text.words, text.weights.tolist(), strict=True))[start : start + WORDS]:
        drawn = short(word, 30)
        if place + len(drawn) > CHARACTERS:
            rows.append([])
            place = 0
        rows[-1].append((place, drawn, weight))
        place += len(drawn) + 1
    return float(np.abs(text.weights).max() or 1.0), rows
