"""The winner's curse: by hand, and against the expected maximum of normal values."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from dlframe.statistics.optimism import winner


def test_by_hand():
    """Without the first seed candidate 1 is best (8, then 2); without the second, candidate 0 (6, then 4)."""
    found = winner([[6.0, 4.0], [2.0, 8.0], [0.0, 1.0]], better="max")
    assert (found.candidate, found.value, found.seeds, found.candidates) == (0, 5.0, 2, 3)
    assert found.optimism == pytest.approx(((8 - 2) + (6 - 4)) / 2 * math.sqrt(1 / 2))
    assert all(map(math.isnan, found.fresh))


def test_both_directions_are_alike():
    table = np.random.default_rng(0).normal(size=(6, 4))
    high, low = winner([*table], better="max"), winner([*-table], better="min")
    assert (high.candidate, high.value, high.optimism) == (low.candidate, -low.value, low.optimism)


def test_it_is_the_expected_maximum_where_all_are_equally_good():
    """Of 20 means of 4 values each."""
    density = stats.norm.pdf
    expected = integrate.quad(lambda x: x * 20 * density(x) * stats.norm.cdf(x) ** 19, -8, 8)[0] / math.sqrt(4)
    tables = np.random.default_rng(0).normal(size=(400, 20, 4))
    assert np.mean([winner([*table], better="max").optimism for table in tables]) == pytest.approx(expected, rel=0.1)


def test_it_is_none_where_the_best_is_far_ahead():
    table = np.random.default_rng(0).normal(size=(300, 5, 3))
    table[:, 0] += 100
    gaps = [winner([*each], better="max").optimism for each in table]
    assert np.mean(gaps) < 0.45  # not 0, as negative estimates are set to 0
    assert min(gaps) == 0


def test_fresh_seeds_give_students_interval():
    fresh = [0.90, 0.91, 0.89, 0.92]
    expected = stats.ttest_1samp(fresh, 0).confidence_interval(0.95)
    assert winner([[0.93], [0.9]], better="max", fresh=fresh).fresh == pytest.approx((0.905, expected.low, expected.high))


def test_one_seed_cannot_tell():
    found = winner([[0.93], [0.9]], better="max")
    assert (found.candidate, found.value) == (0, 0.93)
    assert math.isnan(found.optimism)


def test_candidates_with_fewer_values_take_no_part():
    found = winner([[0.99], [0.9, 0.91], [0.8, 0.85], []], better="max")
    assert (found.candidate, found.candidates) == (1, 2)
    assert winner([[0.99, 0.99], [0.9, 0.91]], better="max", alive=np.array([False, True])).candidate == 1


def test_one_candidate_has_no_optimism_on_average():
    assert winner([[0.5, 0.5, 0.5]], better="max").optimism == 0


def test_values_that_are_not_finite_do_not_win():
    assert winner([[math.nan, 1.0], [0.1, 0.2]], better="max").candidate == 1
    with pytest.raises(ValueError, match="requires a candidate with finite values"):
        winner([[math.inf], [math.nan]], better="max")
    with pytest.raises(ValueError, match="requires a candidate"):
        winner([], better="max")
    with pytest.raises(ValueError, match="Received: 'up'"):
        winner([[1.0]], better="up")  # type: ignore[arg-type]
