"""Classification metrics of torchmetrics, from probabilities and targets."""

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
    """Area under the ROC curve, one-vs-rest.

    Args:
        average: Unweighted mean over classes, or weighted by their samples.
    """
    return MulticlassAUROC(len(spec.classes), average=average)


@metrics.register("average_precision", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def average_precision(spec: DataSpec, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """Area under the precision-recall curve, one-vs-rest.

    Args:
        average: Unweighted mean over classes, or weighted by their samples.
    """
    return MulticlassAveragePrecision(len(spec.classes), average=average)


@metrics.register("balanced_accuracy", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def balanced_accuracy(spec: DataSpec) -> Metric:
    """Mean recall over classes."""
    return MulticlassAccuracy(len(spec.classes), average="macro")


@metrics.register("top_k_accuracy", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def top_k_accuracy(spec: DataSpec, *, k: Count = 5) -> Metric:
    """Fraction of samples whose class is among the k most probable.

    Args:
        k: Number of most probable classes.
    """
    return MulticlassAccuracy(len(spec.classes), top_k=min(k, len(spec.classes)), average="micro")


@metrics.register("kappa", scores=("probability", "target"), better="max", low=-1.0, high=1.0)
def kappa(spec: DataSpec) -> Metric:
    """Cohen's kappa: agreement beyond chance (Cohen 1960)."""
    return MulticlassCohenKappa(len(spec.classes))


@metrics.register("matthews", scores=("probability", "target"), better="max", low=-1.0, high=1.0)
def matthews(spec: DataSpec) -> Metric:
    """Matthews correlation coefficient (multiclass: Gorodkin 2004)."""
    return MulticlassMatthewsCorrCoef(len(spec.classes))
