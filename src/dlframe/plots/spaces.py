"""Figures of what a study searches: which options lead to which values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from dlframe.plots.studies import (
    BLACK,
    HUGE,
    Parts,
    axis_label,
    best_title,
    counted,
    draw_best,
    limit,
    number_text,
    opacity,
    set_limits,
    set_log,
    value_text,
    write_notes,
    write_values,
)
from dlframe.plots.style import BLUE, GRAY, ORANGE, RED, label, short, style
from dlframe.types import Objective, TrialRecord, best_of, printable

MOST_LINES = 1000
"""Lines that a figure draws; more would hide one another."""
MOST_PANELS = 16
MOST_AXES = 14
MOST_BARS = 20
ROWS = {"not used": -0.13, "pruned": -0.13, "failed": -0.23}
"""Places below the axes, whose own range is from 0 to 1."""
SCALE = LinearSegmentedColormap.from_list("worst to best", matplotlib.colormaps["viridis_r"](np.linspace(0.08, 1, 256)))
"""From light green to dark violet: what is dark is good."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """An option that varies.

    Attributes:
        key: The option.
        values: Its choices as one types them; empty for numbers.
        log: Whether ratios count, not differences.
    """

    key: str
    values: tuple[str, ...] = ()
    log: bool = False


class Axis:
    """Place of each trial on the axis of an option.

    An option without choices whose values are not all finite numbers is treated as one with choices; of choices that are
    numbers, the order is theirs.

    Args:
        dimension: The option.
        records: Trials; one without the option has no place.
    """

    def __init__(self, dimension: Dimension, records: Sequence[TrialRecord]) -> None:
        self.key = dimension.key
        texts = [record.options.get(dimension.key) for record in records]
        found = [text for text in texts if text is not None]
        numbers = [_number(text) for text in found]
        self.values: tuple[str, ...] = ()
        if dimension.values or None in numbers:
            values = [*dict.fromkeys([*dimension.values, *found])]
            if None not in (read := [_number(value) for value in values]):
                values = [value for _, value in sorted(zip(read, values, strict=True))]  # type: ignore[type-var]
            self.values = (*values,)
        self.log = dimension.log and not self.values and bool(numbers) and all(number and number > 0 for number in numbers)
        index = {value: float(i) for i, value in enumerate(self.values)}
        place: Callable[[str], float | None] = index.get if self.values else _number
        self.places = np.array([np.nan if text is None else place(text) for text in texts], float)
        self.used = ~np.isnan(self.places)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest place."""
        if self.values:
            return 0.0, float(len(self.values) - 1)
        used = self.places[self.used]
        return (float(used.min()), float(used.max())) if len(used) else (0.0, 1.0)

    def scaled(self, places: np.ndarray) -> np.ndarray:
        """Return places in [0, 1]; all are 0.5 where the bounds are equal."""
        low, high = self.bounds
        if self.log:
            low, high, places = math.log10(low), math.log10(high), np.log10(places)
        return (places - low) / (high - low) if high > low else np.where(np.isnan(places), np.nan, 0.5)

    def ticks(self) -> list[tuple[float, str]]:
        """Return scaled places and their names; none of numbers that no trial has."""
        if not self.values and not self.used.any():
            return []
        low, high = self.bounds
        if self.values:
            every = -(-len(self.values) // 14)
            places = np.arange(0, len(self.values), every, dtype=float)
            names = [short(printable(value), 14) for value in self.values[::every]]
        else:
            if self.log and high / low > 30:
                places = np.array(LogLocator(numticks=7).tick_values(low, high))
            else:
                places = np.array(MaxNLocator(5).tick_values(low, high))
            places = places[(places >= low) & (places <= high)]
            places = places if len(places) else np.array([low])
            names = [number_text(place) for place in places]
        return [*zip(map(float, self.scaled(places)), names, strict=True)]

    def lines(self) -> np.ndarray:
        """Return the height of each line on the axis: those of one value side by side, in the order of the trials."""
        heights = np.where(self.used, self.scaled(self.places), ROWS["not used"])
        if len(np.unique(self.places[self.used])) > 12:
            return heights
        order = np.arange(len(heights)) / max(len(heights) - 1, 1) - 0.5
        band = min(0.06, len(heights) / 1500, 0.3 / max(len(self.values), 2))
        return heights + band * order


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < HUGE else None


def _wrapped(key: str, width: int = 15) -> str:
    """Break a key at its dots and underscores, in at most three lines."""
    words = printable(key).replace(".", ".\u200b").replace("_", "_\u200b").split("\u200b")
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += short(word, width + 1)
    return "\n".join(lines if len(lines) <= 3 else [lines[0], "…", lines[-1]])


@style
def parallel_coordinates(records: Sequence[TrialRecord], dimensions: Sequence[Dimension], objective: Objective) -> Figure:
    """Plot each trial as a line through its options to its value, the best in dark colors on top.

    An option that a trial does not have is in the row "not used"; trials without a value lead to the rows "pruned" and
    "failed".

    Args:
        records: Trials of the study.
        dimensions: Options, from left to right.
        objective: First objective.
    """
    parts = Parts.of(records)
    values = parts.values()
    worst = limit(values, objective)
    clipped = objective.sign * np.maximum(objective.sign * values, objective.sign * worst)
    order = np.argsort(objective.sign * values, kind="stable")  # the best is drawn last
    if len(order) > MOST_LINES:
        best = order[-100:]
        order = np.concatenate([order[np.linspace(0, len(order) - 101, MOST_LINES - 100).astype(int)], best])
    without = [*parts.pruned, *parts.failed]
    dropped = without[: max(len(without) - MOST_LINES, 0)]
    without = without[len(dropped) :]
    complete = [parts.complete[i] for i in order]
    shown = [*without, *complete]
    axes_of = [Axis(dimension, shown) for dimension in dimensions[:MOST_AXES]]
    low, high = (float(clipped.min()), float(clipped.max())) if len(clipped) else (0.0, 1.0)
    lines = np.stack([axis.lines() for axis in axes_of] + [np.zeros(len(shown))], 1)
    lines[: len(without), -1] = [ROWS[record.state] for record in without]
    lines[len(without) :, -1] = (clipped[order] - low) / (high - low) if high > low else 0.5

    count = len(axes_of) + 1
    figure = Figure(figsize=(float(np.clip(1.55 * count + 1.2, 6.4, 22)), 5))
    axes = figure.add_subplot()
    axes.axis("off")
    x = np.arange(count)
    segments = [np.column_stack([x, line]) for line in lines]
    alpha = opacity(len(complete))
    if without:
        axes.add_collection(
            LineCollection(segments[: len(without)], colors=GRAY, linewidths=0.7, alpha=0.5 * opacity(len(without)), zorder=2),
            autolim=False,
        )
    if complete:
        rank = np.arange(len(complete)) / max(len(complete) - 1, 1)
        drawn = LineCollection(segments[len(without) :], cmap=SCALE, zorder=3)
        goodness = objective.sign * clipped[order]
        drawn.set_array(goodness)
        drawn.set_linewidth([*np.where(rank > 0.95, 1.8, 1.2)])
        drawn.set_alpha([*np.clip(alpha + (1 - alpha) * rank**12, 0, 0.95)])
        axes.add_collection(drawn, autolim=False)
        axes.plot(x, lines[-1], color=ORANGE, lw=2.2, zorder=4)
    for place, axis in enumerate(axes_of):
        _draw_axis(axes, place, _wrapped(axis.key), axis.ticks())
        if not axis.used.all():
            _draw_row(axes, place, "not used", place == 0)
    ticks = MaxNLocator(5).tick_values(low, high)
    ticks = [t for t in ticks if low <= t <= high] if high > low else [low]
    names = [(_scaled(t, low, high), value_text(t, objective)) for t in ticks]
    direction = "higher" if objective.better == "max" else "lower"
    name = f"{_wrapped(objective.metric)}\n({direction} is better)"
    _draw_axis(axes, count - 1, name, names if complete else [], right=True)
    for state in {record.state for record in without}:
        _draw_row(axes, count - 1, state, False, right=True)
    axes.set_xlim(-0.35, count - 1 + 0.45)
    axes.set_ylim(min([0.0, *lines.min(1, initial=0)]) - 0.05, 1.06)
    figure.suptitle(best_title(best_of(parts.complete, objective), objective), x=0.01, ha="left", weight="bold", fontsize=12)
    if complete:
        ramp = np.linspace(0, 1, 256)[:: objective.sign]
        axes.imshow(ramp[:, None], SCALE, aspect="auto", origin="lower", extent=(count - 1, count - 0.97, 0, 1), zorder=5)
    beyond = int((clipped != values).sum())
    left_out = len(parts.complete) - len(complete)
    write_notes(
        figure,
        f"{len(axes_of)} of {len(dimensions)} options shown." if len(dimensions) > len(axes_of) else "",
        f"{len(complete):,} of {len(parts.complete):,} complete trials drawn." if left_out else "",
        f"{len(without):,} of {len(without) + len(dropped):,} trials without a value drawn." if dropped else "",
        f"{counted(beyond, 'trial')} worse than {objective.read.text(worst)} drawn there." if beyond else "",
        parts.note("undefined", "running"),
    )
    return figure


def _scaled(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _draw_axis(axes: Axes, place: int, name: str, ticks: Sequence[tuple[float, str]], *, right: bool = False) -> None:
    axes.plot([place, place], [0, 1], color=BLACK, lw=1, zorder=5)
    axes.text(place, 1.05, name, ha="center", va="bottom", fontsize=9, weight="bold", zorder=6)
    for height, text in ticks:
        axes.plot([place, place + (0.03 if right else -0.03)], [height, height], color=BLACK, lw=1, zorder=5)
        _draw_text(axes, place, height, text, right=right)


def _draw_text(axes: Axes, place: int, height: float, text: str, *, right: bool) -> None:
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    side = "left" if right else "right"
    at = place + (0.06 if right else -0.06)
    axes.text(at, height, text, ha=side, va="center", fontsize=8, color=BLACK, bbox=box, zorder=6)


def _draw_row(axes: Axes, place: int, name: str, first: bool, *, right: bool = False) -> None:
    height = ROWS[name]
    axes.plot([place], [height], "o", ms=4, color=RED if name == "failed" else GRAY, zorder=5)
    _draw_text(axes, place, height, name, right=right)


@style
def importance(shares: Mapping[str, float]) -> Figure:
    """Plot the importance of options, the largest first.

    Args:
        shares: Importance by key, such as fANOVA's fraction of the variance (Hutter et al. 2014).
    """
    finite = {key: float(share) for key, share in shares.items() if math.isfinite(share)}
    ranked = sorted(finite.items(), key=lambda pair: (-pair[1], pair[0]))
    top, rest = ranked[:MOST_BARS], ranked[MOST_BARS:]
    bars = [(printable(key), share, BLUE) for key, share in top]
    if rest:
        bars.append((f"{len(rest):,} others together", sum(share for _, share in rest), GRAY))
    figure = Figure(figsize=(7, 1.3 + 0.36 * max(len(bars), 3)))
    axes = figure.add_subplot()
    names = [_wrapped(key, 32) for key, _, _ in bars]
    drawn = axes.barh(range(len(bars)), [share for _, share, _ in bars], 0.72, color=[color for *_, color in bars])
    axes.bar_label(drawn, [f"{share:.1%}" for _, share, _ in bars], padding=4, fontsize=9)
    axes.set_yticks(range(len(bars)), names)
    axes.set_ylim(max(len(bars), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * max([share for _, share, _ in bars if share > 0], default=1))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    title = f"most important: {short(printable(top[0][0]), 40)}" if top else "importance unknown: too few complete trials"
    label(axes, "", "fraction of the variance of the value", "")
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=12)
    write_notes(
        figure,
        f"Not shown: {counted(len(shares) - len(finite), 'option')} of unknown importance." * (len(finite) < len(shares)),
    )
    return figure


@style
def slices(records: Sequence[TrialRecord], dimensions: Sequence[Dimension], objective: Objective) -> Figure:
    """Plot values over each option, one panel an option; late trials are dark.

    Args:
        records: Trials of the study.
        dimensions: Options, in order.
        objective: First objective.
    """
    parts = Parts.of(records)
    values = parts.values()
    numbers = np.array([record.number for record in parts.complete], int)
    shown = dimensions[:MOST_PANELS]
    columns = 3 if len(shown) in (5, 6, 9) else min(max(len(shown), 1), 4)
    rows = max(-(-len(shown) // columns), 1)
    figure = Figure(figsize=(max(3.1 * columns + 0.8, 5.2), 3.1 * rows + 0.5))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels.flat[len(shown) :]:
        axes.axis("off")
    worst = limit(values, objective)
    shades = LinearSegmentedColormap.from_list("early to late", ["#9ECAE9", BLUE, "#08264A"])
    best = best_of(parts.complete, objective)
    size = 36 if len(values) <= 50 else 16
    last = max(numbers, default=0)
    for i, (axes, dimension) in enumerate(zip(panels.flat, shown, strict=False)):
        axis = Axis(dimension, parts.complete)
        failed = Axis(dimension if not axis.values else Dimension(key=dimension.key, values=axis.values), parts.failed)
        beyond = set_limits(axes, values, worst, objective)
        x = _spread(axis, numbers)
        inside = axis.used & ~beyond
        alpha = max(opacity(int(inside.sum())), 0.3)
        axes.scatter(
            x[inside],
            values[inside],
            c=numbers[inside],
            cmap=shades,
            vmin=0,
            vmax=max(last, 1),
            s=size,
            lw=0,
            alpha=alpha,
            zorder=3,
        )
        if axis.log:
            set_log(axes, *axis.bounds)
        edge = axes.get_xaxis_transform()
        outside = axis.used & beyond
        height = 0.0 if objective.better == "max" else 1.0
        marker = "v" if objective.better == "max" else "^"
        axes.scatter(
            x[outside], np.full(outside.sum(), height), s=18, marker=marker, color=GRAY, transform=edge, clip_on=False, zorder=3
        )
        if not failed.values or failed.values == axis.values:
            there = _spread(failed, np.array([record.number for record in parts.failed]))[failed.used]
            axes.scatter(there, np.zeros(len(there)), s=20, marker="x", color=RED, transform=edge, clip_on=False, zorder=4)
        if best and not np.isnan(at := x[parts.complete.index(best)]):
            draw_best(axes, at, best.values[0])
        if axis.values:
            every = -(-len(axis.values) // (6 if max(map(len, axis.values)) > 5 else 12))
            texts = [short(printable(value), 12) for value in axis.values[::every]]
            turn = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, texts)) > 26 else {}
            axes.set_xticks(range(0, len(axis.values), every), texts, fontsize=8, **turn)
            axes.set_xlim(-0.6, len(axis.values) - 0.4)
        absent = int((~axis.used).sum())
        label(axes, "", _wrapped(dimension.key, 28), "")
        axes.xaxis.label.set_weight("bold")
        if absent:
            axes.set_title(f"not used in {counted(absent, 'trial')}", fontsize=8, weight="normal", color=GRAY)
        if i % columns == 0:
            axes.set_ylabel(axis_label(objective))
        write_values(axes, objective)
    figure.suptitle(best_title(best, objective), x=0.01, ha="left", weight="bold", fontsize=12)
    if len(values) > 1 and shown:
        bar = figure.colorbar(ScalarMappable(Normalize(0, last), shades), ax=panels, fraction=0.02, pad=0.01, aspect=40)
        bar.set_label("trial")
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(6, integer=True)
        bar.update_ticks()
    far = int((objective.sign * values < objective.sign * worst).sum())
    write_notes(
        figure,
        f"{counted(far, 'trial')} worse than {objective.read.text(worst)} at the edge." if far else "",
        f"Crosses: {counted(len(parts.failed), 'failed trial')}." if parts.failed else "",
        f"{len(shown)} of {len(dimensions)} options shown." if len(dimensions) > len(shown) else "",
        parts.note("undefined", "pruned", "running"),
    )
    return figure


def _spread(axis: Axis, numbers: np.ndarray) -> np.ndarray:
    """Return the places of trials, those of one choice beside each other, by the golden ratio."""
    if not axis.values:
        return axis.places
    width = 0.5 * min(1.0, len(numbers) / 60)
    return axis.places + width * ((numbers * 0.6180339887498949) % 1 - 0.5)
