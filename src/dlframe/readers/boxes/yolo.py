"""Annotations of YOLO: a text file per image, in fractions of its sides, and data.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dlframe.readers.boxes.annotations import Annotations, Faults, Pictured, Thing, fault, images_of, inside, parsed
from dlframe.readers.listing import Folders, few, text_of
from dlframe.types import DataError, read_text

LARGEST = 2**24
"""Bytes of a text file."""

PARTS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
"""Key of data.yaml -> split."""

PIXELS = 2.0
"""A fraction beyond is meant as a number of pixels."""


class _Loader(yaml.SafeLoader):
    """Reads no aliases: by them a few lines can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*) must be written out", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


def described(file: Path) -> dict[str, Any]:
    """Read data.yaml.

    Raises:
        DataError: It is not a YAML mapping.
    """
    try:
        content = _Loader(read_text(file, LARGEST)).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"detection_folder: {file.name}, line {line}: is not YAML: {error.problem}") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"detection_folder: {file.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"detection_folder: {file.name} must hold keys with values. Received: {type(content).__name__}")
    return content


def names_of(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    """Return the class names of data.yaml, a list or a mapping from indices.

    Raises:
        DataError: There are none, or an index is left out.
    """
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DataError(f"detection_folder: {fault(file.name, 'names must have each index from 0', [*names])}")
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise DataError(f"detection_folder: {fault(file.name, 'names must list the classes', names)}")
    found = tuple(text_of(str(name).strip()) for name in names)
    if len(set(found)) < len(found):
        raise DataError(f"detection_folder: {fault(file.name, 'names must differ', few(found))}")
    return found


def read_yolo(root: Path, file: Path | None, faults: Faults, *, sizes: Any, classes: Sequence[str] = ()) -> Annotations:
    """Read rows "class x y width height" or "class x1 y1 x2 y2 x3 y3 ..." (a polygon), in fractions of the image's sides.

    Args:
        root: Resolved folder of all files.
        file: data.yaml; None without one: all images are one split.
        faults: What is done with a faulty row.
        sizes: Function from image files to width and height of each.
        classes: Names of the classes where there is no data.yaml.
    """
    content = described(file) if file else {}
    names = names_of(content, file) if file else tuple(classes)
    found = Annotations(classes=names)
    reader = Folders(root)
    homes: dict[Path, str] = {}
    given = {part: content[key] for key, part in PARTS.items() if content.get(key)} if file else {"": "."}
    if not given:
        raise DataError(f"detection_folder: {file and file.name} must name the folder of train. Received: no train")
    for part, value in given.items():
        folders = [_folder(root, file, content, place) for place in (value if isinstance(value, list) else [value])]
        files = [image for place in folders for image in _listed(root, place, reader)]
        if part != "train" and files and all(homes.get(image) == "train" for image in files):
            found.notes.append(f"{part} is the folder of train, and is not used")
            continue
        labels = {image: labels_of(image, root) for image in files}
        if files and not any(labels.values()):
            raise DataError(
                f"detection_folder: there must be label files for the images of {part or 'the folder'}. Received: none for "
                f"{len(files):,} images, such as {text_of(_shown(files[0], root))}. They are in labels/ in place of images/, "
                f"or beside the images"
            )
        absent = [image for image, label in labels.items() if label is None]
        if absent:
            found.notes.append(
                f"{len(absent):,} of {len(files):,} images of {part or 'the folder'} have no label file, and no objects: "
                f"{few([text_of(_shown(image, root)) for image in absent], 3)}"
            )
        found.notes += _strays(labels, reader, root)
        for image, size in zip(files, sizes(files), strict=True):
            if (home := homes.setdefault(image, part)) != part:
                raise DataError(f"detection_folder: {text_of(_shown(image, root))} is in two splits, {home} and {part}")
            label = labels[image]
            things = _things(label, root, size, names, faults) if label else []
            if things is None:
                continue
            found.images.append(Pictured(file=image, where=text_of(_shown(label or image, root)), things=things, part=part))
    return found


def _shown(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _folder(root: Path, file: Path | None, content: dict[str, Any], value: Any) -> Path:
    """Return the folder or list of images of a split."""
    if file is None:
        return root
    base = content.get("path") or "."
    if not isinstance(value, str) or not isinstance(base, str):
        raise DataError(f"detection_folder: {fault(file.name, 'path, train, val and test must be texts', value)}")
    # `path` is often that of the machine on which the file was written.
    candidates = [file.parent / base / value, file.parent / value, file.parent / value.removeprefix("../"), root / value]
    for place in candidates:
        try:
            if place.exists():
                if not place.resolve().is_relative_to(root):
                    break
                return place.resolve()
        except (OSError, ValueError):  # a name that is too long, or has a null character
            break
    raise DataError(f"detection_folder: {fault(file.name, f'must name folders in {text_of(root.name)}', value)}")


def _listed(root: Path, place: Path, reader: Folders) -> list[Path]:
    """Return the images of a folder, or those that a text file lists."""
    if place.is_dir():
        return images_of(reader.below(place))
    try:
        lines = read_text(place, LARGEST).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"detection_folder: {place.name} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        image = inside(root, name, [place.parent, root])
        if image is None:
            raise DataError(
                f"detection_folder: {fault(f'{place.name}, line {number}', 'must name a file of the folder', name)}"
            )
        found.append(image)
    return found


def labels_of(image: Path, root: Path) -> Path | None:
    """Return the label file of an image: with one folder "images" of its path called "labels", the last first; or beside it."""
    parts = image.relative_to(root).parts
    label = f"{image.stem}.txt"
    for place in reversed([i for i, part in enumerate(parts[:-1]) if part.casefold() == "images"]):
        for word in ("labels", "Labels"):
            candidate = root.joinpath(*parts[:place], word, *parts[place + 1 : -1], label)
            if candidate.is_file():
                return candidate
    beside = image.with_name(label)
    return beside if beside.is_file() else None


def _strays(labels: dict[Path, Path | None], reader: Folders, root: Path) -> list[str]:
    """Return a note on label files without an image."""
    used = {label for label in labels.values() if label}
    folders = {label.parent for label in used}
    every = [file for folder in sorted(folders) for file in reader.entries(folder)[1] if file.suffix == ".txt"]
    rest = [file for file in every if file not in used and file.name != "classes.txt"]
    named = few([text_of(_shown(file, root)) for file in rest], 3)
    return [f"left out {len(rest):,} label files without an image: {named}"] if rest else []


def _things(label: Path, root: Path, size: tuple[int, int], names: Sequence[str], faults: Faults) -> list[Thing] | None:
    """Return the objects of a label file; None for a file that cannot be read, if faults are left out."""
    try:
        lines = read_text(label, LARGEST).removeprefix("\ufeff").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults(f"{text_of(_shown(label, root))} cannot be read: {error}.")
        return None
    things = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{text_of(_shown(label, root))}, line {number}"
        numbers = [parsed(word) for word in words]
        if None in numbers or len(words) < 5 or (len(words) > 5 and len(words) % 2 == 0):
            rule = "a row must be the index of a class and x, y, width and height, or a polygon of three points or more"
            faults(fault(where, rule, line.strip()))
            continue
        kind, *values = (float(value) for value in numbers if value is not None)
        if not kind.is_integer() or not 0 <= kind < len(names):
            faults(fault(where, f"the class must be an index from 0 to {len(names) - 1}", words[0]))
            continue
        if max(map(abs, values)) > PIXELS:
            faults(fault(where, "numbers must be fractions from 0 to 1 of the image's sides, not pixels", line.strip()))
            continue
        things.append(Thing(label=names[int(kind)], box=_box(values, size), where=where))
    return things


def _box(values: list[float], size: tuple[int, int]) -> tuple[float, ...]:
    """Return corners in pixels of a center and a size, or of a polygon's points."""
    width, height = size
    if len(values) == 4:
        x, y, across, down = values
        return ((x - across / 2) * width, (y - down / 2) * height, (x + across / 2) * width, (y + down / 2) * height)
    xs, ys = values[::2], values[1::2]
    return (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
