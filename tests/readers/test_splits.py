"""What every data set has in common, on the digits."""

import itertools

import numpy as np
import pytest

from dlframe.data.digits import digits
from dlframe.readers.splits import by_groups, chronological_split, drop_labels, statistics, stratified
from dlframe.types import DataError, check_dataset


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.9, 0.1), (0.44, 0.01, 0.55), (0.98, 0.01, 0.01)])
def test_stratified_parts_are_disjoint_and_hold_every_class(fractions):
    targets = np.concatenate([digits().train["label"], np.full(len(fractions), 10)])
    parts = stratified(targets, fractions)
    assert sorted(np.concatenate(parts)) == list(range(len(targets)))
    for part, fraction in zip(parts, fractions, strict=True):
        counts = np.bincount(targets[part], minlength=11)
        assert counts[10] == 1
        assert np.abs(counts[:10] - fraction * np.bincount(targets)[:10]).max() <= 1
        assert (np.diff(part) > 0).all()


def test_stratified_depends_on_its_seed_alone():
    targets = digits().train["label"]
    np.random.seed(7)
    first = stratified(targets, (0.5, 0.5))
    assert all((a == b).all() for a, b in zip(first, stratified(targets, (0.5, 0.5)), strict=True))
    assert (first[0] != stratified(targets, (0.5, 0.5), seed=1)[0]).any()


def test_class_too_small_for_the_parts():
    with pytest.raises(DataError, match=r"^class 'b' must have at least 3 samples, one per split. Received: 2$"):
        stratified(np.array([0, 0, 0, 1, 1]), (0.6, 0.2, 0.2), names=("a", "b"))


def test_by_time_rounds_down_and_ends_with_the_series():
    assert chronological_split(5031, (0.7, 0.1, 0.2)) == [slice(0, 3521), slice(3521, 4024), slice(4024, 5031)]
    assert chronological_split(10, (0.7, 0.1, 0.2)) == [slice(0, 7), slice(7, 8), slice(8, 10)]


def test_statistics_equal_numpy():
    images = digits().train["image"]
    images = np.concatenate([images, 255 - images, np.full_like(images, 51)], axis=1)
    mean, std = statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], (images / 255).std((0, 2, 3))[:2], rtol=1e-12)
    assert std[2] == 1 / 255


def test_unlabeled_samples():
    dataset = digits()
    few = drop_labels(dataset, 5, seed=1)
    kept = few.train.labelled
    assert np.bincount(few.train["label"][kept]).tolist() == [5] * 10
    assert (few.train["label"] == dataset.train["label"]).all()
    assert (few.train["image"] == dataset.train["image"]).all()
    assert few.validation is dataset.validation
    assert few.test is dataset.test
    assert few.splits == "stratified 60/20/20, 5 labels per class"
    assert check_dataset(few) is few
    assert (drop_labels(dataset, 5, seed=2).train.labelled != kept).any()


def test_more_labels_than_there_are():
    with pytest.raises(DataError) as error:
        drop_labels(digits(), 108)
    assert str(error.value) == ("labels_per_class: class '0' of digits has 107 training samples. Received: 108")


def test_groups_stay_on_one_side():
    """Ten digits in a row are one writer's: no group lies in two parts, and each part has about its fraction of all classes."""
    targets = digits().train["label"]
    groups = np.arange(len(targets)) // 10
    parts = by_groups(targets, groups, (0.6, 0.2, 0.2))
    assert sorted(np.concatenate(parts)) == list(range(len(targets)))
    assert not any(set(groups[a]) & set(groups[b]) for a, b in itertools.combinations(parts, 2))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert len(part) == pytest.approx(fraction * len(targets), rel=0.1)
        assert np.bincount(targets[part], minlength=10) == pytest.approx(fraction * np.bincount(targets), abs=12)
    with pytest.raises(DataError, match=r"^a split of 0.6, 0.2, 0.2 requires 5 groups. Received: 4$"):
        by_groups(targets, groups % 4, (0.6, 0.2, 0.2))
