"""Anomaly detection in images, with metrics by pixel."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import nn

from dlframe.registry import Probability, tasks
from dlframe.tasks.anomaly import Anomaly, ranked
from dlframe.tasks.base import Scores
from dlframe.types import Batch, ConfigError, Dataset, DataSpec

PIXELS = ("pixel_auroc", "pixel_average_precision")


@tasks.register(
    "anomaly_pixels",
    targets=("class", "mask"),
    requires=("class", "mask"),
    scores=("target", "score", "pixels", "mask"),
    metrics={
        "f1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "recall": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "auroc": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "average_precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "pixel_auroc": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "pixel_average_precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min"},
    },
    headline="f1",
    monitor="loss",
    trained_on="normal",
    extends="anomaly",
    sample={"name": "scratched_digits"},
)
class AnomalyPixels(Anomaly):
    """Anomaly scores of images and of their pixels, from a model of normal images.

    As `anomaly`, and AUROC and average precision over all pixels of all test images, against their masks.

    Args:
        anomalies: Names of the classes that are anomalies; empty for what the data say.
        quantile: Quantile of the scores of normal validation samples that is the threshold.
        headline: Primary metric.
    """

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        anomalies: tuple[str, ...] = (),
        quantile: Probability = 0.99,
        headline: Literal["f1", "precision", "recall", "auroc", "average_precision"] = "f1",
    ) -> None:
        super().__init__(spec, model, anomalies=anomalies, quantile=quantile)
        if not spec.of_kind("mask", spec.targets):
            raise ConfigError(
                f"task=anomaly_localization: needs masks, which data={spec.name} does not have. Try: task=anomaly_detection"
            )
        if not hasattr(model, "maps"):
            raise ConfigError("task=anomaly_localization: needs a model with scores of pixels. Try: model=memory_bank")
        (self.mask,) = spec.of_kind("mask", spec.targets)

    def score(self, batch: Batch) -> Scores:
        inputs = self.normalize(batch)
        return {**super().score(batch), "pixels": self.model.maps(inputs).float(), "mask": batch[self.mask][:, 0] > 0}

    def metrics(self, scores: Scores) -> dict[str, float]:
        found = super().metrics(scores)
        if scores["pixels"].isnan().any():
            return found | dict.fromkeys(PIXELS, math.nan)
        by_pixel = ranked(scores["pixels"].flatten(), scores["mask"].flatten().long())
        return found | {f"pixel_{name}": value for name, value in by_pixel.items()}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        name, found = super().baseline(dataset)
        mask = torch.from_numpy(np.asarray(dataset.test[self.mask]) > 0).flatten().long()
        by_pixel = ranked(torch.zeros(len(mask)), mask)
        return name, found | {f"pixel_{metric}": value for metric, value in by_pixel.items()}
