"""Cuts of long audio."""

from __future__ import annotations

import math

import numpy as np

from dlframe.readers.audio.mel import HOP

PAUSE = round(0.25 / HOP)
"""Frames of a pause at least: longer than the silence before a stop within a word."""

KEPT = 2
"""Frames that are kept before and behind what is spoken."""

LOUD = 20
"""Frames over which the power is averaged to find the loudest sound: a click is no measure."""

DECIBEL = math.log(10) / 10


def cuts(quiet: np.ndarray, longest: int, *, smooth: int = 20) -> list[int]:
    """Return where to cut a long recording into stretches of half of `longest` steps or more, up to `longest`.

    Each stretch ends where the worst of the steps around is best.

    Args:
        quiet: (steps,) how good each step is for a cut.
        longest: Steps of a stretch at most.
        smooth: Steps before and behind a cut that must be good too.
    """
    found: list[int] = []
    start = 0
    while len(quiet) - start > longest:
        low = start + (longest + 1) // 2
        around = quiet[max(start, low - smooth) : start + longest + 1 + smooth]
        padded = np.pad(around, (smooth - (low - max(start, low - smooth)), 0), mode="edge")
        padded = np.pad(padded, (0, max(0, longest - low + start + 1 + 2 * smooth - len(padded))), mode="edge")
        worst = np.lib.stride_tricks.sliding_window_view(padded, 2 * smooth + 1).min(1)
        start = low + int(worst.argmax())
        found.append(start)
    return found


def spoken(power: np.ndarray) -> list[tuple[int, int]]:
    """Return the start and the end of what lies between the pauses of a recording, in frames.

    A pause has 0.25 s or more that are 40 dB below the loudest 0.2 s, or, where the background is louder, less than 10 dB
    above it; in no case what is within 20 dB of the loudest. All of a recording without a louder part is spoken.

    Args:
        power: (frames,) natural logarithms of the power.
    """
    loudness = np.logaddexp.reduce(np.lib.stride_tricks.sliding_window_view(power, min(LOUD, len(power))), axis=1)
    loudest = float(loudness.max()) - math.log(min(LOUD, len(power)))
    background = float(np.quantile(power, 0.05))
    least = min(max(loudest - 40 * DECIBEL, background + 10 * DECIBEL), loudest - 20 * DECIBEL)
    loud = np.flatnonzero(power >= least)
    last = np.flatnonzero(np.diff(loud) > PAUSE)
    starts = np.maximum(loud[np.r_[0, last + 1]] - KEPT, 0)
    ends = np.minimum(loud[np.r_[last, len(loud) - 1]] + 1 + KEPT, len(power))
    return [*zip(starts.tolist(), ends.tolist(), strict=True)]
