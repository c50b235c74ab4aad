"""Metrics of one class for each sample, torchmetrics' own: they see the probabilities and the targets."""

from __future__ import annotations

from typing import Literal

from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCohenKappa,
    MulticlassMatthewsCorrCoef,
)

from dlframe.registry import Count, metrics
from dlframe.types import DataSpec


@metrics.register("auroc", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def auroc(spec: DataSpec, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """Area under the receiver operating characteristic, one class against the rest.

    Args:
        average: Mean over classes, or over classes weighted by their samples.
    """
    return MulticlassAUROC(len(spec.classes), average=average)


@metrics.register("average_precision", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def average_precision(spec: DataSpec, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """Area under the precision-recall curve, one class against the rest.

    Args:
        average: Mean over classes, or over classes weighted by their samples.
    """
    return MulticlassAveragePrecision(len(spec.classes), average=average)


@metrics.register("balanced_accuracy", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def balanced_accuracy(spec: DataSpec) -> Metric:
    """Mean of the recalls of all classes."""
    return MulticlassAccuracy(len(spec.classes), average="macro")


@metrics.register("top_k_accuracy", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def top_k_accuracy(spec: DataSpec, *, k: Count = 5) -> Metric:
    """Fraction of samples whose class is among the most probable ones.

    Args:
        k: How many classes count.
    """
    return MulticlassAccuracy(len(spec.classes), top_k=min(k, len(spec.classes)), average="micro")


@metrics.register("kappa", scores=("probability", "target"), better="max", low=-1.0, high=1.0)
def kappa(spec: DataSpec) -> Metric:
    """Cohen's kappa: agreement beyond chance (Cohen 1960)."""
    return MulticlassCohenKappa(len(spec.classes))


@metrics.register("matthews", scores=("probability", "target"), better="max", low=-1.0, high=1.0)
def matthews(spec: DataSpec) -> Metric:
    """Matthews correlation coefficient (Gorodkin 2004, of several classes)."""
    return MulticlassMatthewsCorrCoef(len(spec.classes))
