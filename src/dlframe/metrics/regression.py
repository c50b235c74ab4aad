"""Forecasting metrics, from predictions and targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dlframe.registry import metrics
from dlframe.types import DataSpec


@metrics.register("r2", scores=("prediction", "target"), better="max", high=1.0)
def r2(spec: DataSpec) -> Metric:
    """Coefficient of determination; 1 is perfect, 0 equals the targets' mean.

    The mean over steps of the horizon. A step whose targets are all equal has none and is left out; NaN without any other.
    """
    return R2()


@metrics.register("smape", scores=("prediction", "target"), better="min", low=0.0, high=2.0, unit="fraction")
def smape(spec: DataSpec) -> Metric:
    """Symmetric MAPE: error relative to the mean of forecast and target.

    The error of a forecast of 0 is 0 if the target is 0 too.
    """
    return SymmetricMAPE()


class R2(Metric):
    """Coefficient of determination, in double precision from differences to the mean.

    torchmetrics 1.9 subtracts sums of squares: in single precision it is wrong for a level of 10,000 standard deviations. It
    gives 0 or 1 for equal targets, and an error for a single sample.
    """

    prediction: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("prediction", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add predictions and targets (samples, ...)."""
        self.prediction.append(prediction.double().reshape(len(prediction), -1))
        self.target.append(target.double().reshape(len(target), -1))

    def compute(self) -> Tensor:
        prediction, target = dim_zero_cat(self.prediction), dim_zero_cat(self.target)
        defined = (target != target[:1]).any(0)
        residual = (target - prediction).square().sum(0)
        total = (target - target.mean(0)).square().sum(0)
        return (1 - residual / total)[defined].mean()


class SymmetricMAPE(Metric):
    """Mean of 2 |prediction - target| / (|prediction| + |target|).

    torchmetrics 1.9 divides by 1e-6 at least, and is wrong for smaller values.
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add predictions and targets (samples, ...)."""
        prediction, target = prediction.double(), target.double()
        size = prediction.abs() + target.abs()
        self.total += torch.where(size > 0, 2 * (prediction - target).abs() / size, 0).sum()
        self.count += target.numel()

    def compute(self) -> Tensor:
        return self.total / self.count
