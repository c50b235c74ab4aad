"""Search for the most probable text of CTC outputs, with a model of letters."""

from __future__ import annotations

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
    texts: list[Prefix] = [()]
    # ln P of the paths of each text that end in a blank, and in its last letter; and what is added to its score.
    blank, letter, added = np.zeros(1), np.full(1, -np.inf), np.zeros(1)
    for step in log_probabilities:
        total = np.logaddexp(blank, letter)
        last = np.array([text[-1] if text else -1 for text in texts])
        same = np.flatnonzero(last >= 0)
        # Texts that are one letter longer (texts, letters): a letter that is the last one too needs a blank between.
        came = total[:, None] + step[1:]
        came[same, last[same]] = blank[same] + step[1 + last[same]]
        extra = np.full((len(texts), count), bonus)
        if letters is not None:
            context = [(*[count] * (before - len(text)), *text[max(0, len(text) - before) :]) for text in texts]
            extra += weight * letters[tuple(np.array(context, int).reshape(len(texts), before).T)]
        stays = np.full(len(texts), -np.inf)
        stays[same] = letter[same] + step[1 + last[same]]
        # A longer text may be kept already: its paths are added to its own.
        place = {text: i for i, text in enumerate(texts)}
        for i, text in enumerate(texts):
            if text and (shorter := place.get(text[:-1])) is not None:
                stays[i] = np.logaddexp(stays[i], came[shorter, text[-1]])
                came[shorter, text[-1]] = -np.inf
        blank, letter = np.r_[total + step[0], np.full(came.size, -np.inf)], np.r_[stays, came.ravel()]
        added = np.r_[added, (added[:, None] + extra).ravel()]
        score = np.logaddexp(blank, letter) + added
        possible = np.flatnonzero(score > -np.inf)
        if len(possible) > width:
            least = np.partition(score[possible], len(possible) - width)[len(possible) - width]
            possible = possible[score[possible] >= least]  # equal ones, by their letters below
        named = {
            i: texts[i] if i < len(texts) else (*texts[(n := i - len(texts)) // count], n % count) for i in possible.tolist()
        }
        kept = sorted(named, key=lambda i: (-score[i], named[i]))[:width]
        texts = [named[i] for i in kept]
        blank, letter, added = blank[kept], letter[kept], added[kept]
    score = (np.logaddexp(blank, letter) + added).tolist()
    return sorted(zip(texts, score, strict=True), key=lambda item: (-item[1], item[0]))


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
