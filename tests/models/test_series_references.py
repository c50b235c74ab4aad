"""Seasonal naive forecasts, exponential smoothing and ARIMA, against statsmodels and recursions written by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from tests.samples import batch_of, series_spec

from dlframe.data.co2 import co2
from dlframe.models.series_references import innovations
from dlframe.registry import models, plugins, tasks
from dlframe.types import ConfigError, Dataset, DataSpec

plugins.discover()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return co2(window=60)


def fitted(name: str, dataset: Dataset, **options):
    model = models.build({"name": name}, spec=dataset.spec)
    task = tasks.build({"name": "forecasting", **options}, spec=dataset.spec, model=model)
    task.prepare(dataset.train)
    return model, task.eval()


def test_seasonal_naive(dataset):
    model, task = fitted("seasonal_naive", dataset, output="gaussian")
    scores = task.score(batch_of(dataset.test, dataset.spec))
    assert scores["prediction"].tolist() == pytest.approx(dataset.test["window"][:, -12:, 0])
    metrics = task.metrics(scores)
    assert metrics["rmse"] == pytest.approx(1.849, abs=1e-3)  # as statsforecast's
    assert metrics["mape"] == pytest.approx(0.468, abs=5e-4)
    seen = np.concatenate([dataset.train["window"][0, :, 0], dataset.train["future"][:, 0], dataset.train["future"][-1, 1:]])
    assert len(seen) == 360
    size = np.sqrt(np.mean((seen[12:] - seen[:-12]) ** 2))
    np.testing.assert_allclose(model.deviations, np.full(12, size))
    spec = series_spec("", (30, 1), 14)
    longer = models.build({"name": "seasonal_naive", "season": 12}, spec=spec)
    longer.fit_series([np.arange(40.0)])
    forecast = longer(torch.arange(30.0)[None])[0]
    assert forecast.tolist() == [*range(18, 30), 18, 19]
    np.testing.assert_allclose(longer.deviations, [12] * 12 + [12 * 2**0.5] * 2)


def test_ets_is_statsmodels(dataset):
    """Its parameters, and from each window the forecast of its filter."""
    from statsmodels.tsa.statespace.exponential_smoothing import ExponentialSmoothing

    model, _ = fitted("ets", dataset)
    assert model.choice.startswith("ets: AAA by AICc of 4 (level ")
    window = dataset.test["window"][40, :, 0].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = np.concatenate(
            [dataset.train["window"][0, :, 0], dataset.train["future"][:, 0], dataset.train["future"][-1, 1:]]
        )
        unit = np.diff(seen).std()
        options = {"trend": True, "seasonal": 12, "initialization_method": "concentrated"}
        found = ExponentialSmoothing((seen - seen[0]) / unit, **options).fit(disp=False, maxiter=200)
        expected = ExponentialSmoothing(window, **options).filter(found.params).forecast(12)
    forecast = model(torch.from_numpy(window)[None])[0]
    np.testing.assert_allclose(forecast, expected, rtol=1e-6)


@pytest.mark.parametrize("damping", [1.0, 0.9])
def test_innovations_are_the_recursions(damping):
    """Holt's method with a trend: the weights continue any path without errors, and the deviations are Hyndman's."""
    alpha, beta = 0.5, 0.2
    design, gain = np.array([[1.0, damping]]), np.array([[alpha], [beta]])
    transition = np.array([[1.0, damping], [0.0, damping]])
    weights, deviations = innovations(design, transition, gain, 80, 4)
    state, path = np.array([3.0, 0.7]), []
    for _ in range(84):
        path.append(float(design[0] @ state))
        state = transition @ state
    np.testing.assert_allclose(weights @ path[:80], path[80:], rtol=1e-9)
    values = np.random.default_rng(0).normal(size=80).cumsum()
    level, trend = np.linalg.lstsq(*_start(values, alpha, beta, damping), rcond=None)[0]
    for value in values:
        error = value - level - damping * trend
        level, trend = level + damping * trend + alpha * error, damping * trend + beta * error
    steps = np.cumsum(damping ** np.arange(1, 5))
    np.testing.assert_allclose(weights @ values, level + trend * steps, rtol=1e-7)
    factors = np.concatenate([[1.0], alpha + beta * np.cumsum(damping ** np.arange(1, 4))])
    np.testing.assert_allclose(deviations, np.sqrt(np.cumsum(factors**2)), rtol=1e-4)


def _start(values: np.ndarray, alpha: float, beta: float, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors as a linear function of level and trend at the start: their coefficients, and what they must equal."""

    def errors(level: float, trend: float, values: np.ndarray) -> np.ndarray:
        found = []
        for value in values:
            error = value - level - damping * trend
            level, trend = level + damping * trend + alpha * error, damping * trend + beta * error
            found.append(error)
        return np.array(found)

    zero = np.zeros_like(values)
    return -np.stack([errors(1, 0, zero), errors(0, 1, zero)], 1), errors(0, 0, values)


def test_arima_finds_the_order_of_a_walk_with_a_memory():
    """Each step is 0.7 of the last one and a new one: (1,1,0). Its forecast of a window is that recursion."""
    steps = np.zeros(400)
    noise = np.random.default_rng(3).normal(size=400)
    for i in range(1, 400):
        steps[i] = 0.7 * steps[i - 1] + noise[i]
    series = 1e6 + 50 * steps.cumsum()
    spec = series_spec("walk", (30, 1), 3)
    model = models.build({"name": "arima"}, spec=spec)
    model.fit_series([series])
    assert model.choice.startswith("arima: (1,1,0) by AICc of 9")
    window = series[-30:]
    forecast = model(torch.from_numpy(window)[None])[0].numpy()
    changes = np.diff([window[-1], *forecast])
    ratio = changes[0] / (window[-1] - window[-2])
    assert ratio == pytest.approx(0.7, abs=0.05)
    np.testing.assert_allclose(changes[1:] / changes[:-1], ratio, rtol=1e-6)
    assert model.deviations[0].item() == pytest.approx(50 * noise.std(), rel=0.05)


@pytest.mark.parametrize("name", ["seasonal_naive", "ets", "arima"])
def test_a_short_or_constant_series(name):
    for series in (np.full(50, 7.0), np.arange(3.0), np.random.default_rng(0).normal(size=11)):
        model = models.build({"name": name}, spec=series_spec("", (8, 1), 2))
        model.fit_series([series[:2], series])
        assert model(torch.full((1, 8), 7.0))[0].tolist() == pytest.approx([7, 7])
        assert model.choice


def test_windows_that_are_too_short_and_further_columns():
    fitted = {"season": 12}
    spec = DataSpec("", series_spec("", (10, 1), 2).inputs, series_spec("", (10, 1), 2).targets, fitted)
    for name, rows in (("seasonal_naive", 12), ("ets", 14), ("arima", 17)):
        with pytest.raises(ConfigError, match=rf"^data.window: must be at least {rows}, .* model={name}. Received: 10. Try: "):
            models.build({"name": name}, spec=spec)
        with pytest.raises(ConfigError, match=r"takes the series alone. Received: 2 columns"):
            models.build({"name": name}, spec=series_spec("", (60, 2), 2))
