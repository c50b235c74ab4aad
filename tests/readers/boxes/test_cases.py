"""Annotated images in every format, right and wrong, against what they hold."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.detection_cases.given import HERE

from dlframe.data.detection_folder import read_annotated
from dlframe.readers.boxes.annotations import Faults, Thing
from dlframe.readers.boxes.folder import Choices
from dlframe.statistics.kitti import LEVELS
from dlframe.types import DataError

FORMATS = ("coco", "voc", "yolo", "kitti")


def described(case: Path) -> dict[str, Any]:
    return json.loads((case / "expected.json").read_text(encoding="utf-8"))


RUNS = [
    (case.name, run)
    for case in sorted(HERE.iterdir())
    if (case / "expected.json").is_file() and described(case)["format"] in FORMATS
    for run in described(case)["runs"]
]


def read(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What reading gives: images with objects, or a refusal, and all that was said."""
    options = {**options}
    faults = Faults(skip=options.pop("on_error", "") == "skip")
    given = {name: tuple(value) if isinstance(value, list) else str(value) for name, value in options.items()}
    try:
        with ThreadPoolExecutor(2) as pool:
            _, form, found, rows = read_annotated(path, Choices(**given), faults, pool)
    except DataError as error:
        return {"outcome": "refused", "message": str(error)}
    images = {row.name: {"size": [*row.size], "objects": [shown(t, form) for t in row.image.things]} for row in rows}
    told = "; ".join([*found.notes, *faults.notes()])
    return {"outcome": "read", "message": told, "classes": [*found.classes], "images": images}


def shown(thing: Thing, form: str) -> dict[str, Any]:
    told = {"class": thing.label or "DontCare", "box": thing.box, "crowd": thing.crowd, "ignored": thing.ignored}
    if form == "kitti" and thing.label:
        height = thing.box[3] - thing.box[1]
        levels = [
            name
            for name, level in LEVELS.items()
            if height > level.height and thing.occlusion <= level.occlusion and thing.truncation <= level.truncation
        ]
        told |= {"truncation": thing.truncation, "occlusion": thing.occlusion, "levels": levels}
    return told


def difference(wanted: dict[str, Any], found: dict[str, Any], tolerance: float) -> str:
    """How a run differs from what is right; empty for nothing."""
    if found["outcome"] != wanted["outcome"]:
        return f"{found['outcome']}: {found['message']}"
    for pattern in wanted.get("says", ()):
        if not re.search(pattern, found["message"], re.I | re.S):
            return f"does not say {pattern}: {found['message']}"
    for text in wanted.get("never_says", ()):
        if text.lower() in found["message"].lower():
            return f"says {text}"
    if wanted["outcome"] == "refused":
        return ""
    if {*wanted["classes"]} != {*found["classes"]}:
        return f"classes {found['classes']}"
    # An expected name may leave out folders.
    names = {name: [own for own in found["images"] if own == name or own.endswith(f"/{name}")] for name in wanted["images"]}
    if any(len(own) != 1 for own in names.values()) or len(names) != len(found["images"]):
        return f"images {[*found['images']]}"
    for name, (own,) in names.items():
        image, right = found["images"][own], wanted["images"][name]
        if image["size"] != right.get("size", image["size"]) or len(image["objects"]) != len(right["objects"]):
            return f"{name}: {image}"
        left = [*image["objects"]]
        for thing in right["objects"]:
            keys = thing.keys() - {"box", "colour"}
            same = [
                other
                for other in left
                if all(other.get(key) == thing[key] for key in keys)
                and other["box"] == pytest.approx(thing["box"], abs=right.get("tolerance", tolerance))
            ]
            if not same:
                return f"{name}: {thing} is not in {left}"
            left.remove(same[0])
    return ""


@pytest.mark.parametrize(("case", "run"), RUNS, ids=[f"{case}-{run}" for case, run in RUNS])
def test_cases(case, run):
    wanted = described(HERE / case)
    given = wanted["input"]
    path = HERE / case / next(given[key] for key in (run, "annotations", "default") if key in given)
    found = read(path, wanted.get("options", {}).get(run, {}))
    right = wanted["runs"][run]
    told = [difference(one, found, one.get("tolerance", 0.01)) for one in right.get("any_of", [right])]
    assert "" in told, told
