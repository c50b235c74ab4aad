"""Figures of transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, RED, label, short, style


@dataclass(frozen=True)
class Heard:
    """Utterance and what was heard.

    Attributes:
        features: (frames, mels) logarithms of powers.
        letters: Letters that were heard, and their times in seconds.
        words: Pairs of a said and a heard word; "" where one is missing.
        name: Name of the utterance, and of its speaker.
    """

    features: np.ndarray
    letters: Sequence[tuple[float, str]]
    words: Sequence[tuple[str, str]]
    name: str


@style
def spectrograms(heard: Sequence[Heard], *, hop: float, title: str = "") -> Figure:
    """Plot mel spectrograms with the letters that were heard, and the words with their errors.

    Args:
        heard: Utterances, one a panel.
        hop: Seconds between two frames.
        title: Title of the figure.
    """
    figure = Figure(figsize=(9, 2.4 * len(heard) + 0.4))
    panels = figure.subplots(len(heard), squeeze=False)[:, 0]
    for axes, one in zip(panels, heard, strict=True):
        seconds = len(one.features) * hop
        low, high = np.quantile(one.features, [0.05, 0.99])
        axes.imshow(
            one.features.T,
            origin="lower",
            aspect="auto",
            cmap="gray_r",
            extent=(0, seconds, 0, one.features.shape[1]),
            vmin=low,
            vmax=max(high, low + 1e-3),
        )
        axes.grid(False)
        for time, letter in one.letters:
            axes.axvline(time, color=BLUE, lw=0.5, alpha=0.5)
            axes.text(time, one.features.shape[1] * 1.02, letter if letter != " " else "␣", color=BLUE, fontsize=9)
        label(axes, "", marked(one.words), "mel filter")
        axes.set_title(f"{short(one.name, 60)}, {seconds:.2f} s", pad=16)
    if title:
        figure.suptitle(title)
    return figure


@style
def worst_utterances(heard: Sequence[tuple[str, Sequence[tuple[str, str]], int, int]], *, title: str = "") -> Figure:
    """List utterances with the edits of their words.

    Args:
        heard: Of each utterance its name, pairs of words as in `Heard`, its errors and its words.
        title: Title of the figure.
    """
    figure = Figure(figsize=(9, 0.42 * len(heard) + 1.2))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(heard), 0.5)
    for row, (name, words, errors, count) in enumerate(heard):
        axes.text(0, -row - 0.5, f"{errors} of {count}", va="center", fontweight="bold", color=RED if errors else "black")
        axes.text(0.1, -row - 0.5, short(name, 28), va="center", fontsize=8)
        axes.text(0.36, -row - 0.5, short(marked(words), 78), va="center", fontsize=9)
    axes.set_title(title or "Worst utterances")
    axes.text(0.36, 0.2, "[said → heard]   [- missed]   [+ inserted]", fontsize=8, color=BLUE)
    return figure


@style
def error_rates(errors: ArrayLike, words: ArrayLike, groups: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Plot word error rates by speaker and by length.

    Args:
        errors: (utterances,) word errors.
        words: (utterances,) words.
        groups: Title of a panel -> (utterances,) names or numbers.
        title: Title of the figure.
    """
    errors, words = np.asarray(errors, float), np.asarray(words, float)
    figure = Figure(figsize=(9, 3.6))
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (name, members) in zip(panels, groups.items(), strict=True):
        names, inverse = np.unique(np.asarray(members), return_inverse=True)
        rates = np.bincount(inverse, errors) / np.maximum(np.bincount(inverse, words), 1)
        order = np.argsort(-rates, kind="stable")[:30] if names.dtype.kind == "U" else np.arange(len(names))
        axes.bar(np.arange(len(order)), 100 * rates[order], color=BLUE)
        texts = [short(str(names[i]), 14) for i in order]
        axes.set_xticks(np.arange(len(order)), texts, rotation=60 if names.dtype.kind == "U" else 0, ha="center", fontsize=8)
        label(axes, "", name, "word error rate (%)")
    if title:
        figure.suptitle(title)
    return figure


def marked(words: Sequence[tuple[str, str]]) -> str:
    """Return words with their edits in brackets."""
    parts = []
    for said, heard in words:
        edit = f"[{said} → {heard}]" if said and heard else f"[- {said}]" if said else f"[+ {heard}]"
        parts.append(said if said == heard else edit)
    return " ".join(parts)
