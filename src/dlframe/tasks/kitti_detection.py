"""Detection with the difficulties of KITTI, for driving."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from torch import nn

from dlframe.registry import tasks
from dlframe.statistics import kitti
from dlframe.tasks.base import Scores
from dlframe.tasks.detection import Detection
from dlframe.types import DataSpec


@tasks.register(
    "kitti_detection",
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
        "ap_easy": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap_moderate": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "ap_hard": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
    },
    headline="ap",
    sample={"name": "road_scenes", "images": 16, "image_size": (48, 96)},
)
class KittiDetection(Detection):
    """Detection for driving: COCO's metrics, and average precision at KITTI's easy, moderate and hard.

    Difficulties are by height, occlusion and truncation, where the data have them; overlaps must be 0.7 for vehicles and 0.5
    for others (Geiger et al. 2012, "Are we ready for autonomous driving?"), with the precision at 40 recalls (Simonelli et al.
    2019, arXiv 1905.12365) of the definition: the program of the benchmark reads it at fewer confidences.

    Args:
        headline: Primary metric.
        threshold: Detections that predictions show: those from the confidence on that has the best F1 at an overlap of 0.5 on
            the validation split, or all. Metrics are of all.
    """

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        headline: Literal["ap", "ap50", "ap75", "ap_easy", "ap_moderate", "ap_hard"] = "ap",
        threshold: Literal["f1", "none"] = "f1",
    ) -> None:
        super().__init__(spec, model, threshold=threshold)
        self.headline = headline  # type: ignore[assignment]  # one of more

    def _at(self, level: str, scores: Scores) -> float:
        """Compute the average precision at a difficulty."""
        detections, true = self.arrays(scores)
        about = scores["about"].values.numpy()
        truncation, occlusion = (
            np.zeros(len(true.box)) if (column := self.known(about, name)) is None else column
            for name in ("truncation", "occlusion")
        )
        facts = {"names": self.spec.classes, "images": len(scores["found"]), "level": level}
        return kitti.average_precision(kitti.matched(detections, true, truncation, occlusion, **facts))

    def metrics(self, scores: Scores) -> dict[str, float]:
        found = super().metrics(scores)
        if math.isnan(found["ap"]) and scores["found"].values.isnan().any():
            return found | {f"ap_{level}": math.nan for level in kitti.LEVELS}
        return found | {f"ap_{level}": self._at(level, scores) for level in kitti.LEVELS}

    def forms(self) -> dict[str, dict[str, Any]]:
        return super().forms() | {f"ap_{level}": {"form": "detection", "metric": f"ap_{level}"} for level in kitti.LEVELS}
