"""Reader of audio files, for data sets and predictions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dlframe.readers.audio.mel import HOP
from dlframe.readers.audio.resampling import resampled
from dlframe.readers.audio.stretches import cuts
from dlframe.readers.audio.wav import Refused, Sound, read_wav, wav_stream
from dlframe.types import DataError, read_bytes

LARGEST = 2**30
"""Maximum bytes of a file."""

MOST = 2**28
"""Maximum samples of a file, over all channels: a compressed file may be much smaller than its audio."""

LOUDEST = 100.0
"""Values beyond so many times the full scale are no sound. Floats may exceed the full scale a little."""

RATES = 1000, 768_000
"""Samples in a second of a file, at least and at most: others are damaged headers, and would be resampled to no end."""

BLOCK = 2**16

AHEAD = 20
"""Hops behind the longest stretch of a stream that are looked at before it is cut."""

SIGNATURES = (
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
    (b"\xff\xfb", "MP3"),
    (b"\xff\xf3", "MP3"),
    (b"\xff\xf2", "MP3"),
)
OTHERS = ((0, b"<", "a page of HTML or XML"), (4, b"ftyp", "MP4"), (0, b"FORM", "AIFF"), (0, b"NIST_1A", "NIST Sphere"))
"""Signatures of what cannot be read, to name it."""


@dataclass(frozen=True)
class Recording:
    """Audio of a file, as a model takes it.

    Attributes:
        samples: (samples,) float32, full scale 1, channels mixed by their mean.
        seconds: Length of the file.
        notes: What was changed or assumed: "resampled from 44100 to 16000 Hz".
    """

    samples: np.ndarray
    seconds: float
    notes: tuple[str, ...]


def read_sound(path: Path) -> Sound:
    """Decode an audio file as it is stored: WAV, and FLAC, Ogg and MP3 with the package soundfile. Its content decides.

    Raises:
        DataError: With the file's name: it is no audio, is cut off, has no samples or values that are not finite.
    """
    try:
        sound = _decoded(read_bytes(path, LARGEST))
        _check(sound.samples, sound.rate)
    except Refused as error:
        raise DataError(f"{path}: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None
    return sound


def read_audio(path: Path, sample_rate: int) -> Recording:
    """Read an audio file at a sample rate, its channels mixed; see `read_sound`."""
    sound = read_sound(path)
    samples, notes = sound.samples, [*sound.notes]
    if samples.shape[1] > 1:
        notes.append(f"{samples.shape[1]} channels mixed to one")
    if sound.rate != sample_rate:
        notes.append(f"resampled from {sound.rate} to {sample_rate} Hz")
    if len(samples) / sound.rate * sample_rate > MOST:
        raise DataError(f"{path}: has more than {MOST:,} samples at {sample_rate} Hz.")
    mixed = samples.mean(1) if samples.shape[1] > 1 else samples[:, 0]
    return Recording(resampled(mixed, sound.rate, sample_rate), len(samples) / sound.rate, tuple(notes))


def read_stretches(source: BinaryIO, sample_rate: int, seconds: float) -> Iterator[tuple[str, np.ndarray]]:
    """Yield times and samples (samples,) of a WAV file that is still being written, such as one that comes by a pipe.

    Cut where it is quietest, into stretches of half of `seconds` or more, up to `seconds`: each as soon as its samples are
    there. Each is resampled by itself.

    Raises:
        DataError: It is no WAV file, is cut off or has values that are not finite.
    """
    try:
        rate, blocks = wav_stream(source)
        hop, longest = max(1, round(HOP * rate)), round(seconds / HOP)
        kept, begin = np.zeros(0, np.float32), 0
        for block in blocks:
            _check(block, rate)
            kept = np.concatenate([kept, block])
            while len(kept) > (longest + AHEAD) * hop:
                energy = np.square(kept[: len(kept) // hop * hop].reshape(-1, hop), dtype=np.float64).sum(1)
                end = cuts(-energy, longest)[0] * hop
                yield f"{begin / rate:.2f} to {(begin + end) / rate:.2f} s", resampled(kept[:end], rate, sample_rate)
                kept, begin = kept[end:], begin + end
        if len(kept):
            yield f"{begin / rate:.2f} to {(begin + len(kept)) / rate:.2f} s", resampled(kept, rate, sample_rate)
    except Refused as error:
        raise DataError(f"-: {error}.") from None


def _check(samples: np.ndarray, rate: int) -> None:
    if not len(samples):
        raise Refused("has no samples")
    if not RATES[0] <= rate <= RATES[1]:
        raise Refused(f"has {rate:,} samples in a second, which must be from {RATES[0]:,} to {RATES[1]:,}")
    loudest = float(np.abs(samples).max())
    if not loudest <= LOUDEST:
        what = f"values of {loudest:.3g} times the full scale" if np.isfinite(loudest) else "values that are not finite"
        raise Refused(f"has {what}")


def _decoded(content: bytes) -> Sound:
    if not content:
        raise Refused("is empty")
    if content[:4] in (b"RIFF", b"RF64", b"BW64") and content[8:12] == b"WAVE":
        return read_wav(content, MOST)
    for signature, kind in SIGNATURES:
        if content.startswith(signature):
            return _compressed(content, kind)
    kind = next((kind for at, signature, kind in OTHERS if content[at:].lstrip().startswith(signature)), "")
    raise Refused(f"is not audio that can be read (WAV, FLAC, Ogg, MP3){f' but {kind}' if kind else ''}")


def _compressed(content: bytes, kind: str) -> Sound:
    """Decode by libsndfile, block by block: what a header says may be wrong."""
    try:
        import soundfile  # type: ignore[import-not-found]
    except ImportError:
        raise Refused(
            f"is {kind}, which requires the package 'soundfile', which is not installed. "
            "Try: python -m pip install 'dlframe[speech]'"
        ) from None
    blocks, read = [], 0
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            said, channels, rate = file.frames, file.channels, file.samplerate
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
                read += len(block)
                if read * channels > MOST:
                    raise Refused(f"has more than {MOST:,} samples")
    except (RuntimeError, TypeError, ValueError) as error:
        raise Refused(f"is damaged: {str(error).splitlines()[0].rstrip('.') if str(error) else type(error).__name__}") from None
    if kind == "FLAC" and read != said:
        raise Refused(f"is cut off: its header says {said:,} samples, and {read:,} were decoded")
    return Sound(np.concatenate(blocks) if blocks else np.zeros((0, max(1, channels)), np.float32), rate)
