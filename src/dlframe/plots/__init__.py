"""Figures of a run. The only file that knows matplotlib; nothing here touches its global state.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from dlframe.statistics import calibration
from dlframe.statistics.intervals import wilson

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
SPLITS = {"train": GREY, "val": BLUE, "test": ORANGE}

# matplotlib's own font has no Chinese, Japanese and Korean letters; these systems' fonts do.
EASTERN = (
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
INSTALLED = {font.name for font in fontManager.ttflist}

style = matplotlib.rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "font.family": ["DejaVu Sans", *(name for name in EASTERN if name in INSTALLED)],
        "font.size": 10,
        "grid.color": "#E6E6E6",
        "image.interpolation": "nearest",
        "legend.frameon": False,
        "text.parse_math": False,  # a class may be called "$5"
    }
)
"""Decorator: the look of every figure, in force only while the figure is made."""


@style
def learning_curve(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """One panel per metric, one line per split, over the optimizer steps.

    Args:
        curves: Steps and values by name: {"train/loss": [(50, 0.9), (100, 0.7)], "val/accuracy": [(100, 0.8)]}.
            Metrics without a validation value, such as the learning rate, are left out, except losses.
    """
    lines: dict[str, dict[str, Sequence[tuple[int, float]]]] = {}
    for key, points in curves.items():
        split, _, metric = key.partition("/")
        if split in SPLITS:
            lines.setdefault(metric, {})[split] = points
    metrics = sorted((m for m in lines if m.startswith("loss") or "val" in lines[m]), key=lambda m: (m != "loss", m))
    columns = min(max(len(metrics), 1), 3)
    rows = max(-(-len(metrics) // columns), 1)
    figure = Figure(figsize=(4.8 * columns if columns > 1 else 6.4, 3.6 * rows))
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, columns, place + 1)
        for split, points in sorted(lines[metric].items(), key=lambda item: list(SPLITS).index(item[0])):
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) < 30 else ""
            axes.plot(steps, values, marker=marker, ls="-", ms=4, color=SPLITS[split], label=split)
        _label(axes, metric, "optimizer step", metric)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend()
    return figure


@style
def confusion(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """Confusion matrix: counts in the cells, colour by the share of the true class.

    Args:
        matrix: (classes, classes) counts, rows true, columns predicted.
        classes: Class names.
    """
    counts = np.asarray(matrix)
    n = len(classes)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.42 * n + 2.2, 4.4, 13))
    figure = Figure(figsize=(side + 0.9, side), layout="compressed")
    axes = figure.add_subplot()
    # The square root keeps a share of a few hundredths visible beside a diagonal near 1.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    shown = range(0, n, -(-n // 50))
    names = [_short(classes[i]) for i in shown]
    size = 10 if n <= 20 else 7
    axes.set_xticks(shown, names, rotation=90 if n > 4 or max(map(len, names)) > 6 else 0, fontsize=size)
    axes.set_yticks(shown, names, fontsize=size)
    axes.grid(False)
    if n <= 25:
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.35 else "black"
            axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=colour, fontsize=8)
    right = np.trace(counts)
    _label(axes, f"{right:g} of {counts.sum():g} right", "predicted class", "true class")
    bar = figure.colorbar(image, fraction=0.046, format=PercentFormatter(1), ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


@style
def reliability(confidence: ArrayLike, correct: ArrayLike) -> Figure:
    """Accuracy against confidence in 15 bins with 95 % Wilson intervals, above the number of samples in each.

    Args:
        confidence: (samples,) probability that the model gives to its prediction.
        correct: (samples,) whether the prediction is right.
    """
    points = calibration.reliability(confidence, correct)
    error = calibration.expected_calibration_error(confidence, correct)
    filled = points.count > 0
    x, y, n = points.confidence[filled], points.accuracy[filled], points.count[filled]
    bounds = np.array([wilson(round(a * k), k) for a, k in zip(y, n, strict=True)]).T
    figure = Figure(figsize=(5, 5.6))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=GREY, label="perfectly calibrated")
    upper.errorbar(x, y, np.abs(bounds - y), fmt="o-", ms=4, lw=1.5, elinewidth=1, color=BLUE, label="model, 95 % interval")
    upper.set_ylim(-0.02, 1.02)
    upper.legend()
    _label(upper, f"expected calibration error {error:.3f}", "", "accuracy")
    edges = np.linspace(0, 1, len(points.count) + 1)
    lower.bar(edges[:-1], points.count, edges[1], align="edge", color=BLUE, edgecolor="white")
    lower.set_xlim(0, 1)
    _label(lower, "", "confidence", "samples")
    return figure


@style
def samples(
    images: np.ndarray, targets: ArrayLike, predictions: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> Figure:
    """Up to 16 mistakes, the least confident first, above 8 right predictions, each with its labels.

    Args:
        images: (samples, channels, height, width) uint8.
        targets: (samples,) true class numbers.
        predictions: (samples,) predicted class numbers.
        scores: (samples,) confidence of the predictions, within [0, 1].
        classes: Class names.
    """
    targets, predictions, scores = np.asarray(targets), np.asarray(predictions), np.asarray(scores)
    order = np.argsort(scores, kind="stable")
    right = order[(targets == predictions)[order]]
    mistakes = order[(targets != predictions)[order]]
    wrong = mistakes[:16]
    right = right[np.unique(np.linspace(0, len(right) - 1, min(8, len(right)), dtype=int))]
    names = [_short(name, 14) for name in classes]
    columns = 8
    parts = ((RED, wrong), (GREEN, right))
    rows = [(colour, part[i : i + columns]) for colour, part in parts for i in range(0, len(part), columns)]
    figure = Figure(figsize=(12, 0.4 + 2.0 * len(rows)))
    title = f"the least confident {len(wrong)} of {len(mistakes)} mistakes, and {len(right)} that are right"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for row, (colour, part) in zip(panels, rows, strict=True):
        for axes, i in zip(row, part, strict=False):
            _picture(axes, images[i])
            true, predicted = names[int(targets[i])], names[int(predictions[i])]
            text = predicted if targets[i] == predictions[i] else f"{predicted}\nnot {true}"
            axes.set_title(f"{text}\n{scores[i]:.0%}", fontsize=9, color=colour, weight="normal", loc="center")
    return figure


@style
def grid(images: np.ndarray) -> Figure:
    """Images side by side, as square a field as their number allows.

    Args:
        images: (images, channels, height, width) uint8, or floats in [0, 1].
    """
    n, channels, height, width = images.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    gap = max(1, height // 16)
    white = 255 if images.dtype == np.uint8 else 1
    field = np.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), white, images.dtype)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        field[:, top : top + height, left : left + width] = image
    figure = Figure(figsize=(6, 6 * field.shape[1] / field.shape[2]))
    axes = figure.add_subplot()
    axes.axis("off")
    _picture(axes, field)
    return figure


@style
def forecast(
    target: ArrayLike,
    prediction: ArrayLike,
    baseline: ArrayLike,
    *,
    dates: ArrayLike | None = None,
    title: str = "",
    unit: str = "value",
) -> Figure:
    """Forecast and baseline over the truth, above the error of each.

    Args:
        target: (samples,) or (samples, horizon) true values. Of several steps ahead the last, the hardest, is shown.
        prediction: Forecast of the same shape.
        baseline: Trivial forecast of the same shape.
        dates: (samples,) datetime64 of the values shown; without them their number stands on the axis.
        title: Title of the figure.
        unit: What the values are.
    """
    truth, model, naive = (np.asarray(a, float).reshape(len(np.asarray(a)), -1) for a in (target, prediction, baseline))
    horizon = truth.shape[1]
    x = np.arange(len(truth)) if dates is None else np.asarray(dates)
    figure = Figure(figsize=(9, 5.2))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    upper.plot(x, truth[:, -1], color="black", lw=1.6, label="truth")
    for values, colour, name in ((naive, ORANGE, "baseline"), (model, BLUE, "forecast")):
        error = values[:, -1] - truth[:, -1]
        rmse = np.sqrt(np.mean(error**2))
        upper.plot(x, values[:, -1], color=colour, lw=1.1, label=f"{name}, RMSE {rmse:.4g}")
        lower.plot(x, error, color=colour, lw=0.9)
    lower.axhline(0, color="black", lw=0.8)
    upper.legend()
    ahead = f"{horizon} steps ahead" if horizon > 1 else "one step ahead"
    _label(upper, f"{title}, {ahead}" if title else ahead, "", unit)
    _label(lower, "", "sample" if dates is None else "date", "error")
    return figure


@style
def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG, the same bytes for the same figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box is drawn in its place
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _picture(axes: Axes, image: np.ndarray) -> None:
    """Draw (channels, height, width): three channels as RGB, the first of any other number as grey."""
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0))
    else:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
