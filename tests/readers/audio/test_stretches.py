"""Cuts of long audio."""

import numpy as np
import pytest

from dlframe.readers.audio.stretches import cuts


def test_cuts_are_in_the_middle_of_pauses():
    quiet = np.zeros(1000)
    for start in range(50, 1000, 60):
        quiet[start : start + 7] = 1
    found = cuts(quiet, 200, smooth=3)
    assert {(place - 3 - 50) % 60 for place in found} == {0}
    ends = np.diff([0, *found, 1000])
    assert (ends.min() >= 100, ends.max() <= 200) == (True, True)


@pytest.mark.parametrize(("steps", "longest"), [(0, 10), (10, 10), (11, 10), (57, 3), (5, 1), (100, 99)])
def test_stretches_are_never_too_long(steps, longest):
    quiet = np.random.default_rng(steps).normal(size=steps)
    found = cuts(quiet, longest)
    assert np.diff([0, *found, steps]).max(initial=0) <= longest
    assert all(np.diff([0, *found]) >= longest / 2)
    assert (not found) == (steps <= longest)
