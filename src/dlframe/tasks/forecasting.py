"""Time-series forecasting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import tasks
from dlframe.statistics.errors import mae, mape, rmse
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, Dataset, DataSpec, Field, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST = 1e-6
"""Standard deviation below which a window is constant, in units of the training windows: of sums that are rounded."""

WINDOWS = 4096
"""Windows whose deviations are computed at once."""

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
    """Forecast of the values after a window of a series, in the data's units.

    The model maps (window - last) / std to (future - last) / std, with the last value and the standard deviation of the
    window. Inputs are then stationary under drift, as of prices (the last value subtracted as in Zeng et al. 2022, arXiv
    2205.13504; the scale as in RevIN, Kim et al. 2022). Values may be zero or negative, unlike with logarithms. A model
    that returns 0 is the naive forecast. A constant window has no scale: it has the median one of the training windows.
    Values stay in double precision until the last one is subtracted. The forecast of a series in other units, or plus a
    constant, is therefore the same in those units.

    Args:
        loss: Loss in standard deviations of the window: mse, mae, or huber (Huber 1964: mse up to an error of 1, mae
            beyond), which is robust to jumps after a nearly constant window.
    """

    flat_unit: Tensor

    def __init__(self, spec: DataSpec, model: nn.Module, *, loss: Literal["mse", "mae", "huber"] = "huber") -> None:
        super().__init__(spec, model)
        self.criterion = LOSSES[loss]
        self.register_buffer("flat_unit", torch.ones(spec.shape[1]))

    def prepare(self, train: Split) -> None:
        """Take the median scale of the training windows, by feature, for constant windows."""
        windows = train[next(iter(self.spec.inputs))]
        # In parts: the windows are views, and what NumPy makes of them is not.
        parts = [windows[start : start + WINDOWS].std(1) for start in range(0, len(windows), WINDOWS)]
        stds = np.concatenate(parts)  # (samples, features)
        known = [std[std > 0] for std in stds.T]
        self.flat_unit.copy_(torch.tensor([np.median(std) if len(std) else 1.0 for std in known]))

    def forecast(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return change (batch, horizon), last value and unit (batch, 1), in double precision."""
        inputs = inputs.double()
        last = inputs[:, -1:]
        changes = inputs - last
        std = changes.std(1, correction=0, keepdim=True)
        unit = torch.where(std > SMALLEST * self.flat_unit, std, self.flat_unit.double())
        return self.model((changes / unit).to(self._place.dtype)).double(), last[:, :, 0], unit[:, :, 0]

    def loss(self, batch: Batch, network: str) -> Tensor:
        """Return the loss of the change, in standard deviations of the window."""
        change, last, unit = self.forecast(batch.inputs)
        return self.criterion(change, (batch.targets.double() - last) / unit)

    def score(self, batch: Batch) -> Scores:
        """Return prediction, target (batch, horizon), last value, loss (batch,)."""
        change, last, unit = self.forecast(batch.inputs)
        target = batch.targets.double()
        return {
            "prediction": last + change * unit,
            "target": target,
            "last": last.squeeze(1),
            "loss": self.criterion(change, (target - last) / unit, reduction="none").mean(1),
        }

    def metrics(self, scores: Scores) -> dict[str, float]:
        """Compute mean loss, RMSE and MAE in the data's units, MAPE in percent.

        RMSE, MAE and MAPE are over windows and steps, the MAPE over nonzero targets.
        """
        prediction, target = scores["prediction"].numpy(), scores["target"].numpy()
        errors = {name: error(prediction, target) for name, error in ERRORS.items()}
        return {**errors, "loss": scores["loss"].mean().item()}

    def outputs(self) -> dict[str, Field]:
        return {"prediction": Field(kind="value", dtype="float64", shape=self.spec.target.shape)}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return future values (batch, horizon) in the data's units."""
        change, last, unit = self.forecast(batch.inputs)
        return {"prediction": last + change * unit}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Predict the last value of each test window for every step (naive forecast)."""
        target = dataset.test[next(iter(self.spec.targets))].astype(np.float64)
        return "naive forecast", {name: error(self._last_values(dataset), target) for name, error in ERRORS.items()}

    def baseline_predictions(self, dataset: Dataset) -> list:
        last = self._last_values(dataset)
        return (last[:, 0] if last.shape[1] == 1 else last).tolist()

    def _last_values(self, dataset: Dataset) -> np.ndarray:
        """Return the last value of each test window, (windows, horizon)."""
        last = dataset.test[next(iter(self.spec.inputs))][:, -1, :1].astype(np.float64)
        return np.repeat(last, self.horizon, axis=1)

    @property
    def horizon(self) -> int:
        """Steps of a forecast."""
        return int(self.spec.target.shape[0] or 1)

    def forms(self) -> dict[str, dict[str, Any]]:
        return {name: {"form": name} for name in ERRORS}

    def blocks(self, samples: int) -> int:
        """Return up to 20 blocks, none shorter than the horizon: windows overlap, and volatility clusters."""
        return max(2, min(20, samples // max(5, self.horizon)))

    def notes(self, scores: Scores) -> list[str]:
        """Count the targets that the MAPE leaves out."""
        target = scores["target"]
        count, nonzero = target.numel(), int(target.count_nonzero())
        return [f"mape is over the {nonzero:,} of {count:,} targets that are not 0"] if nonzero < count else []

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return target, prediction and, as score, the mean absolute error."""
        target, prediction = scores["target"], scores["prediction"]
        return {
            "target": target.squeeze(1).tolist(),
            "prediction": prediction.squeeze(1).tolist(),
            "score": (prediction - target).abs().mean(1).tolist(),
        }

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot the forecast and the naive forecast against the truth."""
        from dlframe import plots

        target, prediction, last = (scores[name].numpy() for name in ("target", "prediction", "last"))
        last = np.broadcast_to(last[:, None], target.shape)
        return {"forecast": plots.forecast(target, prediction, last, title=self.spec.name)}


ERRORS = {"rmse": rmse, "mae": mae, "mape": mape}
