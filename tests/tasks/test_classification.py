"""Classification: metrics by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dlframe.data.digits import digits
from dlframe.tasks.classification import Classification
from dlframe.types import Batch, DataSpec
from torch import nn
from torch.nn import functional

SPEC = DataSpec("x", "image", "class", (1, 2, 2), ("a", "b", "c"), mean=(0.5,), std=(0.25,))


class Fixed(nn.Module):
    """Gives the logits it holds, whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def scored(probabilities: list[list[float]], targets: list[int]):
    task = Classification(SPEC, Fixed(torch.tensor(probabilities).log()))
    n = len(targets)
    batch = Batch(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.tensor(targets), torch.arange(n))
    return task, task.score(batch)


def test_metrics_by_hand():
    task, scores = scored([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], [0, 1, 1, 2])
    metrics = task.metrics(scores)
    assert metrics["accuracy"] == 0.75
    assert metrics["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert metrics["loss"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.6]).mean(), rel=1e-5)
    gaps = [0.7 - 1, 0.8 - 1, (0.6 - 0 + 0.6 - 1)]
    assert metrics["calibration_error"] == pytest.approx((0.3 + 0.2 + abs(gaps[2])) / 4, abs=1e-6)


def test_the_interval_is_wilsons():
    task, scores = scored([[0.9, 0.05, 0.05]] * 10, [0] * 8 + [1] * 2)
    interval = task.interval("accuracy", scores)
    z, n, p = 1.959964, 10, 0.8
    centre, half = (p + z * z / 2 / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    expected = ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-5)
    loss = task.interval("loss", scores)
    assert loss.low < loss.value < loss.high


def test_normalization_and_smoothing_by_hand():
    task = Classification(SPEC, nn.Flatten(), label_smoothing=0.3)
    images = torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)
    assert task.normalize(images).unique().tolist() == [2.0]
    batch = Batch(images, torch.tensor([0, 1]), torch.arange(2))
    assert task.loss(batch, "model") == functional.cross_entropy(torch.full((2, 4), 2.0), batch.targets, label_smoothing=0.3)


def test_the_baseline_is_the_majority_of_the_training_labels():
    data = digits()
    name, metrics = Classification(data.spec, nn.Identity()).baseline(data)
    majority = np.bincount(data.train.targets).argmax()
    assert (name, metrics) == ("majority class", {"accuracy": (data.test.targets == majority).mean()})


def test_the_table_names_classes():
    task, scores = scored([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [0, 1])
    table = task.table(scores, digits())
    assert table["target"] == ["a", "b"]
    assert table["prediction"] == ["a", "c"]
    assert table["score"] == pytest.approx([0.7, 0.8])
