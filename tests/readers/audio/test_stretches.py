"""Cuts of long audio."""

import numpy as np
import pytest

from dlframe.readers.audio.stretches import cuts, spoken


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


@pytest.mark.parametrize("noise", [1e-8, 2e-5])
def test_pauses_are_not_spoken(noise):
    """Two sounds with a pause of 0.5 s between them, and one of 0.1 s within the first; a click is no measure."""
    power = np.full(400, noise)
    power[50:100] = power[110:200] = power[250:380] = 1e-2
    power[5] = 1e-1
    expected = [(48, 202), (248, 382)]
    assert [span for span in spoken(np.log(power)) if span[1] > 20] == expected
    assert spoken(np.log(power[40:390])) == [(start - 40, end - 40) for start, end in expected]


@pytest.mark.parametrize("frames", [1, 5, 300])
def test_all_of_an_even_recording_is_spoken(frames):
    assert spoken(np.full(frames, -18.0)) == [(0, frames)]
