"""Sentences of comparisons: sizes in the unit of the metric, and what holds a difference back."""

from __future__ import annotations

import math

import pytest

from dlframe.analysis.comparison import Comparison
from dlframe.comparisons.presentation.words import about, needs, p_text, size
from dlframe.statistics.comparison import planning
from dlframe.statistics.comparison.differences import Difference, Parts
from dlframe.types import Metric

ACCURACY, PRICE = Metric(better="max", low=0.0, high=1.0, unit="fraction"), Metric(better="min", low=0.0, unit="USD")


@pytest.mark.parametrize(
    ("read", "value", "text"),
    [
        (ACCURACY, 0.01944, "1.94 points"),
        (ACCURACY, 0.294, "29.4 points"),
        (ACCURACY, -0.00031, "-0.031 points"),
        (PRICE, 1234.5, "1,234 USD"),
        (PRICE, 0.00041, "0.00041 USD"),
        (PRICE, 0.0, "0 USD"),
        (PRICE, math.nan, "undefined USD"),
    ],
)
def test_sizes(read, value, text):
    assert size(read, value) == text


def test_p_values_and_rough_counts():
    assert [p_text(p) for p in (0.0498, 0.00012, 0.00001)] == ["p = 0.05", "p = 0.00012", "p < 0.0001"]
    assert [about(n) for n in (2.2, 12, 2431, 20555)] == ["3", "12", "2,400", "21,000"]


def compared(parts: Parts) -> tuple[Comparison, Difference]:
    half = 2 * math.sqrt(parts.variance)
    found = Comparison("digits", "accuracy", {"accuracy": ACCURACY}, (), None, (), {}, {}, "both", 359, parts.groups, "")
    return found, Difference(0.002, 0.002 - half, 0.002 + half, 0.8, parts)


def test_where_examples_decide_their_number_is_told():
    found, difference = compared(Parts((1e-7, 1e-7), 4e-4, (3, 3), 359))
    told = needs(found, difference)
    factor = planning.needed(0.02, difference.parts).examples
    assert factor
    assert (
        told == f"more seeds would not help: the 359 test examples decide, about {about(359 * factor)} would show 2.00 points"
    )


def test_where_seeds_decide_their_number_is_told():
    found, difference = compared(Parts((4e-4, 4e-4), 1e-6, (3, 3), 359))
    seeds = planning.needed(0.03, difference.parts).seeds
    assert seeds
    assert (
        needs(found, difference, detect=3.0) == f"the seeds decide, about {about(seeds)} seeds of each would show 3.00 points"
    )


def test_where_both_hold_it_back():
    found, difference = compared(Parts((4e-4, 4e-4), 2e-4, (3, 3), 359))
    told = needs(found, difference, detect=0.5)
    assert told == "seeds and the 359 test examples hold it back: more of one alone would not show 0.50 points"
