"""Average precision at the three difficulties of KITTI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlframe.statistics.detection import Detections, Matches, Objects, curves, match


@dataclass(frozen=True)
class Level:
    """Difficulty: what an object must have to count.

    Attributes:
        height: Height of its box in pixels, beyond which it counts.
        occlusion: Highest level of occlusion.
        truncation: Largest fraction outside the image.
    """

    height: float
    occlusion: int
    truncation: float


LEVELS = {"easy": Level(40, 0, 0.15), "moderate": Level(25, 1, 0.30), "hard": Level(25, 2, 0.50)}

VEHICLES = ("car", "van", "truck", "bus", "tram", "train")
"""Classes whose detections must overlap by more than 0.7; of others, 0.5."""

NEIGHBORS = {"car": "van", "pedestrian": "person_sitting"}
"""Class -> class of which a detection counts neither way: it is too much like the first."""

RECALLS = {40: np.arange(1, 41) / 40, 11: np.arange(11) / 10}
"""Number of points -> recalls at which the precision is read (Simonelli et al. 2019, arXiv 1905.12365, for 40)."""


def matched(
    found: Detections,
    true: Objects,
    truncation: np.ndarray,
    occlusion: np.ndarray,
    *,
    names: Sequence[str],
    images: int,
    level: str,
) -> list[Matches | None]:
    """Match detections and objects of each class at a difficulty.

    Objects that do not count at the difficulty, those of a neighboring class, and regions (`crowd`) are ignored, and so are
    detections that are less high than an object may be. KITTI's program reads the precision at the confidences of at most 41
    hits, and gives less than 100 % to a perfect detector of fewer objects; here it is read at all confidences, as the
    benchmark defines it (Geiger et al. 2012, "Are we ready for autonomous driving?").

    Args:
        found: Detections of all images.
        true: Objects of all images.
        truncation: (objects,) fraction outside the image; NaN counts as 0.
        occlusion: (objects,) level of occlusion; NaN counts as 0.
        names: Names of the classes.
        images: Number of images.
        level: Difficulty.

    Returns:
        Matches of each class; None where no object counts.
    """
    rule, folded = LEVELS[level], [name.casefold() for name in names]
    height = true.box[:, 3] - true.box[:, 1]
    hard = ~(height > rule.height) | (np.nan_to_num(occlusion) > rule.occlusion) | (np.nan_to_num(truncation) > rule.truncation)
    found_height = found.box[:, 3] - found.box[:, 1]
    result: list[Matches | None] = []
    for label, name in enumerate(folded):
        neighbor = folded.index(NEIGHBORS[name]) if NEIGHBORS.get(name) in folded else -1
        chosen = (true.label == label) | ((true.label == neighbor) & ~true.crowd)
        own = Objects(**{key: values[chosen] for key, values in vars(true).items()})
        own = replace(own, ignored=own.ignored | hard[chosen] | (own.label == neighbor), label=np.zeros_like(own.label))
        if own.ignored.all():
            result.append(None)
            continue
        mine = found.label == label
        detections = Detections(
            box=found.box[mine],
            label=np.zeros(mine.sum(), int),
            image=found.image[mine],
            score=found.score[mine],
            area=found_height[mine],
        )
        least = math.nextafter(0.7 if name in VEHICLES else 0.5, 1)
        matches = match(
            detections,
            replace(own, area=np.full(len(own.box), math.inf)),
            classes=1,
            images=images,
            thresholds=[least],
            areas=[(rule.height, math.inf)],
        )
        low = detections.area[matches.index] < rule.height  # type: ignore[index]  # given above
        result.append(replace(matches, neither=matches.neither | low))
    return result


def average_precision(matches: Sequence[Matches | None], points: int = 40, weights: np.ndarray | None = None) -> float:
    """Return the mean over classes of the precision at 40 or 11 recalls; NaN where no object counts.

    Args:
        matches: Matches by class, see `matched`.
        points: Number of recalls.
        weights: (images,) how often each image is drawn; None for once.
    """
    recalls = RECALLS[points] - 1e-9  # of k / n in floats, either may be the larger
    each = [curves(m, weights=weights, recalls=recalls).precision.mean() for m in matches if m is not None]
    each = [value for value in each if not math.isnan(value)]
    return float(np.mean(each)) if each else math.nan
