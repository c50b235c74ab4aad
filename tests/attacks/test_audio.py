"""Sounds and lists of a stranger: headers that claim hours, samples that never end, and paths that lead elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.attacks.conftest import BOMB

from dlframe.readers.audio import files
from dlframe.readers.audio.files import read_audio, read_stretches
from dlframe.readers.audio.manifests import read_librispeech, read_list
from dlframe.types import DataError


def wav(
    rate: int = 8000, coding: int = 1, bits: int = 16, channels: int = 1, said: int | None = None, data: bytes = b""
) -> bytes:
    data = data or bytes(2000)
    block = (channels * bits // 8) & 0xFFFF
    head = struct.pack("<HHIIHH", coding, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits)
    length = len(data) if said is None else said
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", length) + data


def rf64(samples: int) -> bytes:
    sizes = b"ds64" + struct.pack("<IQQQI", 28, 0, samples, samples, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + wav(said=0xFFFFFFFF)[12:]


def flac(seconds: float = 0.2, samples: int | None = None, block: int | None = None) -> bytes:
    """A FLAC file whose header claims other samples, or blocks of another size."""
    soundfile = pytest.importorskip("soundfile", reason="pip install 'dlframe[speech]'")
    whole = io.BytesIO()
    soundfile.write(whole, np.zeros(round(seconds * 8000), np.int16), 8000, format="FLAC")
    content = bytearray(whole.getvalue())
    if samples is not None:
        bits = int.from_bytes(content[18:26], "big") >> 36 << 36
        content[18:26] = (bits | samples).to_bytes(8, "big")
    if block is not None:
        content[8:12] = struct.pack(">HH", block, block)
    return bytes(content)


SOUNDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "ten hours": (lambda: wav(said=2 * 8000 * 36000), "is cut off: its header says 576,000,000 bytes of audio"),
    "exabytes": (lambda: rf64(2**62), "is cut off: its header says 4,611,686,018,427,387,904 bytes"),
    "one sample a second": (lambda: wav(1), "has 1 samples in a second, which must be from 1,000 to 768,000"),
    "4 GHz": (lambda: wav(2**32 - 1), "has 4,294,967,295 samples in a second, which must be"),
    "channels": (lambda: wav(channels=65535, bits=8), "has no samples"),
    "bits": (lambda: wav(bits=65528), "which is not read. Use 16 bits"),
    "block of 0": (lambda: wav(bits=0), "has a damaged header"),
    "pickle": (lambda: BOMB, "is not audio that can be read"),
    "page": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a page of HTML or XML"),
    "flac of ten hours": (lambda: flac(samples=8000 * 36000), "is damaged: "),
    "flac without end": (lambda: flac(samples=2**36 - 1), "is damaged: "),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound(name: str, victim: Path, guarded: Callable) -> None:
    content, message = SOUNDS[name]
    (victim / "a.wav").write_bytes(content())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with guarded(), pytest.raises(DataError) as error:
        read_audio(victim / "a.wav", 16000)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def test_blocks_of_another_size_than_said(victim: Path, guarded: Callable) -> None:
    """It is read, or refused: what counts is that it ends."""
    (victim / "a.flac").write_bytes(flac(block=65535))
    with guarded(), contextlib.suppress(DataError):
        assert len(read_audio(victim / "a.flac", 8000).samples) == 1600


def test_a_small_file_of_much_sound(victim: Path, guarded: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros pack well: the limit is that of what is unpacked, and of what is resampled."""
    (victim / "a.flac").write_bytes(flac(60.0))
    assert (victim / "a.flac").stat().st_size < 10_000
    monkeypatch.setattr(files, "MOST", 100_000)
    with guarded(), pytest.raises(DataError, match="has more than 100,000 samples"):
        read_audio(victim / "a.flac", 8000)
    (victim / "b.wav").write_bytes(wav(1000, data=bytes(180_000)))
    with guarded(), pytest.raises(DataError, match="has more than 100,000 samples at 16000 Hz"):
        read_audio(victim / "b.wav", 16000)
    (victim / "c.wav").write_bytes(wav(bits=8, data=bytes(100_001)))
    with guarded(), pytest.raises(DataError, match="has more than 100,000 samples"):
        read_audio(victim / "c.wav", 8000)


@pytest.mark.parametrize("rate", [1, 2**32 - 1])
def test_a_stream(rate: int, guarded: Callable) -> None:
    with guarded(), pytest.raises(DataError, match="samples in a second, which must be"):
        list(read_stretches(io.BytesIO(wav(rate, channels=2, said=0xFFFFFFFF)), 16000, 10))


def clip(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../outside/a.wav",
        "/dev/zero",
        "/proc/self/environ",
        "link.wav",
        "hop/a.wav",
        "pipe.wav",
        "~/a.wav",
        "a.wav\0.txt",
        "x" * 5000,
    ],
)
def test_paths_that_lead_elsewhere(name: str, victim: Path, tmp_path: Path, guarded: Callable) -> None:
    clip(tmp_path / "outside" / "a.wav")
    folder = victim / "data"
    folder.mkdir()
    (folder / "link.wav").symlink_to(tmp_path / "outside" / "a.wav")
    (folder / "hop").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe.wav")
    (folder / "train.jsonl").write_text(json.dumps({"audio_filepath": name, "text": "a"}))
    with guarded(), pytest.raises(DataError, match=r"train.jsonl:1: (must be inside|no such file)"):
        read_list(folder / "train.jsonl")
    (folder / "train.tsv").write_text(f"path\tsentence\n{name}\ta\n")
    with guarded(), pytest.raises(DataError, match=r"train.tsv:2: (must be inside|no such file)"):
        read_list(folder / "train.tsv")
    (folder / "1.trans.txt").write_text(f"{name.removesuffix('.wav')} A\n")
    with guarded(), pytest.raises(DataError, match=r"1.trans.txt:1: (must be inside|no such file)"):
        read_librispeech(folder)


@pytest.mark.parametrize(
    "line",
    [
        '{"audio_filepath": "a.wav", "text": "a", "duration": 1' + "0" * 400 + "}",
        '{"audio_filepath": "a.wav", "text": "a", "offset": 1e400}',
        '{"audio_filepath": "a.wav", "text": "a", "duration": 1' + "0" * 9000 + "}",
        "[" * 100_000,
        '{"audio_filepath": "a.wav", "text": {"a": "b"}}',
    ],
)
def test_lines(line: str, victim: Path, guarded: Callable) -> None:
    clip(victim / "a.wav")
    (victim / "train.jsonl").write_text(line)
    with guarded(), pytest.raises(DataError) as error:
        read_list(victim / "train.jsonl")
    assert str(error.value).startswith(f"{victim / 'train.jsonl'}:1: ")
    assert len(str(error.value)) < 500
