"""Sentences of a Russian voice, one speaker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.audio.files import read_audio
from dlframe.readers.audio.transcripts import Utterance, normalized, speech_set, stored, utterances_of
from dlframe.readers.splits import by_hash
from dlframe.registry import data
from dlframe.storage.decoded import cache_key, decoded
from dlframe.storage.fetch import Package, expanded, members
from dlframe.types import PARTS, DataError, Dataset, read_text, say

VOICE = Package(
    "apt",
    "festvox-ru",
    "0.5+dfsg-6",
    "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4",
    179,
    "BSD-like, Nickolay V. Shmyrev",
)
LIST = "etc/txt.done.data"
RATE = 16000
ALPHABET = " абвгдежзийклмнопрстуфхцчшщъыьэюяё"
ROW = re.compile(r'\( *([\w-]+) +"(.*)" *\)')
"""Line of the list: ( ru_0001 "text" )."""

VERSION = 1
"""Of what is decoded: another one decodes it again."""


@data.register("festvox_ru", inputs=("audio",), targets=("tokens",), files=("path",))
def festvox_ru(*, path: str | None = None) -> Dataset:
    """Sentences in Russian from novels, one speaker, 16 kHz.

    Real recordings, 620 of 99.5 minutes, made for the synthesizer Festival. Signs of stress, apostrophes and punctuation are
    left out. A hash of the name draws the split, 80/10/10.

    Args:
        path: Folder with etc/txt.done.data and wav/, as published; null fetches Debian's package.
    """
    folder = expanded(path) if path is not None else None
    listed = folder / LIST if folder else members(VOICE, [LIST], beside=[f"wav/ru_{i:04}.wav" for i in range(1000)])[0]
    texts = _texts(listed)
    names = [f"wav/{name}.wav" for name in texts]
    files = [folder / name for name in names] if folder else members(VOICE, names)

    def decode(target: Path) -> dict[str, Any]:
        say(f"Decoding {len(texts):,} recordings of Festvox (once)", error=True)
        keys = [*texts]
        parts = by_hash([""] * len(keys), keys, (0.8, 0.1, 0.1))
        found = {
            part: [Utterance(keys[i], texts[keys[i]], "", read_audio(files[i], RATE).samples, f"{listed}") for i in index]
            for part, index in zip(PARTS, parts, strict=True)
        }
        return stored("festvox_ru", target, found, RATE, ALPHABET)

    def read(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Dataset:
        return speech_set(
            "festvox_ru",
            utterances_of(arrays, facts),
            sample_rate=RATE,
            alphabet=ALPHABET,
            source=str(path) if path is not None else "apt festvox-ru",
            splits="80/10/10 by hash",
            fitted={"text": {"lower": True, "punctuation": False, "language": ""}},
        )

    return decoded("festvox_ru", cache_key([listed, *files], VERSION), decode, read)


def _texts(file: Path) -> dict[str, str]:
    """Return name -> transcript, in the order of the names.

    Raises:
        DataError: With file and line: the list is damaged or names a recording twice.
    """
    try:
        lines = read_text(file, 2**20).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"festvox_ru: cannot read {file}: {error}.") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = ROW.fullmatch(line.strip())
        if not row or row[1] in found:
            raise DataError(f'{file}:{number}: must be ( NAME "text" ), each name once. Received: {line[:60]!r}.')
        found[row[1]] = normalized(row[2].replace("+", "")).replace("'", "")
    return dict(sorted(found.items()))
