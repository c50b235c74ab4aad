"""Figures of comparisons of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dlframe.plots.style import BLUE, GRAY, GREEN, ORANGE, RED, end_of, label, short, style, whole_picture
from dlframe.types import Metric


def _heights(rows: int) -> tuple[float, float]:
    """Return the size of a figure with so many rows."""
    return 8.0, 1.4 + 0.42 * max(rows, 2)


def _axis(axes, read: Metric) -> None:  # type: ignore[no-untyped-def]
    if read.unit == "fraction":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.5g} %"))


@style
def seed_values(
    labels: Sequence[str],
    values: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float, float]],
    *,
    metric: str,
    read: Metric,
    baseline: tuple[str, float] | None = None,
) -> Figure:
    """Plot each model's seeds as points, and its mean with its interval below them.

    Args:
        labels: Names of the models, best first.
        values: The metric of each run of each model.
        intervals: Mean, lower and upper bound of each model.
        metric: Name of the metric.
        read: How it is read.
        baseline: Name and value of the trivial baseline, a line where it is near enough to the models.
    """
    figure = Figure(figsize=_heights(len(labels)))
    axes = figure.add_subplot()
    for row, (points, (mean, low, high)) in enumerate(zip(values, intervals, strict=True)):
        axes.scatter(points, [row - 0.13] * len(points), s=26, color=BLUE, alpha=0.65, lw=0, zorder=3)
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [row + 0.16] * 2, color=ORANGE, lw=3, solid_capstyle="butt", zorder=2)
        axes.scatter([mean], [row + 0.16], s=46, marker="D", color=ORANGE, edgecolors="#333333", linewidths=0.7, zorder=4)
    shown = np.array([x for points, bounds in zip(values, intervals, strict=True) for x in (*points, *bounds)])
    shown = shown[np.isfinite(shown)]
    low, high = float(shown.min()), float(shown.max())
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    if baseline and low - (high - low) <= baseline[1] <= high + (high - low):
        axes.axvline(baseline[1], color=GRAY, ls="--", lw=1.2, label=baseline[0])
        low, high = min(low, baseline[1]), max(high, baseline[1])
    axes.set_xlim(low - margin, high + margin)
    _rows(axes, labels)
    better = "higher" if read.better == "max" else "lower"
    label(axes, "", f"{metric}, {better} is better", "")
    axes.scatter([], [], s=26, color=BLUE, alpha=0.65, lw=0, label="a seed")
    axes.plot([], [], color=ORANGE, lw=3, marker="D", markeredgecolor="#333333", label="mean, 95 % interval")
    figure.legend(loc="outside upper right", ncols=3, fontsize=9)
    _axis(axes, read)
    return figure


def _rows(axes, labels: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
    axes.set_yticks(range(len(labels)), [short(name, 40) for name in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


@style
def differences(
    labels: Sequence[str],
    values: Sequence[tuple[float, float, float]],
    shown: Sequence[bool],
    *,
    metric: str,
    read: Metric,
    reference: str,
) -> Figure:
    """Plot how much better a reference is than each other model, with intervals: a forest plot.

    Args:
        labels: Names of the other models.
        values: Difference, lower and upper bound of each; positive where the reference is better.
        shown: Whether each difference is shown after the correction for several tests.
        metric: Name of the metric.
        read: How it is read.
        reference: Name of the reference.
    """
    figure = Figure(figsize=_heights(len(labels)))
    axes = figure.add_subplot()
    scale, unit = (100.0, " in points") if read.unit == "fraction" else (1.0, f" in {read.unit}" if read.unit else "")
    for row, ((value, low, high), is_shown) in enumerate(zip(values, shown, strict=True)):
        color = BLUE if is_shown else GRAY
        if np.isfinite([low, high]).all():
            axes.plot([scale * low, scale * high], [row, row], color=color, lw=2.5, solid_capstyle="butt")
        face = color if is_shown else "white"
        axes.scatter([scale * value], [row], s=60, marker="s", color=face, edgecolors=color, linewidths=1.8, zorder=3)
    axes.axvline(0, color="#333333", lw=1)
    _rows(axes, labels)
    label(axes, "", f"{metric}: how much better {short(reference, 30)} is{unit}", "")
    axes.scatter([], [], s=60, marker="s", color=BLUE, label="difference shown")
    axes.scatter([], [], s=60, marker="s", color="white", edgecolors=GRAY, linewidths=1.8, label="not shown")
    figure.legend(loc="outside upper right", ncols=2, fontsize=9)
    return figure


@style
def variance_split(labels: Sequence[str], seeds: Sequence[float], examples: Sequence[float]) -> Figure:
    """Plot where the uncertainty of each difference comes from: one bar each, of seeds and test examples.

    Args:
        labels: Names of the pairs.
        seeds: Variance that further seeds reduce.
        examples: Variance that further test examples reduce.
    """
    figure = Figure(figsize=_heights(len(labels)))
    axes = figure.add_subplot()
    total = np.maximum(np.add(seeds, examples), 1e-300)
    fraction = 100 * np.asarray(seeds) / total
    rows = np.arange(len(labels))
    axes.barh(rows, fraction, height=0.55, color=ORANGE, hatch="//", edgecolor="white", lw=0, label="seeds")
    axes.barh(rows, 100 - fraction, height=0.55, left=fraction, color=GREEN, label="test examples")
    _rows(axes, labels)
    axes.set_xlim(0, 100)
    label(axes, "", "share of the variance of the difference in %: more of the larger one helps most", "")
    figure.legend(loc="outside upper right", ncols=2, fontsize=9)
    return figure


@style
def power_curves(
    seeds: Sequence[int], factors: Sequence[float], power: Sequence[Sequence[float]], *, samples: int, difference: str
) -> Figure:
    """Plot the probability of showing a difference over the number of seeds, for several numbers of test examples.

    Args:
        seeds: Numbers of seeds of each model.
        factors: Times the present test examples, one curve each.
        power: (seeds, factors) probabilities.
        samples: Present number of test examples.
        difference: The difference in words.
    """
    figure = Figure(figsize=(8, 4.6))
    axes = figure.add_subplot()
    marks, colors = ("o", "s", "^", "D", "v"), (GRAY, BLUE, GREEN, ORANGE, "#CC79A7")
    for column, factor in enumerate(factors):
        curve = [100 * row[column] for row in power]
        axes.plot(
            seeds,
            curve,
            color=colors[column % 5],
            marker=marks[column % 5],
            ms=5,
            lw=1.6,
            label=f"{round(samples * factor):,} examples",
        )
    axes.axhline(80, color="#333333", lw=1, ls=":")
    axes.set_ylim(0, 102)
    axes.set_xticks(seeds)
    label(axes, "", "seeds of each model", f"% chance of showing {difference}")
    figure.legend(loc="outside upper right", ncols=min(3, len(factors)), fontsize=9)
    return figure


COLORS, LINES = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#333333"), ("-", "--", "-.", ":")
"""Of models: the next kind of line begins where the colors of Okabe and Ito (2008) end."""


@style
def seed_curves(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], *, metric: str, read: Metric, shown: int = 14
) -> Figure:
    """Plot the learning curves of models: the mean over seeds, with a band from the lowest to the highest seed.

    Args:
        curves: (step, value) of each run by model, best first.
        metric: Name of the metric.
        read: How it is read.
        shown: Number of models that are drawn.
    """
    figure = Figure(figsize=(8, 4.8))
    axes = figure.add_subplot()
    for place, (name, runs) in enumerate(list(curves.items())[:shown]):
        steps = sorted(set.intersection(*({step for step, _ in points} for points in runs)))
        values = np.array([[dict(points)[step] for step in steps] for points in runs])
        if not steps:
            continue
        color, line = COLORS[place % len(COLORS)], LINES[place // len(COLORS) % len(LINES)]
        mark = "o" if len(steps) < 3 else ""
        axes.plot(steps, values.mean(0), color=color, ls=line, marker=mark, ms=4, lw=1.8, label=short(name, 34))
        axes.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.18, lw=0)
    if read.unit == "fraction":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.5g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    label(axes, "", "optimizer step", f"{metric}, mean and range of the seeds")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


@style
def critical_difference(
    labels: Sequence[str], ranks: Sequence[float], alike: Sequence[tuple[int, int]], *, test: str
) -> Figure:
    """Plot mean ranks over data sets, with a bar over models of which no two are shown to differ (Demšar 2006, JMLR 7:1).

    Args:
        labels: Names of the models, in the order of their ranks.
        ranks: Mean rank of each, 1 for the best.
        alike: First and last model of each bar.
        test: What the bars follow from.
    """
    count = len(labels)
    half = -(-count // 2)
    figure = Figure(figsize=(8, 1.65 + 0.34 * half + 0.16 * len(alike)))
    axes = figure.add_subplot()
    axes.axis("off")
    # From the axis downwards: the bars, then the names, the better half on the left.
    top = 0.5 + 0.35 * len(alike)
    low, high = 1.0, float(max(count, 2))
    axes.plot([low, high], [0, 0], color="#333333", lw=1.4)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, -0.12], color="#333333", lw=1.2)
        axes.text(rank, -0.2, str(rank), ha="center", va="bottom", fontsize=9)
    for place, (first, last) in enumerate(alike):
        y = 0.35 + 0.35 * place
        margin = 0.012 * (high - low)
        axes.plot([ranks[first] - margin, ranks[last] + margin], [y, y], color=ORANGE, lw=5, solid_capstyle="butt")
    for place, (name, rank) in enumerate(zip(labels, ranks, strict=True)):
        is_left = place < half
        y = top + 0.55 * (place if is_left else count - 1 - place)
        end = low - 0.08 * (high - low) if is_left else high + 0.08 * (high - low)
        axes.plot([rank, rank, end], [0, y, y], color=BLUE, lw=1.1)
        axes.scatter([rank], [0], s=26, color=BLUE, zorder=3)
        text = f"{short(name, 28)}  {rank:.2f}" if is_left else f"{rank:.2f}  {short(name, 28)}"
        axes.text(end, y, text + " " if is_left else " " + text, ha="right" if is_left else "left", va="center", fontsize=9)
    room = 0.62 * (high - low)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(top + 0.55 * half, -0.7)
    figure.supxlabel(f"mean rank, 1 is best; a bar joins models of which no two are shown to differ\n({test})", fontsize=9)
    return figure


@style
def right_and_wrong(images: Sequence[np.ndarray], texts: Sequence[str], *, columns: int = 6) -> Figure:
    """Plot test images with what two models say of them.

    Args:
        images: Each (channels, height, width), uint8.
        texts: What is written above each: its name, and lines below.
        columns: Images in a row.
    """
    rows = -(-len(images) // columns)
    lines = max(text.count("\n") + 1 for text in texts)
    figure = Figure(figsize=(2 * columns, rows * (2.2 + 0.16 * lines)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, image, text in zip(panels.flat, images, texts, strict=False):
        whole_picture(axes, image)
        name, *lines = text.split("\n")
        told = "\n".join([end_of(name), *(short(line, 30) for line in lines)])
        axes.set_title(told, fontsize=8, weight="normal", loc="center")
    return figure
