"""Figures of detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from dlframe.plots.style import BLUE, GREEN, ORANGE, RED, label, picture, short, style
from dlframe.statistics.intervals import wilson


@dataclass(frozen=True)
class Mark:
    """How a kind of box is drawn: line, sign and color each tell it alone.

    Attributes:
        color: Color of line and text.
        line: Style of the line.
        sign: Text before the class.
        name: Name in the legend.
    """

    color: str
    line: Literal["-", ":", "--", "-."]
    sign: str
    name: str


LETTER, LINE = 0.6, 1.25
"""Width of a letter and height of a line, relative to the size of the font."""

HIT = Mark(GREEN, "-", "", "hit")
ALARM = Mark(RED, ":", "? ", "false alarm")
MISS = Mark(ORANGE, "--", "missed ", "missed object")
IGNORED = Mark(BLUE, "-.", "ignored ", "ignored")


@dataclass(frozen=True)
class Drawn:
    """Box to draw.

    Attributes:
        box: Left, top, right, bottom in pixels.
        text: Its class, with the confidence of a detection.
        mark: What it is.
    """

    box: Sequence[float]
    text: str
    mark: Mark


def _draw(axes: Axes, image: np.ndarray, boxes: Sequence[Drawn], size: float, inch: float) -> None:
    """Draw an image with boxes and names of `size` points; an inch of the figure has `inch` pixels of the image."""
    picture(axes, image)
    axes.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))
    axes.axis("off")
    for one in boxes:
        left, top, right, bottom = one.box
        shape = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False)
        shape.set(edgecolor=one.mark.color, linestyle=one.mark.line, linewidth=0.18 * size)
        shape.set_path_effects([withStroke(linewidth=0.18 * size + 1.2, foreground="white")])
        axes.add_patch(shape)
    taken: list[tuple[float, float, float, float]] = []
    for one in boxes:
        words = one.mark.sign + one.text
        length, line = LETTER * size / 72 * inch * len(words), LINE * size / 72 * inch
        taken.append(_free_place(one.box, (length, line), (image.shape[2], image.shape[1]), taken))
        text = axes.text(taken[-1][0] - 0.5, taken[-1][1] - 0.5, words, clip_on=True, fontsize=size, color=one.mark.color)
        text.set(va="top", ha="left")
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _free_place(
    box: Sequence[float],
    name: tuple[float, float],
    image: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Return where a name is written: above, below or in its box, in the image, and on other names as little as possible.

    Args:
        box: Left, top, right and bottom of the box.
        name: Width and height of the name.
        image: Width and height of the image.
        taken: Left, top, right and bottom of the other names.
    """
    (left, top, right, bottom), (length, line) = box, name
    best, least = (0.0, 0.0, 0.0, 0.0), np.inf
    for y in (
        top - line,
        bottom,
        top,
        bottom - line,
        *(y for k in (1, 2, 3) for y in (top - (k + 1) * line, bottom + k * line)),
    ):
        for x in (left, right - length):
            x0, y0 = max(0.0, min(x, image[0] - length)), max(0.0, min(y, image[1] - line))
            place = (x0, y0, x0 + length, y0 + line)
            over = sum(
                max(0.0, min(place[2], other[2]) - max(x0, other[0])) * max(0.0, min(place[3], other[3]) - max(y0, other[1]))
                for other in taken
            )
            if over < least:
                best, least = place, over
    return best


@style
def drawn(image: np.ndarray, boxes: Sequence[Drawn]) -> Figure:
    """Draw boxes on one image, in its own size.

    Args:
        image: (channels, height, width) uint8.
        boxes: What to draw.
    """
    height, width = image.shape[1:]
    figure = Figure(figsize=(max(width, 240) / 120, max(height, 240) / 120))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    _draw(axes, image, boxes, 7, 120)
    return figure


@style
def detections(images: Sequence[np.ndarray], boxes: Sequence[Sequence[Drawn]], title: str) -> Figure:
    """Draw images with hits, false alarms and missed objects.

    Args:
        images: Up to 12 of (channels, height, width) uint8.
        boxes: Boxes of each image.
        title: Title.
    """
    shape = images[0].shape
    columns = min(3 if shape[2] > 2 * shape[1] else 4, max(1, len(images)))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(12, 0.9 + rows * 12 / columns * shape[1] / shape[2]))
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, image, own in zip(panels, images, boxes, strict=False):
        _draw(axes, image, own, 7, image.shape[2] * columns / 12)
    marks = {one.mark.name: one.mark for own in boxes for one in own} or {HIT.name: HIT}
    lines = [Line2D([], [], color=mark.color, linestyle=mark.line, label=name) for name, mark in sorted(marks.items())]
    figure.legend(handles=lines, loc="outside lower left", ncols=len(lines))
    return figure


LINES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")


@style
def precision_recall(recalls: np.ndarray, precision: Mapping[str, np.ndarray]) -> Figure:
    """Plot precision over recall by class, those of the largest area first.

    Args:
        recalls: (points,) recalls.
        precision: Class -> (points,) precision.
    """
    figure = Figure(figsize=(7.5, 5))
    axes = figure.add_subplot()
    ranked = sorted(precision.items(), key=lambda item: -item[1].mean())
    for i, (name, values) in enumerate(ranked[:20]):
        text = f"{short(name)} {values.mean():.1%}"
        axes.plot(recalls, values, LINES[i % len(LINES)], color=COLORS[i % len(COLORS)], lw=1.5, label=text)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    rest = f", the best 20 of {len(ranked)}" if len(ranked) > 20 else ""
    label(axes, f"average precision by class at an overlap of 0.5{rest}", "recall", "precision")
    figure.legend(loc="outside right upper")
    return figure


@style
def found_by(groups: Mapping[str, Mapping[str, tuple[int, int]]]) -> Figure:
    """Plot the fraction of objects that were found, by size, class and the like, with 95 % Wilson intervals.

    Args:
        groups: Title -> name of a group -> (found, all) objects.
    """
    figure = Figure(figsize=(4.2 * len(groups), 4.2))
    for axes, (title, rows) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        names = [f"{short(name, 16)} ({total:,})" for name, (_, total) in rows.items()]
        value = np.array([found / total for found, total in rows.values()])
        bounds = np.array([wilson(found, total) for found, total in rows.values()]).T
        axes.barh(names, value, color=BLUE, xerr=np.abs(bounds - value), error_kw={"elinewidth": 1, "capsize": 2})
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        label(axes, title, "found", "")
    return figure
