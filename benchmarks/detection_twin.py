"""Average precision of `torchvision_detector` beside a hand-written training of the same detector.

    python benchmarks/detection_twin.py [seeds=2] [epochs=6] [images=400] [architecture=fcos]

The twin is a loop as in torchvision's references: its FCOS on a MobileNetV2 trained on ImageNet, losses of whole batches, SGD
with momentum, a rate that drops twice; no module of dlframe trains or scores it but the data, the layers and the weights of
the start. It is scored by faster-coco-eval. Both have the composed digits, the same batches in a step, epochs and optimizer.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch

from dlframe.config import load
from dlframe.jobs.train import load_data, run
from dlframe.registry import models
from dlframe.types import Dataset, DataSpec, Split

BATCH, LR, MOMENTUM, DECAY, DROPS = 16, 0.02, 0.9, 1e-4, (0.67, 0.92)


def detector_of(spec: DataSpec, architecture: str, seed: int) -> Any:
    """The detector of torchvision with the weights of the start; pixels are normalized with the statistics of ImageNet."""
    torch.manual_seed(seed)
    options = {"name": "torchvision_detector", "architecture": architecture, "weights": "package"}
    detector: Any = models.build(options, spec=spec)
    detector.detector.transform.image_mean = [0.485, 0.456, 0.406]
    detector.detector.transform.image_std = [0.229, 0.224, 0.225]
    return detector.detector


def samples(split: Split) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    rows = zip(split["image"], split["box"], split["label"], strict=True)
    return [
        (
            torch.from_numpy(image).float().div(255).expand(3, -1, -1),
            {"boxes": torch.from_numpy(box), "labels": torch.from_numpy(label) + 1},
        )
        for image, box, label in rows
    ]


def trained(dataset: Dataset, architecture: str, epochs: int, seed: int) -> Any:
    detector = detector_of(dataset.spec, architecture, seed).train()
    train, steps = samples(dataset.train), -(-len(dataset.train) // BATCH)
    parameters = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, LR, MOMENTUM, weight_decay=DECAY)
    drops = [round(drop * epochs * steps) for drop in DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, 0.1)
    for _ in range(epochs):
        for index in torch.randperm(len(train)).split(BATCH):
            images, targets = zip(*(train[i] for i in index.tolist()), strict=True)
            loss = sum(detector([*images], [*targets]).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return detector.eval()


@torch.no_grad()
def scored(detector: Any, split: Split, classes: int) -> float:
    """COCO's average precision, by faster-coco-eval."""
    import faster_coco_eval

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (image, target) in enumerate(samples(split), 1):
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            size = [box[2] - box[0], box[3] - box[1]]
            row = {"image_id": number, "category_id": label, "bbox": [*box[:2], *size], "area": size[0] * size[1]}
            annotations.append({**row, "id": len(annotations) + 1, "iscrowd": 0})
        found = detector([image])[0]
        for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
            bbox = [*box[:2], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": number, "category_id": label, "bbox": bbox, "score": score})
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = faster_coco_eval.COCO()
        truth.dataset = {
            "images": [{"id": i + 1} for i in range(len(split))],
            "categories": [{"id": i + 1, "name": str(i)} for i in range(classes)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def main() -> None:
    given = dict(argument.split("=") for argument in sys.argv[1:])
    seeds, epochs, images = (int(given.get(name, value)) for name, value in (("seeds", 2), ("epochs", 6), ("images", 400)))
    architecture = given.get("architecture", "fcos")
    options = [
        *("task=object_detection", "model=torchvision_detector", f"model.architecture={architecture}"),
        *("model.weights=package", f"data.images={images}", f"epochs={epochs}", f"batch_size={BATCH}"),
        *("optimizer=sgd", f"optimizer.lr={LR}", f"optimizer.momentum={MOMENTUM}", "optimizer.nesterov=false"),
        *(f"optimizer.weight_decay={DECAY}", "weight_decay_params=all", "scheduler=step"),
        *(f"scheduler.milestones=[{DROPS[0]},{DROPS[1]}]", f"validate_every={epochs}", "tracking=none"),
    ]
    dataset = load_data(load(options))
    ours, theirs = [], []
    print(f"{architecture} on {images} images of composed digits, {epochs} epochs; average precision in %, seconds")
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            result = run(load([*options, f"seed={seed}", f"runs={folder}"]))
            own = time.perf_counter() - start
        ours.append(result.metrics["ap"])
        start = time.perf_counter()
        theirs.append(scored(trained(dataset, architecture, epochs, seed), dataset.test, len(dataset.spec.classes)))
        other = time.perf_counter() - start
        low, high = result.interval.low, result.interval.high
        print(
            f"seed {seed}: dlframe {ours[-1]:.2%} ({low:.2%} to {high:.2%}), {own:.0f} s; loop {theirs[-1]:.2%}, {other:.0f} s",
            flush=True,
        )
    difference = np.array(ours) - np.array(theirs)
    print(f"mean: dlframe {statistics.mean(ours):.2%}, loop {statistics.mean(theirs):.2%}; difference {difference.mean():+.2%}")


if __name__ == "__main__":
    main()
