"""Letters as tones: a synthetic language, for tests."""

from __future__ import annotations

import numpy as np

from dlframe.readers.audio.transcripts import Utterance, speech_set
from dlframe.registry import Count, data
from dlframe.types import Dataset

RATE = 8000
LETTERS = "abcdefgh "
"""Each is a tone, an octave apart in eight parts; the space is silence."""


@data.register("tones", inputs=("audio",), targets=("tokens",), files=(), sample={"utterances": 60})
def tones(*, utterances: Count = 400, letters: Count = 6) -> Dataset:
    """Words of letters that are tones, synthetic, for tests.

    Each speaker has a pitch and a speed of its own, and is in one split only.

    Args:
        utterances: Training utterances; a quarter as many to validate and to test, at least 16.
        letters: Letters of an utterance at most, spaces included.
    """
    parts = {}
    for number, part in enumerate(("train", "validation", "test")):
        random = np.random.default_rng(number)
        count = utterances if part == "train" else max(16, utterances // 4)
        parts[part] = [_utterance(f"{part}-{i}", f"{part}-{i % max(4, count // 10)}", letters, random) for i in range(count)]
    return speech_set(
        "tones",
        parts,
        sample_rate=RATE,
        alphabet="".join(sorted(LETTERS)),
        source="synthetic: letters as tones",
        splits="by speaker",
    )


def _utterance(name: str, speaker: str, longest: int, random: np.random.Generator) -> Utterance:
    voice = np.random.default_rng([*speaker.encode()])
    pitch, seconds = 400 * 2 ** voice.uniform(-0.03, 0.03), voice.uniform(0.07, 0.1)
    text = " ".join("".join(random.choice([*LETTERS[:-1]], random.integers(1, 1 + max(1, longest // 2)))) for _ in range(2))
    text = text[:longest].strip()
    pieces = []
    for letter in text:
        time = np.arange(int(seconds * random.uniform(0.9, 1.1) * RATE)) / RATE
        height = pitch * 2 ** (LETTERS.index(letter) / 4)
        loud = 0.0 if letter == " " else random.uniform(0.1, 0.3)
        pieces.append(loud * np.sin(2 * np.pi * height * time) * np.hanning(len(time)))
    audio = np.concatenate([np.zeros(RATE // 20), *pieces, np.zeros(RATE // 20)])
    return Utterance(name, text, speaker, (audio + random.normal(0, 0.003, len(audio))).astype(np.float32))
