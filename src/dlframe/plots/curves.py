"""Curves, over optimizer steps and over the length of a list, and means by slice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, GRAY, GREEN, ORANGE, RED, SPLITS, label, style
from dlframe.statistics.comparison.differences import over_seeds

Points = Sequence[tuple[int, float]]
"""(optimizer step, value)."""

ROW = 4
"""Panels in a row of learning curves at most."""

RATE = "learning rate"
"""Title of the panel of learning rates."""


@style
def learning_curve(curves: Mapping[str, Points], *, metrics: Sequence[str] = (), best: tuple[int, int] | None = None) -> Figure:
    """Plot losses, metrics and learning rates over optimizer steps, in rows that are filled.

    Args:
        curves: Points by name: {"train/loss": [(50, 0.9), (100, 0.7)], "val/accuracy": [(100, 0.8)], "lr": [(100, 1e-3)]}.
        metrics: Metrics that are shown beside the losses; empty for all with validation values.
        best: Epoch, counted from 1, and step of the weights that were kept, which are those that were tested.
    """
    panels = _panels(curves, metrics)
    last = max((points[-1][0] for lines in panels.values() for _, _, points in lines), default=0)
    rows = max(-(-len(panels) // ROW), 1)
    per_row = [len(part) for part in np.array_split(np.arange(max(len(panels), 1)), rows)]
    widest = max(per_row)
    figure = Figure(figsize=(max(6.4, 4.2 * widest), 3.8 * rows))
    grid = figure.add_gridspec(rows, math.lcm(*per_row))
    places = [(row, i, count) for row, count in enumerate(per_row) for i in range(count)]
    for (title, lines), (row, i, count) in zip(panels.items(), places, strict=False):
        width = grid.ncols // count
        axes = figure.add_subplot(grid[row, i * width : (i + 1) * width])
        for name, color, points in lines:
            steps, values = zip(*points, strict=True)
            if name == "test" and best:  # the last test, where training went on after an earlier one
                steps, values = best[1:], values[-1:]
            marker = "o" if len(points) < 30 else ""
            axes.plot(steps, values, marker=marker, ls="-", ms=4, color=color, label=name)
        if best:
            axes.axvline(best[1], color="black", lw=1, ls=":", label=f"best epoch, {best[0]}")
        label(axes, title, "optimizer step", title)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(0, 1.04 * max(last, 1))
        if title == RATE:
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_ylim(bottom=0)
        if len(lines) > 1 or lines[0][0]:
            axes.legend()
    return figure


def _panels(curves: Mapping[str, Points], metrics: Sequence[str]) -> dict[str, list[tuple[str, str, Points]]]:
    """Return name, color and points of the lines of each panel."""
    found: dict[str, dict[str, Points]] = {}
    for key, points in curves.items():
        split, _, metric = key.partition("/")
        if split in SPLITS:
            found.setdefault(metric, {})[split] = points
    shown = [m for m in found if m.startswith("loss") or (m in metrics if metrics else "val" in found[m])]
    panels = {
        metric: [(split, SPLITS[split], found[metric][split]) for split in SPLITS if split in found[metric]]
        for metric in sorted(shown, key=lambda m: (not m.startswith("loss"), m))
    }
    rates = {key.partition("/")[2]: points for key, points in curves.items() if key.partition("/")[0] == "lr"}
    if len(rates) > 1 and all(points == next(iter(rates.values())) for points in rates.values()):
        rates = {"": next(iter(rates.values()))}
    if any(len(points) > 1 for points in rates.values()):
        panels[RATE] = [
            (name, color, rates[name]) for name, color in zip(rates, cycle((BLUE, ORANGE, GREEN, RED)), strict=False)
        ]
    return panels


@style
def lr_range(rates: ArrayLike, losses: ArrayLike, smooth: ArrayLike, suggested: float | None = None) -> Figure:
    """Plot the losses of a learning-rate range test.

    Args:
        rates: (n,) learning rates.
        losses: (n,) loss of the step with each rate.
        smooth: (n,) their means; a growth beyond the first ones is cut off.
        suggested: The rate that is marked.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    axes.plot(rates, losses, color=GRAY, lw=0.8, alpha=0.6, label="step")
    axes.plot(rates, smooth, color=BLUE, label="mean")
    means = np.asarray(smooth)
    low, high = float(np.min(losses)), float(max(means[0], means[: int(means.argmin()) + 1].max()))
    margin = 0.15 * (high - low) or 0.1 * abs(low) or 1.0
    axes.set_ylim(low - margin, high + 2 * margin)
    if suggested is not None:
        axes.axvline(suggested, color=ORANGE, label=f"steepest at {suggested:g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="lower left")
    label(axes, "learning-rate range test", "learning rate", "training loss")
    return figure


@style
def recall(lengths: ArrayLike, model: ArrayLike, baseline: ArrayLike, *, k: int, title: str = "") -> Figure:
    """Plot the recall over the length of the lists.

    Args:
        lengths: (n,) lengths from 1 to the number of items.
        model: (n,) mean recalls.
        baseline: (n,) those of the most popular items.
        k: Length of the lists in the metrics, which is marked.
        title: Title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    axes.plot(lengths, baseline, color=ORANGE, label="most popular")
    axes.plot(lengths, model, color=BLUE, label="model")
    axes.axvline(k, color="black", lw=0.8, ls=":")
    axes.annotate(f"k = {k}", (k, 1), xytext=(3, -3), textcoords="offset points", va="top")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.93))
    label(axes, title, "length of the list (items)", "recall, mean over users")
    return figure


@style
def by_slice(
    values: ArrayLike,
    model: Callable[[np.ndarray], ArrayLike],
    baseline: Callable[[np.ndarray], ArrayLike],
    *,
    metric: str,
    of: str,
    unit: str,
    title: str = "",
    slices: int = 5,
) -> Figure:
    """Plot means of a metric in slices of equal size, with 95 % intervals of the mean.

    Args:
        values: (samples,) numbers by which samples are sliced at their quantiles.
        model: Function from (samples,) bool, a slice, to the metric of each of its units; NaN is left out.
        baseline: As `model`, of the most popular items.
        metric: Name of the metric.
        of: Name of the values.
        unit: What the means are over: users.
        title: Title of the figure.
        slices: Number of slices; equal values are in one.
    """
    numbers = np.asarray(values, float)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, slices + 1)))
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(0, len(edges) - 2))
    parts = [places == i for i in np.unique(places)]
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    counts: list[int] = []
    for shift, color, name, measured in ((-0.2, ORANGE, "most popular", baseline), (0.2, BLUE, "model", model)):
        columns = [np.asarray(measured(part), float) for part in parts]
        columns = [column[~np.isnan(column)] for column in columns]
        counts = [len(column) for column in columns]
        found = [over_seeds(column) if len(column) else None for column in columns]  # of independent samples, as of seeds
        means = [each.value if each else np.nan for each in found]
        errors = [np.nan_to_num(each.high - each.value) if each else 0.0 for each in found]
        axes.bar(np.arange(len(parts)) + shift, means, 0.4, yerr=errors, color=color, label=name, ecolor="black", capsize=2)
    names: list[str] = []
    for part, count in zip(parts, counts, strict=True):
        low, high = f"{numbers[part].min():.3g}", f"{numbers[part].max():.3g}"
        names.append(f"{low if low == high else f'{low} to {high}'}\n{count:,} {unit}")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(bottom=0)
    axes.legend()
    label(axes, title, of, metric)
    return figure
