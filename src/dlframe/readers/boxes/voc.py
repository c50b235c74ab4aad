"""Annotations of Pascal VOC: an XML file per image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from xml.parsers import expat

from dlframe.readers.boxes.annotations import Annotations, Faults, Pictured, Thing, by_stem, fault, parsed
from dlframe.readers.listing import few, split_of, text_of
from dlframe.types import DataError, read_bytes, read_text

LARGEST = 2**24
"""Bytes of an XML file."""

DEEPEST = 20
"""Elements within one another."""


@dataclass
class Element:
    """XML element.

    Attributes:
        tag: Its name.
        line: Line on which it starts.
        text: Its own text.
        children: Elements in it.
    """

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """Yield the children of a name."""
        return (child for child in self.children if child.tag == tag)

    def value(self, tag: str) -> str:
        """Return the text of the first child of a name; empty without one."""
        return next((child.text.strip() for child in self.all(tag)), "")


def parse(content: bytes) -> Element:
    """Parse XML without document types: entities are neither expanded nor opened.

    Raises:
        ValueError: It is not XML, has a document type, or is too deep; with the line.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", 0)
    above = [top]

    def refuse(*_: object) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber}: must not have a DOCTYPE, whose entities could open other files")

    def start(tag: str, _: object) -> None:
        if len(above) > DEEPEST:
            raise ValueError(f"line {parser.CurrentLineNumber}: must have at most {DEEPEST} elements within one another")
        element = Element(tag, parser.CurrentLineNumber)
        above[-1].children.append(element)
        above.append(element)

    def text(found: str) -> None:
        above[-1].text += found

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: above.pop() and None
    parser.CharacterDataHandler = text
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: is not XML: {expat.ErrorString(error.code)}") from None
    return top.children[0]


def read_voc(
    root: Path, files: dict[Path, str], images: list[Path], faults: Faults, *, first_pixel: Literal["auto", "0", "1"] = "auto"
) -> Annotations:
    """Read XML files, whose boxes count pixels from 1, both ends included.

    The image of an XML file is the one with its name; <filename> is often that of another machine or of a copy.

    Args:
        root: Resolved folder of all files.
        files: XML file -> split.
        images: Image files.
        faults: What is done with a faulty object or image.
        first_pixel: Number of the first pixel; auto is 1, unless a box starts at 0.
    """
    found = Annotations()
    known = by_stem(images, found.notes.append)
    homes: dict[str, str] = {}
    for file, part in files.items():
        try:
            top = parse(read_bytes(file, LARGEST))
        except (OSError, ValueError) as error:
            faults(f"{file.name}, {getattr(error, 'strerror', None) or error}.")
            continue
        image = known.get(file.stem)
        if image is None:
            faults(fault(file.name, "there must be an image of this name", f"{file.stem}.*"))
            continue
        named = text_of(top.value("filename").replace("\\", "/").rpartition("/")[2])
        stem = next((named.removesuffix(s) for s in (Path(named).suffix,) if s), named)
        if known.get(stem, known.get(named, image)) != image:
            # A name of another image of the set: this file is a copy, or that one's annotations were renamed.
            faults(fault(file.name, f"<filename> must not name another image than {text_of(image.name)}", named))
            continue
        if homes.setdefault(image.name, file.name) != file.name:
            faults(fault(file.name, "an image must have one XML file", f"{image.name}, which {homes[image.name]} has"))
            continue
        found.images.append(_image(file, top, image, part, faults))
    _count_from(found, first_pixel)
    if rest := sorted(text_of(i.name) for i in images if i.stem not in {file.stem for file in files}):
        found.notes.append(f"left out {len(rest):,} images without an XML file: {few(rest, 3)}")
    return found


def _image(file: Path, top: Element, image: Path, part: str, faults: Faults) -> Pictured:
    things = []
    for element in top.all("object"):
        where = f"{file.name}, line {element.line}"
        boxes, name = [*element.all("bndbox")], element.value("name")
        texts = [boxes[0].value(key) for key in ("xmin", "ymin", "xmax", "ymax")] if boxes else []
        numbers = [parsed(text) for text in texts]
        if not name:
            faults(fault(where, "an object must have a name", "none"))
            continue
        if not texts or None in numbers:
            rule = "an object must have a bndbox with finite numbers xmin, ymin, xmax, ymax"
            faults(fault(where, rule, ", ".join(text or "none" for text in texts) or "no bndbox"))
            continue
        thing = Thing(
            label=text_of(name),
            box=tuple(float(number) for number in numbers if number is not None),
            where=where,
            ignored=element.value("difficult") == "1",
            truncation=_flag(element.value("truncated")),
            occlusion=_flag(element.value("occluded")),
        )
        things.append(thing)
    sizes = [parsed(size.value(side)) for size in top.all("size") for side in ("width", "height")][:2]
    stated = (sizes[0], sizes[1]) if len(sizes) == 2 and sizes[0] and sizes[1] else None  # 0 where a tool does not know it
    return Pictured(file=image, where=file.name, things=things, size=stated, part=part)


def _flag(text: str) -> float:
    return float(text) if text in ("0", "1") else math.nan


def _count_from(found: Annotations, first_pixel: str) -> None:
    """Turn pixel numbers into edges: with pixels from 1, the left edge of pixel xmin is xmin - 1, the right of xmax is xmax."""
    zero = next((thing for image in found.images for thing in image.things if min(thing.box[:2]) < 1), None)
    if first_pixel == "0" or (first_pixel == "auto" and zero):
        if first_pixel == "auto" and zero:
            found.notes.append(f"boxes are read as edges counted from 0, as one starts there: {zero.where} (data.first_pixel)")
        return
    for image in found.images:
        image.things = [replace(t, box=(t.box[0] - 1, t.box[1] - 1, t.box[2], t.box[3])) for t in image.things]


def splits_of(root: Path, names: list[str]) -> dict[str, str]:
    """Return the split of each image that the lists in ImageSets/Main name, by its name without ending.

    Raises:
        DataError: An image is in two splits, or a list cannot be read.
    """
    folder = root / "ImageSets" / "Main"
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.txt")) if folder.is_dir() else []:
        part = split_of(file.stem)
        if part is None:  # lists of a class, or trainval
            continue
        try:
            lines = read_text(file, LARGEST).splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"detection_folder: {file.name} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            name = line.strip()
            if name and name in names and found.setdefault(name, part) != part:
                raise DataError(f"detection_folder: {file.name}, line {number}: '{name}' is in two splits, {found[name]} too")
    return found
