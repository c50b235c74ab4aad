"""Regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import tasks
from dlframe.statistics.errors import mae, r2, rmse
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, Dataset, DataSpec, Field, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}


@tasks.register(
    "regression",
    targets=("value",),
    requires=("value",),
    scores=("target", "prediction", "loss"),
    metrics={
        "loss": {"better": "min", "low": 0.0},
        "rmse": {"better": "min", "low": 0.0},
        "mae": {"better": "min", "low": 0.0},
        "r2": {"better": "max", "high": 1.0},
    },
    headline="rmse",
)
class Regression(Task):
    """Prediction of a number per sample, in the data's units.

    The model predicts targets that are standardized by the mean and the standard deviation of the training targets, in double
    precision. A model that returns 0 predicts the training mean.

    Args:
        loss: Loss in standard deviations of the target: mse, mae, or huber (Huber 1964: mse up to an error of 1, mae
            beyond), which is robust to outliers.
    """

    scores_training = True
    center: Tensor
    unit: Tensor

    def __init__(self, spec: DataSpec, model: nn.Module, *, loss: Literal["mse", "mae", "huber"] = "mse") -> None:
        super().__init__(spec, model)
        self.criterion = LOSSES[loss]
        (self.target,) = spec.targets
        self.register_buffer("center", torch.zeros(spec.horizon, dtype=torch.float64))
        self.register_buffer("unit", torch.ones(spec.horizon, dtype=torch.float64))

    def prepare(self, train: Split) -> None:
        """Take mean and standard deviation of the training targets; equal targets have the unit 1."""
        values = train[self.target].astype(np.float64)
        std = values.std(0)
        self.center.copy_(torch.from_numpy(values.mean(0)))
        self.unit.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))

    def output_shape(self) -> tuple[int, ...]:
        return (self.spec.horizon,)

    def loss(self, batch: Batch, network: str) -> Tensor:
        """Return the loss of the standardized prediction."""
        prediction = self.model(self.normalize(batch))
        return self.criterion(prediction, self._standardized(batch).to(prediction.dtype))

    def _standardized(self, batch: Batch) -> Tensor:
        return (batch[self.target].double() - self.center.double()) / self.unit.double()

    def score(self, batch: Batch) -> Scores:
        """Return prediction and target (batch, values) in the data's units, and the loss (batch,)."""
        prediction = self.model(self.normalize(batch)).double()
        return {
            "prediction": self.center.double() + prediction * self.unit.double(),
            "target": batch[self.target].double(),
            "loss": self.criterion(prediction, self._standardized(batch), reduction="none").mean(1),
        }

    def metrics(self, scores: Scores) -> dict[str, float]:
        """Compute RMSE and MAE in the data's units, R2 and the mean loss."""
        prediction, target = scores["prediction"].numpy(), scores["target"].numpy()
        errors = {name: error(prediction, target) for name, error in ERRORS.items()}
        return {**errors, "loss": scores["loss"].mean().item()}

    def outputs(self) -> dict[str, Field]:
        return {"prediction": Field(kind="value", dtype="float64", shape=self.spec.target.shape)}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return values (batch, values) in the data's units."""
        return {"prediction": self.center.double() + self.model(self.normalize(batch)).double() * self.unit.double()}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Predict the mean of the training targets."""
        target = dataset.test[self.target].astype(np.float64)
        return "training mean", {name: error(self._means(dataset), target) for name, error in ERRORS.items()}

    def baseline_predictions(self, dataset: Dataset) -> list:
        return self._means(dataset).squeeze(1).tolist()

    def _means(self, dataset: Dataset) -> np.ndarray:
        """Return the mean of the training targets for each test sample."""
        mean = dataset.train[self.target].astype(np.float64).mean(0)
        return np.repeat(mean[None], len(dataset.test), axis=0)

    def forms(self) -> dict[str, dict[str, Any]]:
        return {name: {"form": name} for name in ERRORS}

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return target, prediction and, as score, the absolute error."""
        target, prediction = scores["target"], scores["prediction"]
        return {
            "target": target.squeeze(1).tolist(),
            "prediction": prediction.squeeze(1).tolist(),
            "score": (prediction - target).abs().mean(1).tolist(),
        }

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot predictions against targets."""
        from dlframe import plots

        prediction, target = scores["prediction"].numpy().ravel(), scores["target"].numpy().ravel()
        return {"predictions": plots.predictions(target, prediction, title=self.spec.name)} | super().figures(scores, dataset)


ERRORS = {"rmse": rmse, "mae": mae, "r2": r2}
"""Regression metrics, from predictions and targets."""
