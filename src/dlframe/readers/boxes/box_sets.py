"""Storage of data sets of images with boxes, shared by those that decode or render theirs once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.boxes.frames import FRAME
from dlframe.types import PARTS, Dataset, DataSpec, Field, Ragged, Split, check_dataset

ALONG = ("box", "label", "about")
"""Columns with a row per object."""


def store(
    folder: Path,
    part: str,
    *,
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    about: Sequence[np.ndarray],
    known: Sequence[str],
    ids: Sequence[str],
    groups: Sequence[str] | None = None,
    frames: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> None:
    """Write a split as "train-box.npy", "train-label.npy" etc.

    Args:
        folder: Folder of the cache.
        part: Name of the split.
        boxes: (objects, 4) corners of each image, in pixels of the stored image.
        labels: (objects,) class indices of each image.
        about: (objects, known) of each image.
        known: Names of what `about` tells.
        ids: Names of the images.
        groups: Groups of the images.
        frames: (images, 6), see `frame_of`; None where the stored images are the original ones.
        images: (images, channels, height, width) uint8; None if they are written already.
    """
    arrays: dict[str, Any] = {
        "box": np.concatenate([np.zeros((0, 4)), *boxes]).astype(np.float32),
        "label": np.concatenate([np.zeros(0), *labels]).astype(np.int64),
        "about": np.concatenate([np.zeros((0, len(known))), *about]).astype(np.float32),
        "offsets": np.concatenate([[0], np.cumsum([len(own) for own in labels])]).astype(np.int64),
        "ids": np.array(ids, np.str_),
        "groups": None if groups is None else np.array(groups, np.str_),
        "frame": None if frames is None else frames.astype(np.float32),
        "image": images,
    }
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{part}-{name}.npy", array, allow_pickle=False)


def box_split(arrays: Mapping[str, np.ndarray], part: str) -> Split:
    """Return a split that was written by `store`; `KeyError` if an array is missing."""
    columns: dict[str, Any] = {kind: Ragged(arrays[f"{part}-{kind}"], arrays[f"{part}-offsets"]) for kind in ALONG}
    columns["image"] = arrays[f"{part}-image"]
    if f"{part}-frame" in arrays:
        columns["frame"] = arrays[f"{part}-frame"]
    return Split(columns, arrays[f"{part}-ids"], groups=arrays.get(f"{part}-groups"))


def box_set(name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], known: Sequence[str]) -> Dataset:
    """Return the data set whose splits were written by `store`.

    Args:
        name: Name of the data set.
        arrays: Stored arrays.
        facts: classes, mean, std, source and splits; and how images were decoded, if they were.
        known: Names of what "about" tells.

    Raises:
        DataError: The arrays are not such a data set.
        KeyError: An array or metadata is missing.
    """
    train, validation, test = (box_split(arrays, part) for part in PARTS)
    mean, std = (tuple(map(float, facts[fact])) for fact in ("mean", "std"))
    targets = {
        "box": Field(kind="box", dtype="float32", shape=(None, 4)),
        "label": Field(kind="class", dtype="int64", shape=(None,), names=tuple(map(str, facts["classes"])), along="box"),
        "about": Field(kind="value", dtype="float32", shape=(None, len(known)), names=tuple(known), along="box"),
    }
    if "train-frame" in arrays:
        targets["frame"] = Field(kind="number", dtype="float32", shape=(len(FRAME),), names=FRAME)
    shape = train["image"].shape[1:]
    image = Field(kind="image", dtype="uint8", shape=shape, mean=mean, std=std)
    spec = DataSpec(name, {"image": image}, targets, fitted=dict(facts.get("decoding", {})))
    source, splits, refusal = (str(facts.get(kind, "")) for kind in ("source", "splits", "refusal"))
    return check_dataset(Dataset(spec, train, validation, test, source, splits, refusal=refusal))
