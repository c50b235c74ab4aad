"""Metrics from tables of predictions, against scikit-learn and torchmetrics, each group left out in turn."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from dlframe.statistics.comparison import jackknife
from dlframe.statistics.comparison.predicted import FORMS, Form
from dlframe.statistics.metrics.events import composite_f1, event_recall, numbered

RANDOM = np.random.default_rng(1)
NAMES = np.array(["cat", "dog", "eel", "fox"])
TARGET, PREDICTION = NAMES[RANDOM.choice(4, 90, p=[0.5, 0.3, 0.18, 0.02])], NAMES[RANDOM.choice(3, 90)]
GROUPS = jackknife.groups_of(90, np.repeat(np.arange(18), 5))
PRICES, FORECASTS = RANDOM.normal(100, 5, (90, 2)), RANDOM.normal(100, 5, (90, 2))
PRICES[3, 1] = 0.0


def check(form, columns, reference):
    value, deleted = form.values(columns, GROUPS)
    assert value == pytest.approx(reference(np.arange(90)))
    expected = [reference(np.flatnonzero(group != GROUPS)) for group in range(18)]
    np.testing.assert_allclose(deleted, expected)


@pytest.mark.parametrize("average", ["macro", "weighted", "positive"])
@pytest.mark.parametrize(
    ("name", "reference", "ours"),
    [
        ("f1", metrics.f1_score, multiclass_f1_score),
        ("precision", metrics.precision_score, multiclass_precision),
        ("recall", metrics.recall_score, multiclass_recall),
    ],
)
def test_classes(name, reference, ours, average):
    columns = {"target": TARGET, "prediction": PREDICTION}

    def scikit_learn(rows):
        if average == "positive":
            return reference(TARGET[rows], PREDICTION[rows], labels=["dog"], average="macro")
        return reference(TARGET[rows], PREDICTION[rows], average=average, zero_division=0)

    form = Form(name, {"average": average, "positive": "dog"})
    check(form, columns, scikit_learn)
    if average != "positive":
        target, prediction = (torch.from_numpy(np.searchsorted(NAMES, names)) for names in (TARGET, PREDICTION))
        assert form.values(columns, GROUPS)[0] == pytest.approx(ours(prediction, target, 4, average=average).item(), abs=1e-6)


def test_accuracy():
    check(
        Form("accuracy"),
        {"target": TARGET, "prediction": PREDICTION},
        lambda rows: metrics.accuracy_score(TARGET[rows], PREDICTION[rows]),
    )
    assert [name for name in FORMS if Form(name).is_proportion] == ["accuracy"]


def test_errors_of_numbers():
    columns = {"target": PRICES, "prediction": FORECASTS}
    check(Form("rmse"), columns, lambda r: np.sqrt(metrics.mean_squared_error(PRICES[r].ravel(), FORECASTS[r].ravel())))
    check(Form("mae"), columns, lambda r: metrics.mean_absolute_error(PRICES[r].ravel(), FORECASTS[r].ravel()))

    def mape(rows):
        target, prediction = PRICES[rows].ravel(), FORECASTS[rows].ravel()
        return 100 * metrics.mean_absolute_percentage_error(target[target != 0], prediction[target != 0])

    check(Form("mape"), columns, mape)


def test_means_and_ratios():
    errors, words = RANDOM.integers(0, 4, 90), RANDOM.integers(1, 9, 90)
    columns = {"errors": errors, "words": words, "ndcg": RANDOM.random(90)}
    check(Form("mean", {"column": "ndcg"}), columns, lambda rows: columns["ndcg"][rows].mean())
    check(Form("ratio", {"column": "errors", "by": "words"}), columns, lambda rows: errors[rows].sum() / words[rows].sum())


def test_a_class_without_samples_is_undefined():
    columns = {"target": np.array(["a", "b"]), "prediction": np.array(["a", "b"])}
    value, deleted = Form("f1", {"average": "positive", "positive": "c"}).values(columns, np.arange(2))
    assert np.isnan([value, *deleted]).all()


def test_mistakes():
    with pytest.raises(ValueError, match="a metric of predictions is one of accuracy, f1"):
        Form("bleu")
    with pytest.raises(KeyError, match="target"):
        Form("accuracy").values({"prediction": TARGET}, GROUPS)
    with pytest.raises(ValueError, match="must be finite"):
        Form("rmse").values({"target": PRICES, "prediction": np.full_like(PRICES, np.nan)}, GROUPS)
    with pytest.raises(ValueError, match="one shape"):
        Form("rmse").values({"target": PRICES, "prediction": FORECASTS[:, :1]}, GROUPS)


@pytest.mark.parametrize("average", ["macro", "weighted", "positive"])
def test_areas_of_classes(average):
    probability = RANDOM.dirichlet(np.ones(4), 90)
    columns = {"target": TARGET, "probabilities": probability, "classes": NAMES}
    for name, reference in (("auroc", metrics.roc_auc_score), ("average_precision", metrics.average_precision_score)):
        value, deleted = Form(name, {"average": average, "positive": "dog", "by": "odds"}).values(columns, GROUPS)

        def expected(rows, reference=reference):
            present = [i for i, cat in enumerate(NAMES) if (TARGET[rows] == cat).any()]
            present = [1] if average == "positive" else present
            each = [reference(TARGET[rows] == NAMES[i], probability[rows, i] / (1 - probability[rows, i])) for i in present]
            weights = [(TARGET[rows] == NAMES[i]).sum() for i in present] if average == "weighted" else None
            return np.average(each, weights=weights)

        assert value == pytest.approx(expected(np.arange(90)))
        if name == "auroc":  # exact without groups
            np.testing.assert_allclose(deleted, [expected(np.flatnonzero(group != GROUPS)) for group in range(18)])


def test_a_baseline_without_scores_is_that_of_chance():
    columns = {"target": TARGET, "probabilities": np.zeros((90, 1)), "classes": NAMES}
    assert Form("auroc").values(columns, GROUPS)[0] == 0.5
    share = (TARGET == "dog").mean()
    assert Form("average_precision", {"average": "positive", "positive": "dog"}).values(columns, GROUPS)[0] == share


def test_undefined_samples_are_skipped_where_that_is_asked():
    ndcg = RANDOM.random(90)
    ndcg[7] = np.nan
    value, deleted = Form("mean", {"column": "ndcg", "undefined": "skip"}).values({"ndcg": ndcg}, GROUPS)
    assert value == pytest.approx(np.nanmean(ndcg))
    np.testing.assert_allclose(deleted, [np.nanmean(ndcg[group != GROUPS]) for group in range(18)])
    with pytest.raises(ValueError, match="must be finite"):
        Form("mean", {"column": "ndcg"}).values({"ndcg": ndcg}, GROUPS)


@pytest.mark.parametrize("found", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("name", "reference"), [("event_recall", event_recall), ("event_f1", composite_f1)])
def test_events(name, reference, found):
    """Some of one step, some that last beyond a group, one that fills several; one that is never flagged."""
    inside = np.zeros(90, bool)
    for first, last in ((2, 3), (8, 12), (20, 21), (33, 52), (60, 64), (70, 75)):
        inside[first:last] = True
    events = numbered(inside)
    flags = (RANDOM.random(90) < found) & (events != 5)
    columns = {"event": events, "prediction": np.where(flags, "anomaly", "normal")}
    check(Form(name, {"positive": "anomaly"}), columns, lambda rows: reference(flags[rows], events[rows]))


def test_no_events_are_undefined():
    columns = {"event": np.zeros(90, int), "prediction": np.full(90, "anomaly")}
    for name in ("event_recall", "event_f1"):
        value, deleted = Form(name, {"positive": "anomaly"}).values(columns, GROUPS)
        assert np.isnan([value, *deleted]).all()
