"""Classification."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import (
    binary_average_precision,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from dlframe.registry import Fraction, NonNegative, Positive, tasks
from dlframe.statistics.calibration import expected_calibration_error
from dlframe.tasks.attributions import deciding_words
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Field, Split, nearest, normalized, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PREPARED = 5000
"""Training samples that a model sees which is fitted before training."""


def _rarer(spec: DataSpec) -> int:
    """Return the rarer of two classes in training, if the data say it, else the last class."""
    counts = spec.fitted.get("counts")
    last = len(spec.classes) - 1
    rarer = isinstance(counts, list) and len(counts) == 2 == len(spec.classes) and counts[0] < counts[1]
    return 0 if rarer else last


@tasks.register(
    "classification",
    targets=("class",),
    requires=("class",),
    scores=("target", "probability", "loss"),
    metrics={
        "accuracy": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "f1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "recall": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "average_precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min", "low": 0.0},
        "calibration_error": {"better": "min", "low": 0.0, "high": 1.0},
    },
    headline="accuracy",
)
class Classification(Task):
    """Classification of each sample, trained by cross-entropy.

    The calibration error is the expected one over 15 bins of the predicted class's probability (Guo et al. 2017, arXiv
    1706.04599). The average precision, of the positive class or the mean over the classes of the targets, is the area of the
    steps of the precision-recall curve; equal scores are one step. Macro averages of F1, precision and recall are over the
    classes of the targets or predictions; a class of which one is 0 / 0 counts as 0, as by scikit-learn's zero_division=0.
    That of average=positive is NaN then. A model without networks implements `partial_fit(inputs, targets)`; one with layers
    that are fitted before training implements `fit_inputs(inputs)`, called with the first 5,000 training samples. A model
    with `losses(inputs)`, (batch,), also minimizes their sum over samples that are not positive, divided by the count of all.
    One with several networks implements `loss(inputs, network, supervised, fraction)`: `supervised(logits)` is the loss of
    this task, `fraction` the samples of the batch divided by those of the optimizer step.

    Args:
        label_smoothing: Fraction of each target spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567).
        headline: Primary metric.
        average: Average of F1, precision and recall: over classes (macro), weighted by samples, or of the positive class
            alone.
        pos_label: Name of the positive class, for average=positive and for a threshold; empty for the rarer of two classes, if
            the data count them, else for the last one.
        class_weight: Weights of classes in the loss: none, or inverse to their training samples (balanced).
        focal_gamma: Exponent of the focal loss, which reduces the weight of easy samples (Lin et al. 2017, arXiv
            1708.02002); 0 for the cross-entropy.
        sampling: Sampling of an epoch: each sample once (shuffle), or equally many per class with replacement (balanced).
        threshold: Decision rule: the most probable class, or, of two classes, the positive one from a probability on. The
            validation split sets this threshold, for the best F1, for a precision, or for the lowest cost.
        min_precision: Minimum validation precision for threshold=precision, with the best recall; if unreachable, the
            highest precision is used.
        miss_cost: Cost of a false negative, for threshold=cost.
        alarm_cost: Cost of a false positive.
        test_time: Images whose logits are averaged for a prediction: the image (none), it and its mirror image (flip), or, in
            equal parts, these and both of the image moved by a pixel up left and down right (flip_translate; Jordan 2024, arXiv
            2404.00498).
    """

    scores_training = True
    model: Any
    weights: Tensor
    cutoff: Tensor

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        label_smoothing: Fraction = 0.0,
        headline: Literal["accuracy", "f1", "precision", "recall", "average_precision"] = "accuracy",
        average: Literal["macro", "weighted", "positive"] = "macro",
        pos_label: str = "",
        class_weight: Literal["none", "balanced"] = "none",
        focal_gamma: NonNegative = 0.0,
        sampling: Literal["shuffle", "balanced"] = "shuffle",
        threshold: Literal["argmax", "f1", "precision", "cost"] = "argmax",
        min_precision: Fraction = 0.9,
        miss_cost: Positive = 10.0,
        alarm_cost: Positive = 1.0,
        test_time: Literal["none", "flip", "flip_translate"] = "none",
    ) -> None:
        super().__init__(spec, model)
        (self.target,) = spec.of_kind("class", spec.targets)
        self.label_smoothing = label_smoothing
        self.headline = headline
        self.average = average
        self.class_weight = class_weight
        self.focal_gamma = focal_gamma
        self.sampling = sampling
        self.test_time = test_time
        if test_time != "none" and (len(spec.inputs) != 1 or spec.input.kind != "image"):
            raise ConfigError(f"task.test_time: '{test_time}' requires images. Received: {spec.name}. Try: task.test_time=none")
        self.threshold = threshold
        self.min_precision = min_precision
        self.miss_cost, self.alarm_cost = miss_cost, alarm_cost
        classes, pos_label = spec.classes, normalized(pos_label)
        if pos_label and pos_label not in classes:
            raise ConfigError(f"task.pos_label: must be a class. Received: '{pos_label}'.{nearest(pos_label, classes)}")
        self.positive = classes.index(pos_label) if pos_label else _rarer(spec)
        if threshold != "argmax":
            if len(classes) != 2:
                raise ConfigError(
                    f"task.threshold: '{threshold}' requires two classes. Received: {len(classes)} of {spec.name}. "
                    "Try: task.threshold=argmax"
                )
            self.register_buffer("cutoff", torch.tensor(0.5, dtype=torch.float64))
        self.register_buffer("weights", torch.ones(len(classes)), persistent=False)

    def prepare(self, train: Split) -> None:
        """Compute class weights of mean 1 over the labeled training samples, and fit the model to its first inputs."""
        if callable(hook := getattr(self.model, "fit_inputs", None)):
            columns: dict[str, Any] = {name: torch.from_numpy(np.array(train[name][:PREPARED])) for name in self.spec.inputs}
            count = len(next(iter(columns.values())))
            hook(self.normalize(self.features(Batch(columns, torch.arange(count), self.spec))))
        if self.class_weight == "balanced":
            counts = torch.from_numpy(self._class_counts(train))
            self.weights.copy_(counts.sum() / (counts.clamp(min=1) * (counts > 0).sum()))

    def sampling_weights(self, train: Split) -> np.ndarray | None:
        """Return weights that draw all classes equally often."""
        if self.sampling == "shuffle":
            return None
        weights = 1 / np.maximum(self._class_counts(train), 1)[train[self.target]]
        return weights if train.labelled is None else weights * train.labelled

    def _class_counts(self, split: Split) -> np.ndarray:
        labels = split[self.target]
        labels = labels if split.labelled is None else labels[split.labelled]
        return np.bincount(labels, minlength=len(self.spec.classes))

    def output_shape(self) -> tuple[int, ...]:
        return (len(self.spec.classes),)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (batch, classes)."""
        inputs = self.normalize(batch)
        if self.training or self.test_time == "none":
            return self.model(inputs)
        logits = self._of_both(inputs)
        if self.test_time == "flip":
            return logits
        height, width = inputs.shape[2:]
        padded = functional.pad(inputs, (1, 1, 1, 1), "reflect")
        moved = [self._of_both(padded[:, :, start:, start:][:, :, :height, :width]) for start in (0, 2)]
        return (logits + (moved[0] + moved[1]) / 2) / 2

    def _of_both(self, images: Tensor) -> Tensor:
        """Return the mean logits of images and their mirror images."""
        return (self.model(images) + self.model(images.flip(3))) / 2

    def counts(self, batch: Batch) -> Totals:
        """Count the labeled samples, weighted by class."""
        if self.class_weight == "balanced":
            weights = self.weights[batch[self.target]]
            return {"labeled": (weights if batch.labelled is None else weights * batch.labelled).sum()}
        return {"labeled": len(batch) if batch.labelled is None else batch.labelled.sum()}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Return the cross-entropy, a sum divided by the step's labeled samples."""
        supervised = partial(self.supervised, batch=batch, total=totals["labeled"])
        if network == "model":
            loss = supervised(self.logits(batch))
            return loss + self._of_others(batch) / totals["labeled"] if hasattr(self.model, "losses") else loss
        return self.model.loss(self.normalize(batch), network, supervised, len(batch) / totals["samples"])

    def _of_others(self, batch: Batch) -> Tensor:
        """Return the sum of the losses that the model has of its own, over labeled samples that are not positive."""
        target = batch[self.target]
        if target.ndim == 1:
            others = (target != self.positive).float() * (1 if batch.labelled is None else batch.labelled)
        else:  # mixed: without the fraction of unlabeled samples
            others = target.sum(1) - target[:, self.positive]
        return (self.model.losses(self.normalize(batch)) * others).sum()

    def supervised(self, logits: Tensor, batch: Batch, total: Any) -> Tensor:
        """Return the cross-entropy of logits, a sum divided by `total`."""
        targets = batch[self.target]
        weights = self.weights.to(logits.dtype) if self.class_weight == "balanced" else None
        if batch.labelled is None:
            losses = functional.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=self.label_smoothing)
        else:
            # A row sums to less than 1 if its label was mixed with an unlabeled sample.
            classes = logits.shape[1]
            if targets.ndim == 1:
                targets = functional.one_hot(targets, classes) * batch.labelled.unsqueeze(1).to(logits.dtype)
            fraction = targets.sum(1, keepdim=True)
            targets = torch.lerp(targets, (fraction / classes).expand_as(targets), self.label_smoothing)
            losses = -(targets if weights is None else targets * weights).mul(logits.log_softmax(1)).sum(1)
            total = torch.as_tensor(total).clamp(min=1)
        if self.focal_gamma:
            losses = losses * (1 - self._probability_of(targets, logits)) ** self.focal_gamma
        return losses.sum() / total

    def _probability_of(self, targets: Tensor, logits: Tensor) -> Tensor:
        """Return the target's probability (batch,); the mean of mixed targets."""
        probability = logits.softmax(1)
        if targets.ndim == 2:
            return (probability * targets).sum(1)
        return probability.gather(1, targets.unsqueeze(1)).squeeze(1)

    def partial_fit(self, batch: Batch) -> None:
        self.model.partial_fit(self.normalize(batch), batch[self.target])

    def score(self, batch: Batch) -> Scores:
        logits = self.logits(batch).float()
        loss = functional.cross_entropy(logits, batch[self.target], reduction="none")
        return {"target": batch[self.target], "loss": loss, "probability": logits.softmax(1)}

    def calibrate(self, scores: Scores) -> None:
        """Choose the threshold on validation scores."""
        if self.threshold == "argmax":
            return
        probability = scores["probability"][:, self.positive].double()
        right = scores["target"] == self.positive
        cutoffs, order = probability.unique().flip(0), probability.argsort(descending=True)
        # Samples, and true positives, from each cutoff on.
        taken = torch.searchsorted(-probability[order], -cutoffs, right=True)
        hits = right[order].cumsum(0)[taken - 1]
        positives = right.sum()
        if self.threshold == "f1":
            worth = 2 * hits / (taken + positives)
        elif self.threshold == "precision":
            precision = hits / taken
            worth = torch.where(precision >= self.min_precision, hits.double(), precision - 1)  # else the highest precision
        else:
            worth = -(self.alarm_cost * (taken - hits) + self.miss_cost * (positives - hits)).double()
            if worth.max() < -self.miss_cost * positives:  # no alarm at all costs less
                self.cutoff.fill_(torch.inf)
                return
        self.cutoff.copy_(cutoffs[worth.argmax()])

    def costs(self, scores: Scores) -> tuple[int, int, float]:
        """Return the false negatives and false positives of two classes, and the mean cost of a sample."""
        chosen, right = self.classes(scores["probability"]) == self.positive, scores["target"] == self.positive
        missed, alarms = int((right & ~chosen).sum()), int((chosen & ~right).sum())
        return missed, alarms, (self.miss_cost * missed + self.alarm_cost * alarms) / max(1, len(right))

    def classes(self, probability: Tensor) -> Tensor:
        """Return the predicted class (batch,) of probabilities (batch, classes)."""
        if self.threshold == "argmax":
            return probability.argmax(1)
        chosen = probability[:, self.positive].double() >= self.cutoff
        return torch.where(chosen, self.positive, 1 - self.positive)

    def metrics(self, scores: Scores) -> dict[str, float]:
        probability, target = scores["probability"], scores["target"]
        if probability.isnan().any():  # argmax of NaN would be a class
            names = ("accuracy", "f1", "precision", "recall", "average_precision", "loss", "calibration_error")
            return dict.fromkeys(names, math.nan)
        return {
            **self._of_classes(self.classes(probability), target),
            "average_precision": self._average_precision(probability, target),
            "loss": scores["loss"].double().mean().item(),
            "calibration_error": self._calibration_error(probability, target),
        }

    def _calibration_error(self, probability: Tensor, target: Tensor) -> float:
        right = self.classes(probability) == target
        return expected_calibration_error(self._confidence(probability).numpy(), right.numpy())

    def _average_precision(self, probability: Tensor, target: Tensor) -> float:
        """Compute the average precision by odds, which are not rounded to 1 as probabilities are."""
        probability = probability.double()
        found = []
        for index in [self.positive] if self.average == "positive" else target.unique().tolist():
            others = torch.cat([probability[:, :index], probability[:, index + 1 :]], 1).sum(1)
            right = target == index
            # Torchmetrics maps scores that are not in [0, 1] through a sigmoid, which rounds: ranks are not touched.
            rank = (probability[:, index] / others).unique(return_inverse=True)[1]
            score = rank.double() / rank.max().clamp(min=1)
            found.append(binary_average_precision(score, right.long()).item() if right.any() else math.nan)
        weights = target.bincount(minlength=len(self.spec.classes))[target.unique()] if self.average == "weighted" else None
        return float(np.average(found, weights=None if weights is None else weights.numpy())) if found else math.nan

    def _of_classes(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Compute the metrics of predicted classes."""
        found = {"accuracy": (prediction == target).double().mean().item()}
        scores: dict[str, Any] = {"f1": multiclass_f1_score, "precision": multiclass_precision, "recall": multiclass_recall}
        for name, score in scores.items():
            if self.average != "positive":
                found[name] = score(prediction, target, len(self.spec.classes), average=self.average).item()
                continue
            value = score(prediction, target, len(self.spec.classes), average="none")[self.positive].item()
            # Undefined without positive samples or predictions.
            positives, alarms = (bool((x == self.positive).any()) for x in (target, prediction))
            defined = {"f1": positives or alarms, "precision": alarms, "recall": positives}[name]
            found[name] = value if defined else math.nan
        return found

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Predict the most frequent class; with a threshold, the base rate."""
        name, prediction = self._baseline(dataset)
        target = torch.from_numpy(np.ascontiguousarray(dataset.test[self.target]))
        even = torch.full((len(target), len(self.spec.classes)), 1 / len(self.spec.classes))
        return name, self._of_classes(prediction, target) | {"average_precision": self._average_precision(even, target)}

    def baseline_predictions(self, dataset: Dataset) -> list:
        return [self.spec.classes[i] for i in self._baseline(dataset)[1].tolist()]

    def _baseline(self, dataset: Dataset) -> tuple[str, Tensor]:
        """Return the name of the baseline, and its classes (samples,) of the test split."""
        counts, samples = self._class_counts(dataset.train), len(dataset.test)
        if self.threshold != "argmax" or self.average == "positive":
            rate = counts[self.positive] / counts.sum()
            chance = torch.rand(samples, generator=torch.Generator().manual_seed(0))
            others = np.delete(counts, self.positive)
            other = int(np.delete(np.arange(len(counts)), self.positive)[others.argmax()])
            return "base rate", torch.where(chance < rate, self.positive, other)
        return "majority class", torch.full((samples,), int(counts.argmax()))

    def forms(self) -> dict[str, dict[str, Any]]:
        average = {"average": self.average}
        if self.average == "positive":
            average["positive"] = self.spec.classes[self.positive]
        found = {name: {"form": name, **average} for name in ("f1", "precision", "recall")}
        found["average_precision"] = {"form": "average_precision", "by": "odds", **average}
        return {"accuracy": {"form": "accuracy"}} | found

    def notes(self, scores: Scores) -> list[str]:
        """Tell the threshold, and the classes without a sample."""
        notes = []
        if self.threshold != "argmax":
            rule = f"the prediction is '{self._shown(self.positive)}' from a probability of {self.cutoff.item():.4g} on"
            if self.cutoff.isinf():
                rule = f"no sample is called '{self._shown(self.positive)}', which cost least on the validation split"
            notes.append(f"{rule}; metrics of metric=[...] do not see this threshold")
            if self.threshold == "cost":
                missed, alarms, cost = self.costs(scores)
                none = self.miss_cost * (scores["target"] == self.positive).double().mean().item()
                notes.append(
                    f"cost {cost:.4g} a sample: {missed:,} missed at {self.miss_cost:g}, {alarms:,} false alarms at "
                    f"{self.alarm_cost:g}; without any alarm {none:.4g}"
                )
        elif self.average == "positive":
            notes.append(f"the positive class is '{self._shown(self.positive)}'")
        counts = scores["target"].bincount(minlength=len(self.spec.classes))
        absent = [index for index, count in enumerate(counts.tolist()) if not count]
        if absent:
            names = ", ".join(map(self._shown, absent[:5])) + (", ..." if len(absent) > 5 else "")
            notes.append(f"{len(absent):,} of {len(counts):,} classes have no test sample: {names}")
        return notes

    def _shown(self, index: int) -> str:
        """Return the name of a class as printable text."""
        return printable(self.spec.classes[index])

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        probability = scores["probability"]
        return {
            "target": [self.spec.classes[i] for i in scores["target"].tolist()],
            "prediction": [self.spec.classes[i] for i in self.classes(probability).tolist()],
            "score": self._confidence(probability).tolist(),
            "probabilities": probability.tolist(),
        }

    def by_class(self, scores: Scores) -> dict[str, list]:
        """Return precision, recall, F1 and the number of samples of each class; undefined ones are NaN."""
        if scores["probability"].isnan().any():
            return {}
        matrix = self._confusion(scores)
        hits, true, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid="ignore"):
            found = {"precision": hits / predicted, "recall": hits / true, "f1": 2 * hits / (true + predicted)}
        found = {"class": np.array(self.spec.classes, object), **found, "samples": true}
        return {name: values.tolist() for name, values in found.items()}

    def _confusion(self, scores: Scores) -> np.ndarray:
        """Return counts (classes, classes), rows true, columns predicted."""
        matrix = np.zeros((len(self.spec.classes),) * 2, dtype=int)
        np.add.at(matrix, (scores["target"].numpy(), self.classes(scores["probability"]).numpy()), 1)
        return matrix

    def _confidence(self, probability: Tensor) -> Tensor:
        """Return the probability (batch,) of the predicted class."""
        return probability.gather(1, self.classes(probability).unsqueeze(1)).squeeze(1)

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        from dlframe import plots

        if scores["probability"].isnan().any():
            return super().figures(scores, dataset)
        target = scores["target"].numpy()
        prediction, confidence = (f(scores["probability"]).numpy() for f in (self.classes, self._confidence))
        drawn = {
            "confusion_matrix": plots.confusion(self._confusion(scores), self.spec.classes),
            "reliability": plots.reliability(confidence, prediction == target),
        }
        if len(self.spec.classes) == 2:
            chosen = scores["probability"][:, self.positive].double().numpy()
            cutoff = 0.5 if self.threshold == "argmax" else self.cutoff.item()
            name = self._shown(self.positive)
            costs = (self.miss_cost, self.alarm_cost)
            drawn["operating_points"] = plots.operating_points(
                chosen, target == self.positive, cutoff, name=name, costs=costs if self.threshold == "cost" else None
            )
        if len(self.spec.classes) > 2:
            drawn["by_class"] = plots.by_class(self.by_class(scores))
        if words := deciding_words(self, scores, dataset):
            drawn["words"] = plots.words(words)
        for name in self.spec.of_kind("image", self.spec.inputs)[:1]:
            if isinstance(dataset.test[name], np.ndarray):
                image, ids = partial(dataset.picture, name), dataset.test.ids.tolist()
                drawn["samples"] = plots.samples(image, ids, target, prediction, confidence, self.spec.classes)
        return drawn | super().figures(scores, dataset)

    def outputs(self) -> dict[str, Field]:
        names = self.spec.classes
        return {
            "prediction": Field(kind="class", dtype="int64", names=names),
            "probabilities": Field(kind="value", dtype="float32", shape=(len(names),), names=names),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the predicted class (batch,) and the probabilities (batch, classes)."""
        probabilities = self.logits(batch).float().softmax(1)
        return {"prediction": self.classes(probabilities), "probabilities": probabilities}
