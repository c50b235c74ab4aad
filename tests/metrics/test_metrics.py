"""Every metric against scikit-learn or its formula, also where it is undefined, the samples in any order."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from tests.samples import image_spec, series_spec
from torch import Tensor

from dlframe.engine.evaluation import computed
from dlframe.registry import metrics, plugins

plugins.discover()
CLASSES = ("a", "b", "c", "d")
OF_CLASSES = ("auroc", "average_precision", "balanced_accuracy", "top_k_accuracy", "kappa", "matthews")


def value(name: str, scores: dict[str, Tensor], classes: int = 4, **options: Any) -> float:
    """A metric of the scores, which is the same in every order of the samples."""
    spec = image_spec("few", (1, 8, 8), CLASSES[:classes]) if "probability" in scores else series_spec("few", (30, 1), 2)
    metric = metrics.build({"name": name, **options}, spec=spec)
    names = metrics.get(name).facts["scores"]
    found = computed(metric, scores, names)
    for seed in range(4):
        order = torch.randperm(len(scores["target"]), generator=torch.Generator().manual_seed(seed))
        again = computed(metric, {key: scores[key][order] for key in names}, names)
        assert again == pytest.approx(found, abs=1e-6, nan_ok=True)
    return found


def drawn(seed: int, count: int, classes: int = 4, *, present: int = 4, ties: bool = False) -> dict[str, Tensor]:
    """Random probabilities, in quarters where ties are asked for, and targets among the first classes."""
    random = np.random.default_rng(seed)
    probability = random.multinomial(4, [1 / classes] * classes, count) / 4 if ties else random.dirichlet([1] * classes, count)
    return {
        "probability": torch.from_numpy(probability).float(),
        "target": torch.from_numpy(random.integers(0, present, count)),
    }


def one_vs_rest(score: Any, scores: dict[str, Tensor], *, negatives: bool, weighted: bool = False) -> float:
    """The mean of scikit-learn's binary score over the classes of the targets; NaN without any."""
    target, probability = scores["target"].numpy(), scores["probability"].numpy()
    fractions = {c: (target == c).mean() for c in range(probability.shape[1])}
    defined = [c for c, fraction in fractions.items() if fraction > 0 and (fraction < 1 or not negatives)]
    if not defined:
        return math.nan
    values = [score(target == c, probability[:, c]) for c in defined]
    return float(np.average(values, weights=[fractions[c] for c in defined] if weighted else None))


def expected(name: str, scores: dict[str, Tensor]) -> float:
    """By scikit-learn; NaN where its 0 stands for 0 / 0."""
    target, prediction = scores["target"].numpy(), scores["probability"].argmax(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match name:
            case "auroc":
                return one_vs_rest(reference.roc_auc_score, scores, negatives=True)
            case "average_precision":
                return one_vs_rest(reference.average_precision_score, scores, negatives=False)
            case "balanced_accuracy":
                return float(reference.balanced_accuracy_score(target, prediction))
            case "kappa":
                together = {*target.tolist(), *prediction.tolist()}
                return math.nan if len(together) == 1 else float(reference.cohen_kappa_score(target, prediction))
            case "matthews":
                constant = len({*target.tolist()}) == 1 or len({*prediction.tolist()}) == 1
                return math.nan if constant else float(reference.matthews_corrcoef(target, prediction))
    raise AssertionError(name)


@pytest.mark.parametrize("name", [name for name in OF_CLASSES if name != "top_k_accuracy"])
@pytest.mark.parametrize(
    ("count", "present", "ties"),
    [(40, 4, False), (40, 4, True), (12, 2, False), (12, 3, True), (9, 1, False), (9, 1, True), (1, 4, False), (2, 4, True)],
    ids=["usual", "ties", "absent", "absent_ties", "single", "single_ties", "one", "two"],
)
def test_a_metric_is_scikit_learns(name, count, present, ties):
    for seed in range(8):
        for classes in (2, 4):
            scores = drawn(seed, count, classes, present=min(present, classes), ties=ties)
            assert value(name, scores, classes) == pytest.approx(expected(name, scores), abs=1e-5, nan_ok=True), scores


@pytest.mark.parametrize("only", range(4))
def test_any_class_may_be_the_only_one(only):
    scores = {**drawn(0, 12), "target": torch.full((12,), only)}
    assert math.isnan(value("auroc", scores))
    assert value("average_precision", scores) == pytest.approx(1)
    assert value("average_precision", scores, average="weighted") == pytest.approx(1)
    right = (scores["probability"].argmax(1) == only).double().mean()
    assert value("balanced_accuracy", scores) == pytest.approx(right.item())
    assert value("kappa", scores) == pytest.approx(0, abs=1e-6)  # agreement as by chance
    assert math.isnan(value("matthews", scores))
    perfect = {"target": scores["target"], "probability": torch.eye(4)[scores["target"]]}
    assert math.isnan(value("kappa", perfect))
    assert math.isnan(value("matthews", perfect))


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_weights_are_the_samples_of_the_defined_classes(name):
    score, negatives = (reference.roc_auc_score, True) if name == "auroc" else (reference.average_precision_score, False)
    for present in (1, 2, 4):
        scores = drawn(5, 30, present=present)
        by_hand = one_vs_rest(score, scores, negatives=negatives, weighted=True)
        assert value(name, scores, average="weighted") == pytest.approx(by_hand, abs=1e-6, nan_ok=True)


def test_top_k_accuracy_is_scikit_learns():
    for seed in range(8):
        scores = drawn(seed, 30)
        for k in (1, 2, 3):
            theirs = reference.top_k_accuracy_score(scores["target"], scores["probability"], k=k, labels=range(4))
            assert value("top_k_accuracy", scores, k=k) == pytest.approx(theirs)
        assert value("top_k_accuracy", scores, k=4) == value("top_k_accuracy", scores, k=9) == 1


def test_ties_of_top_k_accuracy_do_not_depend_on_the_order_of_classes():
    """A constant knows nothing: k of 4 are right by chance."""
    constant = {"probability": torch.full((6, 4), 0.25), "target": torch.tensor([0, 1, 2, 3, 3, 3])}
    assert [value("top_k_accuracy", constant, k=k) for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    tied = torch.tensor([[0.4, 0.4, 0.2, 0.0]] * 4)
    scores = {"probability": tied, "target": torch.tensor([0, 1, 2, 3])}
    assert [value("top_k_accuracy", scores, k=k) for k in (1, 2, 3)] == [1 / 4, 2 / 4, 3 / 4]
    scores = drawn(3, 40, ties=True)
    for seed in range(4):
        order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
        renamed = {"probability": scores["probability"][:, order], "target": order.argsort()[scores["target"]]}
        assert value("top_k_accuracy", renamed, k=2) == pytest.approx(value("top_k_accuracy", scores, k=2))


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_rounding_error_is_no_logit(name):
    """torchmetrics takes all probabilities for logits where one is above 1."""
    scores = drawn(7, 20)
    scores["probability"][0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    above = {**scores, "probability": scores["probability"].clone()}
    above["probability"][0] = torch.tensor([1 + 1.2e-7, -1e-8, 0.0, 0.0])
    assert above["probability"].max() > 1
    assert value(name, above) == value(name, scores)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_nan_among_probabilities_is_undefined(name):
    scores = drawn(7, 20)
    scores["probability"][3, 1] = math.nan
    assert math.isnan(value(name, scores))


# --- forecasts


def forecasts(count: int, level: float = 0.0, scale: float = 1.0) -> dict[str, Tensor]:
    random = np.random.default_rng(0)
    target = torch.from_numpy(level + scale * random.normal(size=(count, 2))).float()
    return {"target": target, "prediction": target + torch.from_numpy(scale * 0.3 * random.normal(size=(count, 2))).float()}


@pytest.mark.parametrize("level", [0.0, 4e3, 1e6])
def test_r2_is_scikit_learns_at_any_level(level):
    scores = forecasts(50, level)
    theirs = reference.r2_score(scores["target"].double(), scores["prediction"].double())
    assert value("r2", scores) == pytest.approx(theirs, abs=1e-9)


def test_r2_of_equal_targets_is_undefined():
    scores = forecasts(50)
    assert math.isnan(value("r2", {name: rows[:1] for name, rows in scores.items()}))
    equal = torch.full((50, 2), 0.1)
    assert math.isnan(value("r2", {**scores, "target": equal}))
    assert math.isnan(value("r2", {"prediction": equal, "target": equal}))
    half = {**scores, "target": torch.stack([scores["target"][:, 0], equal[:, 0]], 1)}
    theirs = reference.r2_score(half["target"][:, 0], half["prediction"][:, 0])
    assert value("r2", half) == pytest.approx(theirs, abs=1e-6)
    assert math.isnan(value("r2", {**scores, "prediction": scores["prediction"] * math.nan}))


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_smape_is_its_formula_at_any_scale(scale):
    scores = forecasts(50, scale=scale)
    target, prediction = scores["target"].double(), scores["prediction"].double()
    by_hand = (2 * (prediction - target).abs() / (prediction.abs() + target.abs())).mean().item()
    assert value("smape", scores) == pytest.approx(by_hand, rel=1e-9)


def test_smape_of_zeros():
    """A forecast of 0 of a target of 0 is right; of another target, or another forecast, as wrong as can be."""
    target, prediction = torch.tensor([[0.0, 0.0], [3.0, -1.0]]), torch.tensor([[0.0, 2.0], [0.0, -1.0]])
    assert value("smape", {"target": target, "prediction": prediction}) == (0 + 2 + 2 + 0) / 4
    assert math.isnan(value("smape", {"target": target, "prediction": prediction * math.nan}))
