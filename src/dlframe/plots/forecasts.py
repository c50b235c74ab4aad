"""Figures of forecasts and of other predicted numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, ORANGE, label, style
from dlframe.statistics.errors import rmse

SHOWN = 60
"""Last samples of a forecast that are shown larger."""

Interval = tuple[ArrayLike, ArrayLike]
"""Lower and upper bounds of predicted values."""


@style
def forecast(
    target: ArrayLike,
    prediction: ArrayLike,
    baseline: ArrayLike,
    *,
    interval: Interval | None = None,
    level: str = "",
    title: str = "",
    unit: str = "value",
) -> Figure:
    """Plot forecast and baseline against the truth, the last ones larger, and how much closer to it the forecast is.

    Args:
        target: (samples,) or (samples, horizon) true values; the last step is shown.
        prediction: Forecast of the same shape.
        baseline: Trivial forecast of the same shape.
        interval: Bounds of the forecast, of the same shape.
        level: Nominal coverage of the interval, in words.
        title: Title of the figure.
        unit: Unit of the values.
    """
    truth, model, naive = (_rows(values) for values in (target, prediction, baseline))
    horizon = truth.shape[1]
    figure = Figure(figsize=(9, 8.4))
    whole, near, lower = figure.subplots(3, height_ratios=(2, 2, 1.2))
    for axes, start in ((whole, 0), (near, max(0, len(truth) - SHOWN))):
        x = np.arange(start, len(truth))
        axes.plot(x, truth[start:, -1], color="black", lw=1.6, label="truth")
        wider = 2.8 if axes is near else 1.6  # seen where the forecast is on it
        for values, color, width, name in ((naive, ORANGE, wider, "baseline"), (model, BLUE, 1.1, "forecast")):
            pooled = f"RMSE {rmse(values, truth):.4g}"
            if horizon > 1:
                pooled = f"RMSE of all steps {rmse(values, truth):.4g}, of this one {rmse(values[:, -1], truth[:, -1]):.4g}"
            axes.plot(x, values[start:, -1], color=color, lw=width, label=f"{name}, {pooled}")
        if interval is not None:
            low, high = (_rows(bound) for bound in interval)
            inside = ((low <= truth) & (truth <= high)).mean()
            told = f"{level} interval, holds {100 * inside:.0f} %"
            axes.fill_between(x, low[start:, -1], high[start:, -1], color=BLUE, alpha=0.18, lw=0, label=told)
    own, others = (np.abs(values[:, -1] - truth[:, -1]) for values in (model, naive))
    for values, color in ((np.minimum(own - others, 0), BLUE), (np.maximum(own - others, 0), ORANGE)):
        lower.fill_between(np.arange(len(truth)), values, color=color, lw=0.6, step="mid")
    lower.axhline(0, color="black", lw=0.8)
    closer, farther = (f"{100 * part.mean():.0f} %" for part in (own < others, own > others))
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    ahead = f"{horizon} steps ahead" if horizon > 1 else "one step ahead"
    label(whole, f"{title}, {ahead}" if title else ahead, "", unit)
    label(near, f"the last {min(SHOWN, len(truth))} samples", "", unit)
    told = f"the forecast is closer to the truth in {closer} of {len(truth):,} samples, the baseline in {farther}"
    label(lower, told, "sample", "absolute error minus\nthat of the baseline")
    return figure


@style
def horizon(
    target: ArrayLike,
    prediction: ArrayLike,
    baseline: ArrayLike,
    *,
    interval: Interval | None = None,
    level: str = "",
    title: str = "",
    unit: str = "value",
) -> Figure:
    """Plot the last forecast of all steps against the truth, and the error of each step.

    Args:
        target: (samples, horizon) true values.
        prediction: Forecast of the same shape.
        baseline: Trivial forecast of the same shape.
        interval: Bounds of the forecast, of the same shape.
        level: Nominal coverage of the interval, in words.
        title: Title of the figure.
        unit: Unit of the values.
    """
    truth, model, naive = (_rows(values) for values in (target, prediction, baseline))
    steps = np.arange(1, truth.shape[1] + 1)
    figure = Figure(figsize=(9, 3.8))
    last, errors = figure.subplots(1, 2)
    last.plot(steps, truth[-1], color="black", lw=1.6, label="truth")
    for values, color, name in ((naive, ORANGE, "baseline"), (model, BLUE, "forecast")):
        last.plot(steps, values[-1], color=color, lw=1.2, label=name)
        errors.plot(steps, np.sqrt(np.square(values - truth).mean(0)), color=color, lw=1.4, marker="o", ms=3, label=name)
    if interval is not None:
        low, high = (_rows(bound) for bound in interval)
        last.fill_between(steps, low[-1], high[-1], color=BLUE, alpha=0.18, lw=0, label=f"{level} interval")
    errors.set_ylim(bottom=0)
    last.legend()
    errors.legend()
    label(last, f"{title}, the last forecast" if title else "the last forecast", "step", unit)
    label(errors, f"over {len(truth):,} forecasts", "step", "RMSE")
    return figure


def _rows(values: ArrayLike) -> np.ndarray:
    """Return values (samples, horizon)."""
    array = np.asarray(values, float)
    return array.reshape(len(array), -1)


@style
def predictions(target: ArrayLike, prediction: ArrayLike, *, title: str = "", unit: str = "value") -> Figure:
    """Plot predictions against targets.

    Args:
        target: (samples,) true values.
        prediction: (samples,) predicted values.
        title: Title of the figure.
        unit: Unit of the values.
    """
    truth, found = np.asarray(target, float), np.asarray(prediction, float)
    figure = Figure(figsize=(5.2, 5.2))
    axes = figure.subplots()
    axes.scatter(truth, found, s=8, color=BLUE, alpha=0.6, linewidths=0)
    ends = [min(truth.min(), found.min()), max(truth.max(), found.max())]
    axes.plot(ends, ends, color="black", lw=0.8, label="prediction = target")
    axes.legend()
    label(
        axes,
        f"{title}, RMSE {rmse(found, truth):.4g}" if title else f"RMSE {rmse(found, truth):.4g}",
        f"target ({unit})",
        "prediction",
    )
    return figure
