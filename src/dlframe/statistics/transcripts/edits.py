"""Edits between references and hypotheses: word and character error rates."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np

CELLS = 2**23
"""Cells of the tables that are filled at once."""


INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"), None)
"""Soft hyphens, joiners and marks without width, which are no letters."""


def words(text: str) -> list[str]:
    """Return the words of a text in NFC; white space of any kind separates words."""
    return unicodedata.normalize("NFC", text.translate(INVISIBLE)).split()


def characters(text: str) -> str:
    """Return the characters of a text in NFC, each run of white space as one space, none at the ends."""
    return " ".join(words(text))


def edits(references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """Count the edits that turn each reference into its hypothesis.

    The fewest edits (Levenshtein 1966). Several ways may have as few: common ends are matched first, then, from the end, a
    deletion is preferred to a match or substitution, and an insertion where it costs less than the match. These are the
    alignments of RapidFuzz, and so of jiwer; the sum of all edits does not depend on them.

    Args:
        references: (pairs,) sequences of words, or strings of characters.
        hypotheses: (pairs,) sequences, likewise.

    Returns:
        (pairs, 3) int64: insertions, deletions and substitutions.

    Raises:
        ValueError: The numbers of references and hypotheses differ.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"each reference must have a hypothesis. Received: {len(references)} and {len(hypotheses)}")
    known: dict[Hashable, int] = {}
    pairs = [
        _without_ends([known.setdefault(item, len(known)) for item in r], [known.setdefault(item, len(known)) for item in h])
        for r, h in zip(references, hypotheses, strict=True)
    ]
    found = np.zeros((len(pairs), 3), np.int64)
    chosen: list[int] = []
    rows = columns = 1
    for i in sorted(range(len(pairs)), key=lambda i: len(pairs[i][0])):  # pairs of about one length waste few cells
        grown = max(rows, len(pairs[i][0]) + 1), max(columns, len(pairs[i][1]) + 1)
        if chosen and (len(chosen) + 1) * grown[0] * grown[1] > CELLS:
            found[chosen] = _counted([pairs[i] for i in chosen])
            chosen, grown = [], (len(pairs[i][0]) + 1, len(pairs[i][1]) + 1)
        rows, columns = grown
        chosen.append(i)
    if chosen:
        found[chosen] = _counted([pairs[i] for i in chosen])
    return found


def _without_ends(reference: list[int], hypothesis: list[int]) -> tuple[list[int], list[int]]:
    shorter, start, end = min(len(reference), len(hypothesis)), 0, 0
    while start < shorter and reference[start] == hypothesis[start]:
        start += 1
    while end < shorter - start and reference[-1 - end] == hypothesis[-1 - end]:
        end += 1
    return reference[start : len(reference) - end], hypothesis[start : len(hypothesis) - end]


def _counted(pairs: list[tuple[list[int], list[int]]]) -> np.ndarray:
    """Fill the tables of all pairs row by row, then follow each from its end."""
    lengths = np.array([(len(r), len(h)) for r, h in pairs])
    rows, columns = lengths.max(0)
    reference, hypothesis = np.full((len(pairs), rows + 1), -1), np.full((len(pairs), columns + 1), -2)
    for i, (r, h) in enumerate(pairs):
        reference[i, : len(r)], hypothesis[i, : len(h)] = r, h
    insertions = np.arange(columns + 1)
    cost = np.empty((len(pairs), rows + 1, columns + 1), np.int32)
    cost[:, 0] = insertions
    for row in range(rows):
        above, best = cost[:, row], cost[:, row] + 1
        different = reference[:, row, None] != hypothesis[:, :columns]
        best[:, 1:] = np.minimum(best[:, 1:], above[:, :-1] + different)
        cost[:, row + 1] = np.minimum.accumulate(best - insertions, axis=1) + insertions
    counts = np.zeros((len(pairs), 3), np.int64)
    pair, (i, j) = np.arange(len(pairs)), lengths.T.copy()
    while (i + j).any():
        up, left = np.maximum(i - 1, 0), np.maximum(j - 1, 0)
        deleted = (i > 0) & ((j == 0) | (cost[pair, i, j] == cost[pair, up, j] + 1))
        inserted = ~deleted & (j > 0) & ((i == 0) | (cost[pair, i, left] == cost[pair, up, left] - 1))
        paired = (i > 0) & (j > 0) & ~deleted & ~inserted
        substituted = paired & (reference[pair, up] != hypothesis[pair, left])
        counts += np.stack([inserted, deleted, substituted], 1)
        i, j = i - (deleted | paired), j - (inserted | paired)
    return counts


def aligned(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the words of a reference with those of its hypothesis, with the fewest edits; "" where one is missing."""
    size = len(hypothesis) + 1
    cost = [[*range(size)]]
    for row, word in enumerate(reference, 1):
        cost.append([row])
        for column, other in enumerate(hypothesis, 1):
            above = cost[row - 1]
            cost[row].append(min(above[column] + 1, cost[row][column - 1] + 1, above[column - 1] + (word != other)))
    pairs = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((reference[i], ""))
        else:
            j -= 1
            pairs.append(("", hypothesis[j]))
    return pairs[::-1]
