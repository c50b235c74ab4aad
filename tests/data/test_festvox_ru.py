"""Sentences in Russian: the list, its signs of stress, and what is refused."""

import wave
from pathlib import Path

import numpy as np
import pytest

from dlframe.data.festvox_ru import festvox_ru
from dlframe.types import DataError


def voice(folder: Path, lines: list[str], recordings: int) -> Path:
    (folder / "etc").mkdir()
    (folder / "wav").mkdir()
    (folder / "etc" / "txt.done.data").write_text("\n".join(lines) + "\n")
    for i in range(recordings):
        with wave.open(str(folder / "wav" / f"ru_{i:04}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(np.random.default_rng(i).integers(-999, 999, 16000).astype("<i2").tobytes())
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))


def test_signs_of_stress_are_no_letters(tmp_path):
    path = voice(tmp_path, [f'( ru_{i:04} "Щёки, жж+ёт - Ещё!" )' for i in range(40)], 40)
    dataset = festvox_ru(path=str(path))
    letters = np.array(dataset.spec.target.names)
    assert {"".join(letters[row]) for row in dataset.test["text"]} == {"щёки жжёт ещё"}
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 40
    assert len(set(dataset.train.ids) & set(dataset.test.ids)) == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['( ru_0000 "да" )', "( ru_0001 нет )"], r"txt.done.data:2: must be \( NAME"),
        (['( ru_0000 "да" )', '( ru_0000 "нет" )'], r"txt.done.data:2: must be .* each name once"),
        (['( ../x "да" )'], r"txt.done.data:1: must be"),
        ([f'( ru_{i:04} "word" )' for i in range(9)], "must have letters of the alphabet only"),
        ([f'( ru_{i:04} "да" )' for i in range(10)], "ru_0009.wav: cannot be read"),
    ],
)
def test_damaged_lists_are_refused(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        festvox_ru(path=str(voice(tmp_path, lines, 9)))
