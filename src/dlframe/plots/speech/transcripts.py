"""Figures of transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, RED, end_of, label, short, style

MOST_LETTERS = 60
"""Letters over a spectrogram; of a longer text, its words."""

BARS = 24
"""Bars of a panel at most."""


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
    figure = Figure(figsize=(9, 2.7 * len(heard) + 0.4))
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
        few = len(one.letters) <= MOST_LETTERS
        turned = {} if few else {"rotation": 50, "rotation_mode": "anchor", "fontsize": 7}
        for time, text in one.letters if few else words_of(one.letters):
            axes.axvline(time, color=BLUE, lw=0.5, alpha=0.5)
            axes.text(time, one.features.shape[1] * 1.02, text if text != " " else "␣", color=BLUE, **{"fontsize": 9, **turned})
        label(axes, "", f"seconds\n{fill(short(marked(one.words), 240), 120)}", "mel filter")
        axes.set_title(f"{short(one.name, 60)}, {seconds:.2f} s", pad=16 if few else 40)
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
        axes.text(0.09, -row - 0.5, short(name, 30), va="center", fontsize=8)
        text = fill(short(marked(words), 200), 106)
        axes.text(0.32, -row - 0.5, text, va="center", fontsize=8)
    axes.set_title(title or "Worst utterances")
    axes.text(0.32, 0.2, "[said → heard]   [- missed]   [+ inserted]", fontsize=8, color=BLUE)
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
    figure = Figure(figsize=(9, 3.8))
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (name, members) in zip(panels, groups.items(), strict=True):
        names, inverse = np.unique(np.asarray(members), return_inverse=True)
        named = names.dtype.kind == "U"
        if not named and len(names) > BARS:  # ranges of about as many utterances each
            cuts = np.unique(np.quantile(np.asarray(members), np.linspace(0, 1, BARS // 2 + 1), method="higher"))
            inverse = np.clip(np.searchsorted(cuts, np.asarray(members), side="left") - 1, 0, None)
            low = [cuts[0], *(cuts[1:-1] + 1)]
            names = np.array([f"{a}" if a == b else f"{a} to {b}" for a, b in zip(low, cuts[1:], strict=True)])
        rates = np.bincount(inverse, errors, len(names)) / np.maximum(np.bincount(inverse, words, len(names)), 1)
        order = np.argsort(-rates, kind="stable")[:BARS] if named else np.arange(len(names))
        axes.bar(np.arange(len(order)), 100 * rates[order], color=BLUE)
        axes.axhline(100 * errors.sum() / max(words.sum(), 1), color=RED, lw=1, ls="--")
        texts = [end_of(str(names[i]), 14) for i in order]
        turned = sum(map(len, texts)) > 40
        axes.set_xticks(np.arange(len(order)), texts, rotation=90 if turned else 0, ha="center", fontsize=8)
        axes.grid(False, axis="x")
        shown = f"{name}: the worst {BARS} of {len(names)}" if len(order) < len(names) else name
        label(axes, "", shown, "word error rate (%), dashed: of all")
    if title:
        figure.suptitle(title)
    return figure


def words_of(letters: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the words of letters, with the times of their first ones."""
    found: list[tuple[float, str]] = []
    ended = True
    for time, letter in letters:
        if letter == " ":
            ended = True
        elif ended:
            found.append((time, letter))
            ended = False
        else:
            found[-1] = (found[-1][0], found[-1][1] + letter)
    return found


def marked(words: Sequence[tuple[str, str]]) -> str:
    """Return words with their edits in brackets."""
    parts = []
    for said, heard in words:
        edit = f"[{said}\u00a0→\u00a0{heard}]" if said and heard else f"[-\u00a0{said}]" if said else f"[+\u00a0{heard}]"
        parts.append(said if said == heard else edit)
    return " ".join(parts)
