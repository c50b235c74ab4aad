"""One class for each sample."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score

from dlframe.registry import Fraction, tasks
from dlframe.statistics.intervals import bootstrap, wilson
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@tasks.register(
    "classification",
    targets=("class",),
    requires=("class",),
    metrics={
        "accuracy": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "f1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min", "low": 0.0},
        "calibration_error": {"better": "min", "low": 0.0, "high": 1.0},
    },
    headline="accuracy",
)
class Classification(Task):
    """One class for each sample, learned by cross-entropy and judged by accuracy.

    F1 is the mean over classes; the calibration error is the expected one over 15 bins of confidence (Guo et al. 2017,
    arXiv 1706.04599). A model without networks has `partial_fit(inputs, targets)`. A model with several has
    `loss(inputs, network, supervised, fraction)`: `supervised(logits)` is this task's part of the loss, `fraction` the
    batch's part of the samples of the optimizer step.

    Args:
        label_smoothing: Fraction of each target that is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567).
    """

    model: Any

    def __init__(self, spec: DataSpec, model: nn.Module, *, label_smoothing: Fraction = 0.0) -> None:
        super().__init__(spec, model)
        self.label_smoothing = label_smoothing

    def logits(self, batch: Batch) -> Tensor:
        """(batch, classes) scores."""
        return self.model(self.normalize(batch))

    def counts(self, batch: Batch) -> Totals:
        """The labeled samples."""
        return {"labeled": len(batch) if batch.labelled is None else batch.labelled.sum()}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Cross-entropy, summed over the labeled samples of the batch and divided by those of the step."""
        supervised = partial(self.supervised, batch=batch, total=totals["labeled"])
        if network == "model":
            return supervised(self.logits(batch))
        return self.model.loss(self.normalize(batch), network, supervised, len(batch) / totals["samples"])

    def supervised(self, logits: Tensor, batch: Batch, total: Any) -> Tensor:
        """Cross-entropy of logits (batch, classes), summed over the labeled samples and divided by `total`."""
        targets = batch.targets
        if batch.labelled is None:
            losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
            return losses.sum() / total
        # Where labels were mixed, a row has less than 1 in sum if an unlabeled sample was mixed in.
        classes = logits.shape[1]
        if targets.ndim == 1:
            targets = functional.one_hot(targets, classes) * batch.labelled.unsqueeze(1).to(logits.dtype)
        weight = targets.sum(1, keepdim=True)
        targets = torch.lerp(targets, (weight / classes).expand_as(targets), self.label_smoothing)
        return -(targets * logits.log_softmax(1)).sum() / torch.as_tensor(total).clamp(min=1)

    def partial_fit(self, batch: Batch) -> None:
        self.model.partial_fit(self.normalize(batch), batch.targets)

    def score(self, batch: Batch) -> Scores:
        logits = self.logits(batch).float()
        loss = functional.cross_entropy(logits, batch.targets, reduction="none")
        return {"target": batch.targets, "loss": loss, "probability": logits.softmax(1)}

    def metrics(self, scores: Scores) -> dict[str, float]:
        probability, target = scores["probability"], scores["target"]
        classes = len(self.spec.classes)
        if probability.isnan().any():  # the largest of NaN would be a class
            return dict.fromkeys(("accuracy", "f1", "loss", "calibration_error"), float("nan"))
        right = probability.argmax(1) == target
        return {
            "accuracy": right.double().mean().item(),
            "f1": multiclass_f1_score(probability, target, classes, average="macro").item(),
            "loss": scores["loss"].double().mean().item(),
            "calibration_error": multiclass_calibration_error(probability, target, classes, n_bins=15).item(),
        }

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        name = next(iter(self.spec.targets))
        labels, labelled = dataset.train[name], dataset.train.labelled
        labels = labels if labelled is None else labels[labelled]
        majority = np.bincount(labels, minlength=len(self.spec.classes)).argmax()
        return "majority class", {"accuracy": float((dataset.test[name] == majority).mean())}

    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        """Wilson's interval for the accuracy of independent samples, a percentile bootstrap for the rest."""
        value = self.metrics(scores)[metric]
        if metric == "accuracy" and groups is None:
            right = (scores["probability"].argmax(1) == scores["target"]).sum().item()
            return Estimate(value, *wilson(int(right), len(scores["target"])))
        rows = np.arange(len(scores["target"]))

        def statistic(sample: np.ndarray) -> float:
            chosen = torch.from_numpy(sample)
            return self.metrics({name: values[chosen] for name, values in scores.items()})[metric]

        return Estimate(value, *bootstrap(statistic, rows, groups=groups, resamples=500))

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        probability = scores["probability"]
        return {
            "target": [self.spec.classes[i] for i in scores["target"].tolist()],
            "prediction": [self.spec.classes[i] for i in probability.argmax(1).tolist()],
            "score": probability.amax(1).tolist(),
            "probabilities": probability.tolist(),
        }

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        from dlframe import plots

        probability, target = scores["probability"].numpy(), scores["target"].numpy()
        prediction, confidence = probability.argmax(1), probability.max(1)
        matrix = np.zeros((len(self.spec.classes),) * 2, dtype=int)
        np.add.at(matrix, (target, prediction), 1)
        drawn = {
            "confusion_matrix": plots.confusion(matrix, self.spec.classes),
            "reliability": plots.reliability(confidence, prediction == target),
        }
        images = [dataset.test[name] for name in self.spec.of_kind("image", self.spec.inputs)]
        if images and isinstance(images[0], np.ndarray):
            drawn["samples"] = plots.samples(images[0], target, prediction, confidence, self.spec.classes)
        return drawn | super().figures(scores, dataset)

    def outputs(self) -> dict[str, Field]:
        names = self.spec.classes
        return {
            "prediction": Field(kind="class", dtype="int64", names=names),
            "probabilities": Field(kind="value", dtype="float32", shape=(len(names),), names=names),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """The most probable class (batch,) and the probabilities (batch, classes)."""
        probabilities = self.logits(batch).float().softmax(1)
        return {"prediction": probabilities.argmax(1), "probabilities": probabilities}
