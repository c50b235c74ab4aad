"""Comparison of models over seeds and examples: published values, closed forms, brute force, and a simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from dlframe.statistics.comparison import differences as comparison
from dlframe.statistics.comparison import jackknife, planning
from dlframe.statistics.comparison.differences import crossed, crossed_test, difference, holm, mean, scores

RANDOM = np.random.default_rng(0)


def of_right(right: np.ndarray) -> comparison.Scores:
    """Accuracies, from whether each seed is right on each example (seeds, examples)."""
    groups = jackknife.groups_of(right.shape[1])
    rows = [jackknife.of_sums(lambda sums: sums[..., 0] / sums[..., 1], np.c_[row, np.ones_like(row)], groups) for row in right]
    return scores([value for value, _ in rows], [deleted for _, deleted in rows])


def draw(seeds: int, examples: int, shared: np.ndarray, spread: float) -> np.ndarray:
    """Whether the networks of a procedure are right: some examples are hard for all, some for this procedure."""
    own, noise = RANDOM.normal(size=examples), RANDOM.normal(size=(seeds, examples))
    effect = spread * RANDOM.normal(size=(seeds, 1))
    return (0.6 * shared + 0.5 * own + math.sqrt(1 - 0.36 - 0.25) * noise + effect < 0.9).astype(float)


# --- published values


def test_the_reference_values_of_van_dykes_data():
    """As the R packages MRMCaov and RJafroc print them: five readers, two treatments."""
    found = crossed_test(0.004796171, 0.0005510306, 0.0003440748, 0.0002390284, models=2, seeds=5)
    assert found.denominator == pytest.approx(0.001076263, abs=1e-9)
    assert found.statistic == pytest.approx(4.456319, abs=1e-5)
    assert found.freedom == pytest.approx(15.25967, abs=1e-4)
    assert found.p_value == pytest.approx(0.05166569, abs=1e-6)


def test_mean_squares_of_matched_seeds():
    """Without covariances over examples, of two models, F is the square of the paired t."""
    values = RANDOM.normal(size=(2, 6))
    found = crossed(values, 0.0, 0.0)
    paired = stats.ttest_rel(*values)
    assert found.statistic == pytest.approx(paired.statistic**2)
    assert found.p_value == pytest.approx(paired.pvalue)
    assert found.freedom == pytest.approx(5)


# --- closed forms


def test_the_test_of_a_pair_with_matched_seeds_is_the_crossed_one():
    """t squared is F; the degrees of freedom differ by the term of the groups, of which there are many."""
    random = np.random.default_rng(11)
    shared, effect = random.normal(size=4000), 0.2 * random.normal(size=(4, 1))
    one, other = (
        of_right(0.7 * shared + 0.7 * random.normal(size=(4, 4000)) + effect < cut + 0.05 * random.normal(size=(4, 1)))
        for cut in (0.9, 0.8)
    )
    own = [comparison.covariance(model, model) for model in (one, other)]
    between = float(np.mean([(c.sum() - np.trace(c)) / 12 for c in own]))
    across = comparison.covariance(one, other)
    expected = crossed([one.values, other.values], between, float((across.sum() - np.trace(across)) / 12))
    found = difference(one, other, design="crossed")
    assert (found.value / found.error) ** 2 == pytest.approx(expected.statistic)
    assert found.parts.freedom == pytest.approx(expected.freedom, rel=0.02)
    assert found.error < difference(one, other).error, "what the seeds share is left out"
    with pytest.raises(ValueError, match="matched seeds must be as many"):
        difference(one, comparison.Scores(other.values[:3], other.deleted[:3]), design="crossed")


def test_the_jackknife_of_a_mean_is_the_sample_covariance():
    one, other = RANDOM.random((2, 40)) < 0.8, RANDOM.random((3, 40)) < 0.7
    found = comparison.covariance(of_right(one.astype(float)), of_right(other.astype(float)))
    expected = np.array([[np.cov(a, b)[0, 1] / 40 for b in other] for a in one])
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_over_seeds_it_is_welchs_test():
    one, other = of_right(draw(4, 200, np.zeros(200), 0.2)), of_right(draw(7, 200, np.zeros(200), 0.4))
    found = difference(one, other, over="seeds")
    welch = stats.ttest_ind(one.values, other.values, equal_var=False)
    assert found.p_value == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx((welch.confidence_interval().low, welch.confidence_interval().high))


def test_of_one_run_each_it_is_the_paired_test_over_examples():
    one, other = draw(1, 300, np.zeros(300), 0.0), draw(1, 300, np.zeros(300), 0.0)
    found = difference(of_right(one), of_right(other))
    paired = stats.ttest_rel(one[0], other[0])
    assert found.p_value == pytest.approx(paired.pvalue)
    assert difference(of_right(one), of_right(other), over="examples").p_value == pytest.approx(paired.pvalue)
    assert found.warnings == ("one seed: the noise of training is left out",)


def test_with_equal_seeds_it_is_obuchowskis_statistic():
    """Hillis' nested form: MS between models, MS within, and the covariances of fixed examples."""
    shared = RANDOM.normal(size=400)
    one, other = of_right(draw(5, 400, shared, 0.1)), of_right(draw(5, 400, shared, 0.1))
    found = difference(one, other)
    within = (one.values.var(ddof=1) + other.values.var(ddof=1)) / 2
    upper = np.triu_indices(5, 1)
    cov2 = (comparison.covariance(one, one)[upper].mean() + comparison.covariance(other, other)[upper].mean()) / 2
    cov3 = comparison.covariance(one, other).mean()
    f = (5 * found.value**2 / 2) / (within + 5 * max(cov2 - cov3, 0))
    assert (found.value / found.error) ** 2 == pytest.approx(f)


def test_wilsons_interval_near_one():
    """Of independent examples and one network, with n - 1 in the variance: close to Wilson's for as many examples."""
    right = np.r_[np.ones(490), np.zeros(10)][None]
    found = mean(of_right(right), low=0.0, high=1.0, is_proportion=True)
    low, high = stats.binomtest(490, 500).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=3e-4)


def test_nothing_varies():
    found = difference(of_right(np.ones((3, 50))), of_right(np.ones((2, 50))))
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)
    alone = mean(of_right(np.ones((3, 50))), low=0.0, high=1.0, is_proportion=True)
    assert (alone.value, alone.high) == (1.0, 1.0)
    assert alone.low == pytest.approx(stats.binomtest(50, 50).proportion_ci(method="wilson").low)


def test_holm_by_hand():
    """Holm's own rule: the smallest of four times 4, the next times 3, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([math.nan, 0.5, 0.9]).tolist()[1:] == [1.0, 1.0]
    assert math.isnan(holm([math.nan, 0.5])[0])


# --- the jackknife


def test_sums_give_the_values_of_computing_anew():
    target, prediction = RANDOM.random(60) < 0.3, RANDOM.random(60) < 0.4
    groups = jackknife.groups_of(60, np.repeat(list("abcdefghijkl"), 5))
    parts = np.c_[target & prediction, target, prediction]
    value, deleted = jackknife.of_sums(lambda s: 2 * s[..., 0] / (s[..., 1] + s[..., 2]), parts, groups)
    again, left_out = jackknife.of_subsets(lambda rows: f1_score(target[rows], prediction[rows]), groups)
    assert value == pytest.approx(again)
    assert again == pytest.approx(f1_score(target, prediction))
    np.testing.assert_allclose(deleted, left_out)
    assert len(deleted) == 12


def test_the_variance_of_an_area_under_the_curve_is_delongs():
    """DeLong, DeLong and Clarke-Pearson 1988: variances of the placements of positives and of negatives."""
    target = RANDOM.random(300) < 0.4
    score = RANDOM.normal(size=300) + target
    value, deleted = jackknife.of_subsets(lambda rows: roc_auc_score(target[rows], score[rows]), np.arange(300))
    model = scores([value], [deleted])
    above = (score[target][:, None] > score[~target]).astype(float)
    delong = above.mean(1).var(ddof=1) / target.sum() + above.mean(0).var(ddof=1) / (~target).sum()
    assert float(comparison.covariance(model, model)[0, 0]) == pytest.approx(delong, rel=0.01)


def test_groups():
    assert jackknife.groups_of(5).tolist() == [0, 1, 2, 3, 4]
    assert jackknife.groups_of(4, ["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert jackknife.groups_of(7, blocks=3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    many = jackknife.groups_of(9000, np.repeat(np.arange(3000), 3))
    assert len(np.unique(many)) == jackknife.RANDOM_GROUPS
    assert (many.reshape(3000, 3) == many[::3, None]).all(), "a group is in one"
    assert np.ptp(np.bincount(many)) <= 3


# --- planning


def test_power_without_noise_of_seeds_is_that_of_a_t_test():
    parts = comparison.Parts((0.0, 0.0), 0.01, (1, 1), 30)
    freedom = 29
    threshold = stats.t.ppf(0.975, freedom)
    expected = stats.nct.sf(threshold, freedom, 2.0) + stats.nct.cdf(-threshold, freedom, 2.0)
    assert planning.power(0.2, parts) == pytest.approx(expected)


def test_what_is_needed_gives_the_power_that_is_asked():
    parts = comparison.Parts((4e-4, 1e-4), 1e-5, (3, 3), 1000)
    found = planning.needed(0.02, parts)
    assert planning.power(0.02, parts.at([found.seeds] * 2, 1)) >= 0.8
    assert planning.power(0.02, parts.at([found.seeds - 1] * 2, 1)) < 0.8
    assert found.examples is None, "with three seeds, no number of examples shows it"
    few = comparison.Parts((1e-6, 1e-6), 4e-4, (3, 3), 1000)
    found = planning.needed(0.02, few)
    assert found.seeds is None
    assert planning.power(0.02, few.at([3, 3], found.examples)) == pytest.approx(0.8, abs=1e-6)
    assert planning.power(planning.shown(parts), parts) == pytest.approx(0.8, abs=1e-6)


# --- refusals


@pytest.mark.parametrize(
    ("values", "deleted", "message"),
    [
        ([0.5, 0.6], [[0.5, 0.5]], r"values \(seeds,\) and deleted \(seeds, groups\)\. Received: \(2,\) and \(1, 2\)"),
        ([0.5], [[0.5]], "a covariance over examples requires two groups"),
        ([math.nan], [[0.5, 0.5]], "the metric must be defined"),
        ([], [[]], "values"),
    ],
)
def test_scores_that_cannot_be_compared(values, deleted, message):
    with pytest.raises(ValueError, match=message):
        scores(values, deleted)


def test_other_groups_are_refused():
    with pytest.raises(ValueError, match=r"the same groups of examples\. Received: 40 and 50"):
        difference(of_right(np.eye(40)[:2]), of_right(np.eye(50)[:2]))
    with pytest.raises(ValueError, match="requires two seeds"):
        difference(of_right(np.eye(40)[:1]), of_right(np.eye(40)[:2]), over="seeds")


# --- in the long run


def test_two_equal_procedures_differ_in_one_of_twenty():
    """400 comparisons at a level of 5 %: 20 expected; 35 or more would happen once in a thousand."""
    count = 0
    for _ in range(400):
        shared = RANDOM.normal(size=360)
        one, other = of_right(draw(5, 360, shared, 0.05)), of_right(draw(5, 360, shared, 0.05))
        count += difference(one, other).p_value < 0.05
    assert 7 <= count <= 35
