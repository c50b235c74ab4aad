import math

import matplotlib.cbook
import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, root_mean_squared_error
from tests.samples import batch_of, series_spec
from torch import nn
from torch.nn import functional

from dlframe.registry import models, plugins, tasks
from dlframe.statistics.intervals import bootstrap
from dlframe.types import Batch, Dataset, Split

plugins.discover()
ERRORS = ("rmse", "mae", "mape")


def windows(series: np.ndarray, horizon: int, window: int = 30) -> Dataset:
    """All windows of a series, as every split."""
    cut = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), window + horizon)
    split = Split({"window": cut[:, :window, None].copy(), "future": cut[:, window:].copy()}, np.arange(len(cut)))
    return Dataset(series_spec("prices", (window, 1), horizon), split, split, split, "in memory", "one for all")


def prices(horizon: int = 1) -> Dataset:
    """Windows of 300 daily prices of a share."""
    with matplotlib.cbook.get_sample_data("goog.npz") as file:
        return windows(file["price_data"]["adj_close"][:300], horizon)


def whole(dataset: Dataset) -> Batch:
    return batch_of(dataset.test, dataset.spec)


def build(dataset: Dataset, **options):
    """The task with a linear model whose weights are random."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(dataset.spec.shape), dataset.spec.horizon))
    return tasks.build({"name": "forecasting", **options}, spec=dataset.spec, model=model)


def scored(task, dataset: Dataset) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return task.score(whole(dataset))


def predicted(task, batch: Batch) -> torch.Tensor:
    return task.predict(batch)["prediction"]


class NoChange(nn.Module):
    def __init__(self, horizon: int):
        super().__init__()
        self.horizon = horizon

    def forward(self, series):
        return series.new_zeros(len(series), self.horizon)


@pytest.mark.parametrize("horizon", [1, 5])
def test_no_change_is_the_baseline(horizon):
    dataset = prices(horizon)
    task = tasks.build({"name": "forecasting"}, spec=dataset.spec, model=NoChange(horizon))
    scores = scored(task, dataset)
    assert torch.equal(scores["prediction"], scores["last"][:, None].expand(-1, horizon))
    name, baseline = task.baseline(dataset)
    assert name == "naive forecast"
    assert baseline == {metric: task.metrics(scores)[metric] for metric in ERRORS}


def test_metrics_are_scikit_learns():
    dataset = prices(3)
    task = build(dataset)
    scores = scored(task, dataset)
    metrics, target, prediction = task.metrics(scores), scores["target"], scores["prediction"]
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(target.flatten(), prediction.flatten()))
    assert metrics["mae"] == pytest.approx(mean_absolute_error(target, prediction))
    assert metrics["mape"] == pytest.approx(100 * mean_absolute_percentage_error(target, prediction), rel=1e-5)


def test_mape_leaves_out_targets_of_zero():
    task = build(prices(2))
    scores = {"prediction": torch.tensor([[1.0, 3.0], [5.0, 2.0]]), "target": torch.tensor([[0.0, 2.0], [4.0, 0.0]])}
    scores |= {"loss": torch.zeros(2)}
    assert task.metrics(scores)["mape"] == pytest.approx(100 * (0.5 + 0.25) / 2)
    assert math.isnan(task.metrics({**scores, "target": torch.zeros(2, 2)})["mape"])


def test_the_price_scale_does_not_matter():
    """To the bit for a factor that floats hold exactly; nor does a level that is added, but for rounding."""
    dataset = prices()
    task, batch = build(dataset), whole(dataset)
    prediction = predicted(task, batch)
    scaled, raised = batch.replace(inputs=4 * batch.inputs, targets=4 * batch.targets), batch.replace(inputs=batch.inputs + 256)
    assert torch.equal(predicted(task, scaled), 4 * prediction)
    assert torch.equal(task.loss(scaled, "model"), task.loss(batch, "model"))
    torch.testing.assert_close(predicted(task, raised), prediction + 256, rtol=1e-5, atol=0)


def test_levels_may_be_zero_negative_or_flat():
    series = np.concatenate([np.zeros(40), np.full(40, -7.5), np.linspace(-3, 3, 61), np.full(40, 0.1)])
    dataset = windows(series, 2)
    task = build(dataset)
    loss = task.loss(whole(dataset), "model")
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in task.parameters())
    assert predicted(task, whole(dataset)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "function"), [("mse", functional.mse_loss), ("mae", functional.l1_loss), ("huber", functional.huber_loss)]
)
def test_the_loss_is_in_standard_deviations_of_the_window(name, function):
    dataset = prices()
    task, batch = build(dataset, loss=name), whole(dataset)
    std = batch.inputs.std((1, 2), correction=0)[:, None]
    expected = function((predicted(task, batch) - batch.targets) / std, torch.zeros_like(batch.targets))
    loss = task.loss(batch, "model")
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    assert task.metrics(scored(task, dataset))["loss"] == pytest.approx(loss.item())


def test_only_the_first_feature_is_forecast():
    dataset = prices()
    one = whole(dataset).inputs
    two = torch.cat([one, torch.rand(one.shape)], 2)
    spec = series_spec("prices", (30, 2), 1)
    task = tasks.build({"name": "forecasting"}, spec=spec, model=NoChange(1))
    batch = Batch({"window": two, "future": one[:, -1]}, torch.arange(len(two)), spec)
    assert torch.equal(predicted(task, batch), one[:, -1])


@pytest.mark.parametrize("metric", [*ERRORS, "loss"])
def test_the_interval_holds_the_value_and_draws_blocks(metric):
    dataset = prices(5)
    task = build(dataset)
    scores = scored(task, dataset)
    estimate = task.interval(metric, scores)
    assert estimate.value == task.metrics(scores)[metric]
    assert estimate.low < estimate.value < estimate.high
    if metric == "mae":  # errors of overlapping windows are alike: as if independent, they would promise too much
        low, high = bootstrap(np.mean, (scores["prediction"] - scores["target"]).abs().numpy())
        assert estimate.high - estimate.low > 1.2 * (high - low)


def test_table_and_figure():
    for horizon in (1, 3):
        dataset = prices(horizon)
        task = build(dataset)
        scores = scored(task, dataset)
        table = task.table(scores, dataset.test)
        targets = dataset.test["future"]
        assert table["target"] == (targets[:, 0] if horizon == 1 else targets).tolist()
        assert np.shape(table["prediction"]) == np.shape(table["target"])
        assert np.mean(table["score"]) == pytest.approx(task.metrics(scores)["mae"])
        figure = task.figures(scores, dataset)["forecast"]
        assert figure.axes[0].get_title(loc="left").startswith("prices")


def test_a_cycle_is_learnt():
    """Where there is something to learn, the error falls far below that of the last value."""
    dataset = windows(10 * np.sin(np.arange(200) * 2 * np.pi / 12), 4)
    task = tasks.build(
        {"name": "forecasting", "loss": "mse"}, spec=dataset.spec, model=models.build({"name": "dlinear"}, spec=dataset.spec)
    )
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        task.loss(whole(dataset), "model").backward()
        optimizer.step()
    assert task.metrics(scored(task, dataset))["rmse"] < task.baseline(dataset)[1]["rmse"] / 20
