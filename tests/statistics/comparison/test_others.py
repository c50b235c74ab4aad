"""Forecasts of one series, and several data sets: by hand and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from dlframe.statistics.comparison.others import diebold_mariano, mean_over_splits, mean_ranks, over_datasets, over_splits

RANDOM = np.random.default_rng(2)


def test_one_step_ahead_it_is_the_paired_t_test():
    """With horizon 1, Harvey's correction turns the variance over n into that over n - 1."""
    one, other = RANDOM.normal(1.0, 1.0, 40) ** 2, RANDOM.normal(1.2, 1.0, 40) ** 2
    assert diebold_mariano(one, other) == pytest.approx(stats.ttest_rel(one, other)[1])


def test_three_steps_ahead_by_hand():
    one, other = np.arange(12.0) % 5, np.arange(12.0)[::-1] % 4
    d = one - other
    c = d - d.mean()
    gamma = [(c[lag:] * c[: 12 - lag]).sum() / 12 for lag in range(3)]
    statistic = d.mean() / math.sqrt((gamma[0] + 2 * gamma[1] + 2 * gamma[2]) / 12)
    statistic *= math.sqrt((12 + 1 - 6 + 3 * 2 / 12) / 12)
    assert diebold_mariano(one, other, 3) == pytest.approx(2 * stats.t.sf(abs(statistic), 11))


def test_equal_forecasts_have_no_test():
    assert math.isnan(diebold_mariano(np.ones(10), np.ones(10)))
    with pytest.raises(ValueError, match=r"more than horizon=5"):
        diebold_mariano(np.ones(5), np.ones(5), 5)


def test_over_datasets_is_wilcoxons_test_with_holms_correction():
    values = RANDOM.normal(size=(12, 3)) + np.array([0.0, 0.5, 2.0])
    found = over_datasets(values)
    plain = {(i, j): stats.wilcoxon(values[:, i], values[:, j])[1] for i, j in ((0, 1), (0, 2), (1, 2))}
    order = sorted(plain, key=lambda pair: plain[pair])
    expected = np.maximum.accumulate([min(1.0, plain[pair] * (3 - k)) for k, pair in enumerate(order)])
    assert [found[pair] for pair in order] == pytest.approx(list(expected))
    assert np.allclose(found, found.T, equal_nan=True)
    assert math.isnan(over_datasets(np.ones((6, 2)))[0, 1])
    with pytest.raises(ValueError, match="at least two of each"):
        over_datasets(np.ones((1, 2)))


def test_ranks():
    values = [[0.9, 0.8, 0.8], [0.7, 0.6, 0.5]]
    assert mean_ranks(values, is_larger_better=True).tolist() == [1.0, 2.25, 2.75]
    assert mean_ranks(values, is_larger_better=False).tolist() == [3.0, 1.75, 1.25]


def test_splits_share_samples():
    """Nadeau and Bengio 2003: 1 / J + test / train instead of 1 / J."""
    one, other = RANDOM.normal(0.8, 0.02, 8), RANDOM.normal(0.79, 0.02, 8)
    found = over_splits(one, other, train=900, test=100)
    gaps = one - other
    statistic = gaps.mean() / np.sqrt((1 / 8 + 1 / 9) * gaps.var(ddof=1))
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(statistic), 7))
    assert found.parts.freedom == pytest.approx(7)
    mean = mean_over_splits(one, train=900, test=100)
    assert (mean.low + mean.high) / 2 == pytest.approx(one.mean())
    with pytest.raises(ValueError, match="as many of both models and two or more"):
        over_splits(one, other[:3], train=900, test=100)
