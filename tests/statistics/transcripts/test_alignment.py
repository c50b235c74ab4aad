"""Alignments against all paths of a text, counted out."""

import itertools

import numpy as np
import pytest

from dlframe.statistics.transcripts.alignment import best_path, word_spans


@pytest.mark.parametrize("text", [[], [0], [1, 1], [0, 1], [0, 2, 0]])
def test_the_best_of_all_paths(text):
    random = np.random.default_rng(len(text))
    for _ in range(5):
        given = np.log(random.dirichlet(np.ones(4), 5))
        found = {
            path: sum(given[i, s] for i, s in enumerate(path))
            for path in itertools.product(range(4), repeat=5)
            if [s - 1 for s, _ in itertools.groupby(path) if s] == text
        }
        assert tuple(best_path(given, text)) == max(found, key=lambda path: found[path])


def test_a_text_that_does_not_fit():
    with pytest.raises(ValueError, match="a text of 2 letters needs more than 2 steps"):
        best_path(np.log(np.full((2, 3), 1 / 3)), [1, 1])


@pytest.mark.parametrize(
    ("path", "spans"),
    [
        ([0, 2, 2, 0, 3, 1, 0, 4], [(1, 4), (7, 7)]),
        ([1, 1, 0, 1], []),
        ([2, 0, 2], [(0, 2)]),
        ([0, 0], []),
        ([1, 2, 1, 0, 1, 3, 1], [(1, 1), (5, 5)]),
    ],
)
def test_words_are_between_spaces(path, spans):
    assert word_spans(np.array(path), 1) == spans


def test_a_long_text_has_a_path():
    letters = [i % 3 for i in range(200)]
    steps = np.log(np.full((500, 4), 0.25))
    path = best_path(steps, letters)
    assert path[path > 0][np.r_[True, np.diff(path[path > 0]) != 0]].tolist() == [letter + 1 for letter in letters]
