"""Average precision and recall of boxes: detections are matched once, then counted in any resample of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Overlaps (intersection over union) from which a detection is a hit, over which COCO averages."""

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO reads the precision."""

AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""Areas in square pixels of all, small, medium and large objects; both bounds belong to the range."""

LIMIT = 100
"""Detections of an image and class that count, the most confident ones."""

CHUNK = 2**22
"""Elements of the arrays of one step of matching."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """True objects of all images.

    Attributes:
        box: (objects, 4) left, top, right, bottom, at pixel edges.
        label: (objects,) class indices.
        image: (objects,) image indices.
        ignored: (objects,) bool, objects that neither count as missed nor make a false alarm.
        many: (objects,) bool, ignored objects that any number of detections may hit: difficult ones of VOC, crowds.
        crowd: (objects,) bool, of `many`, regions of several objects, in which a detection must be by its own area.
        area: (objects,) areas in square pixels, or another measure that decides the size.
    """

    box: np.ndarray
    label: np.ndarray
    image: np.ndarray
    ignored: np.ndarray
    many: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detected objects of all images; attributes as of `Objects`, and `score`, the confidence; areas of boxes by default."""

    box: np.ndarray
    label: np.ndarray
    image: np.ndarray
    score: np.ndarray
    area: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Detections with the objects that they hit, sorted by class, then by falling confidence.

    Attributes:
        index: (detections,) positions in the `Detections`; those beyond the limit are left out.
        label: (detections,) class indices.
        image: (detections,) image indices.
        score: (detections,) confidences.
        rank: (detections,) number of more confident detections of the same image and class.
        hit: (thresholds, areas, detections) index of the object that a detection hits; -1 for none.
        neither: (thresholds, areas, detections) bool, detections that are neither a hit nor a false alarm.
        counts: (areas, objects) bool, whether an object counts.
        objects: The true objects.
        classes: Number of classes.
        images: Number of images.
        thresholds: Overlaps.
    """

    index: np.ndarray
    label: np.ndarray
    image: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    hit: np.ndarray
    neither: np.ndarray
    counts: np.ndarray
    objects: Objects
    classes: int
    images: int
    thresholds: tuple[float, ...]


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | bool = False) -> np.ndarray:
    """Return intersection over union of boxes (..., 4); over the area of `boxes` where `others` are crowds."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    inside = np.where((sides > 0).all(-1), sides.prod(-1), 0.0)
    own, other = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (boxes, others))
    union = np.where(crowd, own, own + other - inside)
    return np.divide(inside, union, out=np.zeros_like(inside), where=inside > 0)


def match(
    found: Detections,
    true: Objects,
    *,
    classes: int,
    images: int,
    thresholds: Sequence[float] = THRESHOLDS,
    areas: Sequence[tuple[float, float]] = AREAS,
    limit: int = LIMIT,
) -> Matches:
    """Match detections and objects of one class in one image, the most confident detection first.

    A detection takes the free object of the largest overlap; ignored ones only where no other overlaps enough. The rules are
    those of COCO's program (Lin et al. 2014, arXiv 1405.0312), all images, thresholds and sizes at once.

    Args:
        found: Detections of all images.
        true: Objects of all images.
        classes: Number of classes.
        images: Number of images.
        thresholds: Overlaps from which on a detection hits.
        areas: Ranges of areas; objects outside, and detections outside that hit nothing, are ignored.
        limit: Detections of an image and class that count.
    """
    group = found.image.astype(np.int64) * classes + found.label
    order = np.lexsort((-found.score, group))  # stable
    starts = np.concatenate([[True], group[order][1:] != group[order][:-1]])[: len(order)]
    first = np.flatnonzero(starts)
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.concatenate([first, [len(order)]])))
    order, rank = order[rank < limit], rank[rank < limit]
    order_by_class = np.lexsort((np.arange(len(order)), -found.score[order], found.label[order]))
    hit = _hits(found, true, order, rank, group[order], classes, thresholds, areas)
    low, high = np.array(areas).reshape(-1, 2).T
    outside = (true.area < low[:, None]) | (true.area > high[:, None])
    counts = ~(outside | true.ignored)
    size = ((found.box[:, 2:] - found.box[:, :2]).prod(-1) if found.area is None else found.area)[order]
    small_or_large = (size < low[:, None]) | (size > high[:, None])
    padded = np.concatenate([~counts, np.zeros((len(areas), 1), bool)], 1)  # for the index -1
    on_ignored = np.take_along_axis(padded[None], hit.astype(np.int64) % padded.shape[1], 2)
    neither = np.where(hit >= 0, on_ignored, small_or_large)
    chosen = order[order_by_class]
    return Matches(
        index=chosen,
        label=found.label[chosen],
        image=found.image[chosen],
        score=found.score[chosen],
        rank=rank[order_by_class],
        hit=hit[..., order_by_class],
        neither=neither[..., order_by_class],
        counts=counts,
        objects=true,
        classes=classes,
        images=images,
        thresholds=tuple(thresholds),
    )


def _hits(
    found: Detections,
    true: Objects,
    order: np.ndarray,
    rank: np.ndarray,
    group: np.ndarray,
    classes: int,
    thresholds: Sequence[float],
    areas: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Return (thresholds, areas, detections) indices of objects, -1 for none, of detections sorted by group and rank."""
    hit = np.full((len(thresholds), len(areas), len(order)), -1, np.int32)
    true_group = true.image.astype(np.int64) * classes + true.label
    true_order = np.argsort(true_group, kind="stable")
    names, true_first, true_count = np.unique(true_group[true_order], return_index=True, return_counts=True)
    first = np.flatnonzero(rank == 0)
    count = np.diff(np.concatenate([first, [len(order)]]))
    place = np.searchsorted(names, group[first])
    both = (place < len(names)) & (names[np.minimum(place, len(names) - 1)] == group[first]) if len(names) else place < 0
    first, count, place = first[both], count[both], place[both]
    low, high = np.array(areas).reshape(-1, 2).T
    least = np.minimum(np.array(thresholds), 1 - 1e-10)[:, None, None]
    room = 1 << np.ceil(np.log2(np.maximum(true_count[place], 1))).astype(int)
    for width in np.unique(room):
        # Groups with most detections first: at each rank, those that still have one are the first ones.
        these = np.flatnonzero(room == width)
        these = these[np.argsort(-count[these], kind="stable")]
        step = max(1, CHUNK // (len(thresholds) * len(areas) * int(width)))
        for part in np.split(these, range(step, len(these), step)):
            slots = true_first[place[part], None] + np.arange(width)
            real = np.arange(width) < true_count[place[part], None]
            objects = true_order[np.where(real, slots, 0)]
            boxes, crowd, many = true.box[objects], true.crowd[objects] & real, true.many[objects] & real
            area = true.area[objects][:, None]
            ignored = true.ignored[objects][:, None] | (area < low[:, None]) | (area > high[:, None])
            free = np.broadcast_to(real[:, None, None], (len(part), len(thresholds), len(areas), width)).copy()
            for k in range(count[part[0]]):
                active = int((count[part] > k).sum())
                rows = first[part[:active]] + k
                over = overlaps(found.box[order[rows]][:, None].astype(float), boxes[:active].astype(float), crowd[:active])
                over = over[:, None, None]
                allowed = (over >= least) & (free[:active] | many[:active, None, None])
                better = allowed & ~ignored[:active, None]
                allowed = np.where(better.any(-1, keepdims=True), better, allowed)
                best = width - 1 - np.where(allowed, over, -1.0)[..., ::-1].argmax(-1)  # of equal overlaps, the last
                taken = allowed.any(-1)
                hit[:, :, rows] = np.where(taken, objects[np.arange(active)[:, None, None], best], -1).transpose(1, 2, 0)
                spot = np.arange(width) == best[..., None]
                free[:active] &= ~(spot & taken[..., None])
    return hit


@dataclass(frozen=True)
class Curves:
    """Precision and recall by class.

    Attributes:
        precision: (thresholds, recalls, classes) largest precision at or beyond each of `RECALLS`; NaN without objects.
        recall: (thresholds, classes) recall of all detections; NaN without objects.
    """

    precision: np.ndarray
    recall: np.ndarray


def curves(
    matches: Matches, *, area: int = 0, limit: int = LIMIT, weights: np.ndarray | None = None, recalls: np.ndarray = RECALLS
) -> Curves:
    """Compute precision over recall.

    Args:
        matches: Detections with what they hit.
        area: Index of a range of areas.
        limit: Detections of an image and class that count.
        weights: (images,) how often each image is drawn; None for once.
        recalls: Recalls at which the precision is read.
    """
    times = np.ones(matches.images) if weights is None else np.asarray(weights, float)
    object_times = times[matches.objects.image] * matches.counts[area]
    positives = np.bincount(matches.objects.label, object_times, matches.classes)
    bounds = np.searchsorted(matches.label, np.arange(matches.classes + 1))
    precision = np.full((len(matches.thresholds), len(recalls), matches.classes), np.nan)
    recall = np.full((len(matches.thresholds), matches.classes), np.nan)
    for label in np.flatnonzero(positives):
        part = np.flatnonzero(matches.rank[bounds[label] : bounds[label + 1]] < limit) + bounds[label]
        own = times[matches.image[part]] * ~matches.neither[:, area, part]
        hits = matches.hit[:, area, part] >= 0
        right, wrong = (own * hits).cumsum(1), (own * ~hits).cumsum(1)
        reached = right / positives[label]
        exact = right / (right + wrong + np.spacing(1))
        exact = np.maximum.accumulate(exact[:, ::-1], 1)[:, ::-1]
        recall[:, label] = reached[:, -1] if len(part) else 0.0
        for t, row in enumerate(reached):
            place = np.searchsorted(row, recalls)
            precision[t, :, label] = np.append(exact[t], 0.0)[place]
    return Curves(precision, recall)


METRICS: dict[str, tuple[str, float | None, int, int]] = {
    "ap": ("precision", None, 0, LIMIT),
    "ap50": ("precision", 0.5, 0, LIMIT),
    "ap75": ("precision", 0.75, 0, LIMIT),
    "ap_small": ("precision", None, 1, LIMIT),
    "ap_medium": ("precision", None, 2, LIMIT),
    "ap_large": ("precision", None, 3, LIMIT),
    "ar_1": ("recall", None, 0, 1),
    "ar_10": ("recall", None, 0, 10),
    "ar_100": ("recall", None, 0, LIMIT),
}
"""Metric -> curve, overlap (None for the mean over all), range of areas, detections of an image and class."""


def summary(matches: Matches, names: Sequence[str] = tuple(METRICS), weights: np.ndarray | None = None) -> dict[str, float]:
    """Compute metrics, means over the classes that have objects; NaN without any."""
    found: dict[tuple[int, int], Curves] = {}
    result = {}
    for name in names:
        curve, threshold, area, limit = METRICS[name]
        key = (area, limit)
        if key not in found:
            found[key] = curves(matches, area=area, limit=limit, weights=weights)
        values = getattr(found[key], curve)
        if threshold is not None:
            values = values[[i for i, t in enumerate(matches.thresholds) if np.isclose(t, threshold)]]
        values = values[~np.isnan(values)]
        result[name] = float(values.mean()) if values.size else float("nan")
    return result
