"""Figures of the values of a study: over its trials, over epochs, of one objective against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from dlframe.plots.style import BLUE, GRAY, GREEN, ORANGE, RED, label, short, style
from dlframe.statistics.pareto import pareto_front as on_front
from dlframe.types import Objective, TrialRecord, best_of, printable

BLACK = "#333333"
MOST_CURVES = 200
"""Learning curves that a figure draws; more would hide one another."""
HUGE = 1e300
"""From here on the margins of an axis overflow."""


@dataclass(frozen=True)
class Parts:
    """Trials by what became of them.

    Attributes:
        complete: Those with a finite value.
        undefined: Complete ones whose value is not finite.
        pruned: Ended early.
        failed: Without a value.
        running: Not ended.
    """

    complete: list[TrialRecord]
    undefined: list[TrialRecord]
    pruned: list[TrialRecord]
    failed: list[TrialRecord]
    running: list[TrialRecord]

    @classmethod
    def of(cls, records: Sequence[TrialRecord], *, objective: int = 0) -> Parts:
        """Sort trials; those with a finite value of an objective are complete."""
        parts = cls([], [], [], [], [])
        for record in sorted(records, key=lambda record: record.number):
            value = record.value(objective)
            undefined = record.state == "complete" and (value is None or abs(value) > HUGE)
            getattr(parts, "undefined" if undefined else record.state).append(record)
        return parts

    def values(self, objective: int = 0) -> np.ndarray:
        """Return the values of the complete trials."""
        return np.array([record.values[objective] for record in self.complete], float)

    def note(self, *names: str) -> str:
        """Return a sentence on the trials that a figure leaves out: "Not shown: 1 running trial."."""
        words = {"undefined": "with a value that is not finite"}
        counts = {name: len(getattr(self, name)) for name in names}
        said = [f"{n:,} {words.get(name, name)}" for name, n in counts.items() if n]
        return f"Not shown: {', '.join(said)}." if said else ""


def counted(number: int, word: str) -> str:
    """Return a number and a word: "1 trial", "1,000 trials"."""
    return f"{number:,} {word}" + "s" * (number != 1)


def write_notes(figure: Figure, *notes: str) -> None:
    """Write what a figure leaves out below it."""
    if said := " ".join(filter(None, notes)):
        figure.supxlabel(said, x=0.01, ha="left", fontsize=8, color=GRAY)


def draw_legend(figure: Figure) -> None:
    """Explain the marks above a figure, where they hide nothing."""
    if figure.axes[0].get_legend_handles_labels()[0]:
        legend = figure.legend(
            loc="outside upper right", ncols=5, fontsize=9, handlelength=1.4, handletextpad=0.5, columnspacing=1.4
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)


def draw_best(axes: Axes, x: float, y: float) -> None:
    """Mark the best trial."""
    axes.scatter([x], [y], s=140, marker="*", color=ORANGE, edgecolors=BLACK, linewidths=0.7, zorder=6)


def best_title(best: TrialRecord | None, objective: Objective) -> str:
    """Return the title of a figure: "best 98.20 %, trial 16"."""
    return f"best {objective.read.text(best.values[0])}, trial {best.number}" if best else "no complete trial yet"


def axis_label(objective: Objective) -> str:
    """Return the label of an axis: "val/accuracy (higher is better)"."""
    unit = f" in {objective.unit}" if objective.unit not in ("", "fraction") else ""
    arrow = "higher" if objective.better == "max" else "lower"
    return printable(f"{short(objective.metric, 32)}{unit}, {arrow} is better")


def number_text(number: float) -> str:
    """Write a number in few characters: "0.003", "1e-5", "20000"."""
    return (
        f"{number:.4g}"
        if 1e-3 <= abs(number) < 1e4
        else f"{number:.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    )


def value_text(value: float, objective: Objective) -> str:
    """Write a tick of an axis of values."""
    return f"{100 * value:.5g} %" if objective.unit == "fraction" else number_text(value)


def write_values(axes: Axes, objective: Objective, *, axis: str = "y") -> None:
    """Write the ticks of an axis of values."""
    if objective.unit == "fraction":
        getattr(axes, f"{axis}axis").set_major_formatter(FuncFormatter(lambda value, _: value_text(value, objective)))


def set_log(axes: Axes, low: float, high: float, *, axis: str = "x") -> None:
    """Make an axis logarithmic."""
    getattr(axes, f"set_{axis}scale")("log")
    ticks = getattr(axes, f"{axis}axis")
    if high / low < 100:
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5)) if high / low > 10 else MaxNLocator(4))
        ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))
    ticks.set_minor_formatter(NullFormatter())


def whole_numbers(axes: Axes) -> None:
    """Write trials or epochs as whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def opacity(number: int) -> float:
    """Return the opacity of so many overlapping points or lines."""
    return float(np.clip(10 / max(number, 1) ** 0.5, 0.25, 0.9))


def limit(values: np.ndarray, objective: Objective) -> float:
    """Return the worst value to be shown to scale: far outliers would press all others into a line.

    They are those beyond the quartile by three times the distance of the quartiles (Tukey 1977), where without them the
    others take at least twice the room.
    """
    if len(values) < 4:
        return -objective.sign * np.inf
    costs = -objective.sign * values
    low, high = np.quantile(costs, (0.25, 0.75))
    fence = high + 3 * (high - low)
    far = high > low and costs.max() - costs.min() > 2 * (fence - costs.min())
    return -objective.sign * (float(costs[costs <= fence].max()) if far else np.inf)


def set_limits(axes: Axes, values: np.ndarray, worst: float, objective: Objective) -> np.ndarray:
    """Set the range of the y axis; return which values are beyond it."""
    beyond = objective.sign * values < objective.sign * worst
    inside = values[~beyond]
    if len(inside):
        low, high = float(inside.min()), float(inside.max())
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        axes.set_ylim(low - margin, high + margin)
    return beyond


@style
def optimization_history(records: Sequence[TrialRecord], objective: Objective) -> Figure:
    """Plot the values of trials in order, and the best so far.

    A pruned trial is shown at the best value that it had reported; a failed one on the lower edge.

    Args:
        records: Trials of the study.
        objective: First objective.
    """
    parts = Parts.of(records)
    numbers, values = np.array([record.number for record in parts.complete]), parts.values()
    ended = [(record.number, value) for record in parts.pruned if (value := record.best_reported(objective)) is not None]
    pruned = np.array([pair for pair in ended if abs(pair[1]) < HUGE], float).reshape(-1, 2)
    figure = Figure(figsize=(8, 4.4))
    axes = figure.add_subplot()
    worst = limit(np.concatenate([values, pruned[:, 1]]), objective)
    drawn = np.concatenate([values, pruned[:, 1]])
    beyond = set_limits(axes, drawn, worst, objective)
    x = np.concatenate([numbers, pruned[:, 0]])
    size = 40 if len(x) <= 30 else 22 if len(x) <= 200 else 12
    alpha = opacity(len(x))
    if len(values):
        inside = ~beyond[: len(values)]
        axes.scatter(
            numbers[inside], values[inside], s=size, color=BLUE, alpha=alpha, lw=0, zorder=3, label=f"{len(values):,} complete"
        )
        running = objective.sign * np.maximum.accumulate(objective.sign * values)
        last = max(record.number for record in records)
        axes.plot(
            [*numbers, last],
            [*running, running[-1]],
            drawstyle="steps-post",
            color=BLACK,
            lw=1.6,
            zorder=4,
            label="best so far",
        )
    if len(pruned):
        inside = pruned[~beyond[len(values) :]]
        name = f"{len(pruned):,} pruned, best value until then"
        axes.scatter(*inside.T, s=size, facecolors="none", edgecolors=GRAY, linewidths=1, alpha=max(alpha, 0.45), label=name)
    edge = axes.get_xaxis_transform()
    bottom = 0.0 if objective.better == "max" else 1.0
    if beyond.any():
        marker = "v" if objective.better == "max" else "^"
        name = f"{beyond.sum():,} worse than {objective.read.text(worst)}"
        axes.scatter(
            x[beyond], np.full(beyond.sum(), bottom), s=26, marker=marker, color=GRAY, transform=edge, clip_on=False, label=name
        )
    if parts.failed:
        failed = [record.number for record in parts.failed]
        name = f"{len(failed):,} failed"
        axes.scatter(
            failed,
            np.full(len(failed), 0.0),
            s=30,
            marker="x",
            color=RED,
            lw=1.4,
            transform=edge,
            clip_on=False,
            zorder=5,
            label=name,
        )
    if best := best_of(parts.complete, objective):
        draw_best(axes, best.number, best.values[0])
    label(axes, best_title(best, objective), "trial", axis_label(objective))
    write_values(axes, objective)
    whole_numbers(axes)
    draw_legend(figure)
    silent = len(parts.pruned) - len(pruned)
    pruned_note = f"{counted(silent, 'pruned trial')} had reported no finite value." if silent else ""
    write_notes(figure, parts.note("undefined", "running"), pruned_note)
    return figure


@style
def intermediate_values(records: Sequence[TrialRecord], objective: Objective) -> Figure:
    """Plot what trials have reported after each epoch; a cross marks where one was pruned or has failed.

    Args:
        records: Trials of the study.
        objective: First objective.
    """
    shown = [record for record in records if any(np.isfinite(v) and abs(v) < HUGE for _, v in record.reported)]
    best = best_of(records, objective)
    thinned = _thin(shown, keep=best)
    kinds = {"complete": (BLUE, ""), "running": (GREEN, ""), "pruned": (GRAY, "x"), "failed": (RED, "x")}
    figure = Figure(figsize=(8, 4.4))
    axes = figure.add_subplot()
    curves = {record.number: np.array(record.reported, float).reshape(-1, 2) for record in thinned}
    for curve in curves.values():
        curve[~(np.abs(curve[:, 1]) < HUGE), 1] = np.nan
    values = np.concatenate([c[:, 1] for c in curves.values()]) if curves else np.zeros(0)
    finite = values[np.isfinite(values)]
    worst = limit(finite, objective)
    beyond = set_limits(axes, finite, worst, objective)
    alpha = max(0.5 * opacity(len(thinned)), 0.3)
    for zorder, (state, (color, marker)) in enumerate(kinds.items(), 2):
        mine = [curves[record.number] for record in thinned if record.state == state]
        if not mine:
            continue
        name = f"{sum(record.state == state for record in shown):,} {state}"
        lines = LineCollection(mine, colors=color, linewidths=1.1, alpha=alpha, zorder=zorder, label=name)
        axes.add_collection(lines, autolim=False)
        single = np.array([c[0] for c in mine if len(c) == 1]).reshape(-1, 2)
        axes.plot(*single.T, "o", ms=4, color=color, alpha=alpha, zorder=zorder)
        if marker:
            ends = np.array([c[np.isfinite(c[:, 1])][-1] for c in mine])
            axes.plot(*ends.T, marker, ms=5, mew=1.1, ls="", color=color, alpha=max(alpha, 0.5), zorder=zorder)
    if best and best.number in curves:
        curve = curves[best.number]
        marker = "o" if len(curve) < 30 else ""
        axes.plot(*curve.T, color=ORANGE, lw=2, marker=marker, ms=3.5, zorder=8, label=f"trial {best.number}")
    if curves:
        steps = np.concatenate([c[:, 0] for c in curves.values()])
        margin = max(0.02 * (steps.max() - steps.min()), 0.2)
        axes.set_xlim(steps.min() - margin, steps.max() + margin)
    label(axes, best_title(best, objective) if shown else "no value reported yet", "epochs done", axis_label(objective))
    write_values(axes, objective)
    whole_numbers(axes)
    draw_legend(figure)
    undefined = sum(not np.isfinite(value) for record in shown for _, value in record.reported)
    write_notes(
        figure,
        f"{len(thinned):,} of {counted(len(shown), 'trial')} drawn." if len(thinned) < len(shown) else "",
        f"{counted(len(records) - len(shown), 'trial')} reported no finite value." if len(records) > len(shown) else "",
        f"{counted(undefined, 'value')} not finite, left out." if undefined else "",
        f"{counted(int(beyond.sum()), 'value')} worse than {objective.read.text(worst)} outside." if beyond.any() else "",
    )
    return figure


@style
def pareto_front(records: Sequence[TrialRecord], objectives: tuple[Objective, Objective]) -> Figure:
    """Plot one objective against another: the trials that no other dominates, and the region that they reach.

    Args:
        records: Trials of the study, with a value for each objective.
        objectives: The first two.
    """
    x_axis, y_axis = objectives
    complete = [r for r in records if r.state == "complete"]
    points = np.array([[np.nan if (v := r.value(i)) is None else v for i in (0, 1)] for r in complete], float).reshape(-1, 2)
    finite = (np.abs(points) < HUGE).all(1)
    numbers = np.array([r.number for r in complete], int)[finite]
    points = points[finite]
    front = on_front(points, (x_axis.better, y_axis.better))
    figure = Figure(figsize=(7, 5))
    axes = figure.add_subplot()
    for name, objective, column in (("x", x_axis, points[:, 0]), ("y", y_axis, points[:, 1])):
        if len(column) and column.min() > 0 and column.max() / column.min() > 50:
            set_log(axes, column.min(), column.max(), axis=name)
        elif len(column):
            low, high = float(column.min()), float(column.max())
            margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
            getattr(axes, f"set_{name}lim")(low - margin, high + margin)
        write_values(axes, objective, axis=name)
    dominated = points[~front]
    if len(dominated):
        name = f"{len(dominated):,} dominated"
        axes.scatter(*dominated.T, s=24, color=GRAY, lw=0, alpha=max(opacity(len(dominated)), 0.25), label=name)
    if front.any():
        order = np.lexsort((-y_axis.sign * points[front, 1], points[front, 0]))
        line, names = points[front][order], numbers[front][order]
        # In between, the value of the neighbor on the better side of x is reached.
        where = "steps-post" if x_axis.better == "min" else "steps-pre"
        axes.plot(*line.T, drawstyle=where, color=BLUE, lw=1.6, zorder=3)
        axes.scatter(
            *line.T, s=46, color=BLUE, edgecolors="white", linewidths=0.8, zorder=4, label=f"{len(line):,} on the front"
        )
        _write_numbers(axes, names, line)
    title = f"{counted(int(front.sum()), 'trial')} that no other dominates" if front.any() else "no complete trial yet"
    label(axes, title, axis_label(x_axis), axis_label(y_axis))
    draw_legend(figure)
    parts = Parts.of(records)
    undefined = int((~finite).sum())
    write_notes(
        figure,
        f"Not shown: {undefined:,} with a value that is not finite." if undefined else "",
        parts.note("pruned", "failed", "running").replace("Not shown: ", "Without values: "),
    )
    return figure


def _write_numbers(axes: Axes, numbers: np.ndarray, points: np.ndarray) -> None:
    """Write the numbers of trials beside their points, where there is room."""
    taken: list[np.ndarray] = []
    for number, point in zip(numbers, points, strict=True):
        at = axes.transData.transform(point)
        if all(abs(at - other)[0] > 30 or abs(at - other)[1] > 14 for other in taken):
            taken.append(at)
            place = {"xytext": (5, 5), "textcoords": "offset points"}
            axes.annotate(f"{number}", point, **place, fontsize=8, color=BLACK, zorder=5)


def _thin(records: Sequence[TrialRecord], *, keep: TrialRecord | None) -> list[TrialRecord]:
    """Return trials that are evenly chosen by their place, and one to keep."""
    if len(records) <= MOST_CURVES:
        return [*records]
    chosen = {records[i].number for i in np.linspace(0, len(records) - 1, MOST_CURVES).astype(int)}
    return [record for record in records if record.number in chosen or record is keep]
