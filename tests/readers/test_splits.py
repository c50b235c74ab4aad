"""What every data set has in common, on the digits."""

import hashlib
import io
import itertools

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from dlframe.data.digits import digits
from dlframe.readers.splits import by_hash, chronological_split, drop_labels, overlaps, statistics, stratified
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
    """Ten digits in a row are one writer's: no group lies in two parts, and each part has about its fraction."""
    labels = [str(label) for label in digits().train["label"]]
    groups = [f"writer {i // 10}" for i in range(len(labels))]
    parts = by_hash(labels, groups, (0.6, 0.2, 0.2))
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    names = [{groups[i] for i in part} for part in parts]
    assert not any(a & b for a, b in itertools.combinations(names, 2))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert len(part) == pytest.approx(fraction * len(labels), abs=0.1 * len(labels))
        assert {labels[i] for i in part} == set(labels)
    with pytest.raises(DataError, match=r"^class 'a' must have at least 3 groups, one per split. Received: 2$"):
        by_hash(list("aaaabbb"), list("xxyypqr"), (0.6, 0.2, 0.2))


def test_a_hash_splits_by_the_name_alone():
    names = [f"cat/{i}.png" for i in range(3000)]
    parts = by_hash(["cat"] * 3000, names, (0.6, 0.2, 0.2))
    sizes = [len(part) / 3000 for part in parts]
    np.testing.assert_allclose(sizes, (0.6, 0.2, 0.2), atol=0.03)  # three standard errors
    for part, (low, high) in zip(parts, ((0, 0.6), (0.6, 0.8), (0.8, 1)), strict=True):
        for i in part:
            drawn = int(hashlib.sha256(names[i].encode()).hexdigest()[:14], 16) / 16**14
            assert low <= drawn < high
    home = {names[i]: part for part, index in enumerate(parts) for i in index}
    more = ["cat/0a.png", *names, "cat/z.png"]
    again = by_hash(["cat"] * 3002, more, (0.6, 0.2, 0.2))
    assert all(home.get(more[i], part) == part for part, index in enumerate(again) for i in index)


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_a_small_class_is_in_every_part(count):
    labels = [str(i % 40) for i in range(40 * count)]
    for part in by_hash(labels, [f"{i}" for i in range(40 * count)], (0.6, 0.2, 0.2)):
        assert len({labels[i] for i in part}) == 40


def test_images_of_train_in_test_are_counted():
    """Two are the same, one is a brighter copy, the others are of another kind."""
    rng = np.random.default_rng(0)
    train, other = (rng.integers(0, 200, (5, 1, 16, 16), np.uint8) for _ in range(2))
    test = np.concatenate([train[:2], train[2:3] + 7, other[:3]])
    (found,) = overlaps({"train": train, "validation": other[3:], "test": test})
    assert str(found) == "test: 2 of 6 images are in train or validation too, 1 more look alike"
    assert found.fraction == 0.5
    blank = np.full((3, 3, 16, 16), 9, np.uint8)
    assert overlaps({"train": blank, "test": blank + 1}) == []


def test_copies_of_photos_look_alike_and_others_do_not():
    """Pieces of 80 pixels of two photos, in another compression, size and brightness; and mirrored, which are others."""
    tiles = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        tiles += [photo[y : y + 80, x : x + 80] for y in range(0, 400, 80) for x in range(0, 640, 80)]

    def seen(pictures: list[Image.Image]) -> np.ndarray:
        small = [picture.resize((32, 32), Image.Resampling.BILINEAR) for picture in pictures]
        return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in small])

    def compressed(picture: Image.Image) -> Image.Image:
        stored = io.BytesIO()
        picture.save(stored, "JPEG", quality=40)
        return Image.open(stored)

    pictures = [Image.fromarray(tile) for tile in tiles]
    train = seen(pictures)
    contrasts = np.array([tile.mean(2).std() for tile in tiles])
    clear = [picture for picture, contrast in zip(pictures, contrasts, strict=True) if contrast > 20]
    assert len(clear) > 40
    changes = (compressed, lambda p: p.resize((47, 47)), lambda p: p.point(lambda value: value // 2 + 40))
    for change in changes:
        (found,) = overlaps({"train": train, "test": seen([change(picture) for picture in clear])})
        assert found.equal + found.alike > 0.9 * len(clear)
    others = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in clear]
    assert overlaps({"train": train, "test": seen(others)}) == []
