"""Digits spoken by a synthesizer, in many voices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.audio import synthesizers
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

VERSION = 2
"""Of what is rendered: another one renders it again."""


@data.register("spoken_digits", inputs=("audio",), targets=("tokens",), files=(), sample={"utterances": 120})
def spoken_digits(
    *, utterances: Count = 2400, longest: Count = 5, test_engine: Literal["espeak", "flite"] = "espeak"
) -> Dataset:
    """Strings of digits spoken by espeak-ng in some 100 voices, synthetic.

    espeak-ng is a formant synthesizer: its speech is clearer and more uniform than people's. A speaker is a variant of its
    voice, speaks with several accents at several speeds, and is in one split only: test voices are unheard in training.
    Rendered once, at 8 kHz, by the package espeakng-loader (GPL-3): pip install 'dlframe[speech]'.

    Args:
        utterances: Training utterances; a tenth as many to validate and a fifth to test, at least 40.
        longest: Digits of an utterance at most.
        test_engine: Synthesizer of the test: that of the training in other voices, or the program flite, where it is
            installed, whose four voices are of another method and far from those of the training.
    """

    def render(folder: Path) -> dict[str, Any]:
        say(f"Rendering {utterances:,} training utterances with espeak-ng (once)", error=True)
        parts = _rendered(utterances, longest)
        if test_engine == "flite":
            parts["test"] = [_by_flite(number, utterance) for number, utterance in enumerate(parts["test"])]
        return stored("spoken_digits", folder, parts, RATE)

    def read(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Dataset:
        return speech_set(
            "spoken_digits",
            utterances_of(arrays, facts),
            sample_rate=RATE,
            source="synthetic: espeak-ng" + (", test by flite" if test_engine == "flite" else ""),
            splits="by speaker, by hash",
        )

    synthesizers.variants()
    name = f"spoken_digits-{utterances}-{longest}" + ("-flite" if test_engine == "flite" else "")
    return decoded(name, f"{VERSION}-{synthesizers.version()}", render, read)


def _rendered(utterances: int, longest: int) -> dict[str, list[Utterance]]:
    speakers = [name for name in synthesizers.variants() if not name.startswith("robosoft") and name not in NO_VOICES]
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
            wave, rate = synthesizers.spoken(text, accent, speaker, words_per_minute=int(speed), pitch=int(pitch))
            audio = resampled(wave.astype(np.float32) / 2**15, rate, RATE)
            parts[part].append(Utterance(f"{part}-{i}", text, speaker, audio))
    return parts


def _by_flite(number: int, utterance: Utterance) -> Utterance:
    """Return a test utterance in a voice of flite."""
    voice = synthesizers.FLITE_VOICES[number % len(synthesizers.FLITE_VOICES)]
    wave, rate = synthesizers.spoken_by_flite(utterance.text, voice, stretch=0.85 + 0.05 * (number % 7))
    return replace(utterance, speaker=f"flite {voice}", audio=resampled(wave, rate, RATE))
