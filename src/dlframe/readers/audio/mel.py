"""Mel filters, and the frames of which features are made."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

MELS = 64
"""Mel filters of the features of a frame."""

WINDOW, HOP = 0.025, 0.010
"""Length of a frame and distance of frames in seconds, as usual for speech."""

STRIDE = 2
"""Frames in one step of a model's output."""


def steps_of(samples: np.ndarray | int, sample_rate: int) -> np.ndarray | int:
    """Return the steps of a model's output of so many samples; at least one."""
    hop = round(HOP * sample_rate)
    frames = -(-samples // hop)
    return -(-frames // STRIDE)


def needed_steps(text: str) -> int:
    """Return the steps that CTC needs: one for each letter, and a blank between equal neighbors."""
    return len(text) + sum(letter == following for letter, following in pairwise(text))


def needed_seconds(text: str) -> float:
    """Return the length of a recording that CTC needs for a transcript."""
    return ((needed_steps(text) - 1) * STRIDE) * HOP


def mel_filters(filters: int, points: int, sample_rate: int) -> np.ndarray:
    """Return triangular filters (filters, points // 2 + 1) from 0 Hz to half the sample rate.

    On the scale of HTK, 2595 log10(1 + f / 700), with a peak of 1 (Young et al., The HTK Book, 2006).

    Args:
        filters: Number of filters.
        points: Points of the Fourier transform.
        sample_rate: Samples in a second.

    Raises:
        ValueError: A filter lies between two frequencies of the transform and would always be 0.
    """
    frequencies = np.arange(points // 2 + 1) * sample_rate / points
    ends = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), filters + 2)
    edges = 700 * (10 ** (ends / 2595) - 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.clip(np.minimum(rising, falling), 0, None)
    if empty := int((weights.max(1) == 0).sum()):
        raise ValueError(f"{empty} of {filters} mel filters are empty with {points} points at {sample_rate} Hz")
    return weights
