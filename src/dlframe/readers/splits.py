"""Splits, statistics and storage shared by all data sets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.types import PARTS, DataError, Dataset, DataSpec, Field, Split, check_dataset


def stratified(
    targets: np.ndarray, fractions: Sequence[float], *, seed: int = 0, names: Sequence[str] = ()
) -> list[np.ndarray]:
    """Split samples into parts with equal class proportions.

    The split depends on `seed`, not on the run's seed: all runs share the same test samples.

    Args:
        targets: (samples,) class indices.
        fractions: Fractions of the parts; sum to one.
        seed: Seed of the shuffle within each class.
        names: Class names, for messages.

    Returns:
        Ascending sample indices of each part.

    Raises:
        DataError: A class has fewer samples than parts.
    """
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    steps = np.arange(len(fractions))
    for label in np.unique(targets):
        index = generator.permutation(np.flatnonzero(targets == label))
        if len(index) < len(fractions):
            name = names[label] if len(names) else label
            raise DataError(
                f"class '{name}' must have at least {len(fractions)} samples, one per split. Received: {len(index)}"
            )
        cuts = np.rint(np.cumsum(fractions) * len(index)).astype(int)
        cuts = np.maximum.accumulate(cuts - steps) + steps
        cuts = np.clip(cuts, steps + 1, len(index) - steps[::-1])
        for part, piece in zip(parts, np.split(index, cuts[:-1]), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def by_groups(targets: np.ndarray, groups: np.ndarray, fractions: Sequence[float], *, seed: int = 0) -> list[np.ndarray]:
    """Split samples by group, with class proportions as equal as groups allow.

    Uses scikit-learn's StratifiedGroupKFold, with one fold for the smallest fraction.

    Args:
        targets: (samples,) class indices.
        groups: (samples,) names.
        fractions: Fractions of the parts, the largest first; sum to one.
        seed: Seed of the order of groups.

    Returns:
        Ascending sample indices of each part.

    Raises:
        DataError: There are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = round(1 / min(fractions))
    if (count := len(np.unique(groups))) < folds:
        raise DataError(f"a split of {', '.join(map(str, fractions))} requires {folds} groups. Received: {count}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes with fewer samples than folds
        dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(targets, targets, groups)
        tests = [test for _, test in dealt]
    counts = [round(fraction * folds) for fraction in fractions[1:]]
    ends = np.cumsum([0, *counts])
    others = [np.sort(np.concatenate(tests[start:end])) for start, end in pairwise(ends)]
    return [np.setdiff1d(np.arange(len(targets)), np.concatenate(others)), *others]


def chronological_split(samples: int, fractions: Sequence[float]) -> list[slice]:
    """Split a series into consecutive parts; cuts are rounded down."""
    # In floats, 0.7 + 0.1 is less than 0.8.
    cuts = [0, *(int(samples * end + 1e-6) for end in np.cumsum(fractions)[:-1]), samples]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of images, scaled to [0, 1].

    Exact for uint8 (samples, channels, height, width): computed from the counts of the 256 values. A constant channel has
    a deviation of 1/255.
    """
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256)
        for start in range(0, len(images), 4096):
            counts += np.bincount(images[start : start + 4096, channel].ravel(), minlength=256)
        mean = float(counts @ values / counts.sum())
        means.append(mean)
        deviations.append(max(float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())), 1 / 255))
    return tuple(means), tuple(deviations)


def image_spec(name: str, train: Split, classes: Sequence[str], measured: Any = None) -> DataSpec:
    """Return the spec of images ("image", uint8) with one class each ("label").

    Args:
        name: Name of the data set.
        train: Training split, for the statistics.
        classes: Names of the classes.
        measured: Mean and standard deviation per channel, if known.
    """
    images = train["image"]
    mean, std = measured or statistics(images)
    image = Field(kind="image", dtype="uint8", shape=images.shape[1:], mean=tuple(mean), std=tuple(std))
    return DataSpec(name, {"image": image}, {"label": Field(kind="class", dtype="int64", names=tuple(classes))})


STORED = {"inputs": "image", "targets": "label"}
"""Name of a stored array -> its column."""


def store(folder: Path, part: str, split: Split) -> None:
    """Write a split of images as "train-inputs.npy", "train-targets.npy" etc."""
    arrays = {kind: split[column] for kind, column in STORED.items()} | {"ids": split.ids}
    if split.groups is not None:
        arrays["groups"] = split.groups
    for kind, array in arrays.items():
        np.save(folder / f"{part}-{kind}.npy", np.ascontiguousarray(array), allow_pickle=False)


def image_set(name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], source: str) -> Dataset:
    """Return the data set whose splits were written by `store`.

    Raises:
        DataError: The arrays are not images with class indices.
        KeyError: An array or metadata (classes, mean, std, splits) is missing.
    """
    train, validation, test = (
        Split(
            {column: arrays[f"{part}-{kind}"] for kind, column in STORED.items()},
            arrays[f"{part}-ids"],
            groups=arrays.get(f"{part}-groups"),
        )
        for part in PARTS
    )
    if train["image"].ndim != 4:
        raise DataError(f"{name}: is not stored as images with class indices")
    measured = tuple(tuple(float(value) for value in facts[fact]) for fact in ("mean", "std"))
    if {len(values) for values in measured} != {train["image"].shape[1]}:
        raise DataError(f"{name}: must have statistics of {train['image'].shape[1]} channels")
    spec = image_spec(name, train, tuple(map(str, facts["classes"])), measured)
    return check_dataset(Dataset(spec, train, validation, test, source, str(facts["splits"])))


def drop_labels(dataset: Dataset, labels_per_class: int, *, seed: int = 0) -> Dataset:
    """Keep the labels of `labels_per_class` training samples of each class.

    Validation and test keep all labels: scores on a few validation samples would be mostly noise.

    Args:
        dataset: Data set with one class target.
        labels_per_class: Number of labels to keep per class.
        seed: Seed of the choice of samples.

    Raises:
        DataError: A class has fewer training samples.
    """
    generator = np.random.default_rng(seed)
    (name,) = dataset.spec.of_kind("class", dataset.spec.targets)
    targets, labelled = dataset.train[name], np.zeros(len(dataset.train), dtype=bool)
    for label, title in enumerate(dataset.spec.classes):
        index = np.flatnonzero(targets == label)
        if len(index) < labels_per_class:
            raise DataError(
                f"labels_per_class: class '{title}' of {dataset.spec.name} has {len(index)} training samples. "
                f"Received: {labels_per_class}"
            )
        labelled[generator.choice(index, labels_per_class, replace=False)] = True
    return replace(
        dataset,
        train=replace(dataset.train, labelled=labelled),
        splits=f"{dataset.splits}, {labels_per_class} labels per class",
    )
