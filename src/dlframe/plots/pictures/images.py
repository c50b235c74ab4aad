"""Figures of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlframe.plots.style import GREEN, RED, end_of, picture, short, style, whole_picture

MISTAKES, RIGHT = 18, 6
"""Most mistakes and right predictions that are shown."""


@style
def samples(
    image: Callable[[int], np.ndarray],
    ids: Sequence[str | int],
    targets: ArrayLike,
    predictions: ArrayLike,
    scores: ArrayLike,
    classes: Sequence[str],
) -> Figure:
    """Plot up to 18 mistakes, the most confident first, and 6 correct predictions from all levels of confidence.

    Args:
        image: Function from a sample's number to its image (channels, height, width), uint8.
        ids: (samples,) file names or numbers.
        targets: (samples,) true class indices.
        predictions: (samples,) predicted class indices.
        scores: (samples,) confidence of the predictions, in [0, 1].
        classes: Class names.
    """
    targets, predictions, scores = np.asarray(targets), np.asarray(predictions), np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    right = order[(targets == predictions)[order]]
    mistakes = order[(targets != predictions)[order]]
    wrong = mistakes[:MISTAKES]
    right = right[np.unique(np.linspace(0, len(right) - 1, min(RIGHT, len(right)), dtype=int))]
    columns = 6
    parts = ((RED, wrong), (GREEN, right))
    rows = [(color, part[i : i + columns]) for color, part in parts for i in range(0, len(part), columns)]
    figure = Figure(figsize=(12, 0.4 + 2.5 * len(rows)))
    shown = f"{len(mistakes):,} {'mistake' if len(mistakes) == 1 else 'mistakes'} in {len(targets):,} tested"
    if len(mistakes) > len(wrong):
        shown += f", {len(wrong)} of them here"
    figure.suptitle(f"{shown}, the most confident first; {len(right)} right ones last", x=0.01, ha="left", weight="bold")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for row, (color, part) in zip(panels, rows, strict=True):
        for axes, i in zip(row, part, strict=False):
            whole_picture(axes, image(int(i)))
            true, predicted = (short(str(classes[int(of[i])]), 16) for of in (targets, predictions))
            name = ids[i] if isinstance(ids[i], str) else f"sample {ids[i]}"
            told = f"predicted {predicted}\n{100 * scores[i]:.1f} %, true {true}"
            axes.set_title(told, fontsize=8.5, color=color, weight="normal", loc="center")
            axes.text(0.5, -0.03, end_of(name), transform=axes.transAxes, ha="center", va="top", fontsize=7.5)
    return figure


@style
def grid(images: np.ndarray) -> Figure:
    """Plot images in a nearly square grid.

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
    picture(axes, field)
    return figure
