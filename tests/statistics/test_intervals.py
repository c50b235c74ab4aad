"""Intervals against published values, against SciPy and by their coverage."""

import math
import re

import numpy as np
import pytest
from scipy import signal, stats
from sklearn.datasets import load_iris

from dlframe.statistics.comparison.differences import over_seeds
from dlframe.statistics.intervals import Interval, bootstrap, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_a_single_sample_stays_within_0_and_1():
    low, high = wilson(1, 1)
    assert 0 < low < 0.21
    assert high == 1


@pytest.mark.parametrize(
    ("successes", "n", "message"),
    [
        (0, 0, "a proportion requires at least one sample. Received: n=0"),
        (5, 4, "successes must be within 0..4. Received: 5"),
        (-1, 4, "successes must be within 0..4. Received: -1"),
    ],
)
def test_wilson_refuses_what_is_no_proportion(successes, n, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        wilson(successes, n)


def test_the_interval_over_seeds_is_students():
    widths = load_iris().data[:5, 1]
    found = over_seeds(widths)
    expected = stats.ttest_1samp(widths, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(3.28)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_interval_over_one_seed_or_equal_ones_is_unknown():
    for values in ([0.98], [0.5, 0.5, 0.5], [0.5, math.nan]):
        found = over_seeds(values)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    with pytest.raises(ValueError, match=r"^a mean requires at least one value$"):
        over_seeds([])


def correlation(x, y):
    return np.corrcoef(x, y)[0, 1]


def test_bootstrap_agrees_with_scipy_on_paired_samples():
    flowers = load_iris().data
    ours = bootstrap(correlation, flowers[:, 0], flowers[:, 2])
    theirs = stats.bootstrap(
        (flowers[:, 0], flowers[:, 2]), correlation, paired=True, vectorized=False, method="percentile", rng=0
    )
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.005)


def test_bootstrap_is_the_same_for_the_same_seed_and_narrower_for_a_lower_level():
    widths = load_iris().data[:, 1]
    first, second = bootstrap(np.mean, widths), bootstrap(np.mean, widths)
    assert first == second != bootstrap(np.mean, widths, seed=1)
    narrow = bootstrap(np.mean, widths, level=0.5)
    assert first.low < narrow.low < narrow.high < first.high


def test_blocks_hold_the_mean_of_a_dependent_series_where_single_samples_seldom_do():
    """AR(1) with coefficient 0.8 and true mean 0; 95 of 100 intervals should hold it."""
    noise = np.random.default_rng(0).normal(size=(100, 1000))
    held = {1: 0, 40: 0}
    for series in signal.lfilter([1], [1, -0.8], noise):
        for block in held:
            interval = bootstrap(np.mean, series, block=block, resamples=200)
            held[block] += interval.low <= 0 <= interval.high
    assert held[40] >= 85
    assert held[1] <= 60


def test_bootstrap_says_nothing_where_fewer_than_two_blocks_fit():
    for interval in (bootstrap(np.mean, [3.0]), bootstrap(np.mean, [1.0, 2.0, 3.0], block=2)):
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert (interval.undefined, interval.resamples) == (0, 0)


def test_bootstrap_of_equal_samples_is_a_point():
    assert bootstrap(np.mean, [2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 0, 2000)


def test_bootstrap_leaves_out_resamples_where_the_statistic_is_undefined():
    def recall(target, prediction):
        return (target * prediction).sum() / target.sum() if target.any() else math.nan

    interval = bootstrap(recall, [1, 0, 0, 1], [1, 1, 0, 0])
    assert (interval.low, interval.high) == (0, 1)
    assert interval.undefined / interval.resamples == pytest.approx(1 / 16, abs=0.02)  # neither of two in four draws of four
    never = bootstrap(recall, [0, 0], [1, 1], resamples=50)
    assert math.isnan(never.low)
    assert math.isnan(never.high)
    assert (never.undefined, never.resamples) == (50, 50)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([[]], "a bootstrap requires samples, equally many in each array. Received: lengths [0]"),
        ([[1, 2], [1]], "a bootstrap requires samples, equally many in each array. Received: lengths [2, 1]"),
        ([[1.0, math.nan]], "a bootstrap requires samples without NaN"),
    ],
)
def test_bootstrap_refuses_what_cannot_be_resampled(arrays, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bootstrap(np.mean, *arrays)
