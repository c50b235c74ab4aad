"""Mel filters against values of HTK's formula."""

import numpy as np
import pytest

from dlframe.readers.audio.mel import MELS, mel_filters, needed_steps, steps_of


def test_filters_of_a_wide_window():
    """The weights of some filters, as librosa and torchaudio have them on the scale of HTK without a norm."""
    weights = mel_filters(80, 400, 16000)
    np.testing.assert_allclose(weights.sum(1)[[0, 1, 40, 79]], [0.2164474, 0.7835526, 1.9587964, 6.5345785], atol=1e-6)
    assert weights.argmax(1)[[0, 1, 40, 79]].tolist() == [1, 1, 45, 193]


@pytest.mark.parametrize(("rate", "points"), [(8000, 512), (16000, 1024), (44100, 4096)])
def test_no_filter_of_the_features_is_empty(rate, points):
    assert (mel_filters(MELS, points, rate).max(1) > 0).all()


def test_empty_filters_are_refused():
    with pytest.raises(ValueError, match=r"^4 of 128 mel filters are empty with 400 points at 16000 Hz$"):
        mel_filters(128, 400, 16000)


def test_steps():
    assert [steps_of(n, 16000) for n in (1, 160, 320, 321, 640, 641)] == [1, 1, 1, 2, 2, 3]
    assert [needed_steps(text) for text in ("a", "aa", "hello", "aab b")] == [1, 3, 6, 6]
