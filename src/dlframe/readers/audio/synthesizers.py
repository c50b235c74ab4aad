"""Speech by espeak-ng, a formant synthesizer (GPL-3) that the package espeakng-loader carries, and by flite."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dlframe.readers.audio.files import read_sound
from dlframe.types import DataError, MissingPackageError

FLITE_VOICES = ("awb", "kal", "rms", "slt")
"""Voices that flite carries: one of diphones, and three of statistics of a speaker."""

PATIENCE = 60
"""Seconds that flite may take for a text."""

SYNCHRONOUS = 2
UTF8 = 1
RATE, PITCH = 1, 3
"""Numbers of its parameters: words in a minute, and height of the voice from 0 to 100."""

_ready: list[Any] = []
"""The library, its callback and samples in a second: it can be initialized once in a process."""
_spoken: list[np.ndarray] = []


def _library() -> tuple[Any, int]:
    try:
        import espeakng_loader  # type: ignore[import-not-found]
    except ImportError:
        raise MissingPackageError(
            "spoken_digits: requires the package 'espeakng-loader' (GPL-3), which is not installed. "
            "Try: python -m pip install 'dlframe[speech]'. Without it: data=tones"
        ) from None
    if not _ready:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
        if rate <= 0:
            raise DataError(f"spoken_digits: espeak-ng does not start. Received: {rate}")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def keep(samples: Any, count: int, events: Any) -> int:
            if samples and count:
                _spoken.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        callback = kind(keep)
        library.espeak_SetSynthCallback(callback)
        # Its jitter is seeded by the time of day otherwise, and the rendered data would be others each time.
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        _ready.extend((library, callback, rate))
    return _ready[0], _ready[2]


def variants() -> list[str]:
    """Return the names of the voices' variants, sorted: a variant is a speaker.

    Raises:
        DataError: The package is not installed.
    """
    _library()
    import espeakng_loader  # type: ignore[import-not-found]

    return sorted(file.name for file in Path(espeakng_loader.get_data_path(), "voices", "!v").iterdir())


def spoken(text: str, accent: str, variant: str, *, words_per_minute: int, pitch: int) -> tuple[np.ndarray, int]:
    """Return a text as speech, (samples,) int16, and its samples in a second.

    The jitter of a voice goes on from what the process has spoken before: the same calls in a new process give the same.

    Raises:
        DataError: The package is not installed, or has no such voice.
    """
    library, rate = _library()
    if library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()):
        raise DataError(f"spoken_digits: no such voice in espeak-ng. Received: {accent}+{variant}")
    library.espeak_SetParameter(RATE, words_per_minute, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    _spoken.clear()
    raw = text.encode()
    library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, UTF8, None, None)
    if not _spoken:
        raise DataError(f"spoken_digits: espeak-ng says nothing to '{text}' with {accent}+{variant}")
    return np.concatenate(_spoken), rate


def version() -> str:
    """Return the version of espeak-ng, with which its voices change."""
    library, _ = _library()
    library.espeak_Info.restype = ctypes.c_char_p
    return library.espeak_Info(None).decode(errors="replace").split()[0]


def spoken_by_flite(text: str, voice: str, *, stretch: float) -> tuple[np.ndarray, int]:
    """Return a text as speech of the program flite (Black and Lenzo 2001), (samples,) float32, and its samples in a second.

    Args:
        text: Words of English.
        voice: One of `FLITE_VOICES`.
        stretch: Factor of all durations.

    Raises:
        DataError: The program is not installed, or fails.
    """
    program = shutil.which("flite")
    if not program:
        raise DataError(
            "data.test_engine: requires the program flite, which is not installed (Debian, Ubuntu: apt-get install flite). "
            "Without it: data.test_engine=espeak"
        )
    with TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        command = [program, "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "-t", text, "-o", str(file)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataError(f"flite: {type(error).__name__} with '{text}' and the voice {voice}") from None
        if done.returncode or not file.is_file():
            raise DataError(f"flite: says nothing to '{text}' with the voice {voice}. Received: {done.stderr.decode()[:200]!r}")
        sound = read_sound(file)
    return sound.samples[:, 0], sound.rate
