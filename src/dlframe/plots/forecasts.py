"""Figures of forecasts and of other predicted numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, ORANGE, label, style
from dlframe.statistics.errors import rmse


@style
def forecast(
    target: ArrayLike,
    prediction: ArrayLike,
    baseline: ArrayLike,
    *,
    dates: ArrayLike | None = None,
    title: str = "",
    unit: str = "value",
) -> Figure:
    """Plot forecast and baseline against the truth, and their errors.

    Args:
        target: (samples,) or (samples, horizon) true values; the last step is shown.
        prediction: Forecast of the same shape.
        baseline: Trivial forecast of the same shape.
        dates: (samples,) datetime64 of the shown values; None for sample numbers.
        title: Title of the figure.
        unit: Unit of the values.
    """
    truth, model, naive = (np.asarray(a, float).reshape(len(np.asarray(a)), -1) for a in (target, prediction, baseline))
    horizon = truth.shape[1]
    x = np.arange(len(truth)) if dates is None else np.asarray(dates)
    figure = Figure(figsize=(9, 5.2))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    upper.plot(x, truth[:, -1], color="black", lw=1.6, label="truth")
    for values, color, name in ((naive, ORANGE, "baseline"), (model, BLUE, "forecast")):
        error = values[:, -1] - truth[:, -1]
        pooled = f"RMSE {rmse(values, truth):.4g}"
        if horizon > 1:
            pooled = f"RMSE of all steps {rmse(values, truth):.4g}, of this one {rmse(values[:, -1], truth[:, -1]):.4g}"
        upper.plot(x, values[:, -1], color=color, lw=1.1, label=f"{name}, {pooled}")
        lower.plot(x, error, color=color, lw=0.9)
    lower.axhline(0, color="black", lw=0.8)
    upper.legend()
    ahead = f"{horizon} steps ahead" if horizon > 1 else "one step ahead"
    label(upper, f"{title}, {ahead}" if title else ahead, "", unit)
    label(lower, "", "sample" if dates is None else "date", "error")
    return figure


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
