"""Data for contracts: a handful of real samples, from a plugin's own data set or from one that comes with a dependency."""

from __future__ import annotations

import atexit
import csv
import functools
import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.registry import GROUPS, Entry
from dlframe.registry.parameters import REQUIRED
from dlframe.storage import fetch
from dlframe.types import Batch, Dataset, DataSpec, DlframeError, Field, MissingPackageError, Split, check_dataset

HANDFUL = 16
"""Samples of a split that contracts are tried on."""


def batch_of(split: Split, spec: DataSpec) -> Batch:
    """All samples of a split in one batch, as a task gets them from the loader: of varying length, the shortest first."""
    loader = BatchLoader(split, spec, Order(len(split)), context=lambda: ProcessContext(torch.device("cpu")))
    ((step,),) = loader
    (batch,) = step.batches
    return batch


# --- the data set of an entry


def suitable(entry: Entry) -> list[Dataset]:
    """Samples that a model, a task or an augmentation takes.

    Those of the data set that it declares by `sample`, of the smallest one of its own plugin that fits, or of all below
    that fit, or of another plugin's. Where there is none, the test is skipped.
    """
    if declared := entry.facts["sample"]:
        options = {name: value for name, value in declared.items() if name != "name"}
        return [handful(build_data(GROUPS["data"].get(declared["name"]), options))]
    foreign = [data for data in GROUPS["data"] if data.origin != "dlframe" and takes(entry, data.facts)]
    own = [data for data in foreign if data.origin == entry.origin]
    failed: list[str] = []
    if found := _built(own, failed):
        return [handful(min(found, key=lambda dataset: len(dataset.train)))]
    if found := [data() for data in STANDARD if takes(entry, _kinds(data().spec))]:
        return found
    if found := _built(foreign, failed):
        return [handful(found[0])]
    reasons = "".join(f"; {reason}" for reason in failed)
    kinds = " and ".join(f"{' or '.join(entry.facts[role]) or 'any'} {role}" for role in ROLES if role in entry.facts)
    pytest.skip(
        f"{entry.group}={entry.name} was not tried: no data set here has the {kinds} that it takes. "
        f"Register one beside it, or name one: sample={{'name': ...}}{reasons}"
    )


ROLES = ("inputs", "targets")


def takes(entry: Entry, data: Mapping[str, Any]) -> bool:
    """Whether an entry takes the kinds of columns that a data set has: all, or of the inputs of an augmentation one."""
    for role in ROLES:
        taken, has = set(entry.facts.get(role, ())), set(data[role])
        some = entry.group == "augmentation" and role == "inputs"
        if taken and not (taken & has if some else has <= taken):
            return False
    return set(entry.facts.get("requires", ())) <= set(data["targets"])


def _kinds(spec: DataSpec) -> dict[str, set[str]]:
    return {role: {field.kind for field in getattr(spec, role).values()} for role in ROLES}


def _built(entries: list[Entry], failed: list[str]) -> list[Dataset]:
    """The data sets that can be built; why others cannot is added to `failed`."""
    found = []
    for entry in entries:
        try:
            found.append(_checked(entry.name))
        except (DlframeError, pytest.skip.Exception) as error:
            failed.append(str(error))
    return found


@functools.cache
def _checked(name: str) -> Dataset:
    return check_dataset(build_data(GROUPS["data"].get(name)))


def build_data(entry: Entry, options: Mapping[str, Any] | None = None) -> Dataset:
    """A data set with the options that it declares by `sample`; skips the test where it would have to be downloaded."""
    options = {**sample_options(entry), **(options or {})}
    absent = [name for name, p in entry.parameters.items() if p.default is REQUIRED and name not in options]
    if absent:
        pytest.skip(f"data={entry.name} was not tried: it needs {', '.join(absent)}, which no sample={{...}} on it gives")

    def refuse(*_: Any, **__: Any) -> Any:
        pytest.skip(f"data={entry.name} was not tried: it is not in the cache, and a test downloads nothing")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_fetch", "_open"):
            patch.setattr(fetch, name, refuse)
        try:
            return GROUPS["data"].build({"name": entry.name, **options})
        except MissingPackageError as error:
            pytest.skip(f"data={entry.name} was not tried: {error}")


def sample_options(entry: Entry) -> dict[str, Any]:
    """The options of a data set's own sample; the name of a file or folder beside its source becomes a path."""
    if entry.origin == "dlframe" and entry.name in OWN:  # they cannot bring pictures
        return {"path": str(OWN[entry.name]())}
    if entry.origin == "dlframe" and entry.name in ("text_table", "text_folder"):
        if entry.name == "text_folder":
            return {"path": str(written() / "files")}
        return {"path": str(written() / "lines.csv"), "text": "line", "target": "of"}
    if entry.origin == "dlframe" and entry.name in ("table", "series"):
        series = {"time": "row", "target": "alcohol", "window": 5}
        return {"path": str(measurements())} | ({"target": "grower"} if entry.name == "table" else series)
    beside = Path(entry.where.rpartition(":")[0]).parent
    given = entry.facts["sample"].items()
    return {name: str(beside / v) if isinstance(v, str) and v and (beside / v).exists() else v for name, v in given}


def handful(dataset: Dataset) -> Dataset:
    """The data set with a few samples in each split, taken evenly from all of it: classes may be in order."""

    def few(split: Split) -> Split:
        return split.take(np.unique(np.linspace(0, len(split) - 1, HANDFUL).astype(int)))

    return replace(dataset, train=few(dataset.train), validation=few(dataset.validation), test=few(dataset.test))


# --- real data that comes with a dependency


def _dataset(name: str, inputs: np.ndarray, targets: np.ndarray, classes: tuple[str, ...] = ()) -> Dataset:
    """Samples as all three splits, normalized by their own statistics."""
    is_image = inputs.dtype == np.uint8
    scaled, axes = (inputs / 255, (0, 2, 3)) if is_image else (inputs, (0, 1))
    mean, std = (tuple(map(float, f(scaled, axes))) for f in (np.mean, np.std))
    kind, column = ("image", "image") if is_image else ("series", "window")
    given = Field(kind=kind, dtype=str(inputs.dtype), shape=inputs.shape[1:], mean=mean, std=std)
    if classes:
        target, said = "label", Field(kind="class", dtype="int64", names=classes)
    else:
        target, said = "future", Field(kind="value", dtype="float32", shape=targets.shape[1:])
    split = Split({column: inputs, target: targets}, np.arange(len(inputs)))
    return Dataset(DataSpec(name, {column: given}, {target: said}), split, split, split, "in memory", "one for all")


@functools.cache
def digits() -> Dataset:
    """16 handwritten digits of every class."""
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    images = np.rint(source.data[:HANDFUL] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return _dataset("digits", images, source.target[:HANDFUL].astype(np.int64), tuple("0123456789"))


@functools.cache
def photographs() -> Dataset:
    """16 pieces of two color photographs, to be told apart."""
    from sklearn.datasets import load_sample_images

    images, targets = [], []
    for i, label in itertools.product(range(HANDFUL // 2), range(2)):
        images.append(load_sample_images().images[label][40 * i : 40 * i + 32, 60 * i : 60 * i + 32].transpose(2, 0, 1))
        targets.append(label)
    return _dataset("photographs", np.array(images), np.array(targets), ("temple", "flower"))


@functools.cache
def prices() -> Dataset:
    """16 windows of 60 daily closing prices of a share, and the price of the day after."""
    package = find_spec("matplotlib")
    assert package
    assert package.origin
    with np.load(Path(package.origin).parent / "mpl-data" / "sample_data" / "goog.npz") as file:
        series = file["price_data"]["adj_close"].astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, 61)[::50][:HANDFUL].copy()
    return _dataset("prices", windows[:, :60, None], windows[:, 60:])


@functools.cache
def wines() -> Dataset:
    """16 wines of three growers: three measurements, two of them missing once, and one in steps as a category."""
    from sklearn.datasets import load_wine

    source: Any = load_wine()
    rows = np.arange(0, 178, 11)[:HANDFUL]
    numbers = source.data[rows][:, [0, 6, 12]]
    mean, std = (tuple(map(float, f(numbers, 0))) for f in (np.mean, np.std))
    numbers[3, 0] = numbers[5, 2] = np.nan
    steps = np.digitize(source.data[rows, 9], (3, 6)).astype(np.int32)[:, None] + 2
    inputs = {
        "numbers": Field(kind="number", dtype="float64", shape=(3,), mean=mean, std=std),
        "categories": Field(kind="category", dtype="int32", shape=(1,)),
    }
    target = Field(kind="class", dtype="int64", names=tuple(map(str, source.target_names)))
    split = Split({"numbers": numbers, "categories": steps, "target": source.target[rows].astype(np.int64)}, rows)
    spec = DataSpec("wines", inputs, {"target": target}, {"cardinalities": [5]})
    return Dataset(spec, split, split, split, "in memory", "one for all")


@functools.cache
def sentences() -> Dataset:
    """16 lines of scikit-learn's descriptions of two data sets, of wines and of cells."""
    from dlframe.readers.texts.tokens import Tokens, encode_texts, text_dataset

    texts, labels = lines()
    chosen = np.arange(0, len(texts), len(texts) // HANDFUL)[:HANDFUL]
    parts = [[texts[i] for i in chosen]] * 3
    own = np.array([labels[i] for i in chosen])
    held = [own] * 3, [chosen] * 3
    tokens = Tokens(min_count=1)
    encoded = encode_texts(parts, tokens)
    dataset, _ = text_dataset("sentences", encoded, *held, ("wine", "cells"), tokens, source="in memory", splits="one for all")
    sizes = {"width": 32, "depth": 2, "num_heads": 4, "hidden_dim": 64, "positions": 512, "types": 2}
    dataset.spec.fitted["text"]["encoder"] = {"kind": "bert", "vocabulary": len(encoded.words), **sizes}
    return dataset


def lines() -> tuple[list[str], list[int]]:
    """Lines of two descriptions, and which of them each is from."""
    from sklearn.datasets import load_breast_cancer, load_wine

    sources: list[Any] = [load_wine(), load_breast_cancer()]
    texts = [
        (line.strip(), label)
        for label, source in enumerate(sources)
        for line in source.DESCR.splitlines()
        if sum(c.isalpha() for c in line) > 20
    ]
    return [text for text, _ in texts], [label for _, label in texts]


STANDARD = (digits, photographs, prices, wines, sentences)


@functools.cache
def measurements() -> Path:
    """A table of wines and their growers."""
    from sklearn.datasets import load_wine

    source: Any = load_wine()
    file = Path(tempfile.mkdtemp()) / "wines.csv"
    atexit.register(shutil.rmtree, file.parent, ignore_errors=True)
    rows = [
        f"{i},{values[0]},{values[2]},{source.target_names[label]}"
        for i, (values, label) in enumerate(zip(source.data, source.target, strict=True))
    ]
    file.write_text("\n".join(["row,alcohol,ash,grower", *rows]))
    return file


@functools.cache
def written() -> Path:
    """Lines of two texts: a table of them, and a file for each in a folder named for its text."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    texts, labels = lines()
    with (root / "lines.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("line", "of"), *((text, f"text {label}") for text, label in zip(texts, labels, strict=True))]
        )
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        path = root / "files" / f"text {label}" / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@functools.cache
def pictures() -> Path:
    """Pictures in folders named for their class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    source: Any = load_digits(n_class=2)
    for i, (image, target) in enumerate(zip(source.images[:60], source.target, strict=False)):
        path = root / ("test" if i % 3 == 0 else "train") / f"class {target}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    return root


@functools.cache
def annotated() -> Path:
    """Pictures of several digits in a row, with their boxes in COCO's form."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "images").mkdir()
    source: Any = load_digits(n_class=3)
    images, annotations = [], []
    for i in range(60):
        count = i % 4  # none in some
        picture = np.zeros((40, 120), np.uint8)
        picture[-1, i] = 255  # none equals another
        for k in range(count):
            number = (4 * i + k) % len(source.images)
            left, top = 36 * k, 7 * (i % 3)
            picture[top : top + 24, left : left + 24] = np.kron(source.images[number] * 15, np.ones((3, 3)))
            box = [left, top, 24, 24]
            annotations.append({"image_id": i, "category_id": int(source.target[number]), "bbox": box})
        Image.fromarray(picture).save(root / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 40})
    categories = [{"id": i, "name": f"digit {i}"} for i in range(3)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return root


@functools.cache
def inspected() -> Path:
    """Pictures in the folders of MVTec AD, some with a spot, and their masks."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    source: Any = load_digits(n_class=1)
    for i, image in enumerate(np.kron(source.images[:60], np.ones((3, 3))) * 15):
        part, kind = ("train", "good") if i < 40 else ("test", "good" if i % 2 else "spot")
        mask = np.zeros(image.shape, np.uint8)
        if kind == "spot":
            mask[2:7, 3 + i % 9 : 9 + i % 9] = 255
        for folder, pixels in (
            (f"{part}/{kind}/{i}.png", np.where(mask, 200, image)),
            (f"ground_truth/{kind}/{i}_mask.png", mask),
        ):
            if kind == "spot" or part in folder:
                (root / folder).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(root / folder)
    return root


@functools.cache
def labeled_steps() -> Path:
    """A table of a series with a label of each row."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "steps.csv"
    rows = [f"{i},{np.sin(i / 5) + (i in (350, 351)):.4f},{int(i in (350, 351))}" for i in range(500)]
    file.write_text("\n".join(["timestamp,value,is_anomaly", *rows]))
    return file


OWN = {
    "image_folder": pictures,
    "detection_folder": annotated,
    "anomaly_folder": inspected,
    "anomaly_series": labeled_steps,
    "unlabeled_table": measurements,
}
"""Data sets of the user's own files -> a sample."""
