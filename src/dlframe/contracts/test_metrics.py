"""What every metric promises."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional

from dlframe.contracts.building import build, equal, models_for, rows, scored, tasks_for_metric
from dlframe.contracts.samples import suitable
from dlframe.contracts.selection import contract
from dlframe.engine.evaluation import computed
from dlframe.types import Dataset, DataSpec


def perfect(scores: dict[str, Any], spec: DataSpec, seen: tuple[str, ...]) -> dict[str, Any]:
    """The scores of a perfect prediction, of probabilities of classes or of values; empty for others."""
    target = scores.get("target")
    if not isinstance(target, Tensor):
        return {}
    if {"probability", "target"} == set(seen) and spec.classes and target.ndim == 1:
        classes = len(spec.classes)
        return {"target": target, "probability": functional.one_hot(target, classes).float() * 0.9 + 0.1 / classes}
    if {"prediction", "target"} == set(seen):
        return {"target": target, "prediction": target.clone()}
    return {}


def scores_for(entry: Any) -> tuple[Any, Dataset, dict[str, Any]]:
    """A task that has the scores which a metric sees, its data, and the scores of the test split."""
    task = tasks_for_metric(entry)[0]
    data = suitable(task)[0]
    model = build(models_for(task, data)[0], spec=data.spec)
    return task, data, scored(build(task, spec=data.spec, model=model).eval(), data.test, data.spec, len(data.test))


def degenerate(target: Any, count: int) -> dict[str, np.ndarray]:
    """Samples of which a metric may be undefined, by what they are."""
    found = {"a single sample": np.arange(1)}
    if isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point():
        of_first = (target == target[0]).numpy()
        found |= {"targets of a single class": np.flatnonzero(of_first), "a class without targets": np.flatnonzero(~of_first)}
    elif isinstance(target, Tensor):
        found["equal targets"] = np.zeros(count, dtype=int)
    return {what: index for what, index in found.items() if len(index)}


@contract("metric")
def test_a_metric_does_not_depend_on_the_order(entry):
    """The samples in another order have the same value."""
    seen = entry.facts["scores"]
    _, data, scores = scores_for(entry)
    metric, count = build(entry, spec=data.spec), len(data.test)
    first = computed(metric, scores, seen)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(count)
        other = computed(metric, {name: rows(scores[name], order) for name in seen}, seen)
        told = f"the samples in another order have another value: {other} instead of {first}"
        assert other == pytest.approx(first, abs=1e-6, nan_ok=True), told


@contract("metric")
def test_an_undefined_metric_is_nan(entry):
    """Of too few samples or classes: NaN, or a value in the declared range."""
    seen, low, high = (entry.facts[fact] for fact in ("scores", "low", "high"))
    _, data, scores = scores_for(entry)
    metric = build(entry, spec=data.spec)
    for what, index in degenerate(scores.get("target"), len(data.test)).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = computed(metric, {name: rows(scores[name], index) for name in seen}, seen)
        within = math.isnan(value) or low <= value <= high
        assert within, f"{what}: it must be NaN or in its range, {low} to {high}. Received: {value}"


@contract("metric")
def test_a_metric_sees_scores(entry):
    """On the scores of a task that has them: in the declared range, and at its best for a perfect prediction."""
    seen = entry.facts["scores"]
    task, data, scores = scores_for(entry)
    before = copy.deepcopy(scores)
    metric = build(entry, spec=data.spec)
    better, low, high = (entry.facts[fact] for fact in ("better", "low", "high"))
    values = [computed(metric, scores, seen) for _ in range(2)]
    assert equal(scores, before), "it writes to the scores that it is given"
    assert values == pytest.approx(values[::-1], nan_ok=True), "after reset(), the same scores give another value"
    within = math.isnan(values[0]) or low <= values[0] <= high
    assert within, f"it must be in its range, {low} to {high}. Received: {values[0]}"
    if not (right := perfect(scores, data.spec, seen)):
        pytest.skip(
            f"metric={entry.name}: only its range was tried, "
            f"for it is not known which scores of task={task.name} are a perfect prediction"
        )
    best, value = high if better == "max" else low, computed(metric, right, seen)
    told = f"better='{better}' in the range {low} to {high}: a perfect prediction must have {best}. Received: {value}"
    if math.isnan(value):
        pytest.skip(f"metric={entry.name}: it is undefined on the samples of {data.spec.name}")
    assert value == pytest.approx(best, abs=1e-6), told
    wrong = {name: score.roll(3, 0) if name != "target" else score for name, score in right.items()}
    worse = computed(metric, wrong, seen)
    assert low <= worse <= high, f"it must be in its range, {low} to {high}. Received: {worse}"
    told = f"better='{better}': a wrong prediction must be worse than a perfect one. Received: {worse}, and {value}"
    assert (worse < value) == (better == "max"), told
