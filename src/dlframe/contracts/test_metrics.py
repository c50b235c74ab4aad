"""What every metric promises."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from torch import Tensor
from torch.nn import functional

from dlframe.contracts.building import build, equal, models_for, scored, tasks_for_metric
from dlframe.contracts.samples import suitable
from dlframe.contracts.selection import contract
from dlframe.types import DataSpec


def computed(metric: Any, scores: dict[str, Any], names: tuple[str, ...]) -> float:
    metric.reset()
    metric.update(*(scores[name] for name in names))
    return float(metric.compute())


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


@contract("metric")
def test_a_metric_sees_scores(entry):
    """On the scores of a task that has them: in the declared range, and at its best for a perfect prediction."""
    seen = entry.facts["scores"]
    task = tasks_for_metric(entry)[0]
    data = suitable(task)[0]
    model = build(models_for(task, data)[0], spec=data.spec)
    scores = scored(build(task, spec=data.spec, model=model).eval(), data.test, data.spec, len(data.test))
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
    assert value == pytest.approx(best, abs=1e-6), told
    wrong = {name: score.roll(3, 0) if name != "target" else score for name, score in right.items()}
    worse = computed(metric, wrong, seen)
    assert low <= worse <= high, f"it must be in its range, {low} to {high}. Received: {worse}"
    told = f"better='{better}': a wrong prediction must be worse than a perfect one. Received: {worse}, and {value}"
    assert (worse < value) == (better == "max"), told
