"""One class for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score

from dlframe.registry import Fraction, tasks
from dlframe.statistics.intervals import bootstrap, wilson
from dlframe.tasks.base import Scores, Task
from dlframe.types import UNLABELLED, Batch, Dataset, DataSpec, Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@tasks.register(
    "classification",
    metrics={"accuracy": "max", "f1": "max", "loss": "min", "calibration_error": "min"},
    monitor="accuracy",
)
class Classification(Task):
    """One class for each sample, learnt by cross-entropy and judged by accuracy.

    F1 is the mean over classes; the calibration error is the expected one over 15 bins of confidence (Guo et al. 2017,
    arXiv 1706.04599).

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567).
    """

    def __init__(self, spec: DataSpec, model: nn.Module, *, label_smoothing: Fraction = 0.0) -> None:
        super().__init__(spec, model)
        self.label_smoothing = label_smoothing

    def logits(self, inputs: Tensor) -> Tensor:
        """(batch, classes) scores of raw inputs."""
        return self.model(self.normalize(inputs))

    def loss(self, batch: Batch, player: str) -> Tensor:
        return functional.cross_entropy(self.logits(batch.inputs), batch.targets, label_smoothing=self.label_smoothing)

    def score(self, batch: Batch) -> Scores:
        logits = self.logits(batch.inputs).float()
        loss = functional.cross_entropy(logits, batch.targets, reduction="none")
        return {"index": batch.index, "target": batch.targets, "loss": loss, "probability": logits.softmax(1)}

    def metrics(self, scores: Scores) -> dict[str, float]:
        probability, target = scores["probability"], scores["target"]
        classes = len(self.spec.classes)
        right = probability.argmax(1) == target
        return {
            "accuracy": right.double().mean().item(),
            "f1": multiclass_f1_score(probability, target, classes, average="macro").item(),
            "loss": scores["loss"].double().mean().item(),
            "calibration_error": multiclass_calibration_error(probability, target, classes, n_bins=15).item(),
        }

    def predict(self, inputs: Tensor) -> Tensor:
        """(batch, classes) probabilities."""
        return self.logits(inputs).softmax(1)

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        labels = dataset.train.targets[dataset.train.targets != UNLABELLED]
        majority = np.bincount(labels, minlength=len(self.spec.classes)).argmax()
        return "majority class", {"accuracy": float((dataset.test.targets == majority).mean())}

    def interval(self, metric: str, scores: Scores) -> Estimate:
        """Wilson's interval for accuracy, a percentile bootstrap over samples for the rest."""
        value = self.metrics(scores)[metric]
        if metric == "accuracy":
            right = (scores["probability"].argmax(1) == scores["target"]).sum().item()
            return Estimate(value, *wilson(int(right), len(scores["target"])))
        rows = np.arange(len(scores["target"]))

        def statistic(sample: np.ndarray) -> float:
            chosen = torch.from_numpy(sample)
            return self.metrics({name: values[chosen] for name, values in scores.items()})[metric]

        return Estimate(value, *bootstrap(statistic, rows, resamples=500))

    def table(self, scores: Scores, dataset: Dataset) -> dict[str, list]:
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
        if self.spec.inputs == "image":
            images = dataset.test.inputs[scores["index"].numpy()]
            drawn["samples"] = plots.samples(images, target, prediction, confidence, self.spec.classes)
        return drawn
