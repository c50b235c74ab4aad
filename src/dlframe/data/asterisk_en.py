"""Announcements of a telephone exchange, one speaker."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.audio.files import read_audio
from dlframe.readers.audio.transcripts import Utterance, normalized, speech_set, stored, utterances_of
from dlframe.readers.splits import by_hash
from dlframe.registry import Natural, NonNegative, data
from dlframe.storage.decoded import cache_key, decoded
from dlframe.storage.fetch import Package, expanded, member, members
from dlframe.types import PARTS, DataError, Dataset, read_bytes, say

TERMS = "CC BY-SA 3.0, spoken by Allison Smith"
TEXTS = Package(
    "apt",
    "asterisk-core-sounds-en",
    "1.6.1-1",
    "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    0.02,
    TERMS,
)
SOUNDS = Package(
    "apt",
    "asterisk-core-sounds-en-wav",
    "1.6.1-1",
    "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    18,
    TERMS,
)
LIST = "core-sounds-en.txt"
FOLDER = "en_US_f_Allison"
RATE = 8000
ALPHABET = " '0123456789abcdefghijklmnopqrstuvwxyz"
ABSENT = ("pls-try-call-later",)
"""Listed, but without a recording."""

VERSION = 2
"""Of what is decoded: another one decodes it again."""


@data.register("asterisk_en", inputs=("audio",), targets=("tokens",), files=("path",))
def asterisk_en(*, path: str | None = None, max_seconds: NonNegative = 0.0, split_seed: Natural = 0) -> Dataset:
    """Announcements of the Asterisk telephone exchange in English, one speaker, 8 kHz.

    Real recordings, 551. What stands in brackets of any kind is not spoken: tones, beeps and silence, whose recordings are
    left out, and remarks. Numbers stay as they are written. A hash of the name draws the split, 80/10/10; recordings of one
    transcript are in one split.

    Args:
        path: Folder of the recordings with core-sounds-en.txt, as published; null fetches Debian's packages.
        max_seconds: Length of training recordings above which they are left out; 0 for no limit.
        split_seed: Number of the split: each draws another one.
    """
    folder = expanded(path) if path is not None else None
    listed = (folder / LIST) if folder else member(TEXTS, f"{LIST}.gz")
    texts = _texts(listed)
    files = dict(
        zip(
            texts,
            [folder / f"{key}.wav" for key in texts] if folder else members(SOUNDS, [f"{FOLDER}/{key}.wav" for key in texts]),
            strict=True,
        )
    )

    def decode(target: Path) -> dict[str, Any]:
        say(f"Decoding {len(texts):,} recordings of Asterisk (once)", error=True)
        keys = sorted(texts)
        first: dict[str, str] = {}
        for key in keys:
            first.setdefault(texts[key], key)
        drawn = f"{split_seed} " if split_seed else ""
        parts = by_hash([""] * len(keys), [drawn + first[texts[key]] for key in keys], (0.8, 0.1, 0.1))
        found = {
            part: [Utterance(keys[i], texts[keys[i]], "", read_audio(files[keys[i]], RATE).samples) for i in index]
            for part, index in zip(PARTS, parts, strict=True)
        }
        return stored("asterisk_en", target, found, RATE, ALPHABET)

    def read(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Dataset:
        parts = utterances_of(arrays, facts)
        if max_seconds:
            long = [u for u in parts["train"] if len(u.audio) > max_seconds * RATE]
            parts["train"] = [u for u in parts["train"] if len(u.audio) <= max_seconds * RATE]
            names = ", ".join(u.name for u in long)
            say(f"asterisk_en: left out {len(long)} training recordings of more than {max_seconds:g} s: {names}", error=True)
        return speech_set(
            "asterisk_en",
            parts,
            sample_rate=RATE,
            alphabet=ALPHABET,
            source=str(path) if path is not None else "apt asterisk-core-sounds-en-wav",
            splits="80/10/10 by hash" + f", split {split_seed}" * bool(split_seed),
            fitted={"text": {"lower": True, "punctuation": False, "language": ""}},
        )

    return decoded("asterisk_en", cache_key([listed, *files.values()], VERSION, split_seed), decode, read)


def _texts(file: Path) -> dict[str, str]:
    """Return key -> transcript of the recordings of speech.

    Raises:
        DataError: The list cannot be read.
    """
    try:
        content = read_bytes(file, 2**20)
        lines = (gzip.decompress(content) if file.suffix == ".gz" or content[:2] == b"\x1f\x8b" else content).decode()
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"asterisk_en: cannot read {file}: {error}.") from None
    found = {}
    for line in lines.split("\n"):
        key, colon, text = line.partition(":")
        said = normalized(re.sub(r"\[[^]]*\]|\([^)]*\)|<[^>]*>", " ", text))
        if colon and said and not line.startswith(";") and key not in ABSENT:
            found[key.strip()] = said
    return found
