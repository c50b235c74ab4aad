"""Figures of anomaly scores: histograms, precision-recall curve, heat maps, events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, GRAY, GREEN, ORANGE, RED, in_square, label, legend_below, short, style, whole_picture

BINS = 60


@style
def score_histograms(
    scores: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    normal: Sequence[str],
    threshold: float,
    *,
    title: str = "",
) -> Figure:
    """Plot histograms of anomaly scores by class with the threshold.

    Args:
        scores: (samples,) finite or infinite scores.
        labels: (samples,) class indices.
        classes: Class names.
        normal: Names of the classes of normal samples.
        threshold: Scores above it are flagged.
        title: Title of the figure.
    """
    values, labels = np.asarray(scores, float), np.asarray(labels)
    finite = values[np.isfinite(values)]
    kinds = np.array([name in normal for name in classes])[labels]
    # A few huge scores would hide all others: they are in the last bin.
    low, high = (finite.min(), np.quantile(finite, 0.995)) if len(finite) else (0.0, 1.0)
    high = max(high, threshold if np.isfinite(threshold) else high)
    high = low + 1.05 * (high - low) if high > low else low + 1
    wide = low > 0 and high > 50 * low
    edges = (np.geomspace if wide else np.linspace)(low, high, (BINS if len(values) > 2000 else BINS // 2) + 1)
    clipped = np.clip(values, edges[0], edges[-1])
    shown = [("normal", BLUE, kinds), ("anomaly", ORANGE, ~kinds)]
    figure = Figure(figsize=(7.5, 4.2))
    axes = figure.add_subplot()
    for name, color, own in shown:
        if own.any():
            weights = np.full(int(own.sum()), 1 / own.sum())
            over = np.mean(values[own] > threshold)
            axes.hist(
                clipped[own],
                edges.tolist(),
                weights=weights,
                color=color,
                alpha=0.6,
                label=f"{name}: {own.sum():,} samples, {over:.1%} flagged",
            )
    anomalous = list(map(int, np.unique(labels[~kinds])))
    if 1 < len(anomalous) <= 12:
        names = ", ".join(f"{short(classes[i], 14)} {np.mean(values[labels == i] > threshold):.0%}" for i in anomalous)
        axes.plot([], [], " ", label=_wrapped(f"flagged of {names}"))
    if np.isfinite(threshold):
        axes.axvline(threshold, color="black", ls="--", lw=1.2, label=f"threshold {threshold:.4g}")
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    legend_below(axes)
    rest = int((values > edges[-1]).sum())
    more = f"; the last bin has {rest:,} larger ones" if rest else ""
    label(axes, title, f"anomaly score{more}", "fraction of samples")
    return figure


def _wrapped(text: str, width: int = 90) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


@style
def threshold_curve(scores: ArrayLike, targets: ArrayLike, threshold: float, *, title: str = "") -> Figure:
    """Plot the precision-recall curve with the chosen threshold.

    Args:
        scores: (samples,) scores.
        targets: (samples,) 0 for normal, 1 for anomaly; at least one is 1.
        threshold: Scores above it are flagged.
        title: Title of the figure.
    """
    values, positive = np.asarray(scores, float), np.asarray(targets) == 1
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)  # equal scores are one step
    hits = np.cumsum(positive[order])[last]
    precision, recall = hits / (last + 1), hits / positive.sum()
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    rate = positive.mean()
    figure = Figure(figsize=(6, 4.6))
    axes = figure.add_subplot()
    axes.step(np.append(0, recall), np.append(precision[0], precision), where="pre", color=BLUE, lw=1.6)
    axes.axhline(rate, color=GRAY, ls="--", lw=1, label=f"base rate {rate:.1%}")
    flagged = values > threshold
    if flagged.any():
        own = float(positive[flagged].mean()), float(flagged[positive].mean())
        axes.plot(own[1], own[0], "o", color=RED, ms=7, label=f"threshold: precision {own[0]:.1%}, recall {own[1]:.1%}")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    legend_below(axes, columns=2)
    label(axes, f"{title}, average precision {area:.1%}".lstrip(", "), "recall", "precision")
    return figure


@style
def heat_maps(
    images: Sequence[np.ndarray],
    maps: np.ndarray,
    scores: ArrayLike,
    names: Sequence[str],
    flags: ArrayLike,
    masks: np.ndarray | None = None,
    places: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """Plot images, and below them the scores of their pixels, with the outline of the mask.

    Args:
        images: Each (channels, height, width), uint8.
        maps: (samples, height, width) scores of pixels; all share one color scale.
        scores: (samples,) scores.
        names: (samples,) classes.
        flags: (samples,) whether the image is flagged.
        masks: (samples, 1, height, width), nonzero where a pixel is anomalous; None without masks.
        places: Left, top, right and bottom of each map in pixels of its image; None for all of it.
    """
    scores, flags = np.asarray(scores), np.asarray(flags)
    columns = min(6, max(1, len(images)))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.1 * columns, 4.5 * rows + 0.5))
    figure.suptitle("anomaly scores of pixels; red: flagged", x=0.01, ha="left", weight="bold")
    panels = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    low, high = (float(np.quantile(maps, 0.02)), float(np.quantile(maps, 0.998))) if maps.size else (0.0, 1.0)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        upper, lower = panels[2 * row, column], panels[2 * row + 1, column]
        height, width = image.shape[1:]
        left, top, right, bottom = places[i] if places is not None else (0, 0, width, height)
        place = (left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)
        whole_picture(upper, image)
        upper.set_title(
            f"{short(names[i], 16)}\n{scores[i]:.3g}",
            fontsize=9,
            color=RED if flags[i] else GREEN,
            weight="normal",
            loc="center",
        )
        lower.imshow(image.mean(0), cmap="gray", vmin=0, vmax=255)
        drawn: list[Artist] = [
            lower.imshow(maps[i], cmap="inferno", vmin=low, vmax=max(high, low + 1e-12), alpha=0.75, extent=place)
        ]
        if masks is not None and masks[i].any():
            outline = {"levels": [0.5], "colors": ["#56B4E9"], "linewidths": 1.2}
            drawn.append(lower.contour(masks[i, 0] > 0, extent=place, origin="upper", **outline))
        for artist in drawn:  # not on margins that were padded
            artist.set_clip_path(Rectangle((-0.5, -0.5), width, height, transform=lower.transData))
        in_square(lower, image)
    return figure


@style
def event_scores(
    values: ArrayLike, scores: ArrayLike, targets: ArrayLike, threshold: float, *, title: str = "", unit: str = "value"
) -> Figure:
    """Plot a series with its events, and the scores of its steps with the threshold.

    Args:
        values: (steps,) values of the series.
        scores: (steps,) anomaly scores.
        targets: (steps,) 1 in events, else 0.
        threshold: Scores above it are flagged.
        title: Title of the figure.
        unit: Name of the values.
    """
    values, scores, inside = np.asarray(values, float), np.asarray(scores, float), np.asarray(targets) == 1
    figure = Figure(figsize=(10, 5))
    upper, lower = figure.subplots(2, sharex=True)
    steps = np.arange(len(values))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(int), [0]])))
    for axes in (upper, lower):
        for n, (start, stop) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
            name = f"events: {len(edges) // 2:,}" if not n and axes is upper else None
            axes.axvspan(start - 0.5, stop - 0.5, color=ORANGE, alpha=0.3, lw=0, label=name)
    flagged = scores > threshold
    upper.plot(steps, values, color="black", lw=0.8)
    upper.plot(steps[flagged], values[flagged], "o", color=RED, ms=3, label=f"flagged steps: {flagged.sum():,}")
    lower.plot(steps, scores, color=BLUE, lw=0.8)
    if np.isfinite(threshold):
        lower.axhline(threshold, color="black", ls="--", lw=1, label=f"threshold {threshold:.4g}")
    for axes in (upper, lower):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
    label(upper, title, "", unit)
    label(lower, "", "step", "anomaly score")
    return figure
