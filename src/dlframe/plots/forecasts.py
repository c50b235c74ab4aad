"""Figures of forecasts and of other predicted numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dlframe.plots.style import BLUE, ORANGE, label, short, style
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
    truth, naive, model, *bounds = map(_rows, (target, baseline, prediction, *(interval or ())))
    horizon = truth.shape[1]
    figure = Figure(figsize=(9, 8.4))
    whole, near, lower = figure.subplots(3, height_ratios=(2, 2, 1.2))
    names = [f"{name}, {_errors(values, truth)}" for name, values in (("baseline", naive), ("forecast", model))]
    if bounds:
        low, high = bounds
        names.append(f"{level} interval, holds {100 * ((low <= truth) & (truth <= high)).mean():.0f} %")
    for axes, start in ((whole, 0), (near, max(0, len(truth) - SHOWN))):
        drawn = (values[start:, -1] for values in (truth, naive, model, *bounds))
        _curves(axes, np.arange(start, len(truth)), *drawn, names=names, width=2.8 if axes is near else 1.6)
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


SERIES = 4
"""Series that are all drawn; of more, the best, the median and the worst."""


@style
def forecast_by_series(
    series: ArrayLike,
    target: ArrayLike,
    prediction: ArrayLike,
    baseline: ArrayLike,
    *,
    interval: Interval | None = None,
    level: str = "",
    title: str = "",
    unit: str = "value",
) -> Figure:
    """Plot forecast and baseline against the truth for a few series, and the error of every series relative to the baseline.

    Series are in the order of the RMSE of the forecast divided by that of the baseline, which does not depend on their units.

    Args:
        series: (samples,) name of the series of each sample; those of a series in the order of time.
        target: (samples,) or (samples, horizon) true values; beside the last step of all, the last forecast is shown by step.
        prediction: Forecast of the same shape.
        baseline: Trivial forecast of the same shape.
        interval: Bounds of the forecast, of the same shape.
        level: Nominal coverage of the interval, in words.
        title: Title of the figure.
        unit: Unit of the values.
    """
    columns = [*map(_rows, (target, baseline, prediction, *(interval or ())))]
    names, owner = np.unique(np.asarray(series), return_inverse=True)
    samples = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    errors = np.array([[rmse(values[own], columns[0][own]) for values in columns[1:3]] for own in samples])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = errors[:, 1] / errors[:, 0]  # NaN of a constant series that both forecast without an error
    order = np.argsort(ratios, kind="stable").tolist()
    ranked = [number for number in order if np.isfinite(ratios[number])]
    shown = dict.fromkeys(order[:SERIES], "")
    if len(order) > SERIES and ranked:
        shown = {ranked[0]: "best: ", ranked[(len(ranked) - 1) // 2]: "median: ", ranked[-1]: "worst: "}
    steps = columns[0].shape[1]
    figure = Figure(figsize=(9.6, 2.4 * len(shown) + 2.4))
    grid = figure.add_gridspec(len(shown) + 1, 2, width_ratios=(2.2, 1))
    legends = ["baseline", "forecast", f"{level} interval"]
    for row, (number, word) in enumerate(shown.items()):
        own = [values[samples[number]] for values in columns]
        left = figure.add_subplot(grid[row, 0] if steps > 1 else grid[row, :])
        _curves(left, np.arange(len(own[0])), *(values[:, -1] for values in own), names=legends, width=1.6)
        told = f"RMSE {errors[number, 1]:.4g}, of the baseline {errors[number, 0]:.4g}"
        label(left, f"{word}{short(str(names[number]), 30)}, {told}", "", unit)
        if steps > 1:
            right = figure.add_subplot(grid[row, 1])
            _curves(right, np.arange(1, steps + 1), *(values[-1] for values in own), names=legends, width=1.6)
            right.xaxis.set_major_locator(MaxNLocator(integer=True))
            label(right, "its last forecast", "", "")
    left.set_xlabel(f"sample of the series, {steps} steps ahead" if steps > 1 else "sample of the series, one step ahead")
    if steps > 1:
        right.set_xlabel("step")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    below = figure.add_subplot(grid[-1, :])
    below.axhline(1, color="black", lw=0.8)
    below.plot(np.arange(1, len(ranked) + 1), ratios[ranked], "o", color=BLUE, ms=4 if len(ranked) <= 100 else 1.5)
    below.set_ylim(0, max(1.1, 1.05 * ratios[ranked].max(initial=0)))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    told = f"better than the baseline in {int((ratios < 1).sum()):,} of {len(order):,} series"
    told += f"; {len(order) - len(ranked):,} without this ratio are not shown" * (len(ranked) < len(order))
    label(below, told, "series", "RMSE, relative\nto the baseline")
    chosen = f", {len(shown)} of {len(order):,} series by RMSE relative to that of the baseline" * (len(shown) < len(order))
    figure.suptitle(f"{title}{chosen}", x=0.02, ha="left", weight="bold")
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
    last_one: bool = True,
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
        last_one: Whether to plot the last forecast.
    """
    truth, naive, model, *bounds = map(_rows, (target, baseline, prediction, *(interval or ())))
    steps = np.arange(1, truth.shape[1] + 1)
    figure = Figure(figsize=(9 if last_one else 5, 3.8))
    *last, errors = np.ravel(figure.subplots(1, 1 + last_one))
    for values, color, name in ((naive, ORANGE, "baseline"), (model, BLUE, "forecast")):
        errors.plot(steps, np.sqrt(np.square(values - truth).mean(0)), color=color, lw=1.4, marker="o", ms=3, label=name)
    errors.set_ylim(bottom=0)
    errors.legend()
    for axes in last:
        drawn = (values[-1] for values in (truth, naive, model, *bounds))
        _curves(axes, steps, *drawn, names=("baseline", "forecast", f"{level} interval"), width=1.2)
        axes.legend()
        label(axes, f"{title}, the last forecast" if title else "the last forecast", "step", unit)
    label(errors, f"over {len(truth):,} forecasts", "step", "RMSE")
    return figure


def _curves(
    axes: Axes,
    x: np.ndarray,
    truth: np.ndarray,
    naive: np.ndarray,
    model: np.ndarray,
    *bounds: np.ndarray,
    names: Sequence[str],
    width: float,
) -> None:
    """Draw truth, baseline, forecast and bounds; the baseline wider, so that it is seen where the forecast is on it."""
    axes.plot(x, truth, color="black", lw=1.6, label="truth")
    axes.plot(x, naive, color=ORANGE, lw=width, label=names[0])
    axes.plot(x, model, color=BLUE, lw=1.1, label=names[1])
    if bounds:
        low, high = bounds
        axes.fill_between(x, low, high, color=BLUE, alpha=0.18, lw=0, label=names[2])


def _errors(values: np.ndarray, truth: np.ndarray) -> str:
    pooled = rmse(values, truth)
    if truth.shape[1] == 1:
        return f"RMSE {pooled:.4g}"
    return f"RMSE of all steps {pooled:.4g}, of this one {rmse(values[:, -1], truth[:, -1]):.4g}"


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
