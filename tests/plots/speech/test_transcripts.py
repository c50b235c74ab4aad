"""Figures of speech: letters where they were heard, edits of words, and error rates by speaker and length."""

from __future__ import annotations

import numpy as np
import pytest

from dlframe import plots
from dlframe.plots.speech.transcripts import BARS

PAIRS = [("open", "open"), ("the", ""), ("door", "dour"), ("", "now")]
EDITS = "open [-\u00a0the] [door\u00a0→\u00a0dour] [+\u00a0now]"


def heard(letters: list[tuple[float, str]]) -> plots.Heard:
    return plots.Heard(np.random.default_rng(0).normal(size=(150, 64)), letters, PAIRS, "a.wav (s1)")


def test_letters_stand_where_they_were_heard():
    figure = plots.spectrograms([heard([(0.1, "o"), (0.5, " "), (1.2, "d")])] * 2, hop=0.01, title="tones, test")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert [(text.get_position()[0], text.get_text()) for text in axes.texts] == [(0.1, "o"), (0.5, "␣"), (1.2, "d")]
        assert [line.get_xdata()[0] for line in axes.get_lines()] == [0.1, 0.5, 1.2]
        assert axes.images[0].get_extent() == [0, 1.5, 0, 64], "in seconds"
        assert axes.get_title(loc="left") == "a.wav (s1), 1.50 s"
        assert axes.get_xlabel() == f"seconds\n{EDITS}"


def test_a_long_text_has_its_words_over_the_spectrogram():
    letters = [(0.01 * i, " " if i % 5 == 4 else "abcd"[i % 5]) for i in range(100)]
    (axes,) = plots.spectrograms([heard(letters)], hop=0.01).axes
    assert [text.get_text() for text in axes.texts] == ["abcd"] * 20
    assert [text.get_position()[0] for text in axes.texts] == pytest.approx(np.arange(20) * 0.05)


def test_silence_has_a_spectrogram(tmp_path):
    silent = plots.Heard(np.full((1, 64), -18.0), [], [("yes", "")], "a")
    plots.save(plots.spectrograms([silent], hop=0.01), tmp_path / "x.png")


def test_the_worst_utterances_have_their_edits():
    (axes,) = plots.worst_utterances([("a.wav (s1)", PAIRS, 3, 3), ("b.wav", [("yes", "yes")], 0, 1)]).axes
    told = [text.get_text() for text in axes.texts]
    assert told[:6] == ["3 of 3", "a.wav (s1)", EDITS, "0 of 1", "b.wav", "yes"]
    assert told[6:] == ["[said → heard]   [- missed]   [+ inserted]"]


def test_error_rates_by_speaker_are_the_worst_first_and_those_of_all_words():
    errors, words, speakers = [1, 0, 4, 1], [4, 4, 4, 2], np.array(["ann", "ann", "bob", "cy"])
    left, right = plots.error_rates(errors, words, {"speaker": speakers, "words in the utterance": words}).axes
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["bob", "cy", "ann"]
    assert [bar.get_height() for bar in left.patches] == pytest.approx([100, 50, 12.5])
    assert left.get_lines()[0].get_ydata()[0] == pytest.approx(100 * 6 / 14)
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["2", "4"], "lengths in their order"
    assert [bar.get_height() for bar in right.patches] == pytest.approx([50, 100 * 5 / 12])


def test_many_speakers_and_lengths():
    """The worst speakers, which is said; lengths in ranges that have every utterance once."""
    words = np.arange(1, 101)
    errors = (words > 50) * words
    names = np.array([f"s{i:03}" for i in range(100)])
    left, right = plots.error_rates(errors, words, {"speaker": names, "length": words}).axes
    assert len(left.patches) == BARS
    assert left.get_xlabel() == f"speaker: the worst {BARS} of 100"
    ranges = [[int(end) for end in tick.get_text().split(" to ")] for tick in right.get_xticklabels()]
    assert len(ranges) <= BARS
    assert [low for low, _ in ranges[1:]] == [high + 1 for _, high in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (1, 100)
    for bar, (low, high) in zip(right.patches, ranges, strict=True):
        own = (words >= low) & (words <= high)
        assert bar.get_height() == pytest.approx(100 * errors[own].sum() / words[own].sum())
