"""Image folders: classes by folder, table or file name, with or without a split."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.images import Picture, pixel_limit, read_image
from dlframe.readers.labels import list_table, table_in
from dlframe.readers.listing import (
    Folders,
    Layout,
    Listing,
    Samples,
    compiled,
    few,
    list_folder,
    matched,
    natural,
    text_of,
)
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import across, by_hash, image_set, statistics
from dlframe.registry import Count, data
from dlframe.storage.decoded import cache_key, decoded
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, nearest, say

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Number of decoding threads."""

ALWAYS = 2**28
"""Bytes that decoded images may take in any case."""

GROWTH = 1000
"""Otherwise, their bytes at most, relative to the files: a photo grows a hundredfold at most, a bomb ten thousandfold."""

VERSION = 2
"""Of the decoder and the split, part of the cache key."""

SLOT = 4096
"""Bytes per path."""


@data.register("image_folder", inputs=("image",), targets=("class",), files=("path", "labels"))
def image_folder(
    *,
    path: str,
    image_size: Count = 64,
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    fit: Literal["squash", "crop", "pad"] = "squash",
    background: Literal["white", "black", "mean"] = "white",
    range: tuple[float, float] | None = None,  # noqa: A002  # the name of the option
    max_pixels: Count = 89_478_485,
    layout: Literal["auto", "splits", "classes", "nested"] = "auto",
    labels: str | None = None,
    label: str | None = None,
    group: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Dataset:
    """Images in one sub-folder per class, or with labels in a table or in file names.

    Folders named like train, val and test (in any case, with _set, seg_ or a year) above the classes are the split. Without
    them, a hash of each file's name draws it, 60/20/20, so that a new file moves no other; if validation or test is missing,
    a tenth of train is used for validation. Every file is decoded once before training and cached in a memory map until a
    file changes.

    Args:
        path: Folder with path/CLASS/FILE, or path/train/CLASS/FILE.
        image_size: Height and width in pixels of the images that the model receives.
        color_mode: Three channels (rgb) or one (grayscale).
        fit: Way to a square: squash changes the aspect ratio, crop covers the square and cuts the rest at the center, pad adds
            margins in the color of `background`.
        background: Color behind transparent pixels; mean is the mean of the image's visible pixels.
        range: Values of black and white of images with more than 8 bits; null is the whole range of unsigned 12 and 16 bits.
        max_pixels: Largest image in pixels; a larger one is refused.
        layout: What the folders are: splits, classes, nested (every folder that holds files is a class), or auto.
        labels: Table (CSV, TSV, Parquet) of files and classes, and of splits if it has them; null uses the folders.
        label: Column of the classes in `labels`; without a table, a regular expression for the class in a file's path: its
            first parentheses, or the whole match.
        group: Column in `labels`, or regular expression, as `label`, for the group (a photo, a patient) of a file. Each group
            stays in one split and is resampled as a whole.
        on_error: Action on a file that is not a readable image: raise, or skip and count the file.
    """
    if range is not None and not range[0] < range[1]:
        raise DataError(f"data.range: must be ascending. Received: {list(range)}.")
    folder = expanded(path)
    listing = _listing(folder, layout, labels, label, group)
    pattern = None if listing.groups else compiled(group, "group")
    decoding = Decoding(fit=fit, background=background, value_range=range)
    files = [file for samples in listing.parts.values() for file, _ in samples]
    options = (image_size, color_mode, decoding, on_error, group, VERSION)
    told = [(part, [(label, listing.groups.get(file)) for file, label in samples]) for part, samples in listing.parts.items()]
    try:
        key = cache_key(files, *options, max_pixels, told)
    except OSError as error:
        raise DataError(f"image_folder: cannot read {error.filename}: {error.strerror}") from None
    name = f"image_folder-{cache_key([], folder.resolve(), *options, labels, label, layout)}"
    build = partial(_decode, folder, listing, image_size, color_mode, on_error, pattern, decoding)
    with pixel_limit(max_pixels):
        dataset, facts = decoded(name, key, build, partial(_stored, str(folder)))
    for line in (*listing.notes, *facts["notes"]):
        say(f"image_folder: {text_of(line)}", error=True)
    if skipped := facts["skipped"]:
        named = "; ".join(text_of(text) for text in skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        say(f"image_folder: skipped {len(skipped)} of {len(files)} files: {named}", error=True)
    return dataset


def _stored(source: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> tuple[Dataset, dict[str, list[str]]]:
    """Return the data set, and what was noted and skipped."""
    dataset = image_set("image_folder", arrays, facts, source)
    dataset.spec = replace(dataset.spec, fitted=dict(facts["decoding"]))
    return dataset, {kind: list(map(str, facts[kind])) for kind in ("notes", "skipped")}


def _listing(folder: Path, layout: Layout, labels: str | None, label: str | None, group: str | None) -> Listing:
    """Return the samples, with labels from folders, a table or file names."""
    if not folder.is_dir():
        if folder.exists():
            raise DataError(f"data.path: must be a folder. Received: {folder}")
        beside = [f.name for f in Folders(folder.parent).classes(folder.parent)] if folder.parent.is_dir() else []
        raise DataError(f"data.path: no such folder. Received: {folder}.{nearest(folder.name, beside)}")
    if labels:
        table = expanded(labels)
        inside = folder / table
        if not table.is_file() and not inside.is_file():
            raise DataError(f"data.labels: no such file. Received: {table}.")
        return list_table(folder, table if table.is_file() else inside, label=label, group=group)
    if layout == "auto" and label is None and (table := table_in(folder)) and len(Folders(folder).classes(folder)) < 2:
        return list_table(folder, table, group=group)
    return list_folder(folder, layout, compiled(label, "label"))


def _group(folder: Path, file: Path, listing: Listing, pattern: re.Pattern[str] | None) -> str:
    """Return the group of a file; the file is its own without groups."""
    if file in listing.groups:
        return listing.groups[file]
    path = file.relative_to(folder)
    return matched(pattern, path, "group") if pattern else text_of(path)


def _check_apart(folder: Path, parts: dict[str, Samples], group: Callable[[Path], str]) -> None:
    """Raise if a group is in two given splits."""
    homes: dict[str, str] = {}
    for part, samples in parts.items():
        for file, _ in samples:
            name = group(file)
            if homes.setdefault(name, part) != part:
                raise DataError(
                    f"data.group: group '{name}' is in two splits, {homes[name]} and {part} ({file.relative_to(folder)})."
                )


def _split(parts: dict[str, Samples], names: Mapping[str, str], group: Callable[[Path], str]) -> tuple[dict[str, Samples], str]:
    """Return the samples by split, and a description of the split."""
    if len(parts) == 3:
        return parts, "as given"
    if len(parts) == 2:
        # The test set, or validation in its place.
        judge = next(part for part in parts if part != "train")
        name = names.get(judge, judge)
        said = "test as given" if judge == "test" else f"{name} as given is the test set"
        cut = _cut(parts["train"], (0.9, 0.1), group)
        return {**cut, "test": parts[judge]}, f"{said}, validation 10 % of train by hash"
    (part, samples), *_ = parts.items()
    return _cut(samples, (0.6, 0.2, 0.2), group), "60/20/20 by hash" + (f" of {names.get(part, part)}" if part else "")


def _cut(samples: Samples, fractions: Sequence[float], group: Callable[[Path], str]) -> dict[str, Samples]:
    groups = [group(file) for file, _ in samples]
    try:
        parts = by_hash([label for _, label in samples], groups, fractions)
    except DataError as error:
        raise DataError(f"image_folder: {error}") from None
    return {part: [samples[i] for i in index] for part, index in zip(PARTS, parts, strict=False)}


class Reading:
    """Memory map of the files being read, to name them after a crash.

    Args:
        path: File of the map. An existing one means that the last process died; its files are printed on stderr.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slot = threading.local()
        self.numbers = itertools.count()

    def __enter__(self) -> Reading:
        if self.path.is_file():
            rows = self.path.read_bytes()[: THREADS * SLOT]
            files = [rows[i : i + SLOT].rstrip(b"\0") for i in range(0, len(rows), SLOT)]
            named = ", ".join(sorted({text_of(os.fsdecode(file)) for file in files if file}))
            say(f"image_folder: the last process was killed while reading {named}", error=True)
        self.map = np.memmap(self.path, np.uint8, "w+", shape=(THREADS, SLOT))
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)

    def noted(self, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        """Return `read` that records its file first."""

        def noting(file: Path) -> Any:
            if not hasattr(self.slot, "number"):
                self.slot.number = next(self.numbers) % THREADS
            self.map[self.slot.number] = np.frombuffer(os.fsencode(file)[:SLOT].ljust(SLOT, b"\0"), np.uint8)
            return read(file)

        return noting


def _decode(
    root: Path,
    listing: Listing,
    image_size: int,
    color_mode: str,
    on_error: str,
    pattern: re.Pattern[str] | None,
    decoding: Decoding,
    folder: Path,
) -> dict[str, Any]:
    """Decode all files into the cached arrays of their splits."""
    from PIL import Image

    given = listing.parts
    say(f"Decoding {sum(map(len, given.values())):,} images of {root} (once)", error=True)
    skipped: list[str] = []
    notes: Counter[str] = Counter()
    first: dict[str, str] = {}
    top = root.resolve()
    grouped = bool(pattern or listing.groups)
    group = partial(_group, root, listing=listing, pattern=pattern)
    with warnings.catch_warnings(), Reading(folder.with_suffix(".reading")) as reading, ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if on_error == "skip":
            # A separate pass, so that the split is made of the readable files.
            glance = reading.noted(lambda file: read_image(file, (1, 1), "grayscale", top, decoding))
            given = {part: _readable(root, part, samples, skipped, pool, glance) for part, samples in given.items()}
        if grouped:
            _check_apart(root, given, group)
        parts, splits = _split(given, listing.names, group)
        classes = sorted({label for _, label in parts["train"]}, key=natural)
        facts: dict[str, Any] = {"classes": classes, "splits": splits + ", by groups" * grouped, "skipped": skipped}
        _check_budget([file for samples in parts.values() for file, _ in samples], image_size, color_mode, folder)
        images = {}
        for part, samples in parts.items():
            shape = (len(samples), 3 if color_mode == "rgb" else 1, image_size, image_size)
            images[part] = inputs = _room(folder / f"{part}-inputs.npy", shape)
            pictures = pool.map(
                reading.noted(lambda file: read_image(file, (image_size, image_size), color_mode, top, decoding)),
                [file for file, _ in samples],
            )
            for i, ((file, _), picture) in enumerate(zip(samples, pictures, strict=True)):
                name = text_of(file.relative_to(root))
                if picture.pixels is None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise DataError(
                        f"image_folder: {name} {text_of(picture.fault)} ({root}). "
                        f"Remove it, or skip such files: data.on_error=skip"
                    )
                inputs[i] = picture.pixels
                notes.update(picture.notes)
                for note in picture.notes:
                    first.setdefault(note, name)
            inputs.flush()
            if part == "train":
                facts["mean"], facts["std"] = statistics(inputs)
            targets = np.array([classes.index(label) for _, label in samples], np.int64)
            ids = np.array([text_of(file.relative_to(root)) for file, _ in samples], np.str_)
            np.save(folder / f"{part}-targets.npy", targets, allow_pickle=False)
            np.save(folder / f"{part}-ids.npy", ids, allow_pickle=False)
            if grouped:
                groups = np.array([group(file) for file, _ in samples], np.str_)
                np.save(folder / f"{part}-groups.npy", groups, allow_pickle=False)
    facts["decoding"] = decoding.kept()
    facts["notes"] = [
        f"{count:,} of {sum(map(len, parts.values())):,} images {note}: {first[note]}" for note, count in notes.items()
    ]
    facts["notes"] += [
        *_missing(classes, {part: parts[part] for part in PARTS if part not in given}),
        *across({part: images[part] for part in PARTS}),
    ]
    return facts


def _missing(classes: Sequence[str], parts: Mapping[str, Samples]) -> Iterator[str]:
    """Yield a line per split that lacks classes."""
    for part, samples in parts.items():
        if absent := sorted(set(classes) - {label for _, label in samples}, key=natural):
            yield f"{part} has no image of {len(absent)} of {len(classes)} classes: {few(absent)}"


def _check_budget(files: Sequence[Path], image_size: int, color_mode: str, folder: Path) -> None:
    """Raise if the decoded images take more than the disk has, or far more than their files."""
    status = [file.stat() for file in files if file.is_file()]
    stored = sum(min(s.st_size, 512 * getattr(s, "st_blocks", s.st_size)) for s in status)  # a hole takes no block
    size = len(files) * (3 if color_mode == "rgb" else 1) * image_size**2
    told = f"data.image_size: {len(files):,} images of {image_size} x {image_size} pixels take {size / 1e9:.3g} GB"
    if size > (free := shutil.disk_usage(folder).free):
        raise DataError(f"{told}, of which the disk of {folder.parent} has {free / 1e9:.3g}. Try: DLFRAME_DATA=FOLDER")
    if size > max(ALWAYS, GROWTH * stored):
        raise DataError(f"{told}, more than {GROWTH} times their files ({stored / 1e6:.3g} MB). Try: data.image_size=64")


def _room(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """Map an array with allocated space; a full disk would kill the process."""
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return array


def _readable(
    root: Path,
    part: str,
    samples: Samples,
    skipped: list[str],
    pool: ThreadPoolExecutor,
    glance: Callable[[Path], Picture],
) -> Samples:
    """Return the readable samples; add the others to `skipped`."""
    kept = []
    for sample, picture in zip(samples, pool.map(glance, [file for file, _ in samples]), strict=True):
        if picture.pixels is None:
            skipped.append(f"{text_of(sample[0].relative_to(root))} {text_of(picture.fault)}")
        else:
            kept.append(sample)
    for label in sorted({label for _, label in samples} - {label for _, label in kept}):
        raise DataError(f"image_folder: class '{label}' has no readable image ({root / part})")
    return kept
