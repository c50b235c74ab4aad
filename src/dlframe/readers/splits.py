"""How samples are divided, checked and measured: what every data set has in common."""

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
    """Cut the samples into parts that each hold every class in its proportion.

    The cut depends on `seed` alone, never on the run's seed: runs are compared on the same test samples.

    Args:
        targets: (samples,) class numbers.
        fractions: Of each part; they add up to one.
        seed: Of the shuffle within each class.
        names: Class names, for the message.

    Returns:
        For each part the positions of its samples, ascending.

    Raises:
        DataError: A class has fewer samples than there are parts.
    """
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    steps = np.arange(len(fractions))
    for label in np.unique(targets):
        index = generator.permutation(np.flatnonzero(targets == label))
        if len(index) < len(fractions):
            name = names[label] if len(names) else label
            raise DataError(
                f"class '{name}' has {len(index)} of the {len(fractions)} samples that it needs to be in every split"
            )
        cuts = np.rint(np.cumsum(fractions) * len(index)).astype(int)
        cuts = np.maximum.accumulate(cuts - steps) + steps
        cuts = np.clip(cuts, steps + 1, len(index) - steps[::-1])
        for part, piece in zip(parts, np.split(index, cuts[:-1]), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def by_groups(targets: np.ndarray, groups: np.ndarray, fractions: Sequence[float], *, seed: int = 0) -> list[np.ndarray]:
    """Cut the samples into parts so that each group lies in one, with the classes as near to proportion as groups allow.

    scikit-learn's StratifiedGroupKFold: the samples are dealt into as many folds as make the smallest fraction one of them.

    Args:
        targets: (samples,) class numbers.
        groups: (samples,) names.
        fractions: Of each part, the first the largest; they add up to one.
        seed: Of the order of the groups.

    Returns:
        For each part the positions of its samples, ascending.

    Raises:
        DataError: There are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = round(1 / min(fractions))
    if (count := len(np.unique(groups))) < folds:
        raise DataError(f"there are {count} of the {folds} groups that a split of {', '.join(map(str, fractions))} needs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer samples than folds
        dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(targets, targets, groups)
        tests = [test for _, test in dealt]
    counts = [round(fraction * folds) for fraction in fractions[1:]]
    ends = np.cumsum([0, *counts])
    others = [np.sort(np.concatenate(tests[start:end])) for start, end in pairwise(ends)]
    return [np.setdiff1d(np.arange(len(targets)), np.concatenate(others)), *others]


def chronological_split(samples: int, fractions: Sequence[float]) -> list[slice]:
    """Cut a series into consecutive parts, each cut rounded down, the last part ending with the series."""
    # The sum of 0.7 and 0.1 is a little less than 0.8.
    cuts = [0, *(int(samples * end + 1e-6) for end in np.cumsum(fractions)[:-1]), samples]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (samples, channels, height, width) uint8, scaled to [0, 1].

    They are exact: computed from the counts of the 256 values. A constant channel gets a deviation of 1/255.
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
    """The spec of images ("image", uint8) with one class each ("label").

    Args:
        name: Name of the data set.
        train: Whose images are measured.
        classes: Names of the classes.
        measured: Mean and standard deviation of each channel, where they are known already.
    """
    images = train["image"]
    mean, std = measured or statistics(images)
    image = Field(kind="image", dtype="uint8", shape=images.shape[1:], mean=tuple(mean), std=tuple(std))
    return DataSpec(name, {"image": image}, {"label": Field(kind="class", dtype="int64", names=tuple(classes))})


STORED = {"inputs": "image", "targets": "label"}
"""Name of a stored array -> the column that it holds."""


def store(folder: Path, part: str, split: Split) -> None:
    """Write the columns of a split of images as "train-inputs.npy", "train-targets.npy", "train-ids.npy"."""
    arrays = {kind: split[column] for kind, column in STORED.items()} | {"ids": split.ids}
    if split.groups is not None:
        arrays["groups"] = split.groups
    for kind, array in arrays.items():
        np.save(folder / f"{part}-{kind}.npy", np.ascontiguousarray(array), allow_pickle=False)


def image_set(name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], source: str) -> Dataset:
    """The data set whose splits were written by `store`.

    Raises:
        DataError: The arrays are not images with class numbers.
        KeyError: An array is missing, or one of the facts: classes, mean, std and splits.
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
        raise DataError(f"{name}: is not stored as images with class numbers")
    measured = tuple(tuple(float(value) for value in facts[fact]) for fact in ("mean", "std"))
    if {len(values) for values in measured} != {train["image"].shape[1]}:
        raise DataError(f"{name}: its means and deviations are not those of {train['image'].shape[1]} channels")
    spec = image_spec(name, train, tuple(map(str, facts["classes"])), measured)
    return check_dataset(Dataset(spec, train, validation, test, source, str(facts["splits"])))


def drop_labels(dataset: Dataset, labels_per_class: int, *, seed: int = 0) -> Dataset:
    """Keep the labels of that many training samples of each class; the others become unlabeled.

    Validation and test stay whole: what is studied is how few labels training needs, and a score on a handful of
    validation samples would mostly measure luck.

    Args:
        dataset: With one class target.
        labels_per_class: Labels to keep.
        seed: Chooses the samples that keep theirs.

    Raises:
        DataError: A class has fewer labels than are asked for.
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
        splits=f"{dataset.splits}, {labels_per_class} labels a class",
    )
