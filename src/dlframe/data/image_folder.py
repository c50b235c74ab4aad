"""Image folders with one sub-folder per class, with or without a split."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.images import read_image
from dlframe.readers.splits import by_groups, image_set, statistics, stratified
from dlframe.registry import Count, data
from dlframe.storage.decoded import cache_key, decoded
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, nearest, printable, say

SPELLINGS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}

Samples = list[tuple[Path, str]]
"""Files with the names of their classes."""

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Number of decoding threads."""

ALWAYS = 2**28
"""Bytes that decoded images may take in any case."""

GROWTH = 1000
"""Otherwise, their bytes at most, relative to the files: a photo grows a hundredfold at most, a bomb ten thousandfold."""

SLOT = 4096
"""Bytes per path."""


@data.register("image_folder", inputs=("image",), targets=("class",), files=("path",))
def image_folder(
    *,
    path: str,
    image_size: Count = 64,
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    on_error: Literal["raise", "skip"] = "raise",
    group: str | None = None,
) -> Dataset:
    """Images in one sub-folder per class, with or without split folders.

    Folders `train`, `val` and `test` above the classes are the split. Without them, the split is stratified 60/20/20; if
    validation or test is missing, a tenth of train is used for validation. Every file is decoded once before training
    and cached in a memory map until a file changes.

    Args:
        path: Folder with path/CLASS/FILE, or path/train/CLASS/FILE.
        image_size: Height and width in pixels; images are scaled to cover that square and cropped at the center.
        color_mode: Three channels (rgb) or one (grayscale).
        on_error: Action on a file that is not a readable image: raise, or skip and count the file.
        group: Regular expression for the group (a photo, a patient) in a file's path CLASS/FILE: its first parentheses, or
            the whole match. Each group stays in one split and is resampled as a whole.
    """
    folder = expanded(path)
    listing = _listing(folder)
    files = [file for samples in listing.values() for file, _ in samples]
    pattern = _pattern(group)
    options = (image_size, color_mode, on_error, group)
    try:
        key = cache_key(files, *options)
    except OSError as error:
        raise DataError(f"image_folder: cannot read {error.filename}: {error.strerror}") from None
    name = f"image_folder-{cache_key([], folder.resolve(), *options)}"
    build = partial(_decode, folder, listing, image_size, color_mode, on_error, pattern)
    dataset, skipped = decoded(name, key, build, partial(_stored, str(folder)))
    if skipped:
        named = "; ".join(skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        say(f"image_folder: skipped {len(skipped)} of {len(files)} files: {named}", error=True)
    return dataset


def _stored(source: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> tuple[Dataset, list[str]]:
    """Return the data set and the skipped files."""
    return image_set("image_folder", arrays, facts, source), [_printable(text) for text in facts["skipped"]]


def _listing(folder: Path) -> dict[str, Samples]:
    """Return the files by split folder, or under "" without split folders."""
    if not folder.is_dir():
        if folder.exists():
            raise DataError(f"data.path: must be a folder. Received: {folder}")
        beside = [f.name for f in _folders(folder.parent)] if folder.parent.is_dir() else []
        raise DataError(f"data.path: no such folder. Received: {folder}.{nearest(folder.name, beside)}")
    given = {f.name: f for f in _folders(folder, folder) if f.name in SPELLINGS}
    if not ("train" in given and _folders(given["train"], folder)):
        return {"": _samples(folder, folder)}
    listing = {name: _samples(above, folder) for name, above in given.items()}
    known = {label for _, label in listing["train"]}
    for name, samples in listing.items():
        for file, label in samples:
            if label not in known:
                raise DataError(
                    f"image_folder: class '{label}' of {folder / name} is not in {folder / 'train'} "
                    f"({file.name}).{nearest(label, known)}"
                )
    return listing


def _pattern(group: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise DataError(f"data.group: must be a regular expression: {error}. Received: {group!r}.") from None


def _group(folder: Path, file: Path, pattern: re.Pattern[str]) -> str:
    """Return the group of a file."""
    path = _printable(file.relative_to(folder))
    if not (found := pattern.search(path)):
        raise DataError(f"data.group: must match every file. Received: {pattern.pattern!r}, which does not match {path}.")
    return found[1] if pattern.groups and found[1] is not None else found[0]


def _check_apart(folder: Path, parts: dict[str, Samples], pattern: re.Pattern[str]) -> None:
    """Raise if a group is in two given splits."""
    homes: dict[str, str] = {}
    for part, samples in parts.items():
        for file, _ in samples:
            name = _group(folder, file, pattern)
            if homes.setdefault(name, part) != part:
                raise DataError(
                    f"data.group: group '{name}' is in two splits, {homes[name]} and {part} ({file.relative_to(folder)})."
                )


def _split(folder: Path, listing: dict[str, Samples], pattern: re.Pattern[str] | None) -> tuple[dict[str, Samples], str]:
    """Return the samples by split, and a description of the split."""
    parts, said = _parts(folder, listing, pattern)
    if pattern:
        _check_apart(folder, parts, pattern)
        said += ", by groups"
    return parts, said


def _parts(folder: Path, listing: dict[str, Samples], pattern: re.Pattern[str] | None) -> tuple[dict[str, Samples], str]:
    given = {SPELLINGS[name]: samples for name, samples in listing.items() if name}
    if len(given) == 3:
        return given, "as given"
    if len(given) == 2:
        # The test set, or validation in its place.
        judge = next(name for name in listing if name != "train")
        said = "test as given" if judge == "test" else f"{judge} as given is the test set"
        cut = _cut(folder, listing["train"], (0.9, 0.1), pattern)
        return {**cut, "test": listing[judge]}, f"{said}, validation 10 % of train"
    (name, samples), *_ = listing.items()
    return _cut(folder, samples, (0.6, 0.2, 0.2), pattern), "stratified 60/20/20" + (f" of {name}" if name else "")


def _folders(folder: Path, root: Path | None = None) -> list[Path]:
    """Return the folders in `folder`; `DataError` for a link out of `root`."""
    try:
        found = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError as error:
        raise DataError(f"image_folder: cannot read {folder}: {error.strerror}") from None
    for place in found:
        if root and place.is_symlink() and not place.resolve().is_relative_to(root.resolve()):
            raise DataError(f"image_folder: {place} is a link out of {root}. Replace the link by the folder")
    return found


def _samples(folder: Path, root: Path) -> Samples:
    """Return the files below the class folders, sorted, without hidden ones."""
    classes = _folders(folder, root)
    if not classes:
        raise DataError(f"image_folder: {folder} has no sub-folders. Put images into {folder}/CLASS/")
    if len(classes) == 1:
        raise DataError(f"image_folder: {folder} must have at least two classes. Received: '{classes[0].name}'")
    samples = []
    for above in classes:
        files = [
            Path(place, name)
            for place, _, names in os.walk(above)
            for name in names
            if not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini")
        ]
        if not files:
            raise DataError(f"image_folder: {above} has no files. Remove the folder or add images")
        samples += [(file, above.name) for file in sorted(files)]
    return samples


def _cut(folder: Path, samples: Samples, fractions: Sequence[float], pattern: re.Pattern[str] | None) -> dict[str, Samples]:
    classes = sorted({label for _, label in samples})
    targets = np.array([classes.index(label) for _, label in samples])
    try:
        if pattern:
            parts = by_groups(targets, np.array([_group(folder, file, pattern) for file, _ in samples]), fractions)
        else:
            parts = stratified(targets, fractions, names=classes)
    except DataError as error:
        raise DataError(f"image_folder: {folder}: {error}") from None
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
            named = ", ".join(sorted({_printable(os.fsdecode(file)) for file in files if file}))
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
    listing: dict[str, Samples],
    image_size: int,
    color_mode: str,
    on_error: str,
    pattern: re.Pattern[str] | None,
    folder: Path,
) -> dict[str, Any]:
    """Decode all files into the cached arrays of their splits."""
    from PIL import Image

    say(f"Decoding {sum(map(len, listing.values())):,} images of {root} (once)", error=True)
    skipped: list[str] = []
    top = root.resolve()
    with warnings.catch_warnings(), Reading(folder.with_suffix(".reading")) as reading, ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if on_error == "skip":
            # A separate pass, so that the split is stratified over the readable files.
            glance = reading.noted(lambda file: read_image(file, (1, 1), "grayscale", top))
            listing = {name: _readable(root, name, samples, skipped, pool, glance) for name, samples in listing.items()}
        parts, splits = _split(root, listing, pattern)
        classes = sorted({label for _, label in parts["train"]})
        facts: dict[str, Any] = {"classes": classes, "splits": splits, "skipped": skipped}
        _check_budget([file for samples in parts.values() for file, _ in samples], image_size, color_mode, folder)
        for part, samples in parts.items():
            shape = (len(samples), 3 if color_mode == "rgb" else 1, image_size, image_size)
            inputs = _room(folder / f"{part}-inputs.npy", shape)
            rows = pool.map(
                reading.noted(lambda file: read_image(file, (image_size, image_size), color_mode, top)),
                [file for file, _ in samples],
            )
            for i, ((file, _), row) in enumerate(zip(samples, rows, strict=True)):
                if isinstance(row, str):
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise DataError(
                        f"image_folder: {_printable(file.relative_to(root))} {_printable(row)} ({root}). "
                        f"Remove it, or skip such files: data.on_error=skip"
                    )
                inputs[i] = row
            inputs.flush()
            if part == "train":
                facts["mean"], facts["std"] = statistics(inputs)
            targets = np.array([classes.index(label) for _, label in samples], np.int64)
            ids = np.array([_printable(file.relative_to(root)) for file, _ in samples], np.str_)
            np.save(folder / f"{part}-targets.npy", targets, allow_pickle=False)
            np.save(folder / f"{part}-ids.npy", ids, allow_pickle=False)
            if pattern:
                groups = np.array([_group(root, file, pattern) for file, _ in samples], np.str_)
                np.save(folder / f"{part}-groups.npy", groups, allow_pickle=False)
    return facts


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
    name: str,
    samples: Samples,
    skipped: list[str],
    pool: ThreadPoolExecutor,
    glance: Callable[[Path], np.ndarray | str],
) -> Samples:
    """Return the readable samples; add the others to `skipped`."""
    kept = []
    for sample, row in zip(samples, pool.map(glance, [file for file, _ in samples]), strict=True):
        if isinstance(row, str):
            skipped.append(f"{_printable(sample[0].relative_to(root))} {row}")
        else:
            kept.append(sample)
    for label in sorted({label for _, label in samples} - {label for _, label in kept}):
        raise DataError(f"image_folder: class '{label}' has no readable image ({root / name})")
    return kept


def _printable(path: Path | str) -> str:
    """Escape invalid bytes and control characters of a path."""
    return printable(str(path).encode(errors="backslashreplace").decode())
