"""Forecasting: the next values of a series from a window of its past."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import tasks
from dlframe.statistics.intervals import bootstrap
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}


@tasks.register(
    "forecasting",
    targets=("value",),
    requires=("value",),
    scores=("target", "prediction", "last", "loss"),
    metrics={
        "loss": {"better": "min", "low": 0.0},
        "rmse": {"better": "min", "low": 0.0},
        "mae": {"better": "min", "low": 0.0},
        "mape": {"better": "min", "low": 0.0, "unit": "%"},
    },
    headline="rmse",
)
class Forecasting(Task):
    """The values that follow a window of a series, in the units of the data.

    The model sees how far each step of the window lies from the last one, in standard deviations of the window, and says
    how far the future will: (future - last) / std. Levels that drift, as prices do, then look alike at all times (the
    last value taken off as in Zeng et al. 2022, arXiv 2205.13504; the scale as in RevIN, Kim et al. 2022), values may be
    zero or negative, which logarithms forbid, and a model that says 0 is the baseline, the last value.

    Args:
        loss: What is lowered, in standard deviations of the window: mse, mae, or huber (mse up to an error of 1, mae
            beyond it: Huber 1964), which a window that hardly moves before a jump does not dominate.
    """

    def __init__(self, spec: DataSpec, model: nn.Module, *, loss: Literal["mse", "mae", "huber"] = "huber") -> None:
        super().__init__(spec, model)
        self.criterion = LOSSES[loss]

    def forecast(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The model's change (batch, horizon) of windows (batch, time, features), the last value and the unit (batch, 1)."""
        last = inputs[:, -1:]
        changes = inputs - last
        std = changes.std(1, correction=0, keepdim=True)
        unit = torch.where(std > 0, std, 1)  # a flat window has no scale of its own
        return self.model((changes / unit).to(self._place.dtype)).float(), last[:, :, 0].float(), unit[:, :, 0].float()

    def loss(self, batch: Batch, network: str) -> Tensor:
        """The loss of the change in standard deviations of the window."""
        change, last, unit = self.forecast(batch.inputs)
        return self.criterion(change, (batch.targets - last) / unit)

    def score(self, batch: Batch) -> Scores:
        """Prediction and target (batch, horizon) and last value (batch,) in the units of the data, loss and index."""
        change, last, unit = self.forecast(batch.inputs)
        return {
            "prediction": last + change * unit,
            "target": batch.targets.float(),
            "last": last.squeeze(1),
            "loss": self.criterion(change, (batch.targets - last) / unit, reduction="none").mean(1),
        }

    def metrics(self, scores: Scores) -> dict[str, float]:
        """Mean loss; RMSE and MAE in the units of the data; MAPE in percent, over the targets that are not zero."""
        prediction, target = scores["prediction"].numpy(), scores["target"].numpy()
        errors = {name: error(prediction, target) for name, error in ERRORS.items()}
        return {**errors, "loss": scores["loss"].mean().item()}

    def outputs(self) -> dict[str, Field]:
        return {"prediction": Field(kind="value", dtype="float32", shape=self.spec.target.shape)}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Future values (batch, horizon) in the units of the data."""
        change, last, unit = self.forecast(batch.inputs)
        return {"prediction": last + change * unit}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """The last value of each window of the test split, for every step of the future."""
        (window,), (future,) = self.spec.inputs, self.spec.targets
        target = dataset.test[future]
        prediction = np.broadcast_to(dataset.test[window][:, -1, :1], target.shape)
        return "last value", {name: error(prediction, target) for name, error in ERRORS.items()}

    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        """`metric` with a bootstrap over blocks of neighboring windows, `scores` being in the order of time.

        Windows overlap and calm follows calm. A block is as long as the horizon, or the cube root of the number of
        windows where that is more (Hall, Horowitz and Jing 1995). Groups do not matter: neighbors in time do.
        """
        block = max(scores["target"].shape[1], round(len(scores["target"]) ** (1 / 3)))
        names, statistic = (("prediction", "target"), ERRORS[metric]) if metric in ERRORS else ((metric,), np.mean)
        low, high = bootstrap(statistic, *(scores[name].numpy() for name in names), block=block)
        return Estimate(self.metrics(scores)[metric], low, high)

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Target and prediction, a number each, or a list of them for several steps; score is the mean absolute error."""
        target, prediction = scores["target"], scores["prediction"]
        return {
            "target": target.squeeze(1).tolist(),
            "prediction": prediction.squeeze(1).tolist(),
            "score": (prediction - target).abs().mean(1).tolist(),
        }

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """The forecast and the last value over the truth, in the order of time."""
        from dlframe import plots

        target, prediction, last = (scores[name].numpy() for name in ("target", "prediction", "last"))
        last = np.broadcast_to(last[:, None], target.shape)
        return {"forecast": plots.forecast(target, prediction, last, title=self.spec.name)}


def rmse(prediction: np.ndarray, target: np.ndarray) -> float:
    """Root of the mean squared error over windows and steps, (windows, horizon) each."""
    return float(np.sqrt(np.square(prediction - target).mean()))


def mae(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error over windows and steps."""
    return float(np.abs(prediction - target).mean())


def mape(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error in percent of the target, over the targets that are not zero; NaN where all are."""
    known = target != 0
    return float(100 * np.abs((prediction - target)[known] / target[known]).mean()) if known.any() else math.nan


ERRORS = {"rmse": rmse, "mae": mae, "mape": mape}
