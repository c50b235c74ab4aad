"""Mel filters, and the frames of which features are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MELS = 64
"""Mel filters of the features of a frame."""

WINDOW, HOP = 0.025, 0.010
"""Length of a frame and distance of frames in seconds, as usual for speech."""

STRIDE = 2
"""Frames in one step of a model's output."""

NOISE = 1e-8
"""Power added to each mel filter: the noise of 16 bits, so that digital silence has a logarithm."""


@dataclass(frozen=True)
class Filterbank:
    """How audio becomes logarithms of the power in mel filters.

    Attributes:
        window: (samples,) window of a frame.
        hop: Samples between two frames.
        points: Points of the Fourier transform of a frame.
        weights: (points // 2 + 1, mels) filters, applied to squared magnitudes.
        noise: Power added to each filter.
        least: Smallest power of a filter.
        mirrored: Whether the audio is mirrored before its start, and frames go on until one has no sample of it; else it is
            silent before its start, and frames begin within it.
    """

    window: np.ndarray
    hop: int
    points: int
    weights: np.ndarray
    noise: float = 0.0
    least: float = 0.0
    mirrored: bool = False


def standard_filterbank(sample_rate: int) -> Filterbank:
    """Return the filterbank of models without one of their own, with enough points for each filter."""
    size = round(WINDOW * sample_rate)
    points = 2 ** math.ceil(math.log2(2 * size))
    weights = mel_filters(MELS, points, sample_rate).T / size
    return Filterbank(np.hanning(size), round(HOP * sample_rate), points, weights, noise=NOISE)


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


def mel_filters(filters: int, points: int, sample_rate: int, *, slaney: bool = False) -> np.ndarray:
    """Return triangular filters (filters, points // 2 + 1) from 0 Hz to half the sample rate.

    On the scale of HTK, 2595 log10(1 + f / 700), with a peak of 1 (Young et al., The HTK Book, 2006).

    Args:
        filters: Number of filters.
        points: Points of the Fourier transform.
        sample_rate: Samples in a second.
        slaney: Take the scale of Slaney's Auditory Toolbox (1998), linear up to 1 kHz, and filters of area 1.

    Raises:
        ValueError: A filter lies between two frequencies of the transform and would always be 0.
    """
    frequencies = np.arange(points // 2 + 1) * sample_rate / points
    if slaney:
        step = np.log(6.4) / 27
        ends = np.linspace(0, 15 + np.log(sample_rate / 2000) / step, filters + 2)
        edges = np.where(ends < 15, ends * 200 / 3, 1000 * np.exp((ends - 15) * step))
    else:
        ends = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), filters + 2)
        edges = 700 * (10 ** (ends / 2595) - 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.clip(np.minimum(rising, falling), 0, None)
    if empty := int((weights.max(1) == 0).sum()):
        raise ValueError(f"{empty} of {filters} mel filters are empty with {points} points at {sample_rate} Hz")
    return weights * (2 / (edges[2:] - edges[:-2]))[:, None] if slaney else weights
