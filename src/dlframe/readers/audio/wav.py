"""Reader of WAV files: RIFF, RF64 and extensible headers; integers, floats, A-law and mu-law."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
UNKNOWN = 0xFFFFFFFF
"""Length that a program writes which does not know it yet, and RF64, whose lengths are in the chunk ds64."""
LONGEST_CHUNK = 2**20
"""Bytes of a chunk before the audio of a stream at most."""

NAMES = {2: "Microsoft ADPCM", 0x11: "IMA ADPCM", 0x31: "GSM 6.10", 0x50: "MPEG", 0x55: "MP3", 0x161: "WMA"}


class Refused(Exception):
    """What keeps audio from being read."""


@dataclass(frozen=True)
class Sound:
    """Decoded audio.

    Attributes:
        samples: (samples, channels) float32, full scale 1.
        rate: Samples in a second.
        notes: What was assumed.
    """

    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()


def read_wav(content: bytes, most: int) -> Sound:
    """Decode the content of a WAV file.

    Valid bits of an extensible header are the upper ones of their container, whose full scale counts.

    Args:
        content: Bytes of the file.
        most: Samples at most, over all channels.

    Raises:
        Refused: The header is damaged or names an unknown coding, or the samples are cut off or too many.
    """
    header, data, notes = b"", None, []
    wide = content[:4] in (b"RF64", b"BW64")
    long = 0
    place = 12
    while place + 8 <= len(content) and data is None:
        name, length = content[place : place + 4], struct.unpack_from("<I", content, place + 4)[0]
        place += 8
        if name == b"ds64" and length >= 16 and place + 16 <= len(content):
            long = struct.unpack_from("<Q", content, place + 8)[0]
        elif name == b"fmt ":
            header = content[place : place + length]
        elif name == b"data":
            if wide and length == UNKNOWN:
                length = long
            elif length == UNKNOWN:
                length = len(content) - place
                notes.append("its header has no length: read to the end")
            if place + length > len(content):
                raise Refused(f"is cut off: its header says {length:,} bytes of audio, and {len(content) - place:,} follow")
            if not length and place < len(content):
                raise Refused("has no length in its header, as an interrupted recording")
            data = content[place : place + length]
        place += length
        # The zero byte after a chunk of odd length is forgotten by some programs; no name of a chunk begins with 0.
        place += length % 2 and content[place : place + 1] == b"\0"
    form = _form(header)
    if data is None:
        raise Refused("has no audio (no chunk 'data')")
    block = form.channels * form.width
    if len(data) // form.width > most:
        raise Refused(f"has more than {most:,} samples")
    if len(data) % block:
        notes.append(f"{len(data) % block} bytes after the last whole sample are left out")
        data = data[: len(data) // block * block]
    return Sound(_decoded(data, form.coding, form.width).reshape(-1, form.channels), form.rate, tuple(notes))


def wav_stream(source: BinaryIO) -> tuple[int, Iterator[np.ndarray]]:
    """Return the samples in a second of a WAV file that is still being written, and its blocks (samples,), channels mixed.

    A header without a length, as recorders write to a pipe, means all that comes.

    Raises:
        Refused: As `read_wav`, also from the blocks.
    """
    if not (head := source.read(12)).startswith((b"RIFF", b"RF64", b"BW64")) or head[8:] != b"WAVE":
        raise Refused("is not a WAV file" if head else "is empty")
    header = b""
    while True:
        if len(head := source.read(8)) < 8:
            raise Refused("has no audio (no chunk 'data')")
        name, length = head[:4], struct.unpack_from("<I", head, 4)[0]
        if name == b"data":
            break
        if length > LONGEST_CHUNK:
            raise Refused(f"has a chunk of {length:,} bytes before its audio")
        content = source.read(length + length % 2)
        header = content[:length] if name == b"fmt " else header
    form = _form(header)
    block = form.channels * form.width
    left = length if 0 < length < 0x7FFFFF00 else math.inf

    def blocks() -> Iterator[np.ndarray]:
        nonlocal left
        while left:
            size = min(left, block * max(1, min(form.rate // 10, LONGEST_CHUNK // block)))
            content = source.read(int(size))
            left -= len(content)
            if whole := len(content) // block * block:
                yield _decoded(content[:whole], form.coding, form.width).reshape(-1, form.channels).mean(1)
            if not content:
                if left != math.inf:
                    raise Refused(f"is cut off: {left:,} bytes of audio are missing")
                return

    return form.rate, blocks()


@dataclass(frozen=True)
class Form:
    """Form of the samples of a WAV file; `width` is in bytes."""

    coding: int
    channels: int
    rate: int
    width: int


def _form(header: bytes) -> Form:
    if len(header) < 16:
        raise Refused("has no header of a WAV file (fmt)")
    coding, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", header)
    if coding == EXTENSIBLE:
        if len(header) < 26:
            raise Refused("has an extensible header that is cut off")
        coding = struct.unpack_from("<H", header, 24)[0]
    if not channels or not rate or block != channels * -(-bits // 8) or not block:
        raise Refused(f"has a damaged header: {channels} channels, {rate} Hz, {bits} bits in blocks of {block} bytes")
    return Form(coding, channels, rate, -(-bits // 8))


def _decoded(data: bytes, coding: int, width: int) -> np.ndarray:
    """Return values (samples * channels,) float32 of so many bytes each."""
    if coding == PCM and width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if coding == PCM and width == 2:
        return np.frombuffer(data, "<i2").astype(np.float32) / 2**15
    if coding == PCM and width == 3:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (padded.view("<i4").ravel() / 2.0**31).astype(np.float32)
    if coding == PCM and width == 4:
        return (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32)
    if coding == FLOAT and width in (4, 8):
        with np.errstate(over="ignore"):
            return np.frombuffer(data, f"<f{width}").astype(np.float32)
    if coding in (A_LAW, MU_LAW) and width == 1:
        return (_a_law() if coding == A_LAW else _mu_law())[np.frombuffer(data, np.uint8)]
    raise Refused(
        f"has the coding {NAMES.get(coding, f'{coding:#x}')} with {8 * width} bits, which is not read. Use 16 bits (PCM)"
    )


def _a_law() -> np.ndarray:
    """Return the values of the 256 codes (ITU-T G.711)."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, code & 15
    size = np.where(exponent == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, size, -size) * 8 / 2**15).astype(np.float32)


def _mu_law() -> np.ndarray:
    """Return the values of the 256 codes (ITU-T G.711)."""
    code = ~np.arange(256) & 0xFF
    exponent, mantissa = (code >> 4) & 7, code & 15
    size = ((2 * mantissa + 33) << exponent) - 33
    return (np.where(code & 0x80, -size, size) * 4 / 2**15).astype(np.float32)
