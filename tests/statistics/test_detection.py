"""Average precision against COCO's own program and by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from tests.detection_cases.given import expected, given

from dlframe.statistics.detection import METRICS, Detections, Matches, Objects, curves, match, overlaps, summary

STATS = dict(zip(("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100"), range(9), strict=True))
"""Metric -> place in the statistics of COCO's program."""


def objects(image: Any, label: Any, box: Any, *, crowd: Any = None, area: Any = None, difficult: Any = None) -> Objects:
    box = np.array(box, float).reshape(-1, 4)
    crowd, difficult = (np.zeros(len(box), bool) if x is None else np.array(x, bool) for x in (crowd, difficult))
    return Objects(
        box=box,
        label=np.array(label, int),
        image=np.array(image, int),
        ignored=crowd | difficult,
        many=crowd | difficult,
        crowd=crowd,
        area=(box[:, 2:] - box[:, :2]).prod(1) if area is None else np.array(area, float),
    )


def detections(image: Any, label: Any, box: Any, score: Any) -> Detections:
    return Detections(
        box=np.array(box, float).reshape(-1, 4),
        label=np.array(label, int),
        image=np.array(image, int),
        score=np.array(score, float),
    )


def reference(found: Detections, true: Objects, *, classes: int, images: int) -> dict[str, float]:
    """The statistics of faster-coco-eval."""
    coco = pytest.importorskip("faster_coco_eval")

    def sized(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    content = {
        "images": [{"id": i + 1, "width": 1000, "height": 1000} for i in range(images)],
        "categories": [{"id": i + 1, "name": str(i)} for i in range(classes)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(true.image[i]) + 1,
                "category_id": int(true.label[i]) + 1,
                "bbox": sized(true.box[i]),
                "area": float(true.area[i]),
                "iscrowd": int(true.crowd[i]),
            }
            for i in range(len(true.box))
        ],
    }
    results = [
        {
            "image_id": int(found.image[i]) + 1,
            "category_id": int(found.label[i]) + 1,
            "bbox": sized(found.box[i]),
            "score": float(found.score[i]),
        }
        for i in range(len(found.box))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, answer = coco.COCO(), coco.COCO()
        truth.dataset = content
        truth.createIndex()
        if results:
            answer = truth.loadRes(results)
        else:  # which loadRes refuses
            answer.dataset = {**content, "annotations": []}
            answer.createIndex()
        evaluation = coco.COCOeval_faster(truth, answer, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    given = [float("nan") if value < 0 else float(value) for value in evaluation.stats[:9]]
    return {name: given[place] for name, place in STATS.items()}


def drawn(seed: int, *, images: int = 20, classes: int = 3, ties: bool = False) -> tuple[Detections, Objects]:
    """Objects of all sizes, crowds among them, and detections near them, missing some and with false alarms."""
    random = np.random.default_rng(seed)
    count = random.integers(0, 8, images)
    count[0] = 0
    image = np.repeat(np.arange(images), count)
    corner = random.integers(0, 200, (len(image), 2))
    box = np.concatenate([corner, corner + random.choice([8, 20, 40, 90, 150], (len(image), 2))], 1)
    label = random.integers(0, classes, len(image))
    true = objects(image, label, box, crowd=random.random(len(image)) < 0.1)
    copies = random.integers(0, 4, len(image))
    near = np.repeat(box, copies, 0) + random.normal(0, 3, (copies.sum(), 4)).round()
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    alarms = random.integers(0, 200, (150, 2))
    boxes = np.concatenate([near, np.concatenate([alarms, alarms + random.integers(0, 120, (150, 2))], 1)])
    labels = np.concatenate([np.repeat(label, copies), random.integers(0, classes, 150)])
    where = np.concatenate([np.repeat(image, copies), random.integers(0, images, 150)])
    score = random.random(len(boxes)).round(1 if ties else 6)
    return detections(where, labels, boxes, score), true


def agrees(found: Detections, true: Objects, *, classes: int, images: int) -> Matches:
    matches = match(found, true, classes=classes, images=images)
    assert summary(matches) == pytest.approx(reference(found, true, classes=classes, images=images), abs=1e-9, nan_ok=True)
    return matches


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
def test_agrees_with_the_program_of_coco(seed, ties):
    found, true = drawn(seed, ties=ties)
    agrees(found, true, classes=3, images=20)


def test_more_than_a_hundred_detections_of_an_image_and_class():
    box = [[12 * (i % 15), 12 * (i // 15), 12 * (i % 15) + 10, 12 * (i // 15) + 10] for i in range(150)]
    found = detections([0] * 150, [0] * 150, box, np.linspace(1, 0.1, 150))
    true = objects([0] * 150, [0] * 150, box)
    agrees(found, true, classes=1, images=1)
    more = match(found, true, classes=1, images=1, limit=1000)
    assert curves(more, limit=1000).precision.mean() == pytest.approx(1)


NOTHING = detections([], [], [], [])
EMPTY = objects([], [], [])
ONE = objects([0], [0], [[10, 10, 30, 30]])


@pytest.mark.parametrize(
    ("found", "true"),
    [
        (NOTHING, EMPTY),
        (NOTHING, ONE),
        (detections([0], [0], [[10, 10, 30, 30]], [0.9]), EMPTY),
        (detections([0], [1], [[10, 10, 30, 30]], [0.9]), ONE),  # of a class without objects
        (detections([0, 1], [0, 0], [[10, 10, 30, 30], [10, 10, 30, 30]], [0.5, 0.9]), ONE),  # an image without objects
        (detections([0, 0], [0, 0], [[10, 10, 30, 30]] * 2, [0.9, 0.9]), ONE),
        (detections([0, 0], [0, 0], [[10, 10, 10, 30], [10, 10, 30, 30]], [0.9, 0.8]), ONE),  # no width
        (detections([0] * 3, [0] * 3, [[0, 0, 20, 20]] * 3, [0.9, 0.8, 0.7]), objects([0], [0], [[0, 0, 100, 100]], crowd=[1])),
        (detections([0], [0], [[10, 10, 30, 20]], [0.9]), ONE),  # an overlap of exactly a half
        (detections([0], [0], [[10, 10, 30, 30]], [0.9]), objects([0], [0], [[10, 10, 30, 30]], area=[0])),
    ],
    ids=["none", "nothing found", "no object", "other class", "background", "twice", "no width", "crowd", "half", "no area"],
)
def test_edges(found, true):
    agrees(found, true, classes=2, images=2)


def test_weights_are_copies_of_images():
    """A resample by weights is what matching the drawn images again gives."""
    found, true = drawn(0)
    matches = match(found, true, classes=3, images=20)
    random = np.random.default_rng(1)
    for _ in range(5):
        rows = random.integers(0, 20, 20)
        parts: list[Any] = []
        for given_rows in (found, true):
            index = [np.flatnonzero(given_rows.image == row) for row in rows]
            copies = {name: v[np.concatenate(index)] for name, v in vars(given_rows).items() if v is not None}
            copies["image"] = np.repeat(np.arange(20), [len(i) for i in index])
            parts.append(type(given_rows)(**copies))
        again = summary(match(*parts, classes=3, images=20))
        assert summary(matches, weights=np.bincount(rows, minlength=20)) == pytest.approx(again, abs=1e-12, nan_ok=True)


def test_overlap_by_hand():
    boxes = np.array([[0, 0, 4, 2], [2, 0, 6, 2], [9, 9, 10, 10]], float)
    assert overlaps(boxes, boxes[0]) == pytest.approx([1, 1 / 3, 0])
    assert overlaps(boxes, boxes[0], True) == pytest.approx([1, 1 / 2, 0])


def test_a_metric_asked_for_is_that_of_all():
    matches = match(*drawn(3), classes=3, images=20)
    whole = summary(matches)
    assert all(summary(matches, [name])[name] == whole[name] for name in METRICS)


def test_difficult_objects_count_neither_way():
    """By hand: a hit, a false alarm, a hit on two objects, with two detections of a difficult one: precision 1, then 2 / 3."""
    box = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    true = objects([0] * 3, [0] * 3, box, difficult=[0, 1, 0])
    found = detections([0] * 5, [0] * 5, [box[0], box[1], box[1], [60, 0, 70, 10], box[2]], [0.9, 0.8, 0.7, 0.6, 0.5])
    matches = match(found, true, classes=1, images=1, thresholds=[0.5])
    assert curves(matches).precision[0, :, 0] == pytest.approx([1.0] * 51 + [2 / 3] * 50)
    eleven, area = (curves(matches, recalls=np.array(r)).precision.mean() for r in (np.arange(11) / 10, [0.5, 1]))
    assert eleven == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert area == pytest.approx(5 / 6), "the area below the curve is the mean of the precision at the recall of each object"


@pytest.mark.parametrize(
    ("case", "options", "names"),
    [
        ("ap-background-images", {}, {"ap": "AP", "ap50": "AP50"}),
        ("ap-class-without-objects", {}, {"ap": "AP", "ap50": "AP50"}),
        ("ap-class-without-predictions", {}, {"ap": "AP", "ar_100": "AR"}),
        ("ap-more-than-100", {}, {"ap": "AP, at most 100", "ar_100": "AR, at most 100"}),
        ("ap-no-objects", {}, {"ap": "AP", "ar_100": "AR"}),
        ("ap-no-predictions", {}, {"ap": "AP", "ap50": "AP50", "ar_100": "AR"}),
        ("ap-options", {}, {"ap": "AP", "ap50": "AP50"}),
        ("ap-options", {"thresholds": (0.2,)}, {"ap": "AP at IoU 0.2"}),
        ("ap-options", {"thresholds": (0.5, 0.9, 0.95)}, {"ap": "AP at IoU 0.5, 0.9, 0.95"}),
        ("voc-difficult", {}, {"ap50": "AP50"}),
    ],
)
def test_cases(case, options, names):
    found, true, classes, images = given(case)
    metrics = summary(match(found, true, classes=len(classes), images=images, **options))
    values = expected(case)
    assert {name: metrics[name] for name in names} == pytest.approx(
        {name: values[key] for name, key in names.items()}, abs=1e-6, nan_ok=True
    )
    for label, name in enumerate(classes):
        if f"AP of {name}" in values and not options:
            precision = curves(match(found, true, classes=len(classes), images=images)).precision[..., label]
            assert precision.mean() == pytest.approx(values[f"AP of {name}"], abs=1e-6, nan_ok=True)
