"""A user's own images: a folder for each class, with or without a split."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.data.decoded import decoded, stamp
from dlframe.data.splits import hide_labels, statistics, stratified
from dlframe.registry import Count, Natural, data
from dlframe.types import DataError, Dataset, DataSpec, Split, nearest

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may open. Not among them: EPS, for which it runs a program."""

PARTS = ("train", "validation", "test")
SPELLINGS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}

Samples = list[tuple[Path, str]]
"""Files with the names of their classes."""


@data.register("image_folder", inputs="image", target="class")
def image_folder(
    *,
    path: str,
    size: Count = 64,
    color: Literal["rgb", "grey"] = "rgb",
    on_error: Literal["raise", "skip"] = "raise",
    labels_per_class: Count | None = None,
    labels_seed: Natural = 0,
) -> Dataset:
    """Your own images, in a sub-folder for each class; `train`, `val` and `test` above them are kept as the split.

    Without a split it is stratified 60/20/20; without one of validation and test, a tenth of train is taken for
    validation. Every file is decoded before training and kept in a memory map, until one of them changes.

    Args:
        path: The folder: path/CLASS/FILE, or path/train/CLASS/FILE.
        size: Height and width in pixels; images are scaled to cover that square and cropped at the centre.
        color: Three channels or one.
        on_error: What a file that is no image or a broken one does: end the run, or be left out and counted.
        labels_per_class: Training labels to keep in each class, the rest being hidden; null keeps all.
        labels_seed: Chooses the samples that keep their label.
    """
    folder = Path(path).expanduser()
    parts, splits = _plan(folder)
    classes = sorted({label for _, label in parts["train"]})
    files = [file for part in PARTS for file, _ in parts[part]]
    build = partial(_decode, folder, parts, classes, size, color, on_error)
    try:
        key = stamp(files, parts, size, color, on_error)
    except OSError as error:
        raise DataError(f"image_folder: {error.filename} cannot be read: {error.strerror}") from None
    arrays, facts = decoded(f"image_folder-{stamp([], str(folder.resolve()), size, color, on_error)}", key, build)
    train, validation, test = (
        Split(*(arrays[f"{part}-{kind}"][: facts["samples"][part]] for kind in ("inputs", "targets", "ids"))) for part in PARTS
    )
    if facts["skipped"]:
        print(
            f"image_folder: {len(facts['skipped'])} of {len(files)} files left out: {'; '.join(facts['skipped'][:5])}"
            f"{' ...' if len(facts['skipped']) > 5 else ''}",
            file=sys.stderr,
        )
    shape = train.inputs.shape[1:]
    mean, std = tuple(facts["mean"]), tuple(facts["std"])
    spec = DataSpec("image_folder", "image", "class", shape, tuple(classes), mean=mean, std=std)
    dataset = Dataset(spec, train, validation, test, str(folder), splits)
    return hide_labels(dataset, labels_per_class, seed=labels_seed)


def _plan(folder: Path) -> tuple[dict[str, Samples], str]:
    """Which files belong to which split, and how it came about in words."""
    if not folder.is_dir():
        if folder.exists():
            raise DataError(f"data.path: must be a folder. Received: {folder}")
        beside = [f.name for f in _folders(folder.parent)] if folder.parent.is_dir() else []
        raise DataError(f"data.path: there is no folder {folder}.{nearest(folder.name, beside)}")
    given = {SPELLINGS[f.name]: f for f in _folders(folder) if f.name in SPELLINGS}
    if not ("train" in given and _folders(given["train"])):
        samples = _samples(folder)
        return _cut(folder, samples, (0.6, 0.2, 0.2), PARTS), "stratified 60/20/20"
    if len(given) == 1:
        return _cut(folder, _samples(given["train"]), (0.6, 0.2, 0.2), PARTS), "stratified 60/20/20 of train"
    parts = {part: _samples(above) for part, above in given.items()}
    known = {label for _, label in parts["train"]}
    for part, samples in parts.items():
        for file, label in samples:
            if label not in known:
                raise DataError(
                    f"image_folder: class '{label}' of {given[part]} is not in {given['train']} "
                    f"({file.name}).{nearest(label, known)}"
                )
    if len(parts) == 3:
        return parts, "as given"
    test = parts.get("test") or parts["validation"]
    cut = _cut(given["train"], parts["train"], (0.9, 0.1), PARTS[:2])
    said = "test as given" if "test" in parts else f"{given['validation'].name} as given is the test set"
    return {**cut, "test": test}, f"{said}, validation 10 % of train"


def _folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _samples(folder: Path) -> Samples:
    """Every file below the class folders of `folder`, in the order of their paths; hidden files are passed over."""
    classes = _folders(folder)
    if not classes:
        raise DataError(f"image_folder: {folder} has no sub-folders; images belong in {folder}/CLASS/")
    if len(classes) == 1:
        raise DataError(f"image_folder: {folder} has one class, '{classes[0].name}'; two or more are needed")
    samples = []
    for above in classes:
        files = [
            Path(place, name)
            for place, _, names in os.walk(above)
            for name in names
            if not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini")
        ]
        if not files:
            raise DataError(f"image_folder: {above} holds no files; remove it or fill it")
        samples += [(file, above.name) for file in sorted(files)]
    return samples


def _cut(folder: Path, samples: Samples, fractions: Sequence[float], names: Sequence[str]) -> dict[str, Samples]:
    classes = sorted({label for _, label in samples})
    targets = np.array([classes.index(label) for _, label in samples])
    try:
        parts = stratified(targets, fractions, names=classes)
    except DataError as error:
        raise DataError(f"image_folder: {folder}: {error}") from None
    return {name: [samples[i] for i in part] for name, part in zip(names, parts, strict=True)}


def _decode(
    root: Path,
    parts: dict[str, Samples],
    classes: list[str],
    size: int,
    color: str,
    on_error: str,
    folder: Path,
) -> dict[str, Any]:
    """Decode every file into the arrays of its split, written where they stay."""
    from PIL import Image

    shape = (3 if color == "rgb" else 1, size, size)
    print(f"Decoding {sum(map(len, parts.values())):,} images of {root} (once)", file=sys.stderr, flush=True)
    facts: dict[str, Any] = {"samples": {}, "skipped": []}
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for part in PARTS:
            samples = parts[part]
            inputs = np.lib.format.open_memmap(
                folder / f"{part}-inputs.npy", mode="w+", dtype=np.uint8, shape=(len(samples), *shape)
            )
            kept = []
            rows = pool.map(lambda sample: _image(sample[0], size, color), samples)
            for (file, label), row in zip(samples, rows, strict=True):
                if isinstance(row, np.ndarray):
                    inputs[len(kept)] = row
                    kept.append((file, label))
                    continue
                complaint = _printable(f"{file.relative_to(root)} {row}")
                if on_error == "raise":
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise DataError(
                        f"image_folder: {complaint} ({root}). Remove it, or leave such files out: data.on_error=skip"
                    )
                facts["skipped"].append(complaint)
            targets = np.array([classes.index(label) for _, label in kept], np.int64)
            for label in sorted({label for _, label in samples} - {label for _, label in kept}):
                raise DataError(f"image_folder: class '{label}' has no image in {part} that can be read ({root})")
            ids = np.array([_printable(file.relative_to(root).as_posix()) for file, _ in kept], np.str_)
            facts["samples"][part] = len(kept)
            np.save(folder / f"{part}-targets.npy", targets, allow_pickle=False)
            np.save(folder / f"{part}-ids.npy", ids, allow_pickle=False)
            if part == "train":
                facts["mean"], facts["std"] = statistics(inputs[: len(kept)])
            inputs.flush()
    return facts


def _printable(name: str) -> str:
    """A path may hold bytes that are no text, which a table of predictions could not be written with."""
    return name.encode(errors="backslashreplace").decode()


def _image(file: Path, size: int, color: str) -> np.ndarray | str:
    """(channels, size, size) uint8, or what is wrong with the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.mode.startswith("I;16"):
                # Pillow would clip 16 bits at 255 instead of scaling them.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("RGB" if color == "rgb" else "L")
            pixels = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
    except UnidentifiedImageError:
        return "is not an image"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them raise.
        return f"is broken: {error}"
    return pixels.transpose(2, 0, 1) if color == "rgb" else pixels[None]
