"""Races over seeds: by hand, against SciPy, and by their error rate."""

import math
import re
import tracemalloc

import numpy as np
import pytest
from scipy import special, stats

from dlframe.statistics.racing import PILOT, Race, _trigamma_inverse, race


def run(table: np.ndarray, **options) -> Race:
    """Give a race what it wants, until it wants nothing more."""
    counts = np.zeros(len(table), dtype=int)
    while True:
        found = race([row[:n] for row, n in zip(table, counts, strict=True)], seeds=table.shape[1], **options)
        assert (found.wanted >= counts).all()
        if (found.wanted == counts).all():
            return found
        counts = found.wanted


def equal(first: Race, second: Race) -> bool:
    same = np.array_equal(first.alive, second.alive) and np.array_equal(first.wanted, second.wanted)
    return same and repr(first.eliminations) == repr(second.eliminations)


def test_two_candidates_are_compared_by_the_paired_t_test():
    """At the look with four of five seeds: 1 opponent and 4 looks."""
    table = np.array([[0.93, 0.94, 0.92, 0.945], [0.90, 0.93, 0.91, 0.915]])
    alpha = 4 * (stats.ttest_rel(table[0], table[1], alternative="greater").pvalue + 1e-9)
    found = race([*table], seeds=5, better="max", alpha=alpha)
    assert found.alive.tolist() == [True, False]
    (left,) = found.eliminations
    assert (left.candidate, left.by, left.seeds) == (1, 0, 4)
    assert left.p_value == pytest.approx(stats.ttest_rel(table[0], table[1], alternative="greater").pvalue)
    assert left.difference == pytest.approx((table[0] - table[1]).mean())
    assert left.level == pytest.approx(alpha / 4)
    assert race([*table], seeds=5, better="max", alpha=alpha - 1e-7).alive.all()


def test_three_candidates_by_hand():
    """Two seeds, one look at the first of them; the pilot is everyone, so both values count."""
    table = np.array([[10.0, 11.0], [9.0, 9.5], [1.0, 3.0]])
    found = race([*table], seeds=2, better="max", alpha=0.5)
    own = table - table.mean(1, keepdims=True)
    own -= own.mean(0)
    freedom = 1 * (1 - 1 / 3)
    variances = (own**2).sum(1) / freedom
    logs = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    assert logs.var(ddof=1) < special.polygamma(1, freedom / 2)  # so all are taken to be equally noisy
    shrunk = np.maximum(variances, (2 * variances.mean() + freedom * variances) / (2 + freedom))
    p_value = stats.t.sf((10.5 - 2) / math.sqrt((shrunk[0] + shrunk[2]) / 2), 2)  # 3 x 2/3 degrees of freedom
    assert found.noise == pytest.approx(math.sqrt(variances.mean()))
    assert [(left.candidate, left.by) for left in found.eliminations] == [(1, 0), (2, 0)]
    assert found.eliminations[1].p_value == pytest.approx(p_value)
    assert found.eliminations[1].level == 0.25


def test_the_prior_is_that_of_smyth():
    """The moments that `fitFDist` of limma matches: simulated variances give back the degrees of freedom drawn from."""
    rng = np.random.default_rng(0)
    variances = 4 * rng.chisquare(3, 20_000) / 3 / (rng.chisquare(8, 20_000) / 8)
    logs = np.log(variances) - special.digamma(1.5) + math.log(1.5)
    assert 2 * _trigamma_inverse(logs.var(ddof=1) - special.polygamma(1, 1.5)) == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.5, 1.0, 7.0, 1e5])
def test_trigamma_inverse(x):
    assert _trigamma_inverse(float(special.polygamma(1, x))) == pytest.approx(x, rel=1e-5)


def test_the_best_first_values_are_repeated_first():
    first = np.arange(20.0)
    found = race([[value] for value in first], seeds=5, better="max")
    assert found.wanted.tolist() == [1] * (20 - PILOT) + [3] * PILOT
    assert found.alive.all()
    assert math.isnan(found.noise)
    assert race([[value] for value in first], seeds=5, better="min").wanted.tolist() == [3] * PILOT + [1] * (20 - PILOT)
    assert race([[]] * 20, seeds=5, better="max").wanted.tolist() == [1] * 20


def test_a_race_is_the_same_in_one_call_and_in_steps_and_for_both_directions():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(30, 5)) - rng.exponential(6, (30, 1))
    found = run(table, better="max")
    assert equal(found, race([*table], seeds=5, better="max"))
    assert equal(found, run(-table, better="min"))
    assert 0 < found.alive.sum() < 30
    assert found.wanted.sum() < 0.75 * table.size
    assert (found.wanted[found.alive] == 5).all()
    assert sorted(left.candidate for left in found.eliminations) == np.flatnonzero(~found.alive).tolist()
    assert all(left.by is not None and left.p_value < left.level and left.difference > 0 for left in found.eliminations)


def test_values_beyond_those_wanted_change_nothing():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(12, 4)) - rng.exponential(8, (12, 1))
    found = run(table, better="max")
    assert equal(found, race([*np.hstack([table, 100 * rng.normal(size=(12, 3))])], seeds=4, better="max"))


def test_a_clearly_best_candidate_ends_the_race():
    table = np.random.default_rng(3).normal(size=(5, 10)) - 1000 * np.arange(5.0)[:, None]
    found = run(table, better="max")
    assert found.alive.tolist() == [True, False, False, False, False]
    assert found.wanted.max() == 3


@pytest.mark.parametrize(("candidates", "seeds"), [(1, 1), (1, 5), (4, 1)])
def test_without_a_choice_there_is_no_test(candidates, seeds):
    found = run(np.random.default_rng(0).normal(size=(candidates, seeds)), better="max")
    assert found.alive.all()
    assert found.wanted.tolist() == [1] * candidates
    assert found.eliminations == ()


def test_without_noise_or_without_differences_nothing_is_eliminated():
    constant = np.repeat([[0.9], [0.8], [0.1]], 4, axis=1)
    assert run(constant, better="max").alive.all()
    assert run(constant, better="max").noise == 0
    assert run(np.full((8, 3), 0.5), better="max").alive.all()
    shifted = constant + np.array([0.01, 0.03, 0.02, 0.07])  # the same for all: an effect of the seed, and no noise
    assert run(shifted, better="max").alive.all()


def test_some_candidates_without_variance_do_not_break_the_race():
    """Accuracies of few samples repeat."""
    table = np.array([[0.9, 0.9, 0.9, 0.9], [0.9, 0.91, 0.9, 0.89], [0.1, 0.12, 0.11, 0.1], [0.9, 0.9, 0.9, 0.9]])
    found = run(table, better="max", alpha=0.3)
    assert found.alive.tolist() == [True, True, False, True]


def test_a_race_of_thousands_takes_little_memory():
    rng = np.random.default_rng(4)
    table = rng.normal(size=(2000, 3)) - rng.exponential(50, (2000, 1))
    table[1234] = [5.0, 6.0, 4.0]
    tracemalloc.start()
    found = race([*table], seeds=3, better="max")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.alive[1234]
    assert found.wanted.sum() < 0.6 * table.size
    assert peak < 60e6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_eliminates(value):
    table = np.random.default_rng(0).normal(size=(4, 3))
    table[2, 1] = value
    found = run(table, better="max")
    assert found.alive.tolist() == [True, True, False, True]
    (left,) = found.eliminations
    assert (left.candidate, left.by) == (2, None)
    assert not run(np.full((3, 3), value), better="max").alive.any()


@pytest.mark.parametrize(
    ("values", "options"),
    [([], {}), ([[1.0]], {"seeds": 0}), ([[1.0]], {"alpha": 0.0}), ([[1.0]], {"alpha": math.nan}), ([[1.0]], {"better": "up"})],
)
def test_race_refuses(values, options):
    options = {"seeds": 3, "better": "max", "alpha": 0.05} | options
    message = f"{len(values)} candidates, seeds={options['seeds']}, alpha={options['alpha']}, better={options['better']!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        race(values, **options)


@pytest.mark.parametrize("scale", ["equal", "log-normal"])
def test_the_best_candidate_is_seldom_lost(scale):
    """Ten candidates that are equally good, three seeds: at most 5 % of them, with a margin of about 3 standard errors."""
    lost = []
    for repetition in range(150):
        rng = np.random.default_rng(repetition)
        noise = rng.normal(size=(10, 3))
        if scale == "log-normal":
            noise *= np.exp(rng.normal(0, 0.5, (10, 1)))
        lost.append(np.mean(~race([*noise], seeds=3, better="max").alive))
    assert np.mean(lost) < 0.09
