"""Alignment of letters with the steps of CTC outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def best_path(log_probabilities: np.ndarray, letters: Sequence[int]) -> np.ndarray:
    """Return the most probable path of a text (steps,): 0 for the blank, 1 + the letter otherwise.

    Viterbi's algorithm over the letters with a blank before, between and behind them (Graves et al. 2006).

    Args:
        log_probabilities: (steps, 1 + letters) natural logarithms; the blank is first.
        letters: Letters of the text.

    Raises:
        ValueError: The text needs more steps.
    """
    symbols = np.zeros(2 * len(letters) + 1, np.int64)
    symbols[1::2] = np.asarray(letters, np.int64) + 1
    steps, states = len(log_probabilities), len(symbols)
    emitted = log_probabilities[:, symbols]
    # A blank between two letters may be left out, unless these are equal.
    skips = np.zeros(states, bool)
    skips[3::2] = symbols[3::2] != symbols[1:-2:2]
    score = np.full(states, -np.inf)
    score[:2] = emitted[0, :2]
    back = np.zeros((steps, states), np.int8)
    came = np.full((3, states), -np.inf)
    for step in range(1, steps):
        came[0], came[1, 1:], came[2, 2:] = score, score[:-1], np.where(skips[2:], score[:-2], -np.inf)
        back[step] = came.argmax(0)
        score = came.max(0) + emitted[step]
    state = states - 1 if states == 1 or score[-1] >= score[-2] else states - 2
    if score[state] == -np.inf:
        raise ValueError(f"a text of {len(letters)} letters needs more than {steps} steps")
    path = np.empty(steps, np.int64)
    for step in range(steps - 1, -1, -1):
        path[step] = symbols[state]
        state -= int(back[step, state])
    return path


def word_spans(path: np.ndarray, space: int) -> list[tuple[int, int]]:
    """Return the first and the last step of each word of a path (steps,) of blanks (0), letters and spaces."""
    spans: list[tuple[int, int]] = []
    ended = True
    for step in np.flatnonzero(path).tolist():
        if path[step] == space:
            ended = True
        elif ended:
            spans.append((step, step))
            ended = False
        else:
            spans[-1] = (spans[-1][0], step)
    return spans
