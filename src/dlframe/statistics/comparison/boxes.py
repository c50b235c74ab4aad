"""Average precision and recall of boxes from a table of predictions, with their values without each group of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlframe.statistics import detection, kitti
from dlframe.statistics.detection import Detections, Objects
from dlframe.types import Ragged

COLUMNS = ("target", "prediction", "score", "box", "target_box")
FACTS = ("target_area", "target_crowd", "target_ignored", "target_truncation", "target_occlusion")
"""Columns that a form takes, and those of what data may say about objects."""
VOCABULARY = "vocabulary of all columns"
"""Key of the words, by number, for which columns of words hold numbers; no column of a task has this name."""
MOST_GROUPS = 100
"""Groups of images above which they are put together: each costs the precision over all detections once."""


def values(columns: Mapping[str, Any], groups: np.ndarray, options: Mapping[str, Any]) -> tuple[float, np.ndarray]:
    """Return a metric of detections, and without each group of images, by matching once and counting anew.

    Args:
        columns: `Ragged` of each image: classes "target" and "prediction", confidences "score", corners "box" and "target_box";
            and what is known about objects, see `FACTS`.
        groups: (images,) numbers from 0.
        options: "metric", one of `dlframe.statistics.detection.METRICS`, or "ap_easy", "ap_moderate", "ap_hard" of KITTI,
            which depend on the names of the classes.

    Raises:
        KeyError: A column is missing.
        ValueError: Columns do not fit each other, or the metric is unknown.
    """
    metric, images = options["metric"], len(groups)
    names, found, true = _objects(columns)
    level = metric.removeprefix("ap_")
    if level in kitti.LEVELS:
        words = columns[VOCABULARY]
        about = [_facts(columns, name, len(true.label)) for name in ("target_truncation", "target_occlusion")]
        matched = kitti.matched(found, true, *about, names=[words[i] for i in names], images=images, level=level)

        def computed(weights: np.ndarray | None) -> float:
            return kitti.average_precision(matched, weights=weights)

    elif metric in detection.METRICS:
        matches = detection.match(found, true, classes=len(names), images=images)

        def computed(weights: np.ndarray | None) -> float:
            return detection.summary(matches, [metric], weights)[metric]

    else:
        raise ValueError(f"no such metric of detections. Received: {metric!r}")
    count = int(groups.max(initial=-1)) + 1
    return computed(None), np.array([computed((groups != group).astype(float)) for group in range(count)])


def _objects(columns: Mapping[str, Any]) -> tuple[np.ndarray, Detections, Objects]:
    """Return the classes that occur, and detections and objects with their places among these."""
    said, heard, score, box, true_box = (columns[name] for name in COLUMNS)
    for one, other in ((heard, score), (heard, box), (said, true_box)):
        if not np.array_equal(one.offsets, other.offsets):
            raise ValueError("an image must have as many classes as boxes and scores")
    names, places = np.unique(np.r_[said.values, heard.values].astype(np.int64), return_inverse=True)
    true_label, label = np.split(places.reshape(-1), [len(said.values)])
    corners, true_corners = (np.asarray(each.values, float).reshape(-1, 4) for each in (box, true_box))
    if not (np.isfinite(corners).all() and np.isfinite(true_corners).all() and np.isfinite(score.values).all()):
        raise ValueError("boxes and scores must be finite. Received: NaN or infinite values")
    crowd, ignored = (_facts(columns, name, len(true_label)) > 0 for name in ("target_crowd", "target_ignored"))
    area = _facts(columns, "target_area", len(true_label))
    true = Objects(
        box=true_corners,
        label=true_label,
        image=_images(said),
        ignored=crowd | ignored,
        many=crowd | ignored,
        crowd=crowd,
        area=area if "target_area" in columns else (true_corners[:, 2:] - true_corners[:, :2]).prod(1),
    )
    return names, Detections(box=corners, label=label, image=_images(heard), score=np.asarray(score.values, float)), true


def _images(column: Ragged) -> np.ndarray:
    return np.repeat(np.arange(len(column)), column.lengths)


def _facts(columns: Mapping[str, Any], name: str, objects: int) -> np.ndarray:
    """Return what is known about objects (objects,), 0 where nothing is."""
    if name not in columns:
        return np.zeros(objects)
    found = np.asarray(columns[name].values, float).reshape(-1)
    if len(found) != objects:
        raise ValueError(f"{name} must have {objects:,} values, one an object. Received: {len(found):,}")
    return found
