"""Texts that are nearly equal, such as copies with another word or other signs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dlframe.readers.tables.rows import mixed

SHINGLE = 3
"""Words of a shingle."""
SHORTEST = 8
"""Words of the shortest text that is compared; shorter ones are alike only if they are equal."""
SIMILAR = 0.7
"""Fraction of common shingles, of those of either text, from which on texts are nearly equal."""
BANDS, ROWS = 10, 3
"""Hashes of a text: texts that agree in all rows of a band are compared. At SIMILAR, 99 % of the pairs are found."""

WORD = re.compile(r"\w{1,64}")


def near_groups(texts: Sequence[str]) -> np.ndarray:
    """Return the number of the group of nearly equal texts that each is in, (texts,) int64.

    Sets of shingles are compared by their Jaccard index, among candidates found by MinHash (Broder 1997) in bands (Leskovec,
    Rajaraman and Ullman 2014, chapter 3). A text joins the first one of its band that is similar to it.
    """
    sets = _shingles(texts)
    parent = np.arange(len(texts))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    kept = [i for i, own in enumerate(sets) if len(own)]
    if not kept:
        return parent
    for band in _bands([sets[i] for i in kept]):
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(band[order]) != 0))
        for start, end in zip(starts, np.append(starts[1:], len(order)), strict=True):
            first = kept[order[start]]
            for j in order[start + 1 : end]:
                a, b = root(first), root(kept[j])
                if a != b and _jaccard(sets[first], sets[kept[j]]) >= SIMILAR:
                    parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(len(texts))])


def _shingles(texts: Sequence[str]) -> list[np.ndarray]:
    """Return the sorted hashes of the different shingles of each text, none of a short one."""
    number: dict[str, int] = {}
    found = []
    for text in texts:
        words = WORD.findall(text.casefold())
        if len(words) < SHORTEST:
            found.append(np.zeros(0, np.uint64))
            continue
        ids = np.array([number.setdefault(word, len(number)) for word in words], np.uint64) + np.uint64(1)
        with np.errstate(over="ignore"):
            hashed = np.zeros(len(ids) - SHINGLE + 1, np.uint64)
            for i in range(SHINGLE):
                hashed = mixed(hashed + ids[i : len(ids) - SHINGLE + 1 + i])
        found.append(np.unique(hashed))
    return found


def _bands(sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return a hash (sets,) of each band."""
    values = np.concatenate(sets)
    starts = np.cumsum([0, *map(len, sets[:-1])])
    salts = mixed(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64))
    found = []
    for band in salts.reshape(BANDS, ROWS):
        own = np.zeros(len(sets), np.uint64)
        with np.errstate(over="ignore"):
            for salt in band:
                own = mixed(own + np.minimum.reduceat(mixed(values ^ salt), starts))
        found.append(own)
    return found


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
