"""How samples are divided, checked and measured: what every data set has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from dlframe.types import UNLABELLED, DataError, Dataset, DataSpec, Split

PARTS = ("train", "validation", "test")


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


def by_time(samples: int, fractions: Sequence[float]) -> list[slice]:
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


def image_set(name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], source: str) -> Dataset:
    """The data set whose splits were stored as "train-inputs", "train-targets", "train-ids" and so on.

    Raises:
        DataError: The arrays are no images with class numbers, or `check` refuses them.
        KeyError: An array is missing, or one of the facts: classes, mean, std and splits.
    """
    train, validation, test = (Split(*(arrays[f"{part}-{kind}"] for kind in ("inputs", "targets", "ids"))) for part in PARTS)
    for split in (train, validation, test):
        if (split.inputs.dtype, split.inputs.ndim, split.targets.dtype, split.targets.ndim) != (np.uint8, 4, np.int64, 1):
            raise DataError(f"{name}: is not stored as images with class numbers")
    shape, classes = train.inputs.shape[1:], tuple(map(str, facts["classes"]))
    mean, std = (tuple(float(value) for value in facts[fact]) for fact in ("mean", "std"))
    if not len(mean) == len(std) == shape[0]:
        raise DataError(f"{name}: has {shape[0]} channels. Received: {len(mean)} means, {len(std)} deviations")
    spec = DataSpec(name, "image", "class", shape, classes, mean=mean, std=std)
    return check(Dataset(spec, train, validation, test, source, str(facts["splits"])))


def check(dataset: Dataset) -> Dataset:
    """The data set itself, if every split has samples of its shape and every class number is one of its classes.

    Raises:
        DataError: Names the data set, the split, the sample, the value and the allowed range.
    """
    name, classes = dataset.spec.name, len(dataset.spec.classes)
    for part in PARTS:
        split: Split = getattr(dataset, part)
        if not len(split) == len(split.targets) == len(split.ids) or not len(split):
            raise DataError(f"{name}: {part} has {len(split)} inputs, {len(split.targets)} targets and {len(split.ids)} ids")
        if split.inputs.shape[1:] != dataset.spec.shape or 0 in dataset.spec.shape:
            raise DataError(f"{name}: inputs of {part} have shape {split.inputs.shape[1:]}, not {dataset.spec.shape}")
        if not classes:
            continue
        lowest = UNLABELLED if part == "train" else 0
        wrong = np.flatnonzero((split.targets < lowest) | (split.targets >= classes))
        if len(wrong):
            raise DataError(
                f"{name}: sample {split.ids[wrong[0]]} of {part} has a label out of range: 0 to {classes - 1}"
                f"{' (or -1, unlabelled)' if lowest else ''}. Received: {split.targets[wrong[0]]}"
            )
    return dataset


def hide_labels(dataset: Dataset, labels_per_class: int, *, seed: int = 0) -> Dataset:
    """Keep the labels of that many training samples of each class; the others become `UNLABELLED`.

    Validation and test stay whole: what is studied is how few labels training needs, and a score on a handful of
    validation samples would mostly measure luck.

    Args:
        dataset: With classes.
        labels_per_class: Labels to keep.
        seed: Chooses the samples that keep theirs.

    Raises:
        DataError: A class has fewer labels than are asked for.
    """
    generator = np.random.default_rng(seed)
    targets = np.full_like(dataset.train.targets, UNLABELLED)
    for label, name in enumerate(dataset.spec.classes):
        index = np.flatnonzero(dataset.train.targets == label)
        if len(index) < labels_per_class:
            raise DataError(
                f"labels_per_class: class '{name}' of {dataset.spec.name} has {len(index)} training samples. "
                f"Received: {labels_per_class}"
            )
        targets[generator.choice(index, labels_per_class, replace=False)] = label
    return replace(
        dataset,
        train=replace(dataset.train, targets=targets),
        splits=f"{dataset.splits}, {labels_per_class} labels a class",
    )
