"""Quantile and Gaussian forecasts, the metrics of intervals, and the MASE."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss
from tests.samples import batch_of, series_spec
from torch import nn

from dlframe.analysis.predictions import estimate
from dlframe.config import load
from dlframe.readers.tables.series import keys_of
from dlframe.registry import models, plugins, tasks
from dlframe.statistics.comparison.predicted import Form
from dlframe.statistics.errors import mase
from dlframe.tasks.forecasting import series_of
from dlframe.types import ConfigError, Dataset, DataSpec, Metric, Split

plugins.discover()
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def walk(horizon: int = 3, window: int = 20, rows: int = 120) -> Dataset:
    """All windows of a random walk with a season, as every split."""
    series = np.random.default_rng(1).normal(size=rows).cumsum() + 5 * np.sin(np.arange(rows) * np.pi / 3)
    cut = np.lib.stride_tricks.sliding_window_view(series, window + horizon)
    split = Split({"window": cut[:, :window, None], "future": cut[:, window:]}, np.arange(len(cut)))
    spec = replace(series_spec("walk", (window, 1), horizon), fitted={"season": 6, "scales": {"": 2.0}})
    return Dataset(spec, split, split, split, "in memory", "one for all")


class Random(nn.Module):
    """Values that depend on the window and on the output."""

    def __init__(self, outputs: int, time: int = 20) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(time, outputs)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.layer(series.flatten(1))


def build(output: str, dataset: Dataset, **options):
    outputs = {"point": 1, "quantile": len(LEVELS), "gaussian": 2}[output]
    model = Random(outputs * dataset.spec.targets["future"].shape[0])
    return tasks.build({"name": "forecasting", "output": output, "levels": LEVELS, **options}, spec=dataset.spec, model=model)


def scored(task, dataset: Dataset):
    task.prepare(dataset.train)
    with torch.no_grad():
        return task.eval().score(batch_of(dataset.test, dataset.spec))


def test_quantiles_ascend_and_the_point_is_the_median():
    dataset = walk()
    scores = scored(build("quantile", dataset), dataset)
    assert scores["quantiles"].shape == (len(dataset.test), 3, len(LEVELS))
    assert (scores["quantiles"].diff(dim=2) >= 0).all()
    assert torch.equal(scores["prediction"], scores["quantiles"][:, :, 2])


def test_pinball_loss_coverage_and_width():
    dataset = walk()
    task = build("quantile", dataset)
    scores = scored(task, dataset)
    metrics, target = task.metrics(scores), scores["target"].flatten()
    quantiles = scores["quantiles"].flatten(0, 1)
    losses = [mean_pinball_loss(target, quantiles[:, i], alpha=level) for i, level in enumerate(LEVELS)]
    assert metrics["pinball"] == pytest.approx(np.mean(losses), rel=1e-9)
    inside = [low <= value <= high for value, low, high in zip(target, quantiles[:, 0], quantiles[:, -1], strict=True)]
    assert 0 < metrics["coverage"] < 1
    assert metrics["coverage"] == pytest.approx(np.mean(inside))
    assert metrics["width"] == pytest.approx((quantiles[:, -1] - quantiles[:, 0]).mean().item())
    median = Form("mae").values({"target": target.numpy(), "prediction": quantiles[:, 2].numpy()}, np.arange(len(target)))[0]
    assert mean_pinball_loss(target, quantiles[:, 2]) == pytest.approx(median / 2)


def test_the_loss_of_quantiles_is_in_standard_deviations_of_the_window():
    dataset = walk()
    task = build("quantile", dataset)
    scores = scored(task, dataset)
    unit = dataset.test["window"].std((1, 2))[:, None]
    levels = np.asarray(LEVELS)
    below = (scores["target"].numpy()[..., None] - scores["quantiles"].numpy()) / unit[..., None]
    expected = np.where(below > 0, levels * below, (levels - 1) * below).mean()
    assert task.metrics(scores)["loss"] == pytest.approx(expected, rel=1e-6)
    assert task.loss(batch_of(dataset.test, dataset.spec), "model").item() == pytest.approx(expected, rel=1e-6)


def test_a_gaussian_has_its_likelihood_and_its_quantiles():
    dataset = walk()
    task = build("gaussian", dataset)
    scores = scored(task, dataset)
    mean, quantiles, target = (scores[name].numpy() for name in ("prediction", "quantiles", "target"))
    unit = dataset.test["window"].std((1, 2))[:, None]
    deviation = (quantiles[..., -1] - mean) / norm.ppf(0.95)
    assert (deviation > 0).all()
    np.testing.assert_allclose(quantiles, norm.ppf(LEVELS, mean[..., None], deviation[..., None]), rtol=1e-6)
    expected = -norm.logpdf(target / unit, mean / unit, deviation / unit).mean()
    assert task.metrics(scores)["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("output", ["point", "quantile", "gaussian"])
def test_table_outputs_and_forms(output):
    """What `compare` computes from the table of predictions is what the run says."""
    dataset = walk()
    task = build(output, dataset)
    scores = scored(task, dataset)
    metrics, table = task.metrics(scores), task.table(scores, dataset.test)
    columns = {name: np.asarray(values) for name, values in table.items()}
    assert set(task.forms()) == set(metrics) - {"loss"} - ({"coverage", "width", "pinball"} if output == "point" else set())
    for name, form in task.forms().items():
        options = {key: value for key, value in form.items() if key != "form"}
        value, _ = Form(form["form"], options).values(columns, np.arange(len(dataset.test)))
        assert value == pytest.approx(metrics[name], rel=1e-9), name
        read = Metric(better="min", low=0.0)
        blocks = task.blocks(len(dataset.test))
        interval = estimate(pyarrow.table(dict(table)), form, value=metrics[name], read=read, blocks=blocks)
        assert interval.low < interval.value < interval.high
        assert interval.value == metrics[name]
    with torch.no_grad():
        outputs = task.predict(batch_of(dataset.test, dataset.spec))
    assert outputs.keys() == task.outputs().keys()
    if output == "point":
        assert math.isnan(metrics["coverage"])
        assert math.isnan(task.interval("width", scores).low)
    else:
        assert torch.equal(outputs["low"], scores["quantiles"][..., 0])
        assert np.array_equal(columns["high"], scores["quantiles"][..., -1])
    assert {*task.figures(scores, dataset)} == {"forecast", "horizon"}


@pytest.mark.parametrize("output", ["quantile", "gaussian"])
def test_intervals_do_not_depend_on_the_unit_or_the_level(output):
    dataset = walk()
    task = build(output, dataset).eval()
    batch = batch_of(dataset.test, dataset.spec)
    with torch.no_grad():
        expected = task.predict(batch)
        scaled = task.predict(batch.replace(window=4 * batch["window"] + 1024))
    for name, values in expected.items():
        torch.testing.assert_close(scaled[name], 4 * values + 1024, rtol=1e-6, atol=0)


def test_the_mase_is_hand_checked():
    """Errors 1 and 3 of scale 2, and 2 and 2 of scale 4: the mean of 1 and 0.5; a series without a scale is left out."""
    target, prediction = np.zeros((3, 2)), np.array([[1.0, -3.0], [2.0, 2.0], [9.0, 9.0]])
    assert mase(prediction, target, [2.0, 4.0, 0.0]) == 0.75
    assert math.isnan(mase(prediction, target, [0.0, 0.0, 0.0]))
    columns = {"target": target, "prediction": prediction, "scale": np.array([2.0, 4.0, 0.0])}
    value, deleted = Form("mase").values(columns, np.array([0, 1, 1]))
    assert (value, deleted.tolist()) == (0.75, [0.5, 1.0])


@pytest.mark.parametrize(
    "levels", ["[0.5]", "[0.1,0.9]", "[0.1,0.5,0.8]", "[0.9,0.5,0.1]", "[0,0.5,1]", "[0.1,0.4,0.6,0.9]", "[]"]
)
def test_levels_that_are_not_those_of_an_interval(levels):
    dataset = walk()
    values = tuple(float(value) for value in levels.strip("[]").split(",") if value)
    with pytest.raises(ConfigError, match=r"^task.levels: must ascend within 0 and 1, symmetric about a 0\.5 in the middle"):
        tasks.build({"name": "forecasting", "levels": values}, spec=dataset.spec, model=Random(3))


@pytest.mark.parametrize(("output", "outputs"), [("point", 1), ("quantile", 3), ("gaussian", 2)])
def test_a_model_has_room_for_all_outputs(output, outputs):
    config = load(["task=forecasting", f"task.output={output}", "model=dlinear"])
    assert config.build_model(walk().spec).trend.out_features == 3 * outputs


def test_the_series_of_windows():
    """All rows are there again, in runs: a step that is missing, or another series, begins the next."""
    series = np.arange(30.0)
    windows = np.lib.stride_tricks.sliding_window_view(series, 7)
    (found,) = series_of(windows[:, :5], windows[:, 5:])
    assert found.tolist() == series.tolist()
    cut = np.delete(windows, 10, axis=0)
    first, second = series_of(cut[:, :5], cut[:, 5:])
    assert first.tolist() == series[:16].tolist()
    assert second.tolist() == series[11:].tolist()


def scales_of(spec: DataSpec) -> dict[str, float]:
    return spec.fitted["scales"]


def test_the_scale_is_of_the_training_part(tmp_path):
    """Per series, by the season; another test part changes neither it nor anything of training."""
    from dlframe.registry import data

    rows = np.arange(100)
    values = {"a": rows % 4 + 0.1 * rows, "b": 10.0 * (rows % 4)}
    for change in (0, 1000):
        lines = ["time,id,y"]
        for key, series in values.items():
            lines += [f"{i},{key},{value + change * (i >= 80)}" for i, value in enumerate(series)]
        file = tmp_path / f"{change}.csv"
        file.write_text("\n".join(lines))
        options = {"path": str(file), "id": "id", "window": 8, "horizon": 2, "season": 4}
        dataset = data.build({"name": "series", **options})
        assert scales_of(dataset.spec) == pytest.approx({"a": 0.4, "b": 0.0})
        assert dataset.spec.targets["scale"].shape == (1,)
        assert set(dataset.test["scale"][:, 0].round(9)) == {0.4, 0.0}
        if not change:
            before = dataset
    assert np.array_equal(dataset.train["window"], before.train["window"])
    assert np.array_equal(dataset.validation["future"], before.validation["future"])
    assert dataset.spec == before.spec or dataset.spec.fitted == before.spec.fitted
    assert dataset.spec.inputs == before.spec.inputs
    model = models.build({"name": "seasonal_naive"}, spec=load_model_spec(dataset.spec))
    task = tasks.build({"name": "forecasting"}, spec=dataset.spec, model=model)
    metrics = task.metrics(scored(task, before))
    target, window = before.test["future"], before.test["window"][:, :, 0]
    chosen = before.test["scale"][:, 0] > 0
    expected = np.abs(target - window[:, 4:6])[chosen].mean() / 0.4
    assert metrics["mase"] == pytest.approx(expected)
    assert any(note.startswith("mase is over the 19 of 38 windows") for note in task.notes(scored(task, before)))
    assert keys_of(before.test.ids, before.spec).tolist() == ["a"] * 19 + ["b"] * 19
    upper, _, lower, *_ = task.figures(scored(task, before), before)["forecast"].axes
    assert [axes.get_title(loc="left").partition(",")[0] for axes in (upper, lower)] == ["b", "a"]
    assert [len(axes.lines[0].get_ydata()) for axes in (upper, lower)] == [19, 19]


@pytest.mark.parametrize(
    ("time", "ids", "keys"),
    [
        ("day", ["2020-01-02"], [""]),
        ("day", ["row 1 2020-01-02", "a 2020-01-02T10:00:00"], ["row 1", "a"]),
        ("", ["row 7"], [""]),
        ("", ["my shop row 7", "row 1 row 8"], ["my shop", "row 1"]),
    ],
)
def test_the_series_of_a_window(time, ids, keys):
    spec = replace(walk().spec, fitted={"series": {"time": time}})
    assert keys_of(np.array(ids), spec).tolist() == keys


def load_model_spec(spec: DataSpec) -> DataSpec:
    """What a model is built for."""
    options = {"levels": (0.1, 0.5, 0.9), "output": "point"}
    return tasks.factory("forecasting").model_spec(spec, networks=(), **options)
