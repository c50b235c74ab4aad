"""Regression against formulas and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn

from dlframe.tasks.regression import Regression
from dlframe.types import Batch, Dataset, DataSpec, Field, Split


def spec() -> DataSpec:
    numbers = Field(kind="number", dtype="float64", shape=(2,), mean=(1.0, 5.0), std=(2.0, 1.0))
    return DataSpec("x", {"numbers": numbers}, {"target": Field(kind="value", dtype="float64", shape=(1,))})


def split(targets: np.ndarray) -> Split:
    return Split({"numbers": np.zeros((len(targets), 2)), "target": targets[:, None]}, np.arange(len(targets)))


def task_of(targets: np.ndarray, value: float) -> Regression:
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight)
    nn.init.constant_(model.bias, value)
    task = Regression(spec(), model)
    task.prepare(split(targets))
    return task.eval()


def batch(targets: np.ndarray) -> Batch:
    columns = {"numbers": torch.zeros(len(targets), 2, dtype=torch.float64), "target": torch.from_numpy(targets[:, None])}
    return Batch(columns, torch.arange(len(targets)), spec())


@torch.no_grad()
def scored(task: Regression, targets: np.ndarray) -> dict:
    return task.score(batch(targets))


def test_a_model_of_zeros_predicts_the_training_mean_exactly():
    """In double precision: a level of 2e8 is not rounded."""
    targets = 2e8 + np.arange(7.0)
    task = task_of(targets, 0.0)
    assert task.predict(batch(targets))["prediction"].unique().tolist() == [2e8 + 3]
    scores = scored(task, targets)
    assert scores["loss"].mean().item() == pytest.approx(1)  # targets have a variance of 1 in their own unit
    name, baseline = task.baseline(Dataset(spec(), *(split(targets),) * 3, "", ""))
    assert (name, baseline["rmse"], baseline["r2"]) == ("training mean", pytest.approx(2), pytest.approx(0))


def test_metrics_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    targets, predictions = generator.normal(5, 3, 50), generator.normal(5, 3, 50)
    scores = {name: torch.from_numpy(values[:, None]) for name, values in (("target", targets), ("prediction", predictions))}
    found = task_of(targets, 0.0).metrics({**scores, "loss": torch.zeros(50)})
    assert found["rmse"] == pytest.approx(root_mean_squared_error(targets, predictions))
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, predictions))
    assert found["r2"] == pytest.approx(r2_score(targets, predictions))


def test_the_metric_of_equal_targets_is_undefined():
    task = task_of(np.full(4, 3.0), 1.0)
    scores = scored(task, np.full(4, 3.0))
    assert np.isnan(task.metrics(scores)["r2"])
    assert task.metrics(scores)["rmse"] == pytest.approx(1)  # the unit of equal targets is 1
