"""Splits, statistics and storage shared by all data sets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.types import PARTS, Column, ConfigError, DataError, Dataset, DataSpec, Field, Split, check_dataset, nearest


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


def by_hash(labels: Sequence[str], groups: Sequence[str], fractions: Sequence[float]) -> list[np.ndarray]:
    """Split samples by a hash of their group's name, so that another sample moves none of these.

    The parts of a group are one; fractions and class proportions hold on average. A class that a part would lack, though it has
    groups enough, gives that part the group whose hash is nearest to it.

    Args:
        labels: (samples,) classes.
        groups: (samples,) names; equal to the samples' ids where samples are independent.
        fractions: Fractions of the parts, the largest first; sum to one.

    Returns:
        Ascending sample indices of each part.

    Raises:
        DataError: A class has fewer groups than parts.
    """
    cuts = np.cumsum([0.0, *fractions])
    cuts[-1] = 1.0
    drawn = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / 2**56 for name in set(groups)}
    home = {name: int(np.searchsorted(cuts, value, "right")) - 1 for name, value in drawn.items()}
    members: dict[str, list[str]] = {}
    for label, name in sorted(set(zip(labels, groups, strict=True))):
        members.setdefault(label, []).append(name)
    settled: set[str] = set()
    for label, names in sorted(members.items()):
        if len(names) < len(fractions):
            kind = "groups" if len(set(groups)) < len(groups) else "samples"
            raise DataError(
                f"class '{label}' must have at least {len(fractions)} {kind}, one per split. Received: {len(names)}"
            )
        for part in range(len(fractions)):
            held = Counter(home[name] for name in names)
            free = [name for name in names if held[home[name]] > 1 and name not in settled]
            if not held[part] and free:
                low, high = cuts[part], cuts[part + 1]
                nearest_one = min(free, key=lambda name: (max(low - drawn[name], drawn[name] - high), name))
                home[nearest_one] = part
                settled.add(nearest_one)
    parts = np.array([home[name] for name in groups])
    return [np.flatnonzero(parts == part) for part in range(len(fractions))]


ALIKE = 0.999
"""Least correlation of images that are taken for copies of one."""

BLOCK = 256
"""Images that are compared at once."""


@dataclass(frozen=True)
class Overlap:
    """Images of a split that are in earlier splits too.

    Attributes:
        part: The split.
        earlier: The earlier splits, as "train or validation".
        images: Number of images of the split.
        equal: How many have pixels of an image of the earlier ones.
        alike: How many others look like one.
    """

    part: str
    earlier: str
    images: int
    equal: int
    alike: int

    @property
    def fraction(self) -> float:
        """Fraction of the split that is in earlier ones."""
        return (self.equal + self.alike) / self.images

    def __str__(self) -> str:
        more = f", {self.alike:,} more look alike" if self.alike else ""
        return f"{self.part}: {self.equal:,} of {self.images:,} images are in {self.earlier} too{more}"


def overlaps(images: Mapping[str, np.ndarray]) -> list[Overlap]:
    """Return the splits with images of an earlier one: equal pixels, or such that look alike.

    Alike are images whose means over a grid of 8 x 9 cells correlate above `ALIKE`, as do copies in another size, compression
    or brightness. A perceptual hash of the signs of their differences misses some of these, and takes more pictures of one
    kind, such as garments, for copies.

    Args:
        images: Split -> (samples, channels, height, width) uint8, from train to test.
    """
    exact = {part: [hashlib.sha256(image.tobytes()).digest() for image in array] for part, array in images.items()}
    cells = {part: _cells(array) for part, array in images.items()}
    found: list[Overlap] = []
    parts = [*images]
    for number, part in enumerate(parts[1:], 1):
        earlier = parts[:number]
        pixels = {value for other in earlier for value in exact[other]}
        equal = np.array([value in pixels for value in exact[part]])
        known = np.concatenate([cells[other] for other in earlier])
        alike = np.zeros(len(equal), bool)
        for start in range(0, len(equal), BLOCK):
            rows = cells[part][start : start + BLOCK]
            for column in range(0, len(known), 64 * BLOCK):
                alike[start : start + BLOCK] |= (rows @ known[column : column + 64 * BLOCK].T > ALIKE).any(1)
        if equal.any() or alike.any():
            found.append(Overlap(part, " or ".join(earlier), len(equal), int(equal.sum()), int((alike & ~equal).sum())))
    return found


def _cells(images: np.ndarray) -> np.ndarray:
    """Return the means of 8 x 9 cells (samples, 72), centered and of norm 1; zeros for images that are flat, or too small."""
    found = np.zeros((len(images), 72), np.float32)
    if min(images.shape[-2:]) < 9:
        return found
    rows, columns = (np.linspace(0, side, cells + 1).astype(int) for side, cells in zip(images.shape[-2:], (8, 9), strict=True))
    for start in range(0, len(images), BLOCK):
        gray = images[start : start + BLOCK].mean(1, dtype=np.float64)
        sums = np.add.reduceat(np.add.reduceat(gray, rows[:-1], axis=1), columns[:-1], axis=2)
        means = (sums / (np.diff(rows)[:, None] * np.diff(columns))).reshape(len(gray), -1)
        means -= means.mean(1, keepdims=True)
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        found[start : start + BLOCK] = np.where(norms > np.sqrt(72), means / np.maximum(norms, 1), 0)  # a gray level a cell
    return found


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


def part_to_score(parts: Collection[str]) -> str:
    """Return the split of other data that a trained model is scored on: test, or without it validation, train, all."""
    return next(part for part in ("test", "validation", "train", "") if part in parts)


def image_split(arrays: Mapping[str, np.ndarray], part: str) -> Split:
    """Return a split that was written as `store` does."""
    columns: dict[str, Column] = {column: arrays[f"{part}-{kind}"] for kind, column in STORED.items()}
    return Split(columns, arrays[f"{part}-ids"], groups=arrays.get(f"{part}-groups"))


def image_set(name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], source: str) -> Dataset:
    """Return the data set whose splits were written by `store`.

    Raises:
        DataError: The arrays are not images with class indices.
        KeyError: An array or metadata (classes, mean, std, splits) is missing.
    """
    train, validation, test = (image_split(arrays, part) for part in PARTS)
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


NORMAL = ("normal", "good", "ok", "nominal", "healthy", "inlier", "legit", "regular")
"""Names, lower case, of a class of normal samples."""

NORMAL_OF_TWO = (*NORMAL, "0", "0.0", "false", "no", "n", "negative", "none")
"""Of two classes."""


def normal_classes(spec: DataSpec, anomalies: Sequence[str] = ()) -> tuple[tuple[str, ...], str]:
    """Return the classes of normal samples, and how they were found.

    Args:
        spec: Data with one class target.
        anomalies: Names of the other classes; empty for those that the data name, a class with a usual name such as
            "normal", the more frequent one of two, or all but the first.

    Raises:
        ConfigError: There is no such class, or no other.
    """
    classes = spec.classes
    if unknown := [name for name in anomalies if name not in classes]:
        shown = ", ".join(classes[:6]) + ", ..." * (len(classes) > 6)
        raise ConfigError(
            f"task.anomalies: data={spec.name} must have the class '{unknown[0]}'. It has {shown}."
            f"{nearest(unknown[0], classes)}",
            "task.anomalies",
        )
    usual = [name for name in classes if name.strip().casefold() in (NORMAL_OF_TWO if len(classes) == 2 else NORMAL)]
    given, counts = spec.fitted.get("normal"), spec.fitted.get("counts")
    if anomalies:
        normal, how = [name for name in classes if name not in anomalies], ""
    elif isinstance(given, list) and given and set(given) <= set(classes):
        normal, how = given, ""
    elif len(usual) == 1:
        normal, how = usual, "by its name"
    elif len(classes) == 2 and isinstance(counts, list) and len(counts) == 2 and counts[0] != counts[1]:
        normal, how = [classes[counts[0] < counts[1]]], "the more frequent class"
    else:
        normal, how = [*classes[1:]], f"all classes but the first, '{classes[0]}'" if classes else ""
    if not normal or len(normal) == len(classes):
        raise ConfigError(
            f"task.anomalies: must leave a normal class. Received: {', '.join(anomalies) or 'none'} of "
            f"{', '.join(classes[:6])}.",
            "task.anomalies",
        )
    return tuple(map(str, normal)), how


def keep_normal(dataset: Dataset, normal: Sequence[str]) -> Dataset:
    """Leave out the training samples whose labels say that they are anomalies; unlabeled ones stay.

    Raises:
        DataError: No training or validation sample is normal.
    """
    (name,) = dataset.spec.of_kind("class", dataset.spec.targets)
    is_normal = np.array([label in normal for label in dataset.spec.classes])
    train = dataset.train
    kept = is_normal[train[name]]
    if train.labelled is not None:
        kept = kept | ~train.labelled
    for part, some in (("training", kept.any()), ("validation", is_normal[dataset.validation[name]].any())):
        if not some:
            raise DataError(
                f"data={dataset.spec.name}: no {part} sample is normal ({', '.join(normal)}). Say which classes are not: "
                "task.anomalies=[...]"
            )
    if kept.all():
        return dataset
    splits = f"{dataset.splits}, {int(kept.sum()):,} normal ones of {len(kept):,} to train"
    return replace(dataset, train=train.take(np.flatnonzero(kept)), splits=splits)
