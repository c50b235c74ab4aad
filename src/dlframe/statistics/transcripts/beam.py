"""Search for the most probable text of CTC outputs, with a model of letters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Prefix = tuple[int, ...]


def beam_search(
    log_probabilities: np.ndarray,
    *,
    width: int,
    letters: np.ndarray | None = None,
    weight: float = 0.0,
    bonus: float = 0.0,
) -> list[tuple[Prefix, float]]:
    """Return the best texts as letters and their logarithmic scores, the best first.

    Prefix beam search (Hannun et al. 2014, arXiv 1408.2873): the paths of a text are added up, those that end in a blank apart
    from those that end in its last letter. The score of a text is ln P(text | audio) + weight ln P(text) + bonus letters.

    Args:
        log_probabilities: (steps, 1 + letters) natural logarithms; the blank is first.
        width: Texts that are kept at each step.
        letters: (1 + letters, ..., letters) logarithms of the probability of a letter after those before it, see
            `fit_letters`; None for no model.
        weight: Weight of the model of letters.
        bonus: Addition to the score for each letter.
    """
    count = log_probabilities.shape[1] - 1
    before = 0 if letters is None else letters.ndim - 1
    # Text -> ln P of paths that end in a blank, of those that end in its last letter, and what is added to its score.
    beams: dict[Prefix, tuple[float, float, float]] = {(): (0.0, -math.inf, 0.0)}
    for step in log_probabilities.tolist():
        found: dict[Prefix, list[float]] = {}
        for text, (blank, letter, added) in beams.items():
            total = _sum(blank, letter)
            own = found.setdefault(text, [-math.inf, -math.inf, added])
            own[0] = _sum(own[0], total + step[0])
            if text:
                own[1] = _sum(own[1], letter + step[1 + text[-1]])
            row = None
            if letters is not None:
                row = letters[(*([count] * max(0, before - len(text))), *text[len(text) - min(before, len(text)) :])]
            for symbol in range(count):
                came = (blank if text and text[-1] == symbol else total) + step[1 + symbol]
                if came == -math.inf:
                    continue
                longer = (*text, symbol)
                if longer not in found:
                    extra = bonus + (weight * float(row[symbol]) if row is not None else 0.0)
                    found[longer] = [-math.inf, -math.inf, added + extra]
                found[longer][1] = _sum(found[longer][1], came)
        ranked = sorted(found.items(), key=lambda item: (-(_sum(item[1][0], item[1][1]) + item[1][2]), item[0]))
        beams = {text: (values[0], values[1], values[2]) for text, values in ranked[:width]}
    scored = [(text, _sum(blank, letter) + added) for text, (blank, letter, added) in beams.items()]
    return sorted(scored, key=lambda item: (-item[1], item[0]))


def _sum(one: float, other: float) -> float:
    """Return ln(e^one + e^other)."""
    high, low = (one, other) if one >= other else (other, one)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def fit_letters(texts: Sequence[np.ndarray], count: int, order: int) -> np.ndarray:
    """Return ln P(letter | letters before it), fitted on texts, (1 + count, ..., count) with `order` axes.

    Interpolated by Witten and Bell (1991): the weight of a context is its occurrences divided by these and the number of
    letters that followed it; the rest is that of the shorter context, and finally uniform.

    Args:
        texts: Letters (length,) of each text.
        count: Letters of the alphabet; `count` itself stands for what is before a text.
        order: Letters that are looked at, the predicted one included.
    """
    estimate = np.full(count, 1 / count)
    for size in range(1, order + 1):
        seen = np.zeros([1 + count] * (size - 1) + [count])
        for text in texts:
            padded = np.r_[[count] * (size - 1), text].astype(int)
            windows = np.lib.stride_tricks.sliding_window_view(padded, size) if len(text) else np.zeros((0, size), int)
            np.add.at(seen, tuple(windows.T), 1)
        total, kinds = seen.sum(-1, keepdims=True), (seen > 0).sum(-1, keepdims=True)
        # A context of one letter more stands in the first axis, over which the shorter ones are broadcast.
        mixed = (seen + kinds * estimate) / np.maximum(total + kinds, 1)
        estimate = np.where(total > 0, mixed, estimate)
    return np.log(estimate)
