"""Texts that are nearly equal, against sets of shingles compared one by one."""

import itertools
import re

import numpy as np

from dlframe.contracts.samples import lines
from dlframe.readers.texts.duplicates import SHINGLE, SHORTEST, SIMILAR, near_groups
from dlframe.readers.texts.tokens import overlap, parts_of

LONG = "the quick brown fox jumps over the lazy dog and runs away from the small red hen of the old farm by the lake"


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)} if len(words) >= SHORTEST else set()


def varied(count: int) -> list[str]:
    """Real lines joined to texts, some of them copies of which a few words are changed."""
    random = np.random.default_rng(0)
    own, _ = lines()
    texts = []
    for _ in range(count):
        chosen = random.choice(len(own), 4)
        words = " ".join(own[i] for i in chosen).split()
        texts.append(" ".join(words))
        for i in random.choice(len(words), random.integers(0, 6)):
            words[i] = "other"
        texts.append(" ".join(words))
    return texts


def test_groups_are_the_similar_ones():
    texts = varied(60)
    groups, sets = near_groups(texts), [shingles(text) for text in texts]
    pairs = list(itertools.combinations(range(len(texts)), 2))
    similar = {(i, j) for i, j in pairs if len(sets[i] & sets[j]) >= SIMILAR * len(sets[i] | sets[j]) > 0}
    joined = {(i, j) for i, j in pairs if groups[i] == groups[j]}
    assert len(similar) > 20
    assert len(similar - joined) <= len(similar) / 50, "at SIMILAR, 1 % may be missed"
    assert joined <= similar  # no chains here


def test_a_planted_copy_is_moved_to_the_split_of_its_original():
    """40 pairs of texts of which one word differs: as they are hashed alone, half would be apart."""
    texts = [" ".join(f"word{i // 2}x{k}" for k in range(40)) + (" cold" if i % 2 else " warm") for i in range(80)]
    labels = np.arange(80) // 2 % 2
    for near, most in ((False, 40), (True, 0)):
        parts, notes = parts_of(texts, labels, (0.6, 0.2, 0.2), near=near)
        home = {i: number for number, part in enumerate(parts) for i in part.tolist()}
        apart = sum(home[2 * i] != home[2 * i + 1] for i in range(40))
        assert (apart > 5) if most else (apart == 0)
    assert notes
    assert notes[0].endswith("nearly equal to another, in whose split they are")


def test_a_planted_copy_in_a_given_test_split_is_said():
    texts = {"train": [LONG, "a short one"], "test": [LONG.replace("lazy", "sleepy") + "!", "something else"]}
    (note,) = overlap(texts, {"train": np.array([0, 1]), "test": np.array([0, 1])})
    assert note.startswith("test: 0 of 2 texts are in train too, 1 nearly: the score partly measures memory")


def test_short_texts_are_alike_if_they_are_equal():
    assert near_groups(["yes", "yes", "no thanks", ""]).tolist() == [0, 1, 2, 3]
    assert len(near_groups([])) == 0
