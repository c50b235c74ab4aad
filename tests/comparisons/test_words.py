"""Sentences of comparisons: sizes in the unit of the metric, and what holds a difference back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dlframe.analysis.comparison import Comparison, Pair
from dlframe.comparisons.presentation.words import about, needs, p_text, pair_sentence, size
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


def test_a_pair_that_differs_alone_but_not_among_all_has_both_p_values():
    found, difference = compared(Parts((1e-7, 1e-7), 4e-4, (3, 3), 359))
    alone = replace(difference, low=0.0001, high=0.0039, p_value=0.022)
    pair = Pair("a", "b", alone, 0.132)
    found = replace(found, over="splits", pairs=(pair,) * 6)
    told = "no difference shown between a and b: 0.20 points (0.01 to 0.39; p = 0.022 alone, 0.13 among 6 pairs)"
    assert pair_sentence(found, pair) == told
    assert pair_sentence(found, replace(pair, adjusted=0.03)).endswith("; p = 0.03)")
