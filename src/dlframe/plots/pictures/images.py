"""Figures of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlframe.plots.style import GREEN, RED, picture, short, style


@style
def samples(
    images: np.ndarray, targets: ArrayLike, predictions: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> Figure:
    """Plot up to 16 errors, the least confident first, and 8 correct predictions.

    Args:
        images: (samples, channels, height, width) uint8.
        targets: (samples,) true class indices.
        predictions: (samples,) predicted class indices.
        scores: (samples,) confidence of the predictions, in [0, 1].
        classes: Class names.
    """
    targets, predictions, scores = np.asarray(targets), np.asarray(predictions), np.asarray(scores)
    order = np.argsort(scores, kind="stable")
    right = order[(targets == predictions)[order]]
    mistakes = order[(targets != predictions)[order]]
    wrong = mistakes[:16]
    right = right[np.unique(np.linspace(0, len(right) - 1, min(8, len(right)), dtype=int))]
    names = [short(name, 14) for name in classes]
    columns = 8
    parts = ((RED, wrong), (GREEN, right))
    rows = [(color, part[i : i + columns]) for color, part in parts for i in range(0, len(part), columns)]
    figure = Figure(figsize=(12, 0.4 + 2.0 * len(rows)))
    title = f"the least confident {len(wrong)} of {len(mistakes)} mistakes, and {len(right)} that are right"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for row, (color, part) in zip(panels, rows, strict=True):
        for axes, i in zip(row, part, strict=False):
            picture(axes, images[i])
            true, predicted = names[int(targets[i])], names[int(predictions[i])]
            text = predicted if targets[i] == predictions[i] else f"{predicted}\nnot {true}"
            axes.set_title(f"{text}\n{scores[i]:.0%}", fontsize=9, color=color, weight="normal", loc="center")
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
