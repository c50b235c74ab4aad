"""What every data set has in common, on the digits."""

import numpy as np
import pytest

from dlframe.data.digits import digits
from dlframe.readers.splits import by_time, check, hide_labels, statistics, stratified
from dlframe.types import UNLABELLED, DataError, Split


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.9, 0.1), (0.44, 0.01, 0.55), (0.98, 0.01, 0.01)])
def test_stratified_parts_are_disjoint_and_hold_every_class(fractions):
    targets = np.concatenate([digits().train.targets, np.full(len(fractions), 10)])
    parts = stratified(targets, fractions)
    assert sorted(np.concatenate(parts)) == list(range(len(targets)))
    for part, fraction in zip(parts, fractions, strict=True):
        counts = np.bincount(targets[part], minlength=11)
        assert counts[10] == 1
        assert np.abs(counts[:10] - fraction * np.bincount(targets)[:10]).max() <= 1
        assert (np.diff(part) > 0).all()


def test_stratified_depends_on_its_seed_alone():
    targets = digits().train.targets
    np.random.seed(7)
    first = stratified(targets, (0.5, 0.5))
    assert all((a == b).all() for a, b in zip(first, stratified(targets, (0.5, 0.5)), strict=True))
    assert (first[0] != stratified(targets, (0.5, 0.5), seed=1)[0]).any()


def test_class_too_small_for_the_parts():
    with pytest.raises(DataError, match=r"^class 'b' has 2 of the 3 samples that it needs to be in every split$"):
        stratified(np.array([0, 0, 0, 1, 1]), (0.6, 0.2, 0.2), names=("a", "b"))


def test_by_time_rounds_down_and_ends_with_the_series():
    assert by_time(5031, (0.7, 0.1, 0.2)) == [slice(0, 3521), slice(3521, 4024), slice(4024, 5031)]
    assert by_time(10, (0.7, 0.1, 0.2)) == [slice(0, 7), slice(7, 8), slice(8, 10)]


def test_statistics_equal_numpy():
    images = digits().train.inputs
    images = np.concatenate([images, 255 - images, np.full_like(images, 51)], axis=1)
    mean, std = statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], (images / 255).std((0, 2, 3))[:2], rtol=1e-12)
    assert std[2] == 1 / 255


@pytest.mark.parametrize(("part", "value"), [("train", 10), ("train", -2), ("validation", -1), ("test", 10)])
def test_label_out_of_range(part, value):
    dataset = digits()
    split = getattr(dataset, part)
    split.targets[3] = value
    allowed = "0 to 9 (or -1, unlabelled)" if part == "train" else "0 to 9"
    with pytest.raises(DataError) as error:
        check(dataset)
    assert str(error.value) == (
        f"digits: sample {split.ids[3]} of {part} has a label out of range: {allowed}. Received: {value}"
    )


def test_empty_split():
    dataset = digits()
    dataset.validation = Split(dataset.test.inputs[:0], dataset.test.targets[:0], dataset.test.ids[:0])
    with pytest.raises(DataError, match=r"^digits: validation has 0 inputs, 0 targets and 0 ids$"):
        check(dataset)


def test_hidden_labels():
    dataset = digits()
    hidden = hide_labels(dataset, 5, seed=1)
    kept = hidden.train.targets != UNLABELLED
    assert np.bincount(hidden.train.targets[kept]).tolist() == [5] * 10
    assert (hidden.train.targets[kept] == dataset.train.targets[kept]).all()
    assert (hidden.train.inputs == dataset.train.inputs).all()
    assert hidden.validation is dataset.validation
    assert hidden.test is dataset.test
    assert hidden.splits == "stratified 60/20/20, 5 labels a class"
    assert check(hidden) is hidden
    assert (hide_labels(dataset, 5, seed=2).train.targets != hidden.train.targets).any()


def test_more_labels_than_there_are():
    with pytest.raises(DataError) as error:
        hide_labels(digits(), 108)
    assert str(error.value) == ("labels_per_class: class '0' of digits has 107 training samples. Received: 108")
