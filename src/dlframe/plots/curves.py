"""Curves, over optimizer steps and over the length of a list, and means by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, GRAY, ORANGE, SPLITS, label, style
from dlframe.statistics.comparison.differences import over_seeds


@style
def learning_curve(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Plot metrics over optimizer steps, one panel per metric.

    Args:
        curves: (step, value) by name: {"train/loss": [(50, 0.9), (100, 0.7)], "val/accuracy": [(100, 0.8)]}.
            Losses and metrics with validation values are shown.
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
        label(axes, metric, "optimizer step", metric)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend()
    return figure


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
    model: ArrayLike,
    baseline: ArrayLike,
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
        model: (samples,) metric; NaN is left out.
        baseline: (samples,) that of the most popular items.
        metric: Name of the metric.
        of: Name of the values.
        unit: What the samples are: users.
        title: Title of the figure.
        slices: Number of slices; equal values are in one.
    """
    numbers = np.asarray(values, float)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, slices + 1)))
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(0, len(edges) - 2))
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    names: list[str] = []
    for shift, color, name, column in ((-0.2, ORANGE, "most popular", baseline), (0.2, BLUE, "model", model)):
        column = np.asarray(column, float)
        parts = [column[(places == i) & ~np.isnan(column)] for i in np.unique(places)]
        found = [over_seeds(part) if len(part) else None for part in parts]  # of independent samples, as of seeds
        means = [each.value if each else np.nan for each in found]
        errors = [np.nan_to_num(each.high - each.value) if each else 0.0 for each in found]
        axes.bar(np.arange(len(parts)) + shift, means, 0.4, yerr=errors, color=color, label=name, ecolor="black", capsize=2)
    for i in np.unique(places):
        inside = numbers[places == i]
        low, high = f"{inside.min():.3g}", f"{inside.max():.3g}"
        names.append(f"{low if low == high else f'{low} to {high}'}\n{len(inside):,} {unit}")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(bottom=0)
    axes.legend()
    label(axes, title, of, metric)
    return figure
