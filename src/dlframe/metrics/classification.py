"""Classification metrics of torchmetrics, from probabilities and targets; undefined values are NaN."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCohenKappa,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.utilities import dim_zero_cat

from dlframe.registry import Count, metrics
from dlframe.types import DataSpec


@metrics.register("auroc", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction", form="auroc")
def auroc(spec: DataSpec, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """Area under the ROC curve, one-vs-rest.

    Averaged over the classes that some targets have and some have not; NaN without any.

    Args:
        average: Unweighted mean over classes, or weighted by their samples.
    """
    return AUROC(len(spec.classes), average)


@metrics.register(
    "average_precision",
    scores=("probability", "target"),
    better="max",
    low=0.0,
    high=1.0,
    unit="fraction",
    form="average_precision",
)
def average_precision(spec: DataSpec, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """Area under the precision-recall curve, one-vs-rest.

    Averaged over the classes of the targets.

    Args:
        average: Unweighted mean over classes, or weighted by their samples.
    """
    return AveragePrecision(len(spec.classes), average)


@metrics.register("balanced_accuracy", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def balanced_accuracy(spec: DataSpec) -> Metric:
    """Mean recall of the most probable class, over the classes of the targets."""
    return BalancedAccuracy(len(spec.classes), average="none")


@metrics.register("top_k_accuracy", scores=("probability", "target"), better="max", low=0.0, high=1.0, unit="fraction")
def top_k_accuracy(spec: DataSpec, *, k: Count = 5) -> Metric:
    """Fraction of samples whose class is among the k most probable.

    Of equally probable classes, all are equally likely to be among them.

    Args:
        k: Number of most probable classes.
    """
    return TopKAccuracy(k)


@metrics.register("kappa", scores=("probability", "target"), better="max", low=-1.0, high=1.0)
def kappa(spec: DataSpec) -> Metric:
    """Cohen's kappa: agreement beyond chance (Cohen 1960).

    Of the most probable class. NaN if all targets and predictions are of one class.
    """
    return MulticlassCohenKappa(len(spec.classes))


@metrics.register("matthews", scores=("probability", "target"), better="max", low=-1.0, high=1.0)
def matthews(spec: DataSpec) -> Metric:
    """Matthews correlation coefficient (multiclass: Gorodkin 2004).

    Of the most probable class. NaN if all targets, or all predictions, are of one class.
    """
    return Matthews(len(spec.classes))


class DefinedClasses(Metric):
    """Mixin for a one-vs-rest metric of torchmetrics: the mean over the classes for which it is defined.

    Args:
        num_classes: Number of classes.
        average: "macro", or "weighted" by the samples of each class.
    """

    num_classes: int
    target: list[Tensor]

    def __init__(self, num_classes: int, average: str) -> None:
        super().__init__(num_classes, average="none")  # type: ignore[call-arg]  # of the metric
        self.weighted = average == "weighted"

    def defined(self, counts: Tensor) -> Tensor:
        """Return which classes have a value, from the number of targets (classes,)."""
        return counts > 0

    def compute(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the classes that are left out
            values = super().compute()
        counts = dim_zero_cat(self.target).bincount(minlength=self.num_classes)
        return _mean(values, counts, self.defined(counts), self.weighted)


class AUROC(DefinedClasses, MulticlassAUROC):
    """AUROC, averaged over the classes of which it is defined.

    torchmetrics 1.9 averages in 0 for a class that no target, or every one, has.
    """

    def defined(self, counts: Tensor) -> Tensor:
        return (counts > 0) & (counts < counts.sum())


class AveragePrecision(DefinedClasses, MulticlassAveragePrecision):
    """Average precision, averaged over the classes of the targets.

    torchmetrics 1.9 averages in 0 for absent classes if all targets are of the first class.
    """


class BalancedAccuracy(MulticlassAccuracy):
    """Mean recall over the classes of the targets.

    torchmetrics 1.9 averages in 0 for a class that is predicted and absent from the targets.
    """

    tp: Tensor
    fn: Tensor

    def compute(self) -> Tensor:
        counts = self.tp + self.fn
        return _mean(self.tp / counts, counts, counts > 0, weighted=False)


class TopKAccuracy(Metric):
    """Expected fraction of samples whose class is among the k most probable, ties in random order.

    torchmetrics 1.9 prefers some of equally probable classes by their position.
    """

    right: Tensor
    count: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.add_state("right", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probability: Tensor, target: Tensor) -> None:
        """Add probabilities (samples, classes) and targets (samples,)."""
        own = probability.gather(1, target.unsqueeze(1))
        above, equal = (probability > own).sum(1), (probability == own).sum(1)
        self.right += ((self.k - above).double() / equal).clamp(0, 1).sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        return self.right / self.count


class Matthews(MulticlassMatthewsCorrCoef):
    """Covariance of targets and predictions, divided by their standard deviations.

    torchmetrics 1.9 gives 0 for 0 / 0 and, of two classes, also 1, -1 or other values.
    """

    confmat: Tensor

    def compute(self) -> Tensor:
        counts: Any = self.confmat.double()
        n, true, predicted = counts.sum(), counts.sum(1), counts.sum(0)
        covariance = counts.trace() * n - true @ predicted
        return covariance / ((n**2 - true @ true) * (n**2 - predicted @ predicted)).sqrt()


def _mean(values: Tensor, counts: Tensor, defined: Tensor, weighted: bool) -> Tensor:
    """Return the mean (weighted by counts) of the defined ones of values (classes,); NaN without any."""
    weights = counts[defined].double() if weighted else torch.ones(int(defined.sum()), dtype=torch.float64)
    return (values[defined] * weights).sum() / weights.sum()
