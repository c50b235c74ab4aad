"""A plugin: digits on a canvas, found by a small anchor-free detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.data.digits import digits
from dlframe.readers.splits import statistics
from dlframe.registry import Count, data, models, tasks
from dlframe.statistics.intervals import bootstrap
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Ragged, Split

SIDE, CELL = 32, 8
"""Pixels of a canvas and of a cell of the detector's grid."""


@data.register("canvas", inputs=("image",), targets=("box", "class"))
def canvas(*, images: Count = 300) -> Dataset:
    """Handwritten digits on a canvas of 32 x 32 pixels: none to three in an image.

    Args:
        images: Training images; a third as many to validate and to test.
    """
    source = digits()
    parts = {
        "train": _composed(source.train, images, 0),
        "validation": _composed(source.validation, images // 3, 1),
        "test": _composed(source.test, images // 3, 2),
    }
    mean, std = statistics(parts["train"]["image"])
    spec = DataSpec(
        "canvas",
        inputs={"image": Field(kind="image", dtype="uint8", shape=(1, SIDE, SIDE), mean=mean, std=std)},
        targets={
            "box": Field(kind="box", dtype="float32", shape=(None, 4)),
            "digit": Field(kind="class", dtype="int64", shape=(None,), names=source.spec.classes, along="box"),
        },
    )
    return Dataset(spec, **parts, source="scikit-learn's digits, composed", splits="as the digits")


def _composed(split: Split, images: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    pictures = np.zeros((images, 1, SIDE, SIDE), np.uint8)
    boxes, labels = [], []
    for picture in pictures:
        own = [np.zeros((0, 4), np.float32)]
        chosen = random.choice(len(split), random.integers(0, 4), replace=False)
        corners = random.permutation(4)[: len(chosen)]
        for sample, corner in zip(chosen, corners, strict=True):
            top, left = (16 * (corner // 2) + random.integers(0, 9), 16 * (corner % 2) + random.integers(0, 9))
            picture[:, top : top + 8, left : left + 8] = split["image"][sample]
            own.append(np.array([[left, top, left + 8, top + 8]], np.float32))
        boxes.append(np.concatenate(own))
        labels.append(split["label"][chosen])
    return Split({"image": pictures, "box": Ragged.of(boxes), "digit": Ragged.of(labels)}, np.arange(images))


@models.register("grid_detector", inputs=("image",), targets=("box", "class"), task="boxes")
class GridDetector(nn.Module):
    """Anchor-free detector: says of each cell of a grid whether an object's center is there, where exactly, and which.

    Args:
        width: Channels of the first convolution.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 16) -> None:
        super().__init__()
        classes = len(spec.targets["digit"].names)
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.ReLU()),
            nn.Conv2d(4 * width, 1 + 4 + classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, cells, 1 + 4 + classes): presence, box (center and size, in cells), classes."""
        return self.layers(images).flatten(2).transpose(1, 2)


@tasks.register(
    "boxes",
    targets=("box", "class"),
    requires=("box", "class"),
    scores=("found", "boxes", "labels"),
    metrics={
        "ap50": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "recall": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap_of_nothing": {"better": "max", "low": 0.0, "high": 1.0},
    },
    headline="ap50",
)
class Boxes(Task):
    """Boxes with a class, as many as there are in an image."""

    def counts(self, batch: Batch) -> Totals:
        return {"objects": len(batch["digit"].values)}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Presence over all cells of all images; place and class over all objects."""
        output = self.model(self.normalize(batch))
        boxes, labels = batch["box"], batch["digit"].values
        image = torch.repeat_interleave(torch.arange(len(batch), device=output.device), boxes.lengths)
        center, size = (
            (boxes.values[:, :2] + boxes.values[:, 2:]) / 2 / CELL,
            (boxes.values[:, 2:] - boxes.values[:, :2]) / CELL,
        )
        cell = center.long()
        place = cell[:, 1] * (SIDE // CELL) + cell[:, 0]
        presence = torch.zeros_like(output[..., 0])
        presence[image, place] = 1
        own = output[image, place]
        present = functional.binary_cross_entropy_with_logits(output[..., 0], presence, reduction="sum")
        placed = functional.smooth_l1_loss(own[:, 1:5], torch.cat([center - cell, size], 1), reduction="sum")
        classed = functional.cross_entropy(own[:, 5:], labels, reduction="sum")
        return present / totals["samples"] + (placed + classed) / max(1, totals["objects"])

    def found(self, batch: Batch) -> Ragged:
        """Of each image, (boxes, 6): left, top, right, bottom, confidence, class."""
        output = self.model(self.normalize(batch)).float()
        columns = SIDE // CELL
        cells = torch.arange(columns**2, device=output.device)
        corner = torch.stack([cells % columns, cells // columns], 1)
        center, size = (output[..., 1:3] + corner) * CELL, output[..., 3:5] * CELL
        probability, label = output[..., 5:].softmax(-1).max(-1)
        confidence = output[..., 0].sigmoid() * probability
        rows = torch.cat([center - size / 2, center + size / 2, confidence[..., None], label[..., None]], -1)
        chosen = output[..., 0] > -2
        offsets = functional.pad(chosen.sum(1).cumsum(0), (1, 0))
        return Ragged(rows[chosen], offsets)

    def score(self, batch: Batch) -> Scores:
        return {"found": self.found(batch), "boxes": batch["box"], "labels": batch["digit"]}

    def metrics(self, scores: Scores) -> dict[str, float]:
        found = [rows.numpy() for rows in scores["found"]]
        truth = [np.c_[b.numpy(), y.numpy()] for b, y in zip(scores["boxes"], scores["labels"], strict=True)]
        ap, recall = average_precision(found, truth)
        return {"ap50": ap, "recall": recall, "ap_of_nothing": float("nan")}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """In every image, the mean box of the training split with its most frequent class."""
        label = np.bincount(dataset.train["digit"].values).argmax()
        box = np.r_[dataset.train["box"].values.mean(0), 1.0, label][None]
        truth = [np.c_[b, y] for b, y in zip(dataset.test["box"], dataset.test["digit"], strict=True)]
        ap, recall = average_precision([box] * len(truth), truth)
        return "mean box", {"ap50": ap, "recall": recall}

    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        """A bootstrap over images."""

        def statistic(rows: np.ndarray) -> float:
            parts = {
                name: Ragged(*map(torch.from_numpy, vars(Ragged(s.values.numpy(), s.offsets.numpy()).take(rows)).values()))
                for name, s in scores.items()
            }
            return self.metrics(parts)[metric]

        rows = np.arange(len(scores["found"]))
        return Estimate.of(self.metrics(scores)[metric], bootstrap(statistic, rows, groups=groups, resamples=50))

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        return {
            "target": [labels.tolist() for labels in scores["labels"]],
            "prediction": [rows[:, 5].long().tolist() for rows in scores["found"]],
            "score": [rows[:, 4].tolist() for rows in scores["found"]],
        }

    def outputs(self) -> dict[str, Field]:
        names = self.spec.targets["digit"].names
        return {
            "box": Field(kind="box", dtype="float32", shape=(None, 4)),
            "confidence": Field(kind="value", dtype="float32", shape=(None,), along="box"),
            "digit": Field(kind="class", dtype="int64", shape=(None,), names=names, along="box"),
        }

    def predict(self, batch: Batch) -> dict[str, Ragged]:
        found = self.found(batch)
        columns = found.values
        return {
            "box": found.like(columns[:, :4]),
            "confidence": found.like(columns[:, 4]),
            "digit": found.like(columns[:, 5].long()),
        }


def average_precision(found: list[np.ndarray], truth: list[np.ndarray]) -> tuple[float, float]:
    """Area under precision over recall at an overlap of one half, all classes together; and the recall of all that is found.

    Args:
        found: Of each image (boxes, 6): corners, confidence, class.
        truth: Of each image (boxes, 5): corners, class.
    """
    hits, confidences, objects = [], [], sum(map(len, truth))
    for rows, true in zip(found, truth, strict=True):
        free = np.ones(len(true), bool)
        for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
            low, high = np.maximum(row[:2], true[:, :2]), np.minimum(row[2:4], true[:, 2:4])
            inside = (high - low).clip(min=0).prod(1)
            union = (row[2:4] - row[:2]).clip(min=0).prod() + (true[:, 2:4] - true[:, :2]).prod(1) - inside
            match = free & (inside >= union / 2) & (true[:, 4] == row[5])
            hits.append(match.any())
            confidences.append(row[4])
            if match.any():
                free[match.argmax()] = False
    if not objects:
        return float("nan"), float("nan")
    order = np.argsort(-np.array(confidences), kind="stable")
    right = np.array(hits, float)[order].cumsum()
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(np.r_[0.0, right / objects])
    return float((precision * steps).sum()), float(right[-1] / objects) if len(right) else 0.0
