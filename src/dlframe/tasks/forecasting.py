"""Time-series forecasting."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.readers.tables.series import keys_of, known_columns
from dlframe.registry import tasks
from dlframe.statistics.errors import mae, mape, mase, pinball, rmse
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Field, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST = 1e-6
"""Standard deviation below which a window is constant, in units of the training windows: of sums that are rounded."""

NARROWEST = 1e-4
"""Smallest standard deviation of a Gaussian forecast, in standard deviations of the window."""

WINDOWS = 4096
"""Windows whose deviations are computed at once."""

STEPS = 12
"""Steps of a horizon whose errors are told."""

LOSSES = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}

Output = Literal["point", "quantile", "gaussian"]


@dataclass
class Forecast:
    """Forecasts in standard deviations of the window, as changes from its last value.

    Attributes:
        point: (batch, horizon) point forecast: of quantiles the median, of a Gaussian the mean.
        quantiles: (batch, horizon, levels) ascending; None of a point forecast.
        deviation: (batch, horizon) standard deviation of a Gaussian; None of the others.
        last: (batch, 1) last value of the window, in the data's units.
        unit: (batch, 1) standard deviation of the window, in the data's units.
    """

    point: Tensor
    quantiles: Tensor | None
    deviation: Tensor | None
    last: Tensor
    unit: Tensor

    def values(self) -> Tensor:
        """Return the point forecast in the data's units."""
        return self.last + self.point * self.unit

    def bounds(self) -> Tensor:
        """Return the quantiles in the data's units; none (batch, horizon, 0) of a point forecast."""
        if self.quantiles is None:
            return self.point.new_empty((*self.point.shape, 0))
        return self.last[..., None] + self.quantiles * self.unit[..., None]


@tasks.register(
    "forecasting",
    targets=("value",),
    requires=("value",),
    scores=("target", "prediction", "quantiles", "last", "scale", "loss"),
    metrics={
        "loss": {"better": "min"},
        "rmse": {"better": "min", "low": 0.0},
        "mae": {"better": "min", "low": 0.0},
        "mape": {"better": "min", "low": 0.0, "unit": "%"},
        "mase": {"better": "min", "low": 0.0},
        "coverage": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "width": {"better": "min", "low": 0.0},
        "pinball": {"better": "min", "low": 0.0},
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
    constant, is therefore the same in those units. Columns that are known in advance are standardized by the training rows.

    A model without gradients that has `fit_series` is fitted to the training series instead, once, and receives windows of the
    series as they are; its `deviations` make it Gaussian.

    Args:
        loss: Loss of a point forecast in standard deviations of the window: mse, mae, or huber (Huber 1964: mse up to an error
            of 1, mae beyond), which is robust to jumps after a nearly constant window.
        output: What is forecast: point; quantile (levels of `levels`, by the pinball loss, sorted so that they do not cross;
            the point forecast is the median); or gaussian (mean and standard deviation, by the negative log-likelihood).
        levels: Levels of the quantiles, ascending, with 0.5 in the middle; the outer ones bound the interval.
    """

    scores_training = True
    flat_unit: Tensor
    level_bits: Tensor

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        loss: Literal["mse", "mae", "huber"] = "huber",
        output: Output = "point",
        levels: tuple[float, ...] = (0.1, 0.5, 0.9),
    ) -> None:
        super().__init__(spec, model)
        check_levels(levels)
        self.criterion = LOSSES[loss]
        self.output = output
        self.levels = tuple(levels)
        self.input, self.future = next(iter(spec.inputs)), next(iter(spec.targets))
        self.known = known_columns(spec)
        self.horizon = int(spec.targets[self.future].shape[0] or 1)
        self.is_fitted_at_once = hasattr(model, "fit_series")
        self.register_buffer("flat_unit", torch.ones(spec.shape[1]))
        # As bits, integers stay as they are when a module is converted to half precision.
        bits = torch.tensor(levels, dtype=torch.float64).view(torch.int64)
        self.register_buffer("level_bits", bits, persistent=False)

    @staticmethod
    def model_spec(spec: DataSpec, *, networks: tuple[str, ...], **options: Any) -> DataSpec:
        """Return a specification whose horizon has room for all outputs of each step."""
        (name, future), *_ = spec.targets.items()
        check_levels(options["levels"])
        outputs = {"point": 1, "quantile": len(options["levels"]), "gaussian": 2}[options["output"]] if networks else 1
        return replace(spec, targets={name: replace(future, shape=((future.shape[0] or 1) * outputs,))})

    def prepare(self, train: Split) -> None:
        """Take the median scale of the training windows, by feature, for constant windows; fit a model without gradients."""
        windows = train[self.input]
        # In parts: the windows are views, and what NumPy makes of them is not.
        parts = [windows[start : start + WINDOWS].std(1) for start in range(0, len(windows), WINDOWS)]
        stds = np.concatenate(parts)  # (samples, features)
        known = [std[std > 0] for std in stds.T]
        self.flat_unit.copy_(torch.tensor([np.median(std) if len(std) else 1.0 for std in known]))
        if self.is_fitted_at_once:
            self.model.fit_series(series_of(windows[:, :, 0], train[self.future]))  # type: ignore[operator]

    def partial_fit(self, batch: Batch) -> None:
        """Learn nothing: a model without gradients is fitted to whole series before."""

    def forecast(self, batch: Batch) -> Forecast:
        """Return the forecasts of a batch, in double precision."""
        window = batch[self.input].double()
        own = window[:, :, : window.shape[2] - self.known]
        last = own[:, -1:]
        changes = own - last
        std = changes.std(1, correction=0, keepdim=True)
        flat = self.flat_unit[: own.shape[2]].double()
        unit = torch.where(std > SMALLEST * flat, std, flat)
        last_value, own_unit = last[:, :, 0], unit[:, :, 0]
        if self.is_fitted_at_once:
            point = (self.model(window[:, :, 0]) - last_value) / own_unit
            if self.output == "point":
                return Forecast(point, None, None, last_value, own_unit)
            deviation = self.model.deviations.to(point) / own_unit  # type: ignore[operator, union-attr]
            return Forecast(point, self._of_gaussian(point, deviation), deviation, last_value, own_unit)
        inputs = (changes / unit).to(self._place.dtype)
        if self.known:
            inputs = torch.cat([inputs, self.normalizers[self.input](window)[:, :, -self.known :]], 2)
        outputs = self.model(inputs).double()
        if self.output == "point":
            return Forecast(outputs, None, None, last_value, own_unit)
        outputs = outputs.unflatten(1, (self.horizon, -1))
        if self.output == "quantile":
            quantiles = outputs.sort(2).values
            return Forecast(quantiles[:, :, len(self.levels) // 2], quantiles, None, last_value, own_unit)
        point, deviation = outputs[:, :, 0], functional.softplus(outputs[:, :, 1]) + NARROWEST
        return Forecast(point, self._of_gaussian(point, deviation), deviation, last_value, own_unit)

    def _of_gaussian(self, mean: Tensor, deviation: Tensor) -> Tensor:
        normal = torch.special.ndtri(self.level_bits.view(torch.float64))
        return mean[..., None] + deviation[..., None] * normal

    def losses(self, forecast: Forecast, future: Tensor) -> Tensor:
        """Return the loss (batch, horizon) of each step, in standard deviations of the window."""
        change = (future - forecast.last) / forecast.unit
        if self.output == "point" or forecast.quantiles is None:
            return self.criterion(forecast.point, change, reduction="none")
        if self.output == "quantile":
            levels = self.level_bits.view(torch.float64)
            below = change[..., None] - forecast.quantiles
            return torch.maximum(levels * below, (levels - 1) * below).mean(2)
        assert forecast.deviation is not None
        error = (change - forecast.point) / forecast.deviation
        return 0.5 * error.square() + forecast.deviation.log() + 0.5 * math.log(2 * math.pi)

    def output_shape(self) -> tuple[int, ...]:
        """Return the values of the model for a window: those of each step, one after the other."""
        each = {"point": 1, "quantile": len(self.levels), "gaussian": 2}[self.output]
        return (self.horizon * each,)

    def loss(self, batch: Batch, network: str) -> Tensor:
        """Return the loss of the change, in standard deviations of the window."""
        return self.losses(self.forecast(batch), batch[self.future].double()).mean()

    def score(self, batch: Batch) -> Scores:
        """Return prediction, target (batch, horizon), quantiles (batch, horizon, levels), last value, scale, loss (batch,)."""
        forecast, target = self.forecast(batch), batch[self.future].double()
        scale = self.spec.fitted.get("scales", {}).get("", 0.0)
        return {
            "prediction": forecast.values(),
            "target": target,
            "quantiles": forecast.bounds(),
            "last": forecast.last.squeeze(1),
            "scale": batch["scale"][:, 0].double() if "scale" in self.spec.targets else target.new_full((len(target),), scale),
            "loss": self.losses(forecast, target).mean(1),
        }

    def metrics(self, scores: Scores) -> dict[str, float]:
        """Compute the metrics of point forecasts and of intervals over windows and steps, and the mean loss.

        RMSE, MAE, width and pinball loss are in the data's units, the MAPE is in percent over nonzero targets, the MASE in mean
        absolute differences of a season of the training part. Those of intervals are undefined for a point forecast.
        """
        prediction, target, scale = (scores[name].numpy() for name in ("prediction", "target", "scale"))
        errors = {name: error(prediction, target) for name, error in ERRORS.items()}
        of_windows = {name: float(values.mean()) for name, values in self._of_windows(scores).items()}
        return {**errors, "mase": mase(prediction, target, scale), **of_windows, "loss": scores["loss"].mean().item()}

    def _of_windows(self, scores: Scores) -> dict[str, np.ndarray]:
        """Return coverage, width and pinball loss of each window, (windows,)."""
        quantiles, target = scores["quantiles"].numpy(), scores["target"].numpy()
        if not quantiles.shape[2]:
            return dict.fromkeys(("coverage", "width", "pinball"), np.full(len(target), math.nan))
        low, high = quantiles[..., 0], quantiles[..., -1]
        inside = np.where(np.isnan(low), np.nan, (low <= target) & (target <= high))
        losses = pinball(quantiles, target, self.levels)
        return {"coverage": inside.mean(1), "width": (high - low).mean(1), "pinball": losses.mean(1)}

    def outputs(self) -> dict[str, Field]:
        names = ("prediction",) if self.output == "point" else ("prediction", "low", "high")
        return {name: Field(kind="value", dtype="float64", shape=(self.horizon,)) for name in names}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return future values (batch, horizon) in the data's units, and the bounds of their interval."""
        forecast = self.forecast(batch)
        found = {"prediction": forecast.values()}
        if self.output != "point":
            bounds = forecast.bounds()
            found |= {"low": bounds[..., 0], "high": bounds[..., -1]}
        return found

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Predict the last value of each test window for every step (naive forecast)."""
        last, target = self._last_values(dataset), dataset.test[self.future].astype(np.float64)
        scale = dataset.test["scale"][:, 0] if "scale" in self.spec.targets else np.full(len(target), self._scale)
        errors = {name: error(last, target) for name, error in ERRORS.items()}
        return "naive forecast", {**errors, "mase": mase(last, target, scale)}

    @property
    def _scale(self) -> float:
        """Scale of the only series; 0 if unknown."""
        return float(self.spec.fitted.get("scales", {}).get("", 0.0))

    def baseline_predictions(self, dataset: Dataset) -> list:
        last = self._last_values(dataset)
        return (last[:, 0] if last.shape[1] == 1 else last).tolist()

    def _last_values(self, dataset: Dataset) -> np.ndarray:
        """Return the last value of each test window, (windows, horizon)."""
        last = dataset.test[self.input][:, -1, :1].astype(np.float64)
        return np.repeat(last, self.horizon, axis=1)

    def forms(self) -> dict[str, dict[str, Any]]:
        intervals = () if self.output == "point" else ("coverage", "width", "pinball")
        of_intervals = {name: {"form": "mean", "column": name} for name in intervals}
        return {name: {"form": name} for name in (*ERRORS, "mase")} | of_intervals

    def blocks(self, samples: int) -> int:
        """Return up to 20 blocks, none shorter than the horizon: windows overlap, and volatility clusters."""
        return max(2, min(20, samples // max(5, self.horizon)))

    def notes(self, scores: Scores) -> list[str]:
        """Tell what metrics leave out, what a model without gradients is, and the errors of the steps of a horizon."""
        target, scale = scores["target"], scores["scale"]
        count, nonzero, known = target.numel(), int(target.count_nonzero()), int((scale > 0).sum())
        notes = [f"mape is over the {nonzero:,} of {count:,} targets that are not 0"] if nonzero < count else []
        if 0 < known < len(scale):
            notes += [
                f"mase is over the {known:,} of {len(scale):,} windows whose series has a scale: others are not in training"
            ]
        notes += list(getattr(self.model, "notes", ()))
        if self.horizon > 1:
            steps = sorted({round(step) for step in np.linspace(1, self.horizon, min(self.horizon, STEPS))})
            errors = (scores["prediction"] - target).square().mean(0).sqrt()
            told = ", ".join(f"{errors[step - 1].item():.4g}" for step in steps)
            notes += [f"rmse of steps {', '.join(map(str, steps))}: {told}"]
        return notes

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return target, prediction, as score the mean absolute error, the scale, and of intervals the bounds and metrics."""
        target, prediction, quantiles = scores["target"], scores["prediction"], scores["quantiles"]
        columns = {
            "target": target.squeeze(1).tolist(),
            "prediction": prediction.squeeze(1).tolist(),
            "score": (prediction - target).abs().mean(1).tolist(),
            "scale": scores["scale"].tolist(),
        }
        if self.output != "point":
            bounds = {"low": quantiles[..., 0].squeeze(1), "high": quantiles[..., -1].squeeze(1)}
            columns |= {name: values.tolist() for name, values in (bounds | self._of_windows(scores)).items()}
        return columns

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot the forecast and the naive forecast against the truth, and the errors of the steps of a horizon."""
        from dlframe import plots

        target, prediction, last, quantiles = (scores[name].numpy() for name in ("target", "prediction", "last", "quantiles"))
        last = np.broadcast_to(last[:, None], target.shape)
        interval = None if self.output == "point" else (quantiles[..., 0], quantiles[..., -1])
        level = f"{100 * (self.levels[-1] - self.levels[0]):g} %"
        drawn: dict[str, Any] = {"interval": interval, "level": level, "title": self.spec.name}
        series = keys_of(dataset.test.ids, self.spec)
        if several := len(np.unique(series)) > 1:
            found = {"forecast": plots.forecast_by_series(series, target, prediction, last, **drawn)}
        else:
            found = {"forecast": plots.forecast(target, prediction, last, **drawn)}
        if self.horizon > 1:
            found["horizon"] = plots.horizon(target, prediction, last, **drawn, last_one=not several)
        return found


ERRORS = {"rmse": rmse, "mae": mae, "mape": mape}


def check_levels(levels: tuple[float, ...]) -> None:
    """Raise where levels are not those of a median and intervals around it."""
    ascending = all(0 < level < 1 for level in levels) and all(a < b for a, b in pairwise(levels))
    symmetric = all(abs(a + b - 1) < 1e-9 for a, b in zip(levels, reversed(levels), strict=True))
    if len(levels) < 3 or not ascending or not symmetric or len(levels) % 2 == 0:
        received = ", ".join(f"{level:g}" for level in levels)
        raise ConfigError(
            f"task.levels: must ascend within 0 and 1, symmetric about a 0.5 in the middle. Received: [{received}]. "
            "Try: task.levels=[0.1,0.5,0.9]",
            "task.levels",
        )


def series_of(windows: np.ndarray, futures: np.ndarray) -> list[np.ndarray]:
    """Return the series of which windows (samples, time) and futures (samples, horizon) are a part, in order of time.

    A window continues the one before it if all but its last value are those of that one; else another series begins.
    """
    starts = [0]
    for begin in range(1, len(windows), WINDOWS):
        stop = min(begin + WINDOWS, len(windows))
        continues = (windows[begin:stop, :-1] == windows[begin - 1 : stop - 1, 1:]).all(1)
        continues &= windows[begin:stop, -1] == futures[begin - 1 : stop - 1, 0]
        starts += (begin + np.flatnonzero(~continues)).tolist()
    return [
        np.concatenate([windows[first], futures[first:stop, 0], futures[stop - 1, 1:]])
        for first, stop in pairwise([*starts, len(windows)])
    ]
