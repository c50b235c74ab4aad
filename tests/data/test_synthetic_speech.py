"""Speech that is made: tones, and digits by a synthesizer."""

import shutil

import numpy as np
import pytest

from dlframe.data.spoken_digits import DIGITS, spoken_digits
from dlframe.data.tones import LETTERS, tones
from dlframe.readers.audio.synthesizers import FLITE_VOICES
from dlframe.registry import GROUPS, plugins
from dlframe.types import DataError, MissingPackageError


def test_a_tone_is_its_letter():
    dataset = tones(utterances=40)
    letters = dataset.spec.target.names
    for sound, text in list(zip(dataset.train["audio"], dataset.train["text"], strict=True))[:10]:
        piece = sound[400 : 400 + 560]  # the first letter, of at least 70 ms less a tenth
        peak = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 8000)).argmax()
        expected = LETTERS.index(letters[text[0]]) / 4
        assert abs(np.log2(peak / 400) - expected) < 0.06


def test_voices_of_the_test_are_unheard(monkeypatch, tmp_path):
    pytest.importorskip("espeakng_loader", reason="pip install 'dlframe[speech]'")
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path))
    dataset = spoken_digits(utterances=120)
    heard, unheard = (set(split.groups.tolist()) for split in (dataset.train, dataset.test))
    assert len(heard) > 60
    assert len(unheard) > 10
    assert not heard & unheard
    texts = {"".join(dataset.spec.target.names[i] for i in row) for row in dataset.test["text"]}
    assert {word for text in texts for word in text.split()} <= set(DIGITS)
    seconds = dataset.train["audio"].lengths / 8000
    words = np.array([(row == 0).sum() + 1 for row in dataset.train["text"]])
    assert 0.15 < (seconds / words).min() < (seconds / words).max() < 1.5
    assert all(np.abs(sound).max() > 0.05 for sound in dataset.test["audio"])


def test_an_engine_unheard_in_training(monkeypatch, tmp_path):
    pytest.importorskip("espeakng_loader", reason="pip install 'dlframe[speech]'")
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path))
    if not shutil.which("flite"):
        with pytest.raises(DataError, match=r"requires the program flite, .* Without it: data.test_engine=espeak"):
            spoken_digits(utterances=40, test_engine="flite")
        return
    dataset, usual = (spoken_digits(utterances=40, test_engine=engine) for engine in ("flite", "espeak"))
    assert set(dataset.test.groups) == {f"flite {voice}" for voice in FLITE_VOICES}
    assert dataset.source == "synthetic: espeak-ng, test by flite"
    assert all(np.array_equal(*pair) for pair in zip(dataset.test["text"], usual.test["text"], strict=True))
    seconds = dataset.test["audio"].lengths / 8000
    assert 0.3 < seconds.min() < seconds.max() < 5
    assert all(np.abs(sound).max() > 0.05 for sound in dataset.test["audio"])


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'dlframe\[speech\]'. Without it: data=tones$"):
        spoken_digits()


def test_stand_ins_say_so():
    plugins.discover()
    for name in ("tones", "spoken_digits"):
        assert "synthetic" in GROUPS["data"].get(name).summary
