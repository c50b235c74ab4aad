"""Areas under curves without each group, against scikit-learn without the group, and DeLong's covariances written out."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dlframe.statistics.comparison.areas import auroc, average_precision
from dlframe.statistics.comparison.differences import covariance, scores

RANDOM = np.random.default_rng(2)
TARGET = RANDOM.random(120) < 0.3
TIED, DISTINCT = np.round(RANDOM.normal(size=120) + TARGET, 1), RANDOM.normal(size=120) + TARGET
EACH, GROUPS = np.arange(120), np.repeat(np.arange(24), 5)


def without(reference, score, groups):
    return [reference(TARGET[groups != group], score[groups != group]) for group in range(groups.max() + 1)]


@pytest.mark.parametrize("groups", [EACH, GROUPS], ids=["each", "groups"])
@pytest.mark.parametrize("score", [TIED, DISTINCT], ids=["tied", "distinct"])
def test_auroc_is_exact_without_any_group(score, groups):
    value, deleted = auroc(TARGET, score, groups)
    assert value == pytest.approx(roc_auc_score(TARGET, score))
    np.testing.assert_allclose(deleted, without(roc_auc_score, score, groups))


@pytest.mark.parametrize("score", [TIED, DISTINCT], ids=["tied", "distinct"])
def test_average_precision_is_exact_without_each_sample_and_near_without_groups(score):
    value, deleted = average_precision(TARGET, score, EACH)
    exact = without(average_precision_score, score, EACH)
    assert value == pytest.approx(average_precision_score(TARGET, score))
    np.testing.assert_allclose(deleted, exact)
    _, of_groups = average_precision(TARGET, score, GROUPS)
    sums = value + np.bincount(GROUPS, np.array(exact) - value)
    np.testing.assert_allclose(of_groups, sums)
    assert of_groups.std() == pytest.approx(np.std(without(average_precision_score, score, GROUPS)), rel=0.15)


def test_the_covariances_are_those_of_delong():
    """DeLong, DeLong and Clarke-Pearson 1988: sample covariances of the placements of positive and of negative examples."""
    rows = [TIED, DISTINCT]
    positives, negatives = ([row[kind] for row in rows] for kind in (TARGET, ~TARGET))
    wins = [(p[:, None] > n).astype(float) + 0.5 * (p[:, None] == n) for p, n in zip(positives, negatives, strict=True)]
    expected = np.cov([w.mean(1) for w in wins]) / TARGET.sum() + np.cov([w.mean(0) for w in wins]) / (~TARGET).sum()
    model = scores(*zip(*(auroc(TARGET, row, EACH) for row in rows), strict=True))
    np.testing.assert_allclose(covariance(model, model), expected, rtol=0.03)


def test_what_is_undefined_is_nan():
    target, score = np.array([True, False, False]), np.array([0.9, 0.1, 0.2])
    assert np.isnan(auroc(target, score, np.arange(3))[1]).tolist() == [True, False, False]
    assert np.isnan(average_precision(target, score, np.arange(3))[1]).tolist() == [True, False, False]
    assert np.isnan(average_precision(~target & False, score, np.arange(3))[0])
    assert np.isnan(auroc(target | True, score, np.arange(3))[0])
