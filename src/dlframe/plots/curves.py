"""Curves over optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dlframe.plots.style import SPLITS, label, style


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
