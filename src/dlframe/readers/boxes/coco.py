"""Annotations as JSON: COCO and BDD100K."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlframe.readers.boxes.annotations import (
    LARGEST,
    Annotations,
    Faults,
    Pictured,
    Thing,
    as_numbers,
    fault,
    inside,
)
from dlframe.readers.listing import few, split_of, text_of
from dlframe.types import DataError, read_text

BACKGROUND = ("background", "__background__", "_background_", "bg")


def content_of(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is not JSON, or too large.
    """
    try:
        return json.loads(read_text(file, LARGEST).removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"detection_folder: {file.name}, line {error.lineno}, column {error.colno}: is not JSON: {error.msg}"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"detection_folder: {file.name} cannot be read: {reason}") from None


def is_coco(content: Any) -> bool:
    """Return whether a JSON file holds annotations of COCO."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and isinstance(content.get("categories"), list)


def is_bdd(content: Any) -> bool:
    """Return whether a JSON file holds labels of BDD100K."""
    return isinstance(content, list) and bool(content) and all(isinstance(i, dict) and "name" in i for i in content[:100])


def places(root: Path, file: Path, images: Path | None) -> list[Path]:
    """Return folders in which the images that a JSON file names may be."""
    if images:
        return [images]
    words = [file.stem.rpartition("_")[2], file.stem, file.parent.name]
    return [
        file.parent,
        *(above / name for above in (file.parent, file.parent.parent, root) for name in ("images", *words)),
        *(above / "images" / word for above in (file.parent, file.parent.parent, root) for word in words),
        root,
    ]


def read_coco(
    root: Path, files: dict[Path, str], faults: Faults, *, images: Path | None = None, corners: bool = False
) -> Annotations:
    """Read annotations of COCO.

    Ids of annotations are not used: they may repeat or be missing. A category that groups others and has no object is no
    class, nor is one named background.

    Args:
        root: Resolved folder of all files.
        files: JSON file -> split.
        faults: What is done with a faulty entry.
        images: Folder of the images; None for the usual places.
        corners: Whether boxes are two corners, against COCO's own definition of a corner and a size.
    """
    found = Annotations()
    categories: dict[str, list[tuple[dict, int]]] = {}
    for file, part in files.items():
        content = content_of(file)
        if not is_coco(content):
            raise DataError(f"detection_folder: {file.name} must have lists of images and categories, as COCO's files")
        counts = Counter(_hashable(a.get("category_id")) for a in _entries(content, "annotations", file))
        for category in _entries(content, "categories", file):
            name = category.get("name")
            if not isinstance(name, str) or not name.strip() or _hashable(category.get("id")) is None:
                raise DataError(f"detection_folder: {fault(file.name, 'each category must have an id and a name', category)}")
            own = categories.setdefault(text_of(name.strip()), [])
            own.append((category, counts[_hashable(category["id"])]))
        found.images += _images(root, file, content, part, faults, images, corners)
    found.classes, found.notes = _classes(categories, files)
    for image in found.images:
        image.things = [thing for thing in image.things if thing.label in found.classes]
    return found


def _entries(content: dict, key: str, file: Path) -> list[dict]:
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"detection_folder: {file.name}: '{key}' must be a list of objects")
    return entries


def _hashable(value: Any) -> int | str | None:
    """Return an id, a whole float as an integer; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value


def _classes(categories: dict[str, list[tuple[dict, int]]], files: dict[Path, str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of classes, and notes on categories that are none."""
    above = {str(category.get("supercategory")) for entries in categories.values() for category, _ in entries}
    kept, grouping = [], []
    for name, entries in categories.items():
        objects = sum(count for _, count in entries)
        ids = {_hashable(category["id"]) for category, _ in entries}
        leaves = [category for category, count in entries if count or name not in above]
        if not objects and (name.casefold() in BACKGROUND or (name in above and not _is_own_group(entries, name))):
            grouping.append(name)
            continue
        if len(files) == 1 and len(entries) > 1 and len(ids) > 1 and len(leaves) > 1:
            told = few([f"{_hashable(category['id'])}" for category, _ in entries])
            file = next(iter(files)).name
            raise DataError(f"detection_folder: {file}: '{name}' must be one category. Received: two of this name, ids {told}")
        kept.append(name)
    notes = [f"left out {len(grouping)} categories without objects that group others: {few(grouping)}"] if grouping else []
    return tuple(kept), notes


def _is_own_group(entries: Sequence[tuple[dict, int]], name: str) -> bool:
    """Return whether a category names itself as its group, as some exports write for each class."""
    return all(str(category.get("supercategory")) == name for category, _ in entries)


def _images(
    root: Path, file: Path, content: dict, part: str, faults: Faults, folder: Path | None, corners: bool
) -> list[Pictured]:
    names = {_hashable(c.get("id")): text_of(str(c.get("name")).strip()) for c in _entries(content, "categories", file)}
    folders = places(root, file, folder)
    images: dict[Any, Pictured] = {}
    homes: dict[Path, Any] = {}
    missing = set()
    for entry in _entries(content, "images", file):
        key, name = _hashable(entry.get("id")), entry.get("file_name")
        if key is None or not isinstance(name, str) or not name:
            faults(fault(file.name, "each image must have an id and a file_name", entry))
            continue
        if key in images or key in missing:
            faults(fault(file.name, "each id of an image must occur once", f"{key} ({name})"))
            continue
        path = inside(root, name, folders)
        if path is None:
            faults(fault(f"{file.name}, image {key}", f"there must be a file in {text_of(folders[0].name)} or beside", name))
            missing.add(key)
            continue
        if homes.setdefault(path, key) != key:
            faults(fault(file.name, "two images must not be one file", f"{text_of(name)} as {homes[path]} and {key}"))
            continue
        size = as_numbers([entry.get("width"), entry.get("height")], 2)
        images[key] = Pictured(file=path, where=file.name, size=size, part=part)  # type: ignore[arg-type]  # two numbers
    annotations = _entries(content, "annotations", file)
    _check_corners(file, annotations, images, corners)
    for number, entry in enumerate(annotations):
        where = f"{file.name}, annotation {entry['id'] if 'id' in entry else f'number {number + 1}'}"
        image, category = _hashable(entry.get("image_id")), _hashable(entry.get("category_id"))
        if image in missing:
            continue
        if image not in images:
            faults(fault(where, "its image must be listed", repr(entry.get("image_id"))))
            continue
        if category not in names:
            faults(fault(where, "its category must be listed", repr(entry.get("category_id"))))
            continue
        numbers = as_numbers(entry.get("bbox"), 4)
        if numbers is None:
            faults(fault(where, "bbox must be four finite numbers", entry.get("bbox", "none")))
            continue
        left, top, third, fourth = numbers
        box = numbers if corners else (left, top, left + third, top + fourth)
        area = None if entry.get("area") is None else as_numbers([entry["area"]], 1)
        if entry.get("area") is not None and (area is None or area[0] < 0):
            faults(fault(where, "area must be a finite number of at least 0", entry["area"]))
            continue
        flags = {key: entry.get(key) or 0 for key in ("iscrowd", "ignore", "difficult")}
        if wrong := next((key for key, flag in flags.items() if flag not in (0, 1)), ""):
            faults(fault(where, f"{wrong} must be 0 or 1", repr(flags[wrong])))
            continue
        thing = Thing(
            label=names[category],
            box=box,
            where=where,
            crowd=bool(flags["iscrowd"]),
            ignored=bool(flags["ignore"] or flags["difficult"]),
            area=area[0] if area else None,
        )
        images[image].things.append(thing)
    return list(images.values())


def _check_corners(file: Path, annotations: list[dict], images: dict[Any, Pictured], corners: bool) -> None:
    """Refuse boxes that leave their images as a corner and a size, and fit as two corners."""
    if corners:
        return
    beyond = known = 0
    for entry in annotations:
        image, box = images.get(_hashable(entry.get("image_id"))), as_numbers(entry.get("bbox"), 4)
        if image is None or image.size is None or box is None:
            continue
        known += 1
        width, height = image.size
        if not (0 <= box[0] < box[2] <= width + 1 and 0 <= box[1] < box[3] <= height + 1):
            return
        beyond += box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1
    if beyond > known / 4:
        raise DataError(
            f"detection_folder: {file.name}: boxes must be [left, top, width, height]. Received: {beyond} of {known} that "
            f"leave their image as such, while all fit as two corners [x1, y1, x2, y2]. If they are: data.boxes=corners"
        )


def read_bdd(root: Path, files: dict[Path, str], faults: Faults, *, images: Path | None = None) -> Annotations:
    """Read labels of BDD100K (Yu et al. 2020, arXiv 1805.04687): objects with box2d, occluded and truncated as flags."""
    found = Annotations()
    homes: set[Path] = set()
    for file, part in files.items():
        folders = places(root, file, images)
        content = content_of(file)
        if not isinstance(content, list):
            raise DataError(f"detection_folder: {file.name} must be a list of images with labels, as BDD100K's files")
        for number, entry in enumerate(content, 1):
            name = entry.get("name") if isinstance(entry, dict) else None
            where = f"{file.name}, image {text_of(str(name or number))}"
            if not isinstance(name, str) or (path := inside(root, name, folders)) is None:
                faults(fault(where, "must name a file", name))
                continue
            if path in homes:
                faults(fault(where, "an image must be listed once", name))
                continue
            homes.add(path)
            labels = entry.get("labels") or []
            if not isinstance(labels, list) or not all(isinstance(label, dict) for label in labels):
                faults(fault(where, "labels must be a list of objects", labels))
                continue
            image = Pictured(file=path, where=where, part=part)
            for label in labels:
                box = label.get("box2d")
                if box is None:  # lanes and areas
                    continue
                corners = [box.get(key) for key in ("x1", "y1", "x2", "y2")] if isinstance(box, dict) else None
                numbers, category = as_numbers(corners, 4), label.get("category")
                own = f"{where}, label {label.get('id', len(image.things) + 1)}"
                if numbers is None or not isinstance(category, str):
                    faults(fault(own, "must have a category and box2d with finite x1, y1, x2, y2", label))
                    continue
                given = label.get("attributes")
                attributes = given if isinstance(given, dict) else {}
                thing = Thing(
                    label=text_of(category),
                    box=numbers,
                    where=own,
                    truncation=_flag(attributes.get("truncated")),
                    occlusion=_flag(attributes.get("occluded")),
                )
                image.things.append(thing)
            found.images.append(image)
    return found


def _flag(value: Any) -> float:
    return float(value) if isinstance(value, bool) else math.nan


def part_of(file: Path) -> str:
    """Return the split that the name of an annotation file or of its folder stands for; empty for none."""
    words = [*file.stem.replace("-", "_").split("_"), file.stem, file.parent.name]
    return next((part for word in words if (part := split_of(word))), "")
