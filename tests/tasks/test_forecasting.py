import math
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, root_mean_squared_error
from tests.samples import batch_of, series_spec
from torch import nn
from torch.nn import functional

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.registry import models, plugins, tasks
from dlframe.tasks.base import Normalizer
from dlframe.types import Batch, Dataset, Field, Split

plugins.discover()
ERRORS = ("rmse", "mae", "mape")


def completed(scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scores of a point forecast, with those that a test does not state."""
    target = scores["target"]
    others = {"scale": torch.ones(len(target)), "quantiles": torch.zeros(*target.shape, 0)}
    return {**others, "last": target[:, 0], "loss": torch.zeros(len(target)), **scores}


def windows(series: np.ndarray, horizon: int, window: int = 30) -> Dataset:
    """All windows of a series, as every split."""
    cut = np.lib.stride_tricks.sliding_window_view(series.astype(np.float64), window + horizon)
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
    assert baseline == pytest.approx({metric: task.metrics(scores)[metric] for metric in (*ERRORS, "mase")}, nan_ok=True)


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
    scores = completed(scores)
    assert task.metrics(scores)["mape"] == pytest.approx(100 * (0.5 + 0.25) / 2)
    assert task.notes(scores)[0] == "mape is over the 2 of 4 targets that are not 0"
    assert math.isnan(task.metrics({**scores, "target": torch.zeros(2, 2)})["mape"])
    assert task.notes({**scores, "target": torch.ones(2, 2)}) == ["rmse of steps 1, 2: 2.828, 1.581"]


def test_one_target_of_60_is_zero():
    """The 59 others tell the MAPE."""
    task = build(prices())
    target = torch.arange(60.0)[:, None]
    scores = completed({"prediction": target + 1, "target": target})
    assert task.metrics(scores)["mape"] == pytest.approx(100 * np.mean(1 / np.arange(1, 60)))
    assert task.notes(scores) == ["mape is over the 59 of 60 targets that are not 0"]


def test_undefined_predictions_have_no_error():
    task = build(prices())
    scores = completed({name: torch.full((9, 1), math.nan) for name in ("prediction", "target", "loss")})
    assert all(math.isnan(value) for value in task.metrics(scores).values())


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


def test_double_precision_is_not_rounded():
    """Loss, gradient, scores and predictions are double."""
    dataset = prices()
    task = build(dataset).double()
    batch = task.features(whole(dataset))
    loss = task.loss(batch, "model")
    loss.backward()
    window, future = batch.inputs[:, :, 0], batch.targets
    std = window.std(1, correction=0, keepdim=True)
    change = task.model((batch.inputs - batch.inputs[:, -1:]) / std[:, :, None])
    expected = functional.huber_loss(change, (future - window[:, -1:]) / std)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert {score.dtype for score in scored(task, dataset).values()} == {torch.float64}
    assert predicted(task, batch).dtype == torch.float64


def test_only_the_first_feature_is_forecast():
    dataset = prices()
    one = whole(dataset).inputs
    two = torch.cat([one, torch.rand(one.shape)], 2)
    spec = series_spec("prices", (30, 2), 1)
    task = tasks.build({"name": "forecasting"}, spec=spec, model=NoChange(1))
    batch = Batch({"window": two, "future": one[:, -1]}, torch.arange(len(two)), spec)
    assert torch.equal(predicted(task, batch), one[:, -1])


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


SERIES_MODELS = sorted(model.name for model in models if model.facts["targets"] == ("value",))


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """A random walk that stands still for a while, as a thinly traded price does."""
    steps = np.random.default_rng(0).integers(-3, 4, 300)
    steps[100:130] = steps[270:285] = 0
    return 200 + steps.cumsum()


def trained(folder: Path, model: str, series: list[str]) -> tuple[np.ndarray, dict[str, float]]:
    """Predictions and metrics of a short training on a file of prices."""
    folder.mkdir()
    days = np.datetime64("2020-01-01") + np.arange(len(series))
    rows = [f"{day},{value}" for day, value in zip(days, series, strict=True)]
    (folder / "prices.csv").write_text("\n".join(["date,close", *rows]) + "\n")
    options = [f"model={model}", "data=sp500", f"data.path={folder / 'prices.csv'}", "data.window=10", "epochs=2"]
    result = run(load(["task=forecasting", *options, "tracking=none", f"runs={folder}"]))
    table = pyarrow.parquet.read_table(result.folder / "predictions.parquet")
    return np.array(table["prediction"].to_pylist()).ravel(), result.metrics


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("model", SERIES_MODELS)
def test_forecasts_do_not_depend_on_the_unit_or_the_level(tmp_path, walk, model):
    """Cents, basis points, wei; a level at which single precision cannot tell neighbors apart."""
    expected, metrics = trained(tmp_path / "euros", model, [str(value) for value in walk])
    assert np.std(expected) > 1
    scales = [("wei", 10**18, 0), ("large", 1, 200_000_000)]
    scales += [("cents", 100, 0), ("bitcoin", 1e-9, 0)] if model in ("dlinear", "lstm") else []
    for name, unit, level in scales:
        found, its = trained(tmp_path / name, model, [str(level + unit * value) for value in walk.tolist()])
        np.testing.assert_allclose((found - level) / unit, expected, atol=1e-3)
        assert its["rmse"] / unit == pytest.approx(metrics["rmse"], rel=1e-4)
        assert its["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
        if not level:
            assert its["mape"] == pytest.approx(metrics["mape"], rel=1e-4)


def test_large_values_keep_their_neighbors():
    """200,000,001 and so on: the naive forecast is wrong by 1 each time."""
    dataset = windows(np.arange(200_000_001, 200_000_101), 1)
    task = tasks.build({"name": "forecasting"}, spec=dataset.spec, model=NoChange(1))
    scores = scored(task, dataset)
    assert task.metrics(scores)["rmse"] == 1
    assert scores["target"][0] == 200_000_031
    assert task.baseline(dataset)[1]["rmse"] == 1


def test_a_large_mean_is_subtracted_in_double_precision():
    """Also where the weights have half precision."""
    field = Field(kind="number", dtype="float64", shape=(2,), mean=(2e8, 1.0), std=(1.0, 2.0))
    normalizer = Normalizer(field).to(torch.bfloat16)
    values = torch.tensor([[200_000_001.0, 3.0]], dtype=torch.float64)
    assert normalizer(values).tolist() == [[1.0, 1.0]]
