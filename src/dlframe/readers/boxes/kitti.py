"""Annotations of KITTI: a text file per image with 15 columns."""

from __future__ import annotations

from pathlib import Path

from dlframe.readers.boxes.annotations import Annotations, Faults, Pictured, Thing, fault, parsed
from dlframe.readers.listing import few, text_of
from dlframe.types import read_text

LARGEST = 2**22
"""Bytes of a text file."""

COLUMNS = 15
"""Type, truncation, occlusion, angle, box (4), size (3), place (3) and rotation; a result has a score as the 16th."""

REGION = "DontCare"
"""Type of regions with objects that are not annotated."""


def read_kitti(images: list[Path], labels: dict[str, Path], faults: Faults) -> Annotations:
    """Read label files (Geiger et al. 2012, "Are we ready for autonomous driving?"); regions of DontCare are ignored.

    Args:
        images: Image files.
        labels: Name without ending -> label file.
        faults: What is done with a faulty row, or with an image without a label file.
    """
    found = Annotations()
    for image in images:
        if image.stem not in labels:
            faults(fault(text_of(image.name), "an image must have a label file", f"no {image.stem}.txt"))
            continue
        label = labels[image.stem]
        if (things := _things(label, faults)) is not None:
            found.images.append(Pictured(file=image, where=label.name, things=things))
    if rest := sorted(labels.keys() - {image.stem for image in images}):
        found.notes.append(f"left out {len(rest):,} label files without an image: {few([f'{name}.txt' for name in rest], 3)}")
    return found


def _things(label: Path, faults: Faults) -> list[Thing] | None:
    """Return the objects of a label file; None for a file that cannot be read, if faults are left out."""
    try:
        lines = read_text(label, LARGEST).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults(f"{label.name} cannot be read: {error}.")
        return None
    things = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{label.name}, line {number}"
        numbers = [parsed(word) for word in words[1:]]
        if len(words) != COLUMNS or None in numbers:
            score = " (a 16th is the score of a result)" if len(words) == COLUMNS + 1 else ""
            rule = f"a row must have a type and {COLUMNS - 1} numbers{score}"
            faults(fault(where, rule, line.strip()))
            continue
        truncation, occlusion, _, *rest = (float(value) for value in numbers if value is not None)
        if not (truncation == -1 or 0 <= truncation <= 1) or occlusion not in (-1, 0, 1, 2, 3):
            rule = "the truncation must be 0 to 1 and the occlusion 0, 1, 2 or 3, or -1 where unknown"
            faults(fault(where, rule, f"{words[1]}, {words[2]}"))
            continue
        region = words[0] == REGION
        thing = Thing(
            label="" if region else text_of(words[0]),
            box=tuple(rest[:4]),
            where=where,
            ignored=region,
            crowd=region,
            truncation=truncation,
            occlusion=occlusion,
        )
        things.append(thing)
    return things
