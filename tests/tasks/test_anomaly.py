"""Anomaly detection against scikit-learn, on real scores and on what is undefined."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score
from torch import nn

from dlframe.contracts.building import scored
from dlframe.contracts.samples import batch_of
from dlframe.data.anomaly_images import scratched_digits
from dlframe.data.anomaly_series import planted_events
from dlframe.data.digits import digits
from dlframe.models.autoencoders import Autoencoder
from dlframe.models.lstm_predictor import LSTMPredictor
from dlframe.readers.splits import keep_normal, normal_classes
from dlframe.tasks.anomaly import Anomaly, at_threshold, ranked
from dlframe.tasks.anomaly_events import AnomalyEvents
from dlframe.tasks.anomaly_pixels import AnomalyPixels
from dlframe.types import Batch, ConfigError, DataError, DataSpec, Field


class FirstPixel(nn.Module):
    """The score is the first value of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return self.weight * inputs[:, 0]


def spec(classes=("normal", "anomaly")) -> DataSpec:
    numbers = Field(kind="number", dtype="float32", shape=(1,))
    return DataSpec("x", {"numbers": numbers}, {"target": Field(kind="class", dtype="int64", names=classes)})


def batch(values, labels, labelled=None) -> Batch:
    columns = {"numbers": torch.tensor(values).float()[:, None], "target": torch.tensor(labels)}
    return Batch(columns, torch.arange(len(values)), spec(), labelled)


def test_metrics_are_those_of_scikit_learn_on_the_scores_of_a_model():
    data = digits()
    torch.manual_seed(0)
    task = Anomaly(data.spec, Autoencoder(data.spec), anomalies=("0", "7"), quantile=0.8).eval()
    validation, test = (scored(task, split, data.spec, 200) for split in (data.validation, data.test))
    task.calibrate(validation)
    target, score = test["target"].numpy(), test["score"].numpy()
    assert target.sum() == np.isin(data.test["label"], (0, 7)).sum()
    normal = validation["score"].numpy()[~np.isin(data.validation["label"], (0, 7))]
    assert task.threshold.item() == np.quantile(normal, 0.8)
    flags = score > np.quantile(normal, 0.8)
    assert flags[target == 1].any()
    found = task.metrics(test)
    assert found["auroc"] == pytest.approx(roc_auc_score(target, score), abs=1e-6)
    assert found["average_precision"] == pytest.approx(average_precision_score(target, score), abs=1e-6)
    for name, metric in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[name] == pytest.approx(metric(target, flags), abs=1e-6)


@pytest.mark.parametrize("rounded", [0, 1])
def test_ranks_of_huge_tiny_and_equal_scores_are_those_of_scikit_learn(rounded):
    random = np.random.default_rng(rounded)
    score = random.normal(size=500) ** 9 * 10.0 ** random.integers(-12, 12, 500)
    score = score.round(0) if rounded else score
    target = random.integers(0, 2, 500)
    found = ranked(torch.from_numpy(score), torch.from_numpy(target))
    assert found["auroc"] == pytest.approx(roc_auc_score(target, score), abs=1e-6)
    assert found["average_precision"] == pytest.approx(average_precision_score(target, score), abs=1e-6)


def test_what_is_undefined_is_nan():
    none, every = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    score = torch.tensor([1.0, 2.0, 3.0])
    assert all(map(math.isnan, ranked(score, none).values()))
    assert ranked(score, every) == {"auroc": pytest.approx(math.nan, nan_ok=True), "average_precision": 1.0}
    assert ranked(torch.zeros(4), torch.tensor([0, 1, 0, 0])) == {"auroc": 0.5, "average_precision": 0.25}
    assert all(map(math.isnan, at_threshold(none, none).values()))
    assert [*at_threshold(none, every).values()] == [0, pytest.approx(math.nan, nan_ok=True), 0]
    assert ranked(torch.ones(1), torch.ones(1, dtype=torch.long))["average_precision"] == 1.0


def test_labeled_anomalies_are_not_learned_and_unlabeled_ones_are():
    """The gradient is that of the normal samples alone; of a sample whose label is not known, it is used."""
    task = Anomaly(spec(), FirstPixel())
    gradients = []
    for values, labels, labelled in (
        ([1.0, 3.0], [0, 0], None),
        ([1.0, 100.0, 3.0], [0, 1, 0], None),
        ([1.0, 100.0, 3.0], [0, 1, 0], torch.tensor([True, True, False])),
        ([1.0, 100.0, 3.0], [0, 1, 0], torch.zeros(3, dtype=torch.bool)),
    ):
        task.zero_grad()
        given = batch(values, labels, labelled)
        task.loss(given, "model", task.counts(given)).backward()
        gradients.append(task.model.weight.grad.item())
    assert gradients == pytest.approx([2, 2, 2, 104 / 3])


def test_the_training_split_loses_labeled_anomalies_only():
    data = digits()
    kept = keep_normal(data, normal_classes(data.spec, ("3",))[0])
    assert (kept.train["label"] != 3).all()
    assert (kept.test["label"] == 3).any()
    unlabeled = dataclasses.replace(data, train=dataclasses.replace(data.train, labelled=np.zeros(len(data.train), bool)))
    assert keep_normal(unlabeled, ("0",)) is unlabeled
    assert f"{len(kept.train):,} normal ones of {len(data.train):,} to train" in kept.splits


def test_the_threshold_does_not_see_the_test_split():
    task = Anomaly(spec(), FirstPixel(), quantile=0.5)
    task.calibrate({"score": torch.tensor([1.0, 2.0, 3.0, 99.0]), "target": torch.tensor([0, 0, 0, 1])})
    before = task.threshold.clone()
    scores = {"score": torch.tensor([7.0, 8.0]), "target": torch.tensor([0, 1])}
    task.metrics(scores)
    task.interval("f1", scores)
    assert task.threshold == before == 2.0
    with torch.no_grad():
        predicted = task.predict(batch([1.5, 2.5], [0, 0]))
    assert predicted["prediction"].tolist() == [0, 1]
    assert predicted["threshold"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("classes", "fitted", "anomalies", "normal"),
    [
        (("good", "crack", "hole"), {}, (), ("good",)),
        (("0", "1"), {}, (), ("0",)),
        (("fraud", "legit"), {}, (), ("legit",)),
        (("a", "b"), {"counts": [9, 70]}, (), ("b",)),
        (("0", "1", "2"), {}, (), ("1", "2")),
        (("0", "1", "2"), {}, ("2",), ("0", "1")),
        (("x", "y"), {"normal": ["y"]}, (), ("y",)),
    ],
)
def test_normal_classes_follow_from_data_names_and_counts(classes, fitted, anomalies, normal):
    assert normal_classes(dataclasses.replace(spec(classes), fitted=fitted), anomalies)[0] == normal


def test_classes_that_are_not_there_or_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"task.anomalies: data=x must have the class 'anomly'.*Did you mean 'anomaly'"):
        normal_classes(spec(), ("anomly",))
    with pytest.raises(ConfigError, match="must leave a normal class"):
        normal_classes(spec(), ("normal", "anomaly"))
    data = digits()
    with pytest.raises(DataError, match="no training sample is normal"):
        keep_normal(dataclasses.replace(data, train=data.train.take(np.flatnonzero(data.train["label"] == 3))), ("0",))


def test_events_count_as_found_by_any_step_and_precision_by_steps():
    data = planted_events(steps=2000, window=8)
    task = AnomalyEvents(data.spec, LSTMPredictor(data.spec)).eval()
    task.threshold.fill_(0.5)
    event = torch.tensor([0, 1, 1, 0, 2, 2, 0, 3])
    scores = {"score": torch.tensor([0.0, 0, 1, 1, 0, 0, 0, 1]).double(), "target": (event > 0).long(), "event": event}
    found = task.metrics(scores)
    assert found["event_recall"] == 2 / 3
    assert found["precision"] == found["event_f1"] == 2 / 3
    assert found["recall"] == 2 / 5
    nothing = task.metrics({**scores, "target": torch.zeros(8, dtype=torch.long), "event": torch.zeros(8, dtype=torch.long)})
    assert math.isnan(nothing["event_recall"])
    assert math.isnan(nothing["event_f1"])


def test_pixels_are_scored_against_masks_as_by_scikit_learn():
    data = scratched_digits(image_size=16)
    test = data.test.take(np.arange(40))
    torch.manual_seed(0)
    task = AnomalyPixels(data.spec, Autoencoder(data.spec)).eval()
    scores = scored(task, test, data.spec, 7)
    found = task.metrics(scores)
    with torch.no_grad():
        maps = task.model.maps(task.normalize(task.features(batch_of(test, data.spec)))).numpy()
    assert maps.mean((1, 2)) == pytest.approx(scores["score"].numpy(), rel=1e-5)
    target = test["mask"][:, 0].ravel() > 0
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(target, maps.ravel()), abs=1e-6)
    assert found["pixel_average_precision"] == pytest.approx(average_precision_score(target, maps.ravel()), abs=1e-6)
    with pytest.raises(ConfigError, match="needs masks"):
        AnomalyPixels(digits().spec, Autoencoder(digits().spec))
