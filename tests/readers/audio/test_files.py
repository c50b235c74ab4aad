"""Audio files: headers that recorders write, codings against Python's own decoders, and what is refused."""

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import periodogram

from dlframe.readers.audio.files import read_audio, read_sound
from dlframe.readers.audio.resampling import resampled
from dlframe.types import DataError

FILES = Path(__file__).parent / "files"
SIGNAL = [0.37674, -0.71582, 0.00021, 0.04578, 0.04428]
"""Values of the signal that most of the files hold, at five places."""


@pytest.mark.parametrize(
    ("name", "rate", "scale"),
    [
        ("pcm24", 96000, 1),
        ("pcm16-stereo", 16000, 1 / 3),
        ("valid20in24", 16000, 1),
        ("valid24in32", 16000, 1),
        ("float32", 16000, 1),
        ("long-extension", 16000, 1),
        ("junk-before-fmt", 16000, 1),
        ("list-before-data", 16000, 1),
        ("fmt18-fact", 16000, 1),
        ("list-after-data", 16000, 1),
        ("bext-cue-before-data", 16000, 1),
        ("odd-list-padded", 16000, 1),
        ("odd-list-no-pad", 16000, 1),
        ("rf64", 16000, 1),
        ("rf64-list-after", 16000, 1),
    ],
)
def test_headers_of_recorders(name, rate, scale):
    sound = read_sound(FILES / f"{name}.wav")
    assert (sound.rate, sound.samples.shape) == (rate, (1600, 2 if "stereo" in name else 1))
    np.testing.assert_allclose(sound.samples.mean(1)[[0, 1, 2, 800, 1599]], np.array(SIGNAL) * scale, atol=1e-4)


@pytest.mark.parametrize("name", ["odd-data-u8", "odd-data-s24"])
def test_odd_number_of_bytes(name):
    assert len(read_sound(FILES / f"{name}.wav").samples) == 101


def wav(coding: int, bits: int, data: bytes, *, channels: int = 1, rate: int = 8000, said: int | None = None) -> bytes:
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", coding, channels, rate, rate * block, block, bits)
    length = struct.pack("<I", len(data) if said is None else said)
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + header + b"data" + length + data


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integers_are_those_of_the_standard_library(tmp_path, width):
    raw = np.random.default_rng(0).bytes(width * 50)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, width, 8000, 0, "NONE", ""))
        file.writeframes(raw)
    values = [
        int.from_bytes(raw[i : i + width], "little", signed=width > 1) - 128 * (width == 1) for i in range(0, len(raw), width)
    ]
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav").samples[:, 0], np.array(values) / 2 ** (8 * width - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("coding", "known"),
    [(6, {0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256}), (7, {0xFF: 0, 0x80: 32124, 0x00: -32124, 0xEF: 132})],
)
def test_companded_codes(tmp_path, coding, known):
    """Values of G.711 for the smallest and the largest sounds, in 16 bits."""
    (tmp_path / "a.wav").write_bytes(wav(coding, 8, bytes(known)))
    assert (read_sound(tmp_path / "a.wav").samples[:, 0] * 2**15).tolist() == [*known.values()]


def test_floats_may_exceed_the_full_scale():
    assert np.abs(read_sound(FILES / "over-full-scale.wav").samples[1, 0]) == pytest.approx(3 * 0.71582, rel=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty."),
        (b"<!DOCTYPE html>", "is not audio that can be read (WAV, FLAC, Ogg, MP3) but a page of HTML or XML."),
        (wav(1, 16, bytes(10), said=20), "is cut off: its header says 20 bytes of audio, and 10 follow."),
        (wav(1, 16, bytes(10), said=0), "has no length in its header, as an interrupted recording."),
        (wav(1, 16, b""), "has no samples."),
        (wav(0x11, 16, bytes(4)), "has the coding IMA ADPCM with 16 bits, which is not read. Use 16 bits (PCM)."),
        (wav(1, 16, bytes(4), channels=0), "has a damaged header: 0 channels, 8000 Hz, 16 bits in blocks of 0 bytes."),
        (wav(3, 32, struct.pack("<f", float("nan"))), "has values that are not finite."),
        (wav(3, 64, struct.pack("<d", 1e300)), "has values that are not finite."),
        (wav(3, 32, struct.pack("<f", 1e29)), "has values of 1e+29 times the full scale."),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "has no header of a WAV file (fmt)."),
    ],
)
def test_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError) as error:
        read_sound(tmp_path / "a.wav")
    assert str(error.value) == f"{tmp_path / 'a.wav'}: {message}"


def test_content_decides():
    pytest.importorskip("soundfile", reason="pip install 'dlframe[speech]'")
    np.testing.assert_allclose(read_sound(FILES / "flac-inside.wav").samples[[0, 1, 2, 800, 1599], 0], SIGNAL, atol=1e-4)


def test_a_flac_file_that_is_cut_off(tmp_path):
    pytest.importorskip("soundfile", reason="pip install 'dlframe[speech]'")
    content = (FILES / "tone440-44100.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.flac: is (cut off|damaged)"):
        read_sound(tmp_path / "a.flac")


def tone(hertz: float, rate: int, seconds: float = 0.6) -> np.ndarray:
    return 0.25 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_a_tone_keeps_its_height_and_loudness(rate):
    found = resampled(tone(440, rate), rate, 16000)
    assert abs(len(found) - 9600) <= 1
    middle = found[2400:7200]
    frequencies, power = periodogram(middle, 16000)
    assert abs(frequencies[power.argmax()] - 440) < 4
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.25 / np.sqrt(2), abs=0.003)


@pytest.mark.parametrize(("hertz", "rate"), [(11000, 48000), (10000, 44100)])
def test_what_a_rate_cannot_carry_is_removed(hertz, rate):
    middle = resampled(tone(hertz, rate), rate, 16000)[2400:7200]
    assert np.sqrt(np.mean(middle**2)) < 0.01 * 0.25 / np.sqrt(2)


def test_changes_are_said(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(1, 16, np.repeat(np.int16([100, 300]), 400).tobytes(), channels=2, rate=8000))
    recording = read_audio(tmp_path / "a.wav", 16000)
    assert recording.notes == ("2 channels mixed to one", "resampled from 8000 to 16000 Hz")
    assert (len(recording.samples), recording.seconds) == (800, 0.05)


@pytest.mark.parametrize("name", ["rf64", "float32", "bext-cue-before-data", "odd-data-u8"])
def test_damaged_files_are_read_or_refused(tmp_path, name):
    """Cut anywhere in the header, and with any byte of it changed: a sound, or an error that names the file."""
    content = (FILES / f"{name}.wav").read_bytes()[:600]
    random = np.random.default_rng(0)
    damaged = [content[:end] for end in range(120)]
    for place, value in zip(random.integers(0, 120, 300), random.integers(0, 256, 300), strict=True):
        changed = bytearray(content)
        changed[place] = value
        damaged.append(bytes(changed))
    refused = []
    for given in damaged:
        (tmp_path / "a.wav").write_bytes(given)
        try:
            assert np.isfinite(read_sound(tmp_path / "a.wav").samples).all()
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(message.startswith(f"{tmp_path / 'a.wav'}: ") for message in refused)
