"""The Pareto front against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from dlframe.statistics.pareto import pareto_front


def dominates(a: np.ndarray, b: np.ndarray, better: list[str]) -> bool:
    """The definition, one objective at a time."""
    as_good = [x >= y if way == "max" else x <= y for x, y, way in zip(a, b, better, strict=True)]
    return all(as_good) and any(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("better", [["min", "min"], ["max", "min"], ["min", "max", "max"]])
def test_the_front_is_what_no_other_point_dominates(better: list[str]) -> None:
    points = np.random.default_rng(0).integers(0, 12, (80, len(better))).astype(float)  # with equal points
    expected = [not any(dominates(other, point, better) for other in points) for point in points]
    assert pareto_front(points, better).tolist() == expected
    assert 1 < sum(expected) < 80


def test_of_one_objective_it_is_the_best() -> None:
    assert pareto_front([[1.0], [3.0], [3.0]], ["max"]).tolist() == [False, True, True]


def test_what_is_not_finite_is_not_on_it() -> None:
    points = [[np.nan, 0.0], [-np.inf, 1.0], [1.0, 1.0]]
    assert pareto_front(points, ["min", "min"]).tolist() == [False, False, True]
    assert pareto_front([], ["min", "min"]).tolist() == []


def test_a_direction_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"better: must be 'min' or 'max'.* Received: \['best'\]"):
        pareto_front([[1.0]], ["best"])
