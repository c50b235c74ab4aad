"""Image folders: classes by folder, table or file name, with or without a split."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.decoding import Pictures, allocated, check_room, decode_files, earlier_pictures, write_hashes
from dlframe.readers.images import original_image, pixel_limit, read_image
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
from dlframe.readers.splits import Overlap, by_hash, image_set, image_split, overlaps, statistics
from dlframe.registry import Count, Fraction, data
from dlframe.storage.decoded import cache_key, contents, decoded
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, DataSpec, nearest, say

SIZE = 64
"""Height and width of images, unless the user or the model says otherwise."""

TOLERANCE = 0.5
"""Largest fraction of a split as given that may be in an earlier one, unless the user says otherwise."""

VERSION = 3
"""Of the decoder and the split, part of the cache key."""

CHUNK = 256
"""Images that are copied at once."""


@data.register("image_folder", inputs=("image",), targets=("class",), files=("path", "labels"))
def image_folder(
    *,
    path: str,
    image_size: Count | None = None,
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    fit: Literal["squash", "crop", "pad"] = "squash",
    background: Literal["white", "black", "mean"] = "white",
    range: tuple[float, float] | None = None,  # noqa: A002  # the name of the option
    max_pixels: Count = 89_478_485,
    layout: Literal["auto", "splits", "classes", "nested"] = "auto",
    labels: str | None = None,
    label: str | None = None,
    group: str | None = None,
    max_duplicates: Fraction | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    spec: DataSpec | None = None,
) -> Dataset:
    """Images in one sub-folder per class, or with labels in a table or in file names.

    Folders named like train, val and test (in any case, with _set, seg_ or a year) above the classes are the split. Without
    them, a hash of each file's name draws it, 60/20/20, so that a new file moves no other; if validation or test is missing,
    a tenth of train is used for validation. Every file is decoded once before training and cached in a memory map until a
    file's content changes.

    Args:
        path: Folder with path/CLASS/FILE, or path/train/CLASS/FILE.
        image_size: Height and width in pixels of the images that the model receives; null is the size that the model expects,
            or 64 for a model that takes any.
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
        max_duplicates: Largest fraction of the images of validation or test that may be in an earlier split too, equal or
            alike; a run with more is refused. null is 0.5 for splits as given, and 1 for those drawn by hash.
        on_error: Action on a file that is not a readable image: raise, or skip and count the file.
        spec: Specification of a run whose model is scored on these files: all of them, or their test split, are the test set.
    """
    if range is not None and not range[0] < range[1]:
        raise DataError(f"data.range: must be ascending. Received: {list(range)}.")
    folder = expanded(path)
    listing = _listing(folder, layout, labels, label, group, spec)
    files = [file for samples in listing.parts.values() for file, _ in samples]
    size = image_size or SIZE
    decoding = Decoding(fit=fit, background=background, value_range=range)
    images = _Images(
        root=folder,
        listing=listing,
        hashes=dict(zip(files, contents(folder.resolve(), files), strict=True)),
        shape=(3 if color_mode == "rgb" else 1, size, size),
        decoding=decoding,
        pattern=None if listing.groups else compiled(group, "group"),
        skip=on_error == "skip",
        max_duplicates=max_duplicates,
        classes=spec.classes if spec else None,
    )
    options = (size, color_mode, decoding, on_error, group, VERSION)
    where = cache_key(folder.resolve(), *options, labels, label, layout, images.classes)
    with pixel_limit(max_pixels):
        key = cache_key(*options, max_pixels, max_duplicates, images.told())
        dataset, facts = decoded(f"image_folder-{where}", key, images.decode, partial(_stored, str(folder), spec))
    dataset.original = partial(original_image, folder, color_mode, decoding, max_pixels=max_pixels)
    for line in (*listing.notes, *facts["notes"]):
        say(f"image_folder: {text_of(line)}", error=True)
    if skipped := facts["skipped"]:
        named = "; ".join(text_of(text) for text in skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        say(f"image_folder: skipped {len(skipped)} of {len(files)} files: {named}", error=True)
    return dataset


def _stored(
    source: str, spec: DataSpec | None, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> tuple[Dataset, dict[str, list[str]]]:
    """Return the data set, and what was noted and skipped."""
    if spec:
        test = image_split(arrays, "test")
        dataset = Dataset(spec, test, test, test, source, str(facts["splits"]))
    else:
        dataset = image_set("image_folder", arrays, facts, source)
        dataset.spec = replace(dataset.spec, fitted=dict(facts["decoding"]))
        dataset.refusal = str(facts["refusal"])
    return dataset, {kind: list(map(str, facts[kind])) for kind in ("notes", "skipped")}


def _listing(
    folder: Path, layout: Layout, labels: str | None, label: str | None, group: str | None, spec: DataSpec | None
) -> Listing:
    """Return the samples, with labels from folders, a table or file names."""
    known = spec.classes if spec else None
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
        return list_table(folder, table if table.is_file() else inside, label=label, group=group, known=known)
    if layout == "auto" and label is None and (table := table_in(folder)) and len(Folders(folder).classes(folder)) < 2:
        return list_table(folder, table, group=group, known=known)
    return list_folder(folder, layout, compiled(label, "label"), known)


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Listed files, and how they are decoded and split.

    Attributes:
        root: Their folder.
        listing: Files and labels.
        hashes: File -> hash of its content.
        shape: Channels, height and width of the decoded images.
        decoding: What the user decides about pixels.
        pattern: Pattern of the group in a file's path.
        skip: Whether unreadable files are left out.
        max_duplicates: Largest fraction of a split that may be in an earlier one; None for the default.
        classes: Classes of the model that is scored on the files; None for those of the training split.
    """

    root: Path
    listing: Listing
    hashes: dict[Path, bytes]
    shape: tuple[int, int, int]
    decoding: Decoding
    pattern: re.Pattern[str] | None
    skip: bool
    max_duplicates: float | None
    classes: tuple[str, ...] | None

    def told(self) -> list[Any]:
        """Return what the arrays depend on, beside the options: names, labels, groups and contents."""
        groups = self.listing.groups
        return [
            (part, [(self.name(file), label, groups.get(file), self.hashes[file]) for file, label in samples])
            for part, samples in self.listing.parts.items()
        ]

    def name(self, file: Path) -> str:
        """Return the id of a file."""
        return text_of(file.relative_to(self.root))

    def group(self, file: Path) -> str:
        """Return the group of a file; the file is its own without groups."""
        if file in self.listing.groups:
            return self.listing.groups[file]
        return matched(self.pattern, file.relative_to(self.root), "group") if self.pattern else self.name(file)

    def decode(self, folder: Path) -> dict[str, Any]:
        """Decode all files, and write the arrays of the splits into `folder`."""
        files = [*self.hashes]
        work = folder.with_name(f"{folder.stem}.pixels")  # outlives a process that is killed
        # Twice for a while: in the order of the files, and in that of the splits.
        check_room(folder, [*self.hashes], self.shape, twice=not work.exists())
        color_mode, side, top = "rgb" if self.shape[0] == 3 else "grayscale", self.shape[1:], self.root.resolve()
        found = decode_files(
            files,
            [*self.hashes.values()],
            self.shape,
            lambda file: read_image(file, side, color_mode, top, self.decoding),
            work,
            self.root,
            None if self.skip else lambda i, fault: self._failed(files[i], fault),
            earlier_pictures(folder.with_name(folder.stem), PARTS, self.shape),  # whose files were fewer, or others
        )
        rows = {file: row for row, file in enumerate(files)}
        given = {
            part: self._readable(part, samples, {files[i] for i in found.faults})
            for part, samples in self.listing.parts.items()
        }
        parts, splits = self._split(given)
        classes = self.classes or sorted({label for _, label in parts["train"]}, key=natural)
        for part, samples in parts.items():
            for file, label in samples:
                if label not in classes:
                    raise DataError(f"image_folder: class '{label}' is in {part}, not in train ({self.name(file)}).")
        images = {}
        notes = {self.hashes[files[i]]: said for i, said in found.notes.items()}
        for part, samples in parts.items():
            index = [rows[file] for file, _ in samples]
            images[part] = allocated(folder / f"{part}-inputs.npy", (len(samples), *self.shape))
            for start in range(0, len(index), CHUNK):
                images[part][start : start + CHUNK] = found.pixels[index[start : start + CHUNK]]
            images[part].flush()
            columns: dict[str, np.ndarray] = {"targets": np.array([classes.index(label) for _, label in samples], np.int64)}
            columns["ids"] = np.array([self.name(file) for file, _ in samples], np.str_)
            if self.grouped:
                columns["groups"] = np.array([self.group(file) for file, _ in samples], np.str_)
            write_hashes(folder, part, [self.hashes[file] for file, _ in samples], notes)
            for kind, column in columns.items():
                np.save(folder / f"{part}-{kind}.npy", column, allow_pickle=False)
        facts = {"classes": classes, "splits": splits, "decoding": self.decoding.kept()}
        facts["skipped"] = [f"{self.name(files[i])} {text_of(fault)}" for i, fault in sorted(found.faults.items())]
        facts["notes"] = [*self._assumed(files, found)]
        if self.classes is None:
            repeated = overlaps({part: images[part] for part in PARTS})
            facts["notes"] += [
                *self._conflicts(),
                *self._missing(classes, parts),
                *(f"{overlap}: not unseen" for overlap in repeated),
            ]
            facts["refusal"] = self._refusal(repeated)
            facts["mean"], facts["std"] = statistics(images["train"])
        shutil.rmtree(work)
        return facts

    @property
    def grouped(self) -> bool:
        """Whether the user has given groups."""
        return bool(self.pattern or self.listing.groups)

    def _failed(self, file: Path, fault: str) -> DataError:
        hint = "Remove it, or skip such files: data.on_error=skip"
        return DataError(f"image_folder: {self.name(file)} {text_of(fault)} ({self.root}). {hint}")

    def _readable(self, part: str, samples: Samples, faulty: set[Path]) -> Samples:
        """Return the readable samples; `DataError` for a class without any."""
        kept = [sample for sample in samples if sample[0] not in faulty]
        for label in sorted({label for _, label in samples} - {label for _, label in kept}):
            raise DataError(f"image_folder: class '{label}' has no readable image ({self.root / part})")
        return kept

    def _split(self, parts: dict[str, Samples]) -> tuple[dict[str, Samples], str]:
        """Return the samples by split, and a description of the split."""
        if self.classes is not None:
            (samples,) = parts.values()
            return {"test": samples}, "all as test"
        if self.grouped:
            self._check_apart(parts)
        names = self.listing.names
        by_groups = ", by groups" * self.grouped
        if len(parts) == 3:
            return parts, "as given" + by_groups
        if len(parts) == 2:
            # The test set, or validation in its place.
            judge = next(part for part in parts if part != "train")
            said = "test as given" if judge == "test" else f"{names.get(judge, judge)} as given is the test set"
            cut = {**self._cut(parts["train"], (0.9, 0.1)), "test": parts[judge]}
            return cut, f"{said}, validation 10 % of train by hash{by_groups}"
        (part, samples), *_ = parts.items()
        of = f" of {names.get(part, part)}" if part else ""
        return self._cut(samples, (0.6, 0.2, 0.2)), f"60/20/20 by hash{of}{by_groups}"

    def _cut(self, samples: Samples, fractions: Sequence[float]) -> dict[str, Samples]:
        try:
            parts = by_hash([label for _, label in samples], [self.group(file) for file, _ in samples], fractions)
        except DataError as error:
            raise DataError(f"image_folder: {error}") from None
        return {part: [samples[i] for i in index] for part, index in zip(PARTS, parts, strict=False)}

    def _check_apart(self, parts: dict[str, Samples]) -> None:
        """Raise if a group is in two given splits."""
        homes: dict[str, str] = {}
        for part, samples in parts.items():
            for file, _ in samples:
                group = self.group(file)
                if (home := homes.setdefault(group, part)) != part:
                    raise DataError(f"data.group: group '{group}' is in two splits, {home} and {part} ({self.name(file)}).")

    def _assumed(self, files: Sequence[Path], found: Pictures) -> Iterator[str]:
        """Yield a line per assumption about pixels."""
        read = {i: notes for i, notes in sorted(found.notes.items()) if i not in found.faults}
        count = len(files) - len(found.faults)
        for note, times in Counter(note for notes in read.values() for note in notes).items():
            first = next(files[i] for i, notes in read.items() if note in notes)
            yield f"{times:,} of {count:,} images {note}: {self.name(first)}"

    def _conflicts(self) -> Iterator[str]:
        """Yield a line if files of equal content have different labels."""
        homes: dict[bytes, tuple[Path, str]] = {}
        found: list[str] = []
        for file, label in (sample for samples in self.listing.parts.values() for sample in samples):
            first, other = homes.setdefault(self.hashes[file], (file, label))
            if other != label:
                found.append(f"{self.name(file)} is {self.name(first)}")
        if found:
            yield f"{len(found):,} of {len(self.hashes):,} files are in another class too, such as {found[0]}"

    def _missing(self, classes: Sequence[str], parts: Mapping[str, Samples]) -> Iterator[str]:
        """Yield a line per drawn split that lacks classes."""
        for part in PARTS:
            absent = sorted(set(classes) - {label for _, label in parts[part]}, key=natural)
            if absent and part not in self.listing.parts:
                yield f"{part} has no image of {len(absent)} of {len(classes)} classes: {few(absent)}"

    def _refusal(self, found: Sequence[Overlap]) -> str:
        """Return why a run on these splits is refused; empty if it is not."""
        for overlap in found:
            given = TOLERANCE if overlap.part in self.listing.parts else 1.0
            limit = given if self.max_duplicates is None else self.max_duplicates
            if overlap.fraction > limit:
                return (
                    f"image_folder: {overlap}, more than data.max_duplicates={limit:g}: a score on them says little. Remove "
                    f"them, keep pictures of one thing in one split (data.group), or accept them: data.max_duplicates=1"
                )
        return ""
