"""Which files of a folder are samples, which folders are splits and which are classes: decided once, from all names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dlframe.readers.splits import part_to_score
from dlframe.types import DataError, nearest, normalized, printable

Layout = Literal["auto", "splits", "classes", "nested"]

Samples = list[tuple[Path, str]]
"""Files with the names of their classes."""

SPLITS = {
    "train": ("train", "training", "tr"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
"""Split -> words for it, in any case, with `_set`, `seg_`, a year or a number."""

_WORDS = {word: part for part, words in SPLITS.items() for word in words}
_NAME = re.compile(
    rf"(?:seg[ _-]?)?({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?:[ _-]?(?:set|data|images?))?[ _-]?\d*", re.I
)

LINKS = 8
"""Largest number of links to folders in a path: two in each of 30 folders would lead to a billion."""

SYSTEM = {
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
"""Names of operating systems and network drives, which are no data like names that start with a dot; in lower case."""


@dataclass
class Listing:
    """Samples by split, or under "" without one.

    Attributes:
        parts: "train", "validation" and "test", or "" -> samples.
        names: Split -> name of its folder.
        groups: File -> group, where a table gives it.
        notes: What is left out or was assumed, a line each.
    """

    parts: dict[str, Samples] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    groups: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """Return the split that a name stands for: "Testing", "val_set", "seg_train", "train2017"."""
    found = _NAME.fullmatch(name)
    return _WORDS[found[1].casefold()] if found else None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is no data: hidden, or of an operating system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key with numbers by value, of any length: 2 before 10."""
    parts = ((part, part.lstrip("0")) for part in re.split(r"([0-9]+)", name.casefold()) if part)
    return [(0, len(number), number) if part[0] in "0123456789" else (1, 0, part) for part, number in parts], name


def text_of(path: Path | str) -> str:
    """Return a path or name as text: NFC, invalid bytes and control characters escaped."""
    return printable(normalized(str(path).encode(errors="backslashreplace").decode()))


def few(names: Sequence[str], most: int = 6) -> str:
    """Return up to `most` names, then a count."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


class Folders:
    """Reader of a folder that names what it leaves out.

    Args:
        root: Folder that holds all samples; links out of it are faults.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.resolved = root.resolve()
        self.hidden: dict[Path, None] = {}  # in order
        self.loops: dict[Path, None] = {}

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the folders and the files in a folder, in natural order, without hidden ones."""
        try:
            with os.scandir(folder) as scanned:
                found = [(entry.name, _is_dir(entry), entry.is_symlink()) for entry in scanned]
        except OSError as error:
            raise DataError(f"data.path: cannot read {folder}: {error.strerror}") from None
        folders, files = [], []
        for name, is_dir, is_link in found:
            if is_hidden(name):
                if is_dir:
                    self.hidden[folder / name] = None
            elif is_dir and is_link and not (folder / name).resolve().is_relative_to(self.resolved):
                files.append(folder / name)  # a fault of the file reader, like a linked file
            else:
                (folders if is_dir else files).append(folder / name)
        return sorted(folders, key=lambda f: natural(f.name)), sorted(files, key=lambda f: f.name)

    def classes(self, folder: Path) -> list[Path]:
        """Return the folders in a folder; `DataError` for a link out of the root, whose whole class would be missing."""
        folders, files = self.entries(folder)
        for place in files:
            if place.is_dir():
                raise DataError(f"data.path: {place} is a link out of {self.root}. Replace the link by the folder")
        return folders

    def below(self, folder: Path) -> list[Path]:
        """Return all files below a folder.

        Raises:
            DataError: Links lead to links, more than `LINKS` deep.
        """
        files: list[Path] = []
        # Folders, with the real ones that lead there, and how many of them are links.
        waiting: list[tuple[Path, frozenset[Path], int]] = [(folder, frozenset(), 0)]
        while waiting:
            here, above, links = waiting.pop()
            place = here.resolve()
            if place in above:
                self.loops[here] = None
                continue
            if links > LINKS:
                raise DataError(f"data.path: {here} is behind more than {LINKS} links to folders. Replace links by folders")
            folders, inside = self.entries(here)
            files += inside
            waiting += [(f, above | {place}, links + f.is_symlink()) for f in reversed(folders)]
        return files

    def left_out(self) -> list[str]:
        """Return a line about hidden folders and one about links that lead back."""
        lines = []
        for kind, places in (
            ("hidden or system folders", sorted(self.hidden)),
            ("links to a folder above them", sorted(self.loops)),
        ):
            if places:
                lines.append(f"left out {kind}: {few([text_of(p.relative_to(self.root)) for p in places], 3)}")
        return lines


def list_folder(
    root: Path, layout: Layout = "auto", label: re.Pattern[str] | None = None, known: Sequence[str] | None = None
) -> Listing:
    """List the samples of a folder of images.

    Args:
        root: The folder.
        layout: What the folders in it are; "nested" makes a class of every folder that holds files.
        label: Pattern of the class in a file's path; None where folders are the classes.
        known: Classes of a trained model, which is scored on the folder: it may hold one class or one split only.

    Raises:
        DataError: The layout is ambiguous or empty, or has fewer than two classes, or one that is not known.
    """
    reader = Folders(root)
    listing = Listing()
    scored = known is not None
    if known and layout == "auto" and {text_of(folder.name) for folder in reader.classes(root)} <= set(known):
        layout = "classes"
    given = _splits(reader, layout, label is not None, listing, scored)
    for part, folder in (given or {"": root}).items():
        listing.parts[part] = _samples(reader, folder, part, layout == "nested", label, listing, scored)
        listing.names[part] = folder.name
    if not given and not label:
        loose = [] if layout == "nested" else reader.entries(root)[1]
        _beside(loose, root, "beside the class folders", listing)
    if known is None:
        compare(root, listing)
    else:
        keep_scored(listing, root, known)
    listing.notes += reader.left_out()
    return listing


def keep_scored(listing: Listing, root: Path, known: Sequence[str]) -> None:
    """Keep the split that a trained model is scored on, see `part_to_score`.

    Raises:
        DataError: A class is not known.
    """
    part = part_to_score(listing.parts)
    for other in listing.parts.keys() - {part}:
        count, name = len(listing.parts.pop(other)), listing.names.get(other, other)
        listing.notes.append(f"left out {name} ({count:,} files): {listing.names.get(part, part)} is scored")
    if not listing.parts[part]:
        raise DataError(f"image_folder: {root} has no files to score")
    for file, label in listing.parts[part]:
        if label not in known:
            raise DataError(
                f"image_folder: '{label}' ({text_of(file.relative_to(root))}) is not a class of the run: {few(known)}."
                f"{nearest(label, known)}"
            )


def _splits(reader: Folders, layout: Layout, flat: bool, listing: Listing, scored: bool) -> dict[str, Path]:
    """Return the split folders; empty where the folders are classes.

    `flat` accepts splits without class folders, `scored` such without train.
    """
    root = reader.root
    folders = reader.classes(root)
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if part := split_of(folder.name):
            found.setdefault(part, []).append(folder)
    named = [folder for places in found.values() for folder in places]
    others = [folder for folder in folders if folder not in named]
    if layout == "classes" or not found:
        if layout == "splits":
            raise DataError(f"data.layout: splits must have folders train and test. Received: {_names(folders)} in {root}")
        return {}
    deep = [folder for folder in named if flat or reader.classes(folder)]
    if not (scored and deep) and ("train" not in found or found["train"][0] not in deep):
        if list(found) == ["train"] and others and layout != "splits":
            listing.notes.append(
                f"'{found['train'][0].name}' is a class: it has no class folders, and no test folder is beside it"
            )
            return {}
        lacking = f"{found['train'][0].name}/ has no class folders" if "train" in found else "there is no train folder"
        raise DataError(
            f"image_folder: {_names(named)} of {root} are named like splits, but {lacking}. For labels in file names: "
            f"data.label=PATTERN; in a table: data.labels=FILE; if the folders are the classes: data.layout=classes"
        )
    for part, places in found.items():
        if len(places) > 1:
            raise DataError(
                f"image_folder: {_names(places)} of {root} are both {part}. Keep one, or if the folders are the classes: "
                f"data.layout=classes"
            )
    full = [folder for folder in others if reader.below(folder)]
    if full and list(found) == ["train"] and layout != "splits":
        raise DataError(
            f"image_folder: {named[0].name} of {root} is named like a split, {_names(full)} like classes. Decide by "
            f"data.layout=classes, or data.layout=splits, which leaves out {_names(full)}"
        )
    for folder in [*full, *(folder for folder in named if folder not in deep)]:
        why = "no split" if folder in others else "no class folders"
        listing.notes.append(f"left out {text_of(folder.name)}/ ({why}): {len(reader.below(folder)):,} files")
    _beside(reader.entries(root)[1], root, "beside the splits", listing)
    return {part: places[0] for part, places in found.items() if places[0] in deep}


def _samples(
    reader: Folders,
    folder: Path,
    part: str,
    nested: bool,
    label: re.Pattern[str] | None,
    listing: Listing,
    scored: bool,
) -> Samples:
    """Return the files of one split, or of all; those to be scored may have one class, or none of another."""
    if label:
        return [(file, matched(label, file.relative_to(folder), "label")) for file in reader.below(folder)]
    if nested:
        files = reader.below(folder)
        _beside([file for file in files if file.parent == folder], folder, "above all folders", listing)
        return [(file, text_of(file.parent.relative_to(folder))) for file in files if file.parent != folder]
    classes = reader.classes(folder)
    if not classes:
        raise DataError(
            f"image_folder: {folder} has no sub-folders. Put images into {folder}/CLASS/, or say where their labels are: "
            f"data.labels=TABLE, or data.label=PATTERN of file names"
        )
    if part:
        _beside(reader.entries(folder)[1], reader.root, "beside the class folders", listing)
    complete = part in ("", "train") and not scored
    if len(classes) == 1 and complete:
        inside = reader.classes(classes[0])
        hint = f". Try: data.path={classes[0]}" if len(inside) > 1 else ""
        raise DataError(f"image_folder: {folder} must have at least two classes. Received: '{text_of(classes[0].name)}'{hint}")
    samples: Samples = []
    homes: dict[str, Path] = {}
    for above in classes:
        name = text_of(above.name)
        if homes.setdefault(name, above) != above:
            raise DataError(f"image_folder: {folder} has two folders of the name '{name}', in other bytes. Rename one")
        files = reader.below(above)
        if not files and complete:
            raise DataError(f"image_folder: {above} has no files. Remove the folder or add images")
        samples += [(file, name) for file in files]
    return samples


def _beside(files: Sequence[Path], root: Path, where: str, listing: Listing) -> None:
    if files:
        names = [text_of(file.relative_to(root)) for file in files]
        listing.notes.append(f"left out {len(files):,} {'files' if len(files) > 1 else 'file'} {where}: {few(names, 3)}")


def compare(root: Path, listing: Listing) -> None:
    """Compare the labels of the splits, in both directions.

    Raises:
        DataError: A class is not in train.
    """
    if "train" not in listing.parts:
        return
    known = {label for _, label in listing.parts["train"]}
    for part, samples in listing.parts.items():
        place = listing.names.get(part, part)
        for file, label in samples:
            if label not in known:
                here, train = (root / listing.names[p] if p in listing.names else p for p in (part, "train"))
                raise DataError(
                    f"image_folder: class '{label}' of {here} is not in {train} ({file.name}).{nearest(label, known)}"
                )
        if absent := sorted(known - {label for _, label in samples}, key=natural):
            listing.notes.append(f"{'classes' if len(absent) > 1 else 'class'} only in train, not in {place}: {few(absent)}")


def matched(pattern: re.Pattern[str], path: Path, option: str) -> str:
    """Return the first parentheses of a pattern in a path, or its whole match.

    Raises:
        DataError: The pattern, of `data.<option>`, does not match.
    """
    text = text_of(path)
    if not (found := pattern.search(text)):
        raise DataError(f"data.{option}: must match every file. Received: {pattern.pattern!r}, which does not match {text}.")
    return found[1] if pattern.groups and found[1] is not None else found[0]


def compiled(pattern: str | None, option: str) -> re.Pattern[str] | None:
    """Compile the pattern of `data.<option>`."""
    try:
        return re.compile(normalized(pattern)) if pattern else None
    except re.error as error:
        raise DataError(f"data.{option}: must be a regular expression: {error}. Received: {pattern!r}.") from None


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which the file reader names
        return False


def _names(folders: Iterable[Path]) -> str:
    return " and ".join(text_of(folder.name) for folder in folders) or "none"
