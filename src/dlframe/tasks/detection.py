"""Detection of objects in images."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.readers.boxes.frames import original, placed
from dlframe.registry import tasks
from dlframe.statistics import detection as statistics
from dlframe.statistics.detection import Detections, Matches, Objects
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, DataError, Dataset, DataSpec, Field, Ragged, Split, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlframe.plots import Drawn

SHOWN = 12
"""Images of a figure."""

SIZES = (8, 16, 32, 64, 96, 128, 256)
"""Bounds of groups of objects by size, the root of the area in pixels."""

ABOUT = ("area", "crowd", "ignored")
"""What data may say about each object: the area in square pixels; whether it is a crowd; whether it counts neither way."""


@tasks.register(
    "detection",
    targets=("box", "class", "value", "number"),
    requires=("box", "class"),
    scores=("found", "box", "label", "about", "loss"),
    metrics={
        "ap": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap50": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap75": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap_small": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap_medium": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap_large": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ar_1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ar_10": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ar_100": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min", "low": 0.0},
    },
    headline="ap",
    sample={"name": "composed_digits", "images": 64},
)
class Detection(Task):
    """Boxes around objects and their classes, as many as an image has.

    Metrics are those of COCO (Lin et al. 2014, arXiv 1405.0312): average precision over ten overlaps from 0.5 to 0.95, at 0.5
    and at 0.75, of small (up to 32 x 32 pixels), medium and large (from 96 x 96) objects, and the recall of the 1, 10 and 100
    most confident detections of an image and class. They are means over the classes that have objects, in pixels of the
    original image. The loss is that of the training, with the layers in evaluation mode.

    A model is called with images (batch, channels, height, width) and returns what it likes; `losses(outputs, boxes, labels,
    ignored)` makes of it the loss of each image, (batch,), and `detect(outputs)` rows (left, top, right, bottom, confidence,
    class) of each image. `averages` says what the sum of the losses is divided by: "objects" or "images".

    Args:
        headline: Primary metric.
        threshold: Detections that predictions show: those from the confidence on that has the best F1 at an overlap of 0.5 on
            the validation split, or all. Metrics are of all.
    """

    model: Any
    cutoff: Tensor

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        headline: Literal["ap", "ap50", "ap75"] = "ap",
        threshold: Literal["f1", "none"] = "f1",
    ) -> None:
        super().__init__(spec, model)
        self.threshold = threshold
        self.register_buffer("cutoff", torch.zeros((), dtype=torch.float64))
        self.headline = headline
        (self.box,) = spec.of_kind("box", spec.targets)
        (self.label,) = spec.of_kind("class", spec.targets)
        self.about = next((name for name in spec.of_kind("value", spec.targets) if spec.targets[name].along == self.box), "")
        self.frame = next(iter(spec.of_kind("number", spec.targets)), "")
        (self.image,) = spec.of_kind("image", spec.inputs)
        self._matched: tuple[Any, Matches] | None = None

    def known(self, about: Any, name: str) -> Any:
        """Return a column of what is known about objects, (objects,); None if it is not known."""
        names = self.spec.targets[self.about].names if self.about else ()
        return about[:, names.index(name)] if name in names else None

    def _ignored(self, batch: Batch) -> Tensor:
        """Return (objects,) bool, whether an object is neither learned nor counted."""
        ignored = torch.zeros(len(batch[self.label].values), dtype=torch.bool, device=batch.index.device)
        if self.about:
            for name in ("crowd", "ignored"):
                if (column := self.known(batch[self.about].values, name)) is not None:
                    ignored = ignored | (column > 0)
        return ignored

    def counts(self, batch: Batch) -> Totals:
        """Count the objects that are learned."""
        return {"objects": (~self._ignored(batch)).sum() if self.about else len(batch[self.label].values)}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Return the loss of the model, a sum divided by the objects or images of the step."""
        total = totals["objects"] if self.model.averages == "objects" else totals["samples"]
        total = torch.as_tensor(total, device=batch.index.device).clamp(min=1)
        return self._losses(self.model(self.normalize(batch)), batch).sum() / total

    def _losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each image, (batch,)."""
        return self.model.losses(outputs, batch[self.box], batch[self.label].values, self._ignored(batch))

    def score(self, batch: Batch) -> Scores:
        """Return detections and objects in pixels of the original image, and the loss of each image."""
        outputs = self.model(self.normalize(batch))
        found, boxes, labels = self.model.detect(outputs), batch[self.box], batch[self.label]
        losses = self._losses(outputs, batch).float()
        if self.about:
            about = batch[self.about]
        else:
            about = labels.like(labels.values.new_zeros((len(labels.values), 0), dtype=torch.float32))
        if self.frame:
            frame = batch[self.frame]
            found = found.like(torch.cat([_original(found, frame), found.values[:, 4:]], 1))
            # What was found in the margins is nowhere in the image.
            found = _kept(found, (found.values[:, 2:4] > found.values[:, :2]).all(1))
            boxes = boxes.like(_original(boxes, frame))
        return {"found": found, "box": boxes, "label": labels, "about": about, "loss": losses}

    def _objects(self, box: Any, label: Any, about: Any, image: np.ndarray) -> Objects:
        area = self.known(about, "area")
        flags = {
            name: np.zeros(len(label), bool) if (c := self.known(about, name)) is None else c > 0
            for name in ("crowd", "ignored")
        }
        box = np.asarray(box, np.float64).reshape(-1, 4)
        return Objects(
            box=box,
            label=np.asarray(label),
            image=image,
            ignored=flags["crowd"] | flags["ignored"],
            many=flags["crowd"] | flags["ignored"],
            crowd=flags["crowd"],
            area=(box[:, 2:] - box[:, :2]).prod(1) if area is None else np.asarray(area, np.float64),
        )

    def matches(self, scores: Scores) -> Matches:
        """Match detections and objects; kept for the figures of the same scores."""
        if self._matched is None or self._matched[0] is not scores["found"].values:
            detections, true = self.arrays(scores)
            images = len(scores["found"])
            matches = statistics.match(detections, true, classes=len(self.spec.classes), images=images)
            self._matched = (scores["found"].values, matches)
        return self._matched[1]

    def arrays(self, scores: Scores) -> tuple[Detections, Objects]:
        """Return detections and objects as arrays."""
        found, label = scores["found"], scores["label"].values.numpy()
        rows, images = found.values.double().numpy(), np.arange(len(found))
        true_image = np.repeat(images, scores["label"].lengths.numpy())
        true = self._objects(scores["box"].values.numpy(), label, scores["about"].values.numpy(), true_image)
        detections = Detections(
            box=rows[:, :4],
            label=rows[:, 5].astype(np.int64),
            image=np.repeat(images, found.lengths.numpy()),
            score=rows[:, 4],
        )
        return detections, true

    def calibrate(self, scores: Scores) -> None:
        """Choose the confidence from which predictions are shown, on validation scores."""
        matches = self.matches(scores)
        half = [i for i, overlap in enumerate(matches.thresholds) if overlap == 0.5]
        counted = ~matches.neither[half[0], 0]
        order = np.argsort(-matches.score[counted], kind="stable")
        confidence, right = matches.score[counted][order], (matches.hit[half[0], 0] >= 0)[counted][order]
        if self.threshold == "none" or not right.any():
            self.cutoff.zero_()
            return
        f1 = 2 * right.cumsum() / (np.arange(1, len(right) + 1) + matches.counts[0].sum())
        self.cutoff.fill_(float(confidence[f1.argmax()]))

    def metrics(self, scores: Scores) -> dict[str, float]:
        if scores["found"].values.isnan().any():
            return dict.fromkeys((*statistics.METRICS, "loss"), math.nan)
        return statistics.summary(self.matches(scores)) | {"loss": self._mean_loss(scores, 1.0)}

    def _mean_loss(self, scores: Scores, weights: np.ndarray | float) -> float:
        """Return the loss, divided as in training, of images that are drawn `weights` (images,) times each."""
        losses = scores["loss"].double().numpy()
        total = np.ones(len(losses))
        if self.model.averages == "objects":
            objects = self.matches(scores).objects
            total = np.bincount(objects.image, ~objects.ignored, minlength=len(losses))
        return float((losses * weights).sum() / max(1.0, (total * weights).sum()))

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Predict the mean box of the most frequent class in each image."""
        test = dataset.test
        label, boxes = self._mean_box(dataset)
        image, truth = np.arange(len(test)), test[self.box].values
        true_image = np.repeat(image, test[self.box].lengths)
        if self.frame:
            frame = np.asarray(test[self.frame])
            truth = original(truth, frame[true_image])
        about = test[self.about].values if self.about else np.zeros((len(truth), 0))
        true = self._objects(truth, test[self.label].values, about, true_image)
        found = Detections(box=boxes, label=np.full(len(test), label), image=image, score=np.ones(len(test)))
        matches = statistics.match(found, true, classes=len(self.spec.classes), images=len(test))
        return f"mean box of {self.spec.classes[label]}", statistics.summary(matches)

    def _mean_box(self, dataset: Dataset) -> tuple[int, np.ndarray]:
        """Return the most frequent class, and its mean box (images, 4) in pixels of each original test image."""
        train, test = dataset.train, dataset.test
        counts = np.bincount(train[self.label].values, minlength=len(self.spec.classes))
        if not counts.sum():
            raise DataError(f"data={self.spec.name}: the train split must have objects. Received: none.")
        label = int(counts.argmax())
        box = train[self.box].values[train[self.label].values == label].mean(0)
        boxes = np.broadcast_to(box.astype(np.float64), (len(test), 4))
        if self.frame:
            boxes = original(boxes, np.asarray(test[self.frame]))
        return label, boxes

    def baseline_predictions(self, dataset: Dataset) -> dict[str, list]:
        label, boxes = self._mean_box(dataset)
        names = [[self.spec.classes[label]]] * len(boxes)
        return {"prediction": names, "score": [[1.0]] * len(boxes), "box": boxes[:, None].tolist()}

    def by_class(self, scores: Scores) -> dict[str, list]:
        """Return the average precision of each class, whose means are the metrics, and the number of its objects."""
        if scores["found"].values.isnan().any():
            return {}
        matches = self.matches(scores)
        precision = statistics.curves(matches).precision.mean(1)
        at = {round(100 * overlap): values for overlap, values in zip(matches.thresholds, precision, strict=True)}
        found = {"ap": precision.mean(0), "ap50": at[50], "ap75": at[75]}
        objects = np.bincount(matches.objects.label, matches.counts[0], minlength=len(self.spec.classes)).astype(int)
        columns = {"class": np.array(self.spec.classes, object), **found, "objects": objects}
        return {name: values.tolist() for name, values in columns.items()}

    def forms(self) -> dict[str, dict[str, Any]]:
        return {name: {"form": "detection", "metric": name} for name in statistics.METRICS}

    def notes(self, scores: Scores) -> list[str]:
        """Tell the classes without an object, which the means leave out, and how many objects are ignored."""
        notes = []
        if self.cutoff > 0:
            notes.append(f"predictions show detections from a confidence of {self.cutoff.item():.3g} on; metrics are of all")
        matches = self.matches(scores)
        counts = np.bincount(matches.objects.label, matches.counts[0], minlength=len(self.spec.classes))
        if absent := [self.spec.classes[i] for i in np.flatnonzero(counts == 0)]:
            names = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            notes.append(f"{len(absent):,} of {len(counts):,} classes have no object in the test split, and no AP: {names}")
        if ignored := int(matches.objects.ignored.sum()):
            notes.append(f"{ignored:,} crowds or difficult objects count neither as missed nor as found")
        return [*map(printable, notes)]

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        from dlframe import plots

        if scores["found"].values.isnan().any():
            return super().figures(scores, dataset)
        matches, names = self.matches(scores), self.spec.classes
        found: dict[str, Figure] = {}
        images = dataset.test[self.image]
        if isinstance(images, np.ndarray):
            chosen = self._shown(matches)
            boxes = [self._drawn(matches, scores, dataset.test, int(image)) for image in chosen]
            title = f"{len(chosen)} test images, those with most mistakes first, at a confidence of {self.cutoff.item():.2g}"
            found["detections"] = plots.detections([images[image] for image in chosen], boxes, title)
        precision = statistics.curves(matches).precision[0]
        curves = {name: precision[:, i] for i, name in enumerate(names) if not np.isnan(precision[:, i]).any()}
        if curves:
            found["precision_recall"] = plots.precision_recall(statistics.RECALLS, curves)
            found["found_by"] = plots.found_by(self._groups(matches, scores))
        return found | super().figures(scores, dataset)

    def _hit(self, matches: Matches) -> np.ndarray:
        """Return (detections,) the object that a detection hits at an overlap of 0.5; -2 if it is below the cutoff."""
        return np.where(matches.score >= self.cutoff.item(), matches.hit[0, 0], -2)

    def _shown(self, matches: Matches) -> np.ndarray:
        """Return the images to draw: half of them with most mistakes, the others evenly from all."""
        hit = self._hit(matches)
        alarms = np.bincount(matches.image[(hit == -1)], minlength=matches.images)
        missed = matches.counts[0].copy()
        missed[hit[hit >= 0]] = False
        mistakes = alarms + np.bincount(matches.objects.image[missed], minlength=matches.images)
        worst = np.argsort(-mistakes, kind="stable")[: SHOWN // 2]
        others = np.setdiff1d(np.arange(matches.images), worst)
        return np.concatenate(
            [worst, others[np.unique(np.linspace(0, len(others) - 1, min(SHOWN // 2, len(others))).astype(int))]]
        )

    def _drawn(self, matches: Matches, scores: Scores, split: Split, image: int) -> list[Drawn]:
        """Return the boxes of a test image, in pixels of the model's input."""
        from dlframe import plots

        names, hit = self.spec.classes, self._hit(matches)
        frame = np.asarray(split[self.frame][image]) if self.frame else np.array([1, 1, 0, 0])
        objects = matches.objects
        own = np.flatnonzero((matches.image == image) & (hit > -2))
        missed = np.setdiff1d(np.flatnonzero(objects.image == image), hit[own])
        drawn = []
        for i in missed:
            mark = plots.IGNORED if objects.ignored[i] else plots.MISS
            drawn.append(plots.Drawn(placed(objects.box[i], frame).tolist(), names[objects.label[i]], mark))
        rows = scores["found"].values.double().numpy()
        for i in own:
            text = f"{names[matches.label[i]]} {matches.score[i]:.2f}"
            mark = plots.IGNORED if matches.neither[0, 0, i] else plots.HIT if hit[i] >= 0 else plots.ALARM
            drawn.append(plots.Drawn(placed(rows[matches.index[i], :4], frame).tolist(), text, mark))
        return drawn

    def _groups(self, matches: Matches, scores: Scores) -> dict[str, dict[str, tuple[int, int]]]:
        """Return how many objects are found at an overlap of 0.5, by size, class and occlusion."""
        objects, counted, hit = matches.objects, matches.counts[0], self._hit(matches)
        found = np.zeros(len(counted), bool)
        found[hit[hit >= 0]] = True
        size = np.digitize(np.sqrt(objects.area), SIZES)
        bounds = ["0", *map(str, SIZES)]
        names = [f"{low} to {high} pixels" for low, high in pairwise(bounds)] + [f"from {SIZES[-1]} pixels"]
        groups = {"by size": (size, names), "by class": (objects.label, list(self.spec.classes))}
        occlusion = self.known(scores["about"].values.numpy(), "occlusion")
        if occlusion is not None and (occlusion >= 0).any():
            groups["by occlusion"] = (occlusion.astype(int), ["visible", "partly", "largely", "unknown"])

        def counts(index: np.ndarray, names: list[str]) -> dict[str, tuple[int, int]]:
            each = {name: (index == i) & counted for i, name in enumerate(names)}
            return {name: (int(found[own].sum()), int(own.sum())) for name, own in each.items() if own.any()}

        return {title: counts(index, names) for title, (index, names) in groups.items()}

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        names = self.spec.classes
        return {
            "target": [[names[i] for i in labels.tolist()] for labels in scores["label"]],
            "prediction": [[names[int(i)] for i in rows[:, 5].tolist()] for rows in scores["found"]],
            "score": [rows[:, 4].tolist() for rows in scores["found"]],
            "target_box": [boxes.tolist() for boxes in scores["box"]],
            "box": [rows[:, :4].tolist() for rows in scores["found"]],
            **{
                f"target_{name}": [rows[:, i].tolist() for rows in scores["about"]]
                for i, name in enumerate(self.spec.targets[self.about].names if self.about else ())
            },
        }

    def outputs(self) -> dict[str, Field]:
        return {
            "box": Field(kind="box", dtype="float32", shape=(None, 4)),
            "prediction": Field(kind="class", dtype="int64", shape=(None,), names=self.spec.classes, along="box"),
            "confidence": Field(kind="value", dtype="float32", shape=(None,), along="box"),
        }

    def predict(self, batch: Batch) -> dict[str, Ragged]:
        """Return boxes in pixels of the model's input, classes and confidences, the most confident first."""
        found = self.model.detect(self.model(self.normalize(batch)))
        found = _kept(found, found.values[:, 4].double() >= self.cutoff)
        rows = found.values.float()
        return {
            "box": found.like(rows[:, :4]),
            "prediction": found.like(rows[:, 5].long()),
            "confidence": found.like(rows[:, 4]),
        }


def _kept(found: Ragged, keep: Tensor) -> Ragged:
    """Return the detections where `keep`, (n,) bool, is true."""
    number = torch.nn.functional.pad(keep.long().cumsum(0), (1, 0))
    return Ragged(found.values[keep], number[found.offsets])


def _original(boxes: Ragged, frames: Tensor) -> Tensor:
    """Return corners (n, 4) in pixels of the original images.

    Args:
        boxes: Corners in pixels of the model's input, and maybe more columns, by image.
        frames: (batch, 6) scale and offset of x and y, and width and height of the original.
    """
    frame = frames.repeat_interleave(boxes.lengths, 0).to(boxes.values.dtype)
    corners = (boxes.values[:, :4].unflatten(1, (2, 2)) - frame[:, None, 2:4]) / frame[:, None, :2]
    return torch.minimum(corners.clamp(min=0), frame[:, None, 4:6]).flatten(1)
