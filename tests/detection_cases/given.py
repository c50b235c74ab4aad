"""Truth, detections and right values of the cases beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.statistics.detection import Detections, Objects

HERE = Path(__file__).parent


def expected(case: str) -> dict[str, Any]:
    """The right values of a case by name; NaN for undefined."""
    values = json.loads((HERE / case / "expected.json").read_text(encoding="utf-8"))["values"]
    return {
        name: float("nan") if value.get("value", value) is None else value.get("value", value) for name, value in values.items()
    }


def given(case: str) -> tuple[Detections, Objects, list[str], int]:
    """The detections and objects of a case, its classes and the number of its images."""
    truth, predictions = (json.loads((HERE / case / f"{name}.json").read_text("utf-8")) for name in ("truth", "predictions"))
    images, classes = ({name: i for i, name in enumerate(truth[key])} for key in ("images", "classes"))

    def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        return {
            "box": np.array([row["box"] for row in rows], float).reshape(-1, 4),
            "label": np.array([classes[row["class"]] for row in rows], int),
            "image": np.array([images[row["image"]] for row in rows], int),
        }

    objects = columns(truth["objects"])
    crowd, difficult = (np.array([bool(o.get(key)) for o in truth["objects"]], bool) for key in ("crowd", "difficult"))
    sides = objects["box"][:, 2:] - objects["box"][:, :2]
    area = np.array([o.get("area", size) for o, size in zip(truth["objects"], sides.prod(1), strict=True)], float)
    true = Objects(**objects, ignored=crowd | difficult, many=crowd | difficult, crowd=crowd, area=area)
    found = Detections(**columns(predictions), score=np.array([row["score"] for row in predictions], float))
    return found, true, [*classes], len(images)
