"""Cuts of long audio."""

from __future__ import annotations

import numpy as np


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
