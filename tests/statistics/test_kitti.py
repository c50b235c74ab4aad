"""KITTI's difficulties against values by hand and by the definition."""

from __future__ import annotations

import numpy as np
import pytest
from tests.detection_cases.given import HERE, expected

from dlframe.statistics.detection import Detections, Objects
from dlframe.statistics.kitti import LEVELS, average_precision, matched


def read(case: str):
    """Detections and objects of files in KITTI's form; regions are there once for each class."""
    files = sorted((HERE / case / "label_2").glob("*.txt"))
    rows = [(i, line.split()) for i, file in enumerate(files) for line in file.read_text().splitlines()]
    names = sorted({words[0] for _, words in rows} - {"DontCare"})
    spread = [
        (i, label, words)
        for i, words in rows
        for label in (range(len(names)) if words[0] == "DontCare" else [names.index(words[0])])
    ]
    region = np.array([words[0] == "DontCare" for _, _, words in spread])
    box = np.array([words[4:8] for _, _, words in spread], float)
    true = Objects(
        box=box,
        label=np.array([label for _, label, _ in spread]),
        image=np.array([i for i, _, _ in spread]),
        ignored=region,
        many=region,
        crowd=region,
        area=(box[:, 2:] - box[:, :2]).prod(1),
    )
    truncation, occlusion = np.array([words[1:3] for _, _, words in spread], float).T
    results = [
        (i, words)
        for i, file in enumerate(files)
        for words in map(str.split, (HERE / case / "predictions" / file.name).read_text().splitlines())
        if words[0] in names
    ]
    found = Detections(
        box=np.array([words[4:8] for _, words in results], float),
        label=np.array([names.index(words[0]) for _, words in results]),
        image=np.array([i for i, _ in results]),
        score=np.array([words[15] for _, words in results], float),
    )
    return found, true, truncation, occlusion, {"names": names, "images": len(files)}


@pytest.mark.parametrize("case", ["kitti-ap-by-hand", "kitti-perfect-39"])
def test_cases(case):
    found, true, truncation, occlusion, facts = read(case)
    car, values, seen = facts["names"].index("Car"), expected(case), 0
    for level in LEVELS:
        of_car = [matched(found, true, truncation, occlusion, level=level, **facts)[car]]
        for points in (40, 11):
            if (key := f"Car {level} AP R{points} by the definition") in values:
                assert 100 * average_precision(of_car, points) == pytest.approx(values[key], abs=1e-6)
                seen += 1
    assert seen >= 2


def test_without_an_object_that_counts():
    found, true, truncation, _, facts = read("kitti-ap-by-hand")
    hidden = np.full(len(true.box), 3.0)
    assert np.isnan(average_precision(matched(found, true, truncation, hidden, level="hard", **facts)))
