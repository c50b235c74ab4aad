"""What every metric promises."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from dlframe.contracts.building import build, equal, models_for, scored, tasks_for_metric
from dlframe.contracts.samples import digits, prices, suitable
from dlframe.contracts.selection import contract
from dlframe.registry import Entry


def computed(metric: Any, scores: dict[str, Any], names: tuple[str, ...]) -> float:
    metric.reset()
    metric.update(*(scores[name] for name in names))
    return float(metric.compute())


@contract("metric")
def test_a_metric_sees_scores(entry):
    """On the scores of a task that has them: a finite number in the declared range, at its best for a perfect prediction."""
    seen = entry.facts["scores"]
    task = tasks_for_metric(entry)[0]
    kinds = {"probability": digits, "prediction": prices}
    if (task.origin != "dlframe" and task.origin == entry.origin) or not (known := set(seen) & set(kinds)):
        of_a_task(entry, task)
        return
    data = kinds[known.pop()]()
    target = torch.from_numpy(data.test[next(iter(data.spec.targets))])
    scores = {"target": target}
    if data.spec.classes:
        scores["probability"] = torch.nn.functional.one_hot(target, 10).float() * 0.9 + 0.01
    else:
        scores["prediction"] = target.clone()
    metric = build(entry, spec=data.spec)
    perfect = computed(metric, scores, seen)
    worse = {name: score.roll(3, 0) if name != "target" else score for name, score in scores.items()}
    value = computed(metric, worse, seen)
    better, low, high = (entry.facts[fact] for fact in ("better", "low", "high"))
    best = high if better == "max" else low
    assert perfect == pytest.approx(best, abs=1e-6), (
        f"better='{better}' in the range {low} to {high}: a perfect prediction must have {best}. Received: {perfect}"
    )
    assert low <= value <= high, f"it must be in its range, {low} to {high}. Received: {value}"
    told = f"better='{better}': a wrong prediction must be worse than a perfect one. Received: {value}, and {perfect}"
    assert (value < perfect) == (better == "max"), told
    assert computed(metric, scores, seen) == perfect, "after reset(), the same scores give another value"


def of_a_task(entry: Entry, task: Entry) -> None:
    """On the scores of an untrained model, of which only the range is known."""
    data = suitable(task)[0]
    model = build(models_for(task, data)[0], spec=data.spec)
    scores = scored(build(task, spec=data.spec, model=model).eval(), data.test, data.spec, len(data.test))
    before = copy.deepcopy(scores)
    metric = build(entry, spec=data.spec)
    values = [computed(metric, scores, entry.facts["scores"]) for _ in range(2)]
    assert equal(scores, before), "it writes to the scores that it is given"
    assert values[0] == values[1] or math.isnan(values[0]), "after reset(), the same scores give another value"
    low, high = entry.facts["low"], entry.facts["high"]
    assert math.isnan(values[0]) or low <= values[0] <= high, f"it must be in its range, {low} to {high}. Received: {values[0]}"
    pytest.skip(
        f"metric={entry.name}: only its range was tried: what scores task={task.name} gives a perfect prediction is not known"
    )
