"""Digits spoken by a synthesizer, in many voices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.audio import espeak
from dlframe.readers.audio.resampling import resampled
from dlframe.readers.audio.transcripts import Utterance, speech_set, stored, utterances_of
from dlframe.readers.splits import by_hash
from dlframe.registry import Count, data
from dlframe.storage.decoded import decoded
from dlframe.types import PARTS, Dataset, say

RATE = 8000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-029", "en-us-nyc")
NO_VOICES = ("whisper", "whisperf", "croak", "Demonic", "fast", "AnxiousAndy", "aunty", "UniRobot", "anikaRobot")
"""Variants that whisper or are effects."""

VERSION = 1
"""Of what is rendered: another one renders it again."""


@data.register("spoken_digits", inputs=("audio",), targets=("tokens",), files=(), sample={"utterances": 120})
def spoken_digits(*, utterances: Count = 2400, longest: Count = 5) -> Dataset:
    """Strings of digits spoken by espeak-ng in some 100 voices, synthetic.

    espeak-ng is a formant synthesizer: its speech is clearer and more uniform than people's. A speaker is a variant of its
    voice, speaks with several accents at several speeds, and is in one split only: test voices are unheard in training.
    Rendered once, at 8 kHz, by the package espeakng-loader (GPL-3): pip install 'dlframe[speech]'.

    Args:
        utterances: Training utterances; a tenth as many to validate and a fifth to test, at least 40.
        longest: Digits of an utterance at most.
    """

    def render(folder: Path) -> dict[str, Any]:
        say(f"Rendering {utterances:,} training utterances with espeak-ng (once)", error=True)
        return stored("spoken_digits", folder, _rendered(utterances, longest), RATE)

    def read(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Dataset:
        return speech_set(
            "spoken_digits",
            utterances_of(arrays, facts),
            sample_rate=RATE,
            source="synthetic: espeak-ng",
            splits="by speaker, by hash",
        )

    espeak.variants()
    return decoded(f"spoken_digits-{utterances}-{longest}", f"{VERSION}-{espeak.version()}", render, read)


def _rendered(utterances: int, longest: int) -> dict[str, list[Utterance]]:
    speakers = [name for name in espeak.variants() if not name.startswith("robosoft") and name not in NO_VOICES]
    parts = {}
    chosen = by_hash(["speaker"] * len(speakers), speakers, (0.75, 0.1, 0.15))
    for number, (part, index) in enumerate(zip(PARTS, chosen, strict=True)):
        random = np.random.default_rng(number)
        count = utterances if part == "train" else max(40, utterances // (10 if part == "validation" else 5))
        parts[part] = []
        for i in range(count):
            speaker = speakers[index[i % len(index)]]
            text = " ".join(random.choice(DIGITS, random.integers(1, longest + 1)))
            accent, speed, pitch = random.choice(ACCENTS), random.integers(140, 221), random.integers(30, 71)
            wave, rate = espeak.spoken(text, accent, speaker, words_per_minute=int(speed), pitch=int(pitch))
            audio = resampled(wave.astype(np.float32) / 2**15, rate, RATE)
            parts[part].append(Utterance(f"{part}-{i}", text, speaker, audio))
    return parts
