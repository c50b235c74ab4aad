"""A sample of `python benchmarks/parity.py`: the numbers of a training are those of a loop written by hand."""

import pytest
from benchmarks import parity

from dlframe.registry import plugins

plugins.discover()


@pytest.mark.parametrize("family", ["mlp", "gan"])
def test_ten_steps_are_those_of_a_loop_by_hand(family):
    """In float64, where an error of the method would be larger than rounding by many digits."""
    assert parity.compare(family, "64-true", epochs=2)[1] < 1e-9


def test_schedules_follow_their_formulas():
    assert parity.compare_schedules()
