import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.nn import functional

from dlframe.data.digits import digits
from dlframe.registry import plugins, tasks
from dlframe.types import UNLABELLED, Batch, Dataset, DataSpec, Split

plugins.discover()
SPEC = DataSpec("three", "image", "class", (1, 8, 8), ("a", "b", "c"), mean=(0.5,), std=(0.25,))

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]])
TARGET = torch.tensor([0, 1, 1, 2, 0])
SCORES = {
    "index": torch.arange(5),
    "target": TARGET,
    "probability": PROBABILITY,
    "loss": -PROBABILITY[torch.arange(5), TARGET].log(),
}
"""Four of five right; the second is an "a" in the model's eyes."""


def build(spec: DataSpec = SPEC, **options):
    """The task with a linear model whose weights are random."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), len(spec.classes)))
    return tasks.build({"name": "classification", **options}, spec=spec, model=model)


def first(split: Split, count: int = 16) -> Batch:
    part = split.take(np.arange(count))
    return Batch(torch.from_numpy(part.inputs), torch.from_numpy(part.targets), torch.arange(count))


def test_metrics_by_hand():
    metrics = build().metrics(SCORES)
    assert metrics["accuracy"] == 4 / 5
    a, b, c = 2 * (2 / 3) * 1 / (2 / 3 + 1), 2 * 1 * (1 / 2) / (1 + 1 / 2), 1.0  # from precision and recall
    assert metrics["f1"] == pytest.approx((a + b + c) / 3)
    assert metrics["loss"] == pytest.approx(-math.log(0.7 * 0.3 * 0.8 * 0.6 * 0.9) / 5)
    # 0.6 twice, one right, in one bin; 0.7, 0.8 and 0.9, each right, in bins of their own.
    assert metrics["calibration_error"] == pytest.approx((2 * abs(0.5 - 0.6) + 0.3 + 0.2 + 0.1) / 5)


def test_metrics_are_scikit_learns():
    data = digits()
    task = build(data.spec)
    with torch.no_grad():
        scores = task.score(first(data.test, len(data.test)))
    prediction = scores["probability"].argmax(1)
    metrics = task.metrics(scores)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(data.test.targets, prediction))
    assert metrics["f1"] == pytest.approx(f1_score(data.test.targets, prediction, average="macro"), rel=1e-5)


def test_wilson_for_accuracy():
    """0.8 of 5: (p + z²/2n ± z sqrt(p (1 - p) / n + z² / 4n²)) / (1 + z²/n)."""
    estimate = build().interval("accuracy", SCORES)
    z, n, p = 1.959964, 5, 0.8
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert estimate.value == 0.8
    assert estimate.low == pytest.approx((p + z**2 / (2 * n) - half) / (1 + z**2 / n))
    assert estimate.high == pytest.approx((p + z**2 / (2 * n) + half) / (1 + z**2 / n))


@pytest.mark.parametrize("metric", ["f1", "loss", "calibration_error"])
def test_bootstrap_for_the_rest(metric):
    data = digits()
    task = build(data.spec)
    with torch.no_grad():
        scores = task.score(first(data.test, 100))
    estimate = task.interval(metric, scores)
    assert estimate.value == task.metrics(scores)[metric]
    assert estimate.low < estimate.high
    assert estimate == task.interval(metric, scores)
    if metric == "loss":  # of a mean, the normal interval is known
        half = 1.96 * scores["loss"].std().item() / 10
        assert estimate.low == pytest.approx(estimate.value - half, abs=0.3 * half)
        assert estimate.high == pytest.approx(estimate.value + half, abs=0.3 * half)


def test_the_baseline_is_the_majority_of_the_labels_that_are_seen():
    def split(*targets: int) -> Split:
        return Split(np.zeros((len(targets), 1, 8, 8), np.uint8), np.array(targets), np.arange(len(targets)))

    train = split(2, 2, 1, 1, 1, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED)
    dataset = Dataset(SPEC, train, split(0), split(1, 2, 2, 0, 1, 1, 0, 0), "in memory", "by hand")
    assert build().baseline(dataset) == ("majority class", {"accuracy": 3 / 8})


def test_table():
    table = build().table(SCORES, digits())
    assert list(table) == ["target", "prediction", "score", "probabilities"]
    assert table["target"] == ["a", "b", "b", "c", "a"]
    assert table["prediction"] == ["a", "a", "b", "c", "a"]
    assert table["score"] == pytest.approx([0.7, 0.6, 0.8, 0.6, 0.9])
    assert np.allclose(table["probabilities"], PROBABILITY)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing(smoothing):
    """(1 - s) times the cross-entropy, and s times the mean over all classes of -log p."""
    data = digits()
    task, batch = build(data.spec, label_smoothing=smoothing), first(data.train)
    negative = -task.logits(batch.inputs).log_softmax(1)
    own = negative[torch.arange(16), batch.targets]
    expected = ((1 - smoothing) * own + smoothing * negative.mean(1)).mean()
    torch.testing.assert_close(task.loss(batch, "model"), expected)


def test_mixed_targets_are_shares():
    data = digits()
    task, batch = build(data.spec), first(data.train)
    partner = batch.targets.roll(1)
    mixed = 0.3 * functional.one_hot(batch.targets, 10) + 0.7 * functional.one_hot(partner, 10)
    whole, other = (task.loss(Batch(batch.inputs, targets, batch.index), "model") for targets in (batch.targets, partner))
    loss = task.loss(Batch(batch.inputs, mixed, batch.index), "model")
    torch.testing.assert_close(loss, 0.3 * whole + 0.7 * other)


def test_scores_say_what_predictions_and_losses_say():
    data = digits()
    task, batch = build(data.spec).eval(), first(data.test)
    scores, prediction = task.score(batch), task.predict(batch.inputs)
    torch.testing.assert_close(scores["probability"], prediction)
    torch.testing.assert_close(prediction.sum(1), torch.ones(16))
    torch.testing.assert_close(scores["loss"].mean(), task.loss(batch, "model"))
    assert torch.equal(scores["target"], batch.targets)
    assert torch.equal(scores["index"], batch.index)
    torch.testing.assert_close(task.predict(batch.inputs.float() / 255), prediction)


def test_the_model_sees_zero_mean_and_unit_variance():
    data = digits()
    normalized = build(data.spec).normalize(torch.from_numpy(data.train.inputs))
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert normalized.std().item() == pytest.approx(1, abs=1e-4)


def test_figures():
    data = digits()
    task = build(data.spec)
    with torch.no_grad():
        scores = task.score(first(data.test, 50))
    drawn = task.figures(scores, data)
    assert list(drawn) == ["confusion_matrix", "reliability", "samples"]
    right = round(50 * task.metrics(scores)["accuracy"])
    assert drawn["confusion_matrix"].axes[0].get_title(loc="left") == f"{right} of 50 right"
    assert f"of {50 - right} mistakes" in drawn["samples"].get_suptitle()
