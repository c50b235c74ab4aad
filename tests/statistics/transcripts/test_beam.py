"""Beam search against all paths of small outputs, and a model of letters against counting."""

import itertools
import math

import numpy as np
import pytest

from dlframe.statistics.transcripts.beam import beam_search, fit_letters


def all_texts(log_probabilities: np.ndarray) -> dict[tuple[int, ...], float]:
    """The probability of each text, by enumeration of the paths."""
    found: dict[tuple[int, ...], float] = {}
    steps, symbols = log_probabilities.shape
    for path in itertools.product(range(symbols), repeat=steps):
        text = tuple(symbol - 1 for symbol, _ in itertools.groupby(path) if symbol)
        found[text] = found.get(text, 0.0) + math.exp(sum(log_probabilities[i, s] for i, s in enumerate(path)))
    return found


def outputs(seed: int, steps: int = 5, symbols: int = 4) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 1.5, (steps, symbols))
    return values - np.log(np.exp(values).sum(1, keepdims=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_all_texts(seed):
    expected = all_texts(outputs(seed))
    found = beam_search(outputs(seed), width=10_000)
    assert {text: math.exp(score) for text, score in found} == pytest.approx(expected)
    assert found[0][0] == max(expected, key=lambda text: expected[text])


def test_the_best_path_is_not_the_best_text():
    """Two blanks have 0.36, yet "a" has 0.64 over its three paths."""
    (text, score), *_ = beam_search(np.log([[0.6, 0.4]] * 2), width=2)
    assert (text, score) == ((0,), pytest.approx(math.log(0.64)))


def test_equal_scores_are_ranked_by_letters():
    """Which texts are kept does not depend on how they are sorted out."""
    found = beam_search(np.log(np.full((1, 5), 0.2)), width=3)
    assert [text for text, _ in found] == [(), (0,), (1,)]


@pytest.mark.parametrize("width", [1, 3, 8])
def test_a_narrow_beam_keeps_the_best_texts_of_each_step(width):
    """By paths: of all texts of a step that continue those kept before, the best ones, with all of their paths."""
    steps = outputs(1, steps=6)
    kept: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {(): {(): 0.0}}  # text -> path -> its ln P
    for step in steps:
        longer: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
        for paths in kept.values():
            for path, score in paths.items():
                for symbol, value in enumerate(step):
                    new = (*path, symbol)
                    text = tuple(s - 1 for s, _ in itertools.groupby(new) if s)
                    longer.setdefault(text, {})[new] = score + value
        totals = {text: float(np.logaddexp.reduce([*paths.values()])) for text, paths in longer.items()}
        kept = {text: longer[text] for text in sorted(totals, key=lambda text: -totals[text])[:width]}
    assert dict(beam_search(steps, width=width)) == pytest.approx({text: totals[text] for text in kept})


def test_impossible_symbols():
    with np.errstate(divide="ignore"):
        found = beam_search(np.log([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), width=4)
    assert found[0] == ((0, 0), 0.0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_scores_with_a_model_of_letters(order):
    letters = fit_letters([np.array([0, 1, 2, 0, 1]), np.array([2, 2])], 3, order)
    found = dict(beam_search(outputs(0), width=10_000, letters=letters, weight=0.7, bonus=0.3))
    for text, probability in all_texts(outputs(0)).items():
        padded = [3] * (order - 1) + [*text]
        said = sum(letters[tuple(padded[i : i + order])] for i in range(len(text)))
        assert found[text] == pytest.approx(math.log(probability) + 0.7 * said + 0.3 * len(text))


def test_letters_by_counting():
    """Witten and Bell by hand: after 0 came 1 twice and 2 once, of 5 letters in all."""
    texts = [np.array([0, 1, 0, 1]), np.array([0, 2])]
    single = (np.array([3, 2, 1]) + 3 * np.full(3, 1 / 3)) / (6 + 3)
    after_zero = (np.array([0, 2, 1]) + 2 * single) / (3 + 2)
    model = np.exp(fit_letters(texts, 3, 2))
    np.testing.assert_allclose(model[0], after_zero)
    np.testing.assert_allclose(model[2], single)  # nothing came after 2
    np.testing.assert_allclose(np.exp(fit_letters(texts, 3, 3)).sum(-1), 1)
