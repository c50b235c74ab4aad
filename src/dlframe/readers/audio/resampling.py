"""Change of the sample rate."""

from __future__ import annotations

import math

import numpy as np


def resampled(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Return samples (n,) at another rate, as float32, without what the new rate cannot carry.

    A polyphase filter with a Kaiser window removes frequencies above half the lower rate, by 60 dB (SciPy's resample_poly).

    Args:
        audio: (samples,) float.
        rate: Their samples in a second.
        target: Samples in a second of the result.
    """
    if rate == target or not len(audio):
        return audio.astype(np.float32, copy=False)
    from scipy.signal import resample_poly  # importing SciPy takes 0.6 s

    common = math.gcd(rate, target)
    return resample_poly(audio.astype(np.float64), target // common, rate // common).astype(np.float32)
