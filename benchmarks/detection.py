"""Seconds of average precision beside well-kept libraries, on the same boxes.

    python benchmarks/detection.py [images=500] [rounds=5]

"match" is COCO's evaluation of all twelve ranges and limits, from arrays (dlframe) or from its own classes, which hold the
boxes already (the others); loading them is not counted. "interval" leaves each of 100 groups of images out of one matching,
which the others would have to match again each time. "detect" makes boxes of the maps of 16 images of 256 x 256 pixels,
against a loop over the images with torchvision's operators. A ratio above 1 means that dlframe is faster; medians of rounds,
one thread.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision.ops import batched_nms, clip_boxes_to_image

from dlframe.data.composed_digits import composed_digits
from dlframe.models.center_detector import CenterDetector, Maps
from dlframe.statistics.comparison.boxes import MOST_GROUPS
from dlframe.statistics.comparison.jackknife import groups_of
from dlframe.statistics.detection import Detections, Objects, match, summary

CLASSES = 20


def drawn(images: int) -> tuple[Detections, Objects]:
    """Seven objects in an image, as in COCO, and 60 detections, of which a third are near an object."""
    random = np.random.default_rng(0)
    count = random.poisson(7, images)
    image = np.repeat(np.arange(images), count)
    low = random.uniform(0, 500, (len(image), 2))
    box = np.concatenate([low, low + random.lognormal(3.8, 0.8, (len(image), 2))], 1)
    label = random.integers(0, CLASSES, len(image))
    no = np.zeros(len(image), bool)
    area = (box[:, 2:] - box[:, :2]).prod(1)
    true = Objects(box=box, label=label, image=image, ignored=no, many=no, crowd=no, area=area)
    near = np.repeat(np.arange(len(image)), 3)
    alarms = random.uniform(0, 500, (40 * images, 2))
    boxes = np.concatenate([box[near] + random.normal(0, 4, (len(near), 4)), np.c_[alarms, alarms + 60]])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    found = Detections(
        box=boxes,
        label=np.concatenate([label[near], random.integers(0, CLASSES, len(alarms))]),
        image=np.concatenate([image[near], random.integers(0, images, len(alarms))]),
        score=random.random(len(boxes)),
    )
    return found, true


def coco(package: str, name: str, found: Detections, true: Objects, images: int) -> Callable[[], Any]:
    """The evaluation of a library; its classes are filled before."""
    module = importlib.import_module(package)
    classes: Any = module if hasattr(module, "COCO") else importlib.import_module(f"{package}.coco")
    evaluation: Any = module if hasattr(module, name) else importlib.import_module(f"{package}.cocoeval")

    def rows(boxes: Any, **more: Any) -> list[dict[str, Any]]:
        sides = boxes.box[:, 2:] - boxes.box[:, :2]
        return [
            {
                "id": i + 1,
                "image_id": int(boxes.image[i]) + 1,
                "category_id": int(boxes.label[i]) + 1,
                "bbox": [*boxes.box[i, :2].tolist(), *sides[i].tolist()],
                **{key: float(values[i]) for key, values in more.items()},
            }
            for i in range(len(boxes.box))
        ]

    truth = classes.COCO()
    truth.dataset = {
        "images": [{"id": i + 1, "width": 600, "height": 600} for i in range(images)],
        "categories": [{"id": i + 1, "name": str(i)} for i in range(CLASSES)],
        "annotations": [{**row, "iscrowd": 0} for row in rows(true, area=true.area)],
    }
    truth.createIndex()
    answer = truth.loadRes(rows(found, score=found.score))

    def run() -> float:
        own = getattr(evaluation, name)(copy.copy(truth), copy.copy(answer), "bbox")
        own.evaluate()
        own.accumulate()
        own.summarize()
        return float(own.stats[0])

    return run


def one_by_one(maps: Maps, stride: int, *, lowest: float, nms: float) -> list[torch.Tensor]:
    """Boxes (n, 6) of each image, as one writes it for an image."""
    found = []
    for logits, sides in zip(maps.logits, maps.sides, strict=True):
        heat = logits.sigmoid()
        heat = heat * (functional.max_pool2d(heat[None], 3, 1, 1)[0] == heat)
        score, place = heat.flatten().topk(100)
        label, row, column = torch.unravel_index(place, heat.shape)
        left, top, right, bottom = sides[:, row, column]
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        box = clip_boxes_to_image(torch.stack([x - left, y - top, x + right, y + bottom], 1), maps.size)
        kept = (score >= lowest) & (box[:, 2:] > box[:, :2]).all(1)
        box, score, label = box[kept], score[kept], label[kept]
        kept = batched_nms(box, score, label, nms)
        found.append(torch.cat([box, score[:, None], label[:, None]], 1)[kept])
    return found


@torch.no_grad()
def detecting(rounds: int) -> tuple[float, float]:
    """Seconds of dlframe and of the loop."""
    torch.manual_seed(0)
    model = CenterDetector(composed_digits(images=8).spec).eval()
    side = 256 // model.stride
    maps = Maps(torch.randn(16, 10, side, side) - 2, torch.rand(16, 4, side, side) * 20 + 4, (256, 256))
    wanted = one_by_one(maps, model.stride, lowest=model.min_confidence, nms=model.nms)
    found = model.detect(maps)
    assert all(torch.equal(a[a[:, 4].argsort(descending=True, stable=True)], b) for a, b in zip(found, wanted, strict=True))
    loop = seconds(lambda: one_by_one(maps, model.stride, lowest=model.min_confidence, nms=model.nms), rounds)
    return seconds(lambda: model.detect(maps), rounds), loop


def seconds(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    given = dict(argument.split("=") for argument in sys.argv[1:])
    images, rounds = int(given.get("images", 500)), int(given.get("rounds", 5))
    found, true = drawn(images)
    own = seconds(lambda: summary(match(found, true, classes=CLASSES, images=images)), rounds)
    matches = match(found, true, classes=CLASSES, images=images)
    ap = summary(matches)["ap"]
    print(f"{images} images, {len(true.box):,} objects, {len(found.box):,} detections, {CLASSES} classes")
    print(f"{'what':<10}{'against':<18}{'ratio':>7}{'dlframe s':>11}{'other s':>9}")
    for package, name in (("faster_coco_eval", "COCOeval_faster"), ("pycocotools", "COCOeval")):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                other = coco(package, name, found, true, images)
        except ImportError:
            print(f"{'match':<10}{package:<18} not installed")
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            assert abs(other() - ap) < 1e-9
        its = seconds(other, rounds)
        print(f"{'match':<10}{package:<18}{its / own:>7.2f}{own:>11.3f}{its:>9.3f}")

    groups = groups_of(images, most=MOST_GROUPS)

    def left_out() -> list[float]:
        return [summary(matches, ["ap"], (groups != group).astype(float))["ap"] for group in range(groups.max() + 1)]

    interval = seconds(left_out, 1)
    again = (groups.max() + 1) * own
    print(f"{'interval':<10}{'matching again':<18}{again / interval:>7.2f}{interval:>11.3f}{again:>9.3f}")
    own, loop = detecting(rounds)
    print(f"{'detect':<10}{'image by image':<18}{loop / own:>7.2f}{own:>11.4f}{loop:>9.4f}")


if __name__ == "__main__":
    main()
