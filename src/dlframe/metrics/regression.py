"""Forecasting metrics of torchmetrics, in the units of the data."""

from __future__ import annotations

from torchmetrics import Metric, R2Score
from torchmetrics.regression import SymmetricMeanAbsolutePercentageError

from dlframe.registry import metrics
from dlframe.types import DataSpec


@metrics.register("r2", scores=("prediction", "target"), better="max", high=1.0)
def r2(spec: DataSpec) -> Metric:
    """Coefficient of determination; 1 is perfect, 0 equals the targets' mean."""
    return R2Score(multioutput="uniform_average")


@metrics.register("smape", scores=("prediction", "target"), better="min", low=0.0, high=2.0, unit="fraction")
def smape(spec: DataSpec) -> Metric:
    """Symmetric MAPE: error relative to the mean of forecast and target."""
    return SymmetricMeanAbsolutePercentageError()
