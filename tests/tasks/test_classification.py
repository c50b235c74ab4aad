import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    classification_report,
    f1_score,
    precision_score,
    recall_score,
)
from tests.samples import batch_of, image_spec
from torch import nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error

from dlframe.data.digits import digits
from dlframe.registry import plugins, tasks
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Split

plugins.discover()
SPEC = image_spec("three", (1, 8, 8), ("a", "b", "c"), mean=(0.5,), std=(0.25,))

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]])
TARGET = torch.tensor([0, 1, 1, 2, 0])
SCORES = {
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
    """Samples as a task scores them, their images in [0, 1]."""
    return build(digits().spec).features(batch_of(split, digits().spec, count))


def loss(task, batch: Batch) -> torch.Tensor:
    """Of a batch that is a whole optimizer step."""
    return task.loss(batch, "model", {"samples": len(batch), **task.counts(batch)})


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
    assert metrics["accuracy"] == pytest.approx(accuracy_score(data.test["label"], prediction))
    assert metrics["f1"] == pytest.approx(f1_score(data.test["label"], prediction, average="macro"), rel=1e-5)


def test_the_baseline_is_the_majority_of_the_labels_that_are_seen():
    def split(*targets: int) -> Split:
        columns = {"image": np.zeros((len(targets), 1, 8, 8), np.uint8), "label": np.array(targets)}
        return Split(columns, np.arange(len(targets)))

    train = split(2, 2, 1, 1, 1, 2, 2, 2, 2)
    train.labelled = np.arange(9) < 5
    dataset = Dataset(SPEC, train, split(0), split(1, 2, 2, 0, 1, 1, 0, 0), "in memory", "by hand")
    name, metrics = build().baseline(dataset)
    assert (name, metrics["accuracy"]) == ("majority class", 3 / 8)
    assert metrics["recall"] == pytest.approx(1 / 3)
    assert metrics["precision"] == pytest.approx(3 / 8 / 3)
    assert metrics["f1"] == pytest.approx(2 * (3 / 8) / (3 / 8 + 1) / 3)


def test_table():
    table = build().table(SCORES, digits().test)
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
    negative = -task.logits(batch).log_softmax(1)
    own = negative[torch.arange(16), batch.targets]
    expected = ((1 - smoothing) * own + smoothing * negative.mean(1)).mean()
    torch.testing.assert_close(loss(task, batch), expected)


def test_mixed_targets_are_shares():
    data = digits()
    task, batch = build(data.spec), first(data.train)
    partner = batch.targets.roll(1)
    mixed = 0.3 * functional.one_hot(batch.targets, 10) + 0.7 * functional.one_hot(partner, 10)
    whole, other, both = (loss(task, batch.replace(targets=targets)) for targets in (batch.targets, partner, mixed))
    torch.testing.assert_close(both, 0.3 * whole + 0.7 * other)


def test_scores_say_what_predictions_and_losses_say():
    data = digits()
    task, batch = build(data.spec).eval(), first(data.test)
    scores, outputs = task.score(batch), task.predict(batch)
    torch.testing.assert_close(scores["probability"], outputs["probabilities"])
    torch.testing.assert_close(outputs["probabilities"].sum(1), torch.ones(16))
    assert torch.equal(outputs["prediction"], outputs["probabilities"].argmax(1))
    torch.testing.assert_close(scores["loss"].mean(), loss(task, batch))
    assert torch.equal(scores["target"], batch.targets)


def test_the_model_sees_zero_mean_and_unit_variance():
    data = digits()
    normalized = build(data.spec).normalize(first(data.train, len(data.train)))
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert normalized.std().item() == pytest.approx(1, abs=1e-4)


def test_metrics_of_each_class_are_those_of_scikit_learn():
    """Undefined ones are NaN: of a class without samples the recall, without predictions the precision, without both all."""
    spec = image_spec("five", (1, 8, 8), tuple("abcde"), mean=(0.5,), std=(0.25,))
    random = np.random.default_rng(0)
    target, prediction = random.integers(0, 3, 60), random.choice([0, 1, 3], 60)
    scores = {"target": torch.from_numpy(target), "probability": torch.eye(5)[torch.from_numpy(prediction)]}
    found = build(spec).by_class(scores)
    report = classification_report(target, prediction, labels=range(5), output_dict=True, zero_division=np.nan)
    assert found["class"] == list("abcde")
    assert found["samples"] == [report[str(i)]["support"] for i in range(5)]
    for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        expected = [report[str(i)][key] for i in range(5)]
        assert found[name] == pytest.approx(expected, nan_ok=True), name
    assert math.isnan(found["f1"][4])
    assert build(spec).by_class(scores | {"probability": torch.full((60, 5), math.nan)}) == {}


def test_figures():
    data = digits()
    task = build(data.spec)
    with torch.no_grad():
        scores = task.score(first(data.test, 50))
    drawn = task.figures(scores, data)
    assert list(drawn) == ["confusion_matrix", "reliability", "by_class", "samples"]
    right = round(50 * task.metrics(scores)["accuracy"])
    assert drawn["confusion_matrix"].axes[0].get_title(loc="left") == f"{right} of 50 right"
    assert drawn["samples"].get_suptitle().startswith(f"{50 - right} mistakes in 50 tested")


# --- what text and fraud need


def two_classes(target: list[int], positive: list[float]) -> dict[str, torch.Tensor]:
    probability = torch.tensor([[1 - p, p] for p in positive])
    return {"target": torch.tensor(target), "probability": probability, "loss": torch.zeros(len(target))}


FRAUD = image_spec("fraud", (1, 8, 8), ("fine", "fraud"), mean=(0.5,), std=(0.25,))
VALIDATION = two_classes([0, 0, 1, 0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.35, 0.4, 0.6, 0.7, 0.9])


def brute_force(worth) -> float:
    """The threshold, one of the probabilities, of the highest worth(true positives, false positives, false negatives)."""
    positive, target = VALIDATION["probability"][:, 1].double(), VALIDATION["target"]

    def at(cutoff: float) -> float:
        chosen = positive >= cutoff
        return worth(*(int(x.sum()) for x in (chosen & (target == 1), chosen & (target == 0), ~chosen & (target == 1))))

    return max(sorted(positive.tolist(), reverse=True), key=at)


@pytest.mark.parametrize(
    ("options", "worth"),
    [
        ({"threshold": "f1"}, lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn)),
        ({"threshold": "precision", "min_precision": 0.6}, lambda tp, fp, fn: tp if tp >= 0.6 * (tp + fp) else -1),
        ({"threshold": "precision", "min_precision": 1.0}, lambda tp, fp, fn: tp if not fp else -1),
        ({"threshold": "cost", "miss_cost": 1.0}, lambda tp, fp, fn: -fp - fn),
        ({"threshold": "cost", "miss_cost": 20.0}, lambda tp, fp, fn: -fp - 20 * fn),
        ({"threshold": "cost", "miss_cost": 3.0, "alarm_cost": 2.0}, lambda tp, fp, fn: -2 * fp - 3 * fn),
    ],
)
def test_the_threshold_is_the_best_on_validation_scores(options, worth):
    task = build(FRAUD, **options)
    task.calibrate(VALIDATION)
    assert task.cutoff.item() == brute_force(worth)
    chosen = task.classes(VALIDATION["probability"])
    assert torch.equal(chosen, (VALIDATION["probability"][:, 1].double() >= task.cutoff).long())
    assert "cutoff" in task.state_dict()


@pytest.mark.parametrize(("miss", "alarm"), [(10.0, 1.0), (1.0, 1.0), (1.0, 7.0), (3.0, 2.0)])
def test_the_cost_is_the_lowest_of_all_rules_on_validation(miss, alarm):
    """Against a loop over all thresholds and none, on random scores with ties; the cost of the rule is counted one by one."""
    random = np.random.default_rng(3)
    for rate in (0.05, 0.5):
        target = (random.random(200) < rate).astype(int)
        target[:2] = 0, 1
        probability = np.round(np.clip(random.normal(0.3 + 0.2 * target, 0.2), 0, 1), 1).tolist()
        validation = two_classes(target.tolist(), probability)
        task = build(FRAUD, threshold="cost", miss_cost=miss, alarm_cost=alarm)
        task.calibrate(validation)

        def cost(cutoff: float, target=target, validation=validation) -> float:
            total = 0.0
            for own, p in zip(target.tolist(), validation["probability"][:, 1].double().tolist(), strict=True):
                total += miss * (own and p < cutoff) + alarm * (not own and p >= cutoff)
            return total / len(target)

        least = min(cost(cutoff) for cutoff in [*validation["probability"][:, 1].double().tolist(), math.inf])
        assert cost(task.cutoff.item()) == pytest.approx(least)
        assert task.costs(validation)[2] == pytest.approx(least)
        assert any(note.startswith(f"cost {least:.4g} a sample") for note in task.notes(validation))


def test_no_alarm_is_a_rule_too():
    """Where a false alarm costs more than all frauds, nothing is called one, in the table and in the words too."""
    task = build(FRAUD, threshold="cost", miss_cost=0.01)
    worst = two_classes([0, 0, 0, 1], [0.9, 0.8, 0.7, 0.1])
    task.calibrate(worst)
    assert task.classes(worst["probability"]).tolist() == [0, 0, 0, 0]
    assert task.notes(worst)[0].startswith("no sample is called 'fraud', which cost least on the validation split")
    assert list(task.figures(worst, digits())) == ["confusion_matrix", "reliability", "operating_points", "samples"]


def test_the_threshold_is_drawn_where_precision_and_recall_are():
    task = build(FRAUD, threshold="cost", average="positive")
    task.calibrate(VALIDATION)
    metrics = task.metrics(VALIDATION)
    left, right = task.figures(VALIDATION, digits())["operating_points"].axes
    (chosen,) = [line for line in left.lines if line.get_label() == "chosen threshold"]
    assert (chosen.get_xdata()[0], chosen.get_ydata()[0]) == pytest.approx((metrics["recall"], metrics["precision"]))
    (own,) = [line for line in right.lines if line.get_label() == "chosen threshold"]
    (curve,) = [line for line in right.lines if line.get_label() == "all thresholds"]
    assert own.get_ydata()[0] == pytest.approx(task.costs(VALIDATION)[2])
    assert own.get_ydata()[0] == pytest.approx(min(curve.get_ydata()))


class Unsupervised(nn.Module):
    """Logits, and a loss of its own of each sample."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))

    def forward(self, images):
        return images.flatten(1)[:, :1] * self.weight

    def losses(self, images):
        return images.flatten(1).square().mean(1) * self.weight[0]


@pytest.mark.parametrize("labelled", [None, [True, False, True, True]])
def test_a_loss_of_the_model_is_of_labeled_samples_that_are_not_positive(labelled):
    task = tasks.build({"name": "classification", "average": "positive"}, spec=FRAUD, model=Unsupervised())
    images, target = torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 0])
    mask = None if labelled is None else torch.tensor(labelled)
    (name,), (label,) = FRAUD.inputs, FRAUD.targets
    batch = Batch({name: images, label: target}, torch.arange(4), FRAUD, labelled=mask)
    counts = task.counts(batch)
    kept = (target != task.positive) & (torch.ones(4, dtype=torch.bool) if mask is None else mask)
    inputs = task.normalize(batch)
    expected = (
        task.supervised(task.model(inputs), batch, counts["labeled"])
        + task.model.losses(inputs)[kept].sum() / counts["labeled"]
    )
    torch.testing.assert_close(task.loss(batch, "model", counts), expected)
    known = torch.ones(4) if mask is None else mask.float()
    mixed = batch.replace(**{label: functional.one_hot(target, 2) * known[:, None]})
    torch.testing.assert_close(task.loss(mixed, "model", counts), expected)


def test_a_threshold_needs_two_classes():
    with pytest.raises(ConfigError, match=r"^task.threshold: 'f1' requires two classes\. Received: 3 of three"):
        build(threshold="f1")


def test_metrics_of_the_positive_class():
    task = build(FRAUD, average="positive", headline="recall")
    metrics = task.metrics(VALIDATION)
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 4)
    assert metrics["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    nothing = two_classes([0, 0], [0.1, 0.2])
    found = task.metrics(nothing)
    assert all(math.isnan(found[name]) for name in ("precision", "recall", "f1"))
    assert found["accuracy"] == 1
    assert build(FRAUD, average="positive", pos_label="fine").metrics(VALIDATION)["recall"] == pytest.approx(3 / 4)
    with pytest.raises(ConfigError, match=r"^task.pos_label: must be a class. Received: 'fraude'. Did you mean 'fraud'\?$"):
        build(FRAUD, pos_label="fraude")


def test_balanced_class_weight_is_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    data = digits()
    task = build(data.spec, class_weight="balanced")
    task.prepare(data.train)
    expected = compute_class_weight("balanced", classes=np.arange(10), y=data.train["label"])
    np.testing.assert_allclose(task.weights, expected, rtol=1e-6)
    batch = first(data.train)
    torch.testing.assert_close(
        loss(task, batch), functional.cross_entropy(task.logits(batch), batch.targets, weight=task.weights)
    )


def test_focal_loss():
    data = digits()
    task, batch = build(data.spec, focal_gamma=2.0), first(data.train)
    probability = task.logits(batch).softmax(1)[torch.arange(16), batch.targets]
    torch.testing.assert_close(loss(task, batch), (-((1 - probability) ** 2) * probability.log()).mean())


def test_undefined_probabilities_are_no_class():
    scores = {**SCORES, "probability": PROBABILITY.clone()}
    scores["probability"][3] = math.nan
    task = build()
    assert all(math.isnan(value) for value in task.metrics(scores).values())
    assert task.figures(scores, digits()) == {}


# --- against independent references


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_f1_precision_and_recall_are_scikit_learns_in_small_cases(average):
    """Classes absent from targets, predictions or both: a macro average is over those of either, and 0 / 0 is 0."""
    task = build(image_spec("four", (1, 8, 8), ("a", "b", "c", "d"), mean=(0.5,), std=(0.25,)), average=average)
    random = np.random.default_rng(0)
    for count in [1, 2, 3, 5, 8] * 20:
        target, prediction = torch.from_numpy(random.integers(0, 4, (2, count)))
        scores = {"target": target, "probability": functional.one_hot(prediction, 4).float(), "loss": torch.zeros(count)}
        found = task.metrics(scores)
        for name, reference in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            expected = reference(target, prediction, average=average, zero_division=0)
            assert found[name] == pytest.approx(expected, abs=1e-6), (name, target, prediction)


def shown_in_the_figure(task, scores) -> str:
    return task.figures(scores, digits())["reliability"].axes[0].get_title(loc="left")


def test_the_calibration_error_is_torchmetrics():
    data = digits()
    task = build(data.spec)
    with torch.no_grad():
        scores = task.score(first(data.test, 200))
    error = task.metrics(scores)["calibration_error"]
    expected = multiclass_calibration_error(scores["probability"], scores["target"], 10, n_bins=15)
    assert error == pytest.approx(expected.item(), abs=1e-6)
    assert shown_in_the_figure(task, scores) == f"expected calibration error {error:.3f}"


def test_the_calibration_error_is_of_the_prediction_under_a_threshold():
    """From 0.3 on it is fraud, with a confidence of 0.3, 0.35 and 0.4 that the other class exceeds."""
    task = build(FRAUD, threshold="f1")
    task.calibrate(VALIDATION)
    assert task.cutoff.item() == pytest.approx(0.3)
    # Of 0.1 and 0.2, the confidence is that of "fine", 0.9 and 0.8. Bins of 1/15 hold 0.35 and 0.4, and 0.9 and 0.9.
    by_hand = abs(2 - 0.9 - 0.9) + abs(1 - 0.8) + abs(1 - 0.3) + abs(1 - 0.35 - 0.4) + abs(1 - 0.6) + abs(0 - 0.7)
    error = task.metrics(VALIDATION)["calibration_error"]
    assert error == pytest.approx(by_hand / 8)
    title = shown_in_the_figure(task, VALIDATION)
    assert title == f"expected calibration error {error:.3f}"
    argmax = multiclass_calibration_error(VALIDATION["probability"], VALIDATION["target"], 2, n_bins=15).item()
    assert abs(error - argmax) > 0.05
    assert task.notes(VALIDATION) == [
        "the prediction is 'fraud' from a probability of 0.3 on; metrics of metric=[...] do not see this threshold"
    ]


def test_classes_without_a_sample_are_named():
    task = build()
    assert task.notes(SCORES) == []
    scores = {**SCORES, "target": torch.tensor([0, 0, 0, 0, 0])}
    assert task.notes(scores) == ["2 of 3 classes have no test sample: b, c"]
    hidden = build(image_spec("three", (1, 8, 8), ("a", "b\n\x1b[2J", "c"), mean=(0.5,), std=(0.25,)))
    assert hidden.notes(scores) == ["2 of 3 classes have no test sample: b\\n\\x1b[2J, c"]


SCORED = Path(__file__).parent / "scores"


def scored_file(name: str, *, positive: str = "1") -> tuple[dict, list[str], np.ndarray]:
    """Scores of a file with the columns label and score, classes in the order of the alphabet."""
    rows = [line.split(",") for line in (SCORED / name).read_text(encoding="utf-8").splitlines()[1:]]
    classes = sorted({label for label, _ in rows})
    score = np.array([float(value) for _, value in rows])
    one = classes.index(positive)
    probability = np.empty((len(rows), 2), np.float32)
    probability[:, one], probability[:, 1 - one] = score, 1 - score
    target = torch.tensor([classes.index(label) for label, _ in rows])
    return {"target": target, "probability": torch.from_numpy(probability), "loss": torch.zeros(len(rows))}, classes, score


@pytest.mark.parametrize(("name", "value"), [("distinct.csv", 199 / 360), ("ties.csv", 21 / 40), ("constant.csv", 0.2)])
def test_average_precision_counts_equal_scores_once(name, value):
    scores, classes, score = scored_file(name)
    spec = image_spec("two", (1, 8, 8), tuple(classes), mean=(0.5,), std=(0.25,))
    found = build(spec, average="positive", headline="average_precision").metrics(scores)["average_precision"]
    assert found == pytest.approx(value, abs=1e-6)
    assert found == pytest.approx(average_precision_score(scores["target"], score), abs=1e-6)


def test_the_rarer_class_is_the_positive_one():
    scores, classes, _ = scored_file("words.csv", positive="fraud")
    spec = image_spec("two", (1, 8, 8), tuple(classes), mean=(0.5,), std=(0.25,))
    spec.fitted["counts"] = [3, 7]
    task = build(spec, average="positive")
    metrics = task.metrics(scores)
    assert metrics["average_precision"] == pytest.approx(0.8666666666666667, abs=1e-6)
    assert (metrics["precision"], metrics["recall"]) == pytest.approx((0.5, 2 / 3))
    assert task.notes(scores) == ["the positive class is 'fraud'"]


def test_odds_rank_what_probabilities_round():
    odds = torch.tensor([30.0, 25.0, 20.0, -20.0])  # as probabilities in single precision, the first three are 1
    logits = torch.stack([-odds / 2, odds / 2], 1)
    scores = {"target": torch.tensor([1, 0, 1, 0]), "probability": logits.softmax(1), "loss": torch.zeros(4)}
    spec = image_spec("two", (1, 8, 8), ("a", "b"), mean=(0.5,), std=(0.25,))
    found = build(spec, average="positive").metrics(scores)["average_precision"]
    assert found == pytest.approx((1 + 2 / 3) / 2)


def test_average_precision_of_several_classes_is_scikit_learns():
    found = build().metrics(SCORES)["average_precision"]
    onehot = functional.one_hot(TARGET)
    assert found == pytest.approx(average_precision_score(onehot, PROBABILITY, average="macro"), abs=1e-6)
