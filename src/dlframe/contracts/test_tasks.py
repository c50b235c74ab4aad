"""What every task promises."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from dlframe.contracts.building import build, difference, equal, models_for, rows, scored, step_loss
from dlframe.contracts.samples import batch_of, suitable
from dlframe.contracts.selection import contract
from dlframe.jobs.train import interval_of
from dlframe.runs.run_directory import predictions
from dlframe.types import Ragged, declared, is_printable

ROUNDING = 1e-6
"""Of single precision: an F1 of 1.0000001 is in its range."""


@contract("task")
def test_metrics_are_declared(entry):
    """The facts say how each metric is read, and which heads the table."""
    metrics = declared(entry.facts["metrics"])
    assert entry.facts["headline"] in metrics, f"the headline must be one of the metrics, {', '.join(metrics)}"
    assert entry.facts["monitor"] in ("", *metrics), f"the monitor must be one of the metrics, {', '.join(metrics)}"
    assert all(metric.low < metric.high for metric in metrics.values()), "low must be below high"


@contract("task")
def test_keeps_its_word(entry):
    """Each network has a loss; scores, metrics, outputs, baseline, interval and table are as the facts say."""
    data = suitable(entry)[0]
    for chosen in models_for(entry, data):
        task = build(entry, spec=data.spec, model=build(chosen, spec=data.spec))
        task.prepare(data.train)
        raw = batch_of(data.test, data.spec)
        whole = task.features(raw)
        assert equal(raw.columns, batch_of(data.test, data.spec).columns), "features() writes to its input"
        part = dataclasses.replace(whole, labelled=torch.arange(len(whole)) % 2 == 0) if chosen.facts["unlabeled"] else whole
        for network in chosen.facts["networks"]:
            value = step_loss(task, [part], network)
            assert value.shape == (), f"the loss must be one number. Received: shape {tuple(value.shape)}"
            assert value.isfinite(), f"the loss must be finite. Received: {value.item()}"
            value.backward()
            learns = any(p.grad is not None and p.grad.any() for p in task.network(network).parameters())
            assert learns, "the gradient of the loss is 0"
        if not chosen.facts["networks"]:
            task.partial_fit(whole)
        task.eval()
        scores = scored(task, data.test, data.spec, len(data.test))
        with torch.no_grad():
            task.calibrate(scores)
            outputs = task.predict(whole)
        assert set(scores) == set(entry.facts["scores"]), f"score() must give {entry.facts['scores']}. Received: {[*scores]}"
        check_outputs(task, outputs, len(whole))
        check_numbers(entry, task, data, scores)
        table = task.table(scores, data.test)
        assert {"target", "prediction", "score"} <= set(table), "the table must have the columns target, prediction and score"
        assert all(len(column) == len(data.test) for column in table.values()), "the table must have a row for each sample"
        for figure in task.figures(scores, data).values():
            figure.draw_without_rendering()


def check_outputs(task: Any, outputs: dict[str, Any], samples: int) -> None:
    """What `predict` gives is what `outputs` declares."""
    fields = task.outputs()
    assert outputs.keys() == fields.keys(), f"predict() must give {[*fields]}. Received: {[*outputs]}"
    for name, field in fields.items():
        output = outputs[name]
        assert isinstance(output, Ragged) == field.ragged, f"output '{name}' must {'' if field.ragged else 'not '}be Ragged"
        values, shape = (output.values, field.shape[1:]) if isinstance(output, Ragged) else (output[0], field.shape)
        inner = values.shape[1:] if isinstance(output, Ragged) else values.shape
        assert (len(output), tuple(inner)) == (samples, shape), (
            f"output '{name}' must have {samples} samples of shape {shape}. Received: {len(output)} of {tuple(inner)}"
        )
        assert str(values.dtype) == f"torch.{field.dtype}", f"output '{name}' must be {field.dtype}. Received: {values.dtype}"


def check_numbers(entry: Any, task: Any, data: Any, scores: dict[str, Any]) -> None:
    """Metrics are pure and as declared, the baseline has the headline, the interval holds the metric."""
    before = copy.deepcopy(scores)
    metrics = task.metrics(scores)
    assert set(metrics) == set(entry.facts["metrics"]), (
        f"metrics() must give {[*entry.facts['metrics']]}. Received: {[*metrics]}"
    )
    assert metrics == pytest.approx(task.metrics(scores), nan_ok=True), "metrics() gives other numbers when it is called again"
    assert equal(scores, before), "metrics() writes to the scores"
    for name, metric in declared(entry.facts["metrics"]).items():
        within = math.isnan(metrics[name]) or metric.low - ROUNDING <= metrics[name] <= metric.high + ROUNDING
        assert within, f"'{name}' must be in its range, {metric.low} to {metric.high}. Received: {metrics[name]}"
    notes = task.notes(scores)
    shown = isinstance(notes, list) and all(map(is_printable, notes))
    assert shown, f"notes() must give a list of lines of printable text. Received: {notes}"
    name, baseline = task.baseline(data)
    headline = entry.facts["headline"]
    assert name, "the baseline must have a name"
    assert headline in baseline, f"the baseline must have the headline '{headline}'. Received: {', '.join(baseline)}"
    assert set(baseline) <= set(metrics), "the baseline has a metric that the task does not declare"
    for groups in (None, np.arange(len(data.test)) // 2):
        split = dataclasses.replace(data.test, groups=groups)
        table = predictions(dataclasses.replace(data, test=split), task, scores)
        read = declared(entry.facts["metrics"])[headline]
        interval = interval_of(
            task,
            metric=headline,
            value=metrics[headline],
            scores=scores,
            split=split,
            table=table,
            forms=task.forms(),
            read=read,
        )
        assert interval.value == pytest.approx(metrics[headline], nan_ok=True), "interval() must have the metric's own value"
        undefined = any(map(math.isnan, (interval.value, interval.low, interval.high)))
        within = undefined or interval.low <= interval.value <= interval.high
        assert within, f"the interval {interval.low} to {interval.high} must hold the value {interval.value}"


@contract("task")
def test_scores_do_not_depend_on_neighbors(entry):
    """A sample scores the same alone, in batches of any size, and in another order."""
    data = suitable(entry)[0]
    for chosen in models_for(entry, data):
        task = build(entry, spec=data.spec, model=build(chosen, spec=data.spec)).eval()
        count = len(data.test)
        order = np.random.default_rng(0).permutation(count)
        together = scored(task, data.test, data.spec, count)
        others = {
            "alone": (scored(task, data.test, data.spec, 1), np.arange(count)),
            "in a batch of 5": (scored(task, data.test, data.spec, 5), np.arange(count)),
            "in another order": (scored(task, data.test.take(order), data.spec, count), order),
        }
        for how, (scores, index) in others.items():
            for name, score in together.items():
                different = difference(scores[name], rows(score, index))
                assert not different, f"score '{name}' of a sample depends on its neighbors: {how} it is another: {different}"


@contract("task")
@pytest.mark.parametrize("first", [0.5, 0.625, 0.0], ids=["halves", "unequal", "one"])
def test_a_step_may_be_cut(entry, first):
    """The gradient of an optimizer step is the same however its samples are cut into batches; some are unlabeled."""
    data = suitable(entry)[0]
    for chosen in models_for(entry, data):
        # The generator's loss compares means over a batch, and its noise is drawn batch by batch.
        for network in chosen.facts["networks"][:1]:
            options = {"adversarial_weight": 0.0} if chosen.name == "gan" else {}
            model = build(chosen, options=options, spec=data.spec)
            task = build(entry, spec=data.spec, model=model.eval())
            count, split = len(data.train), data.train
            if chosen.facts["unlabeled"]:
                split = dataclasses.replace(split, labelled=np.arange(count) % 3 != 0)
            cut = max(1, int(first * count))
            gradients = []
            for sizes in ((count,), (cut, count - cut)):
                indices = np.split(np.arange(count), np.cumsum(sizes)[:-1])
                parts = [task.features(batch_of(split.take(index), data.spec)) for index in indices]
                task.zero_grad()
                step_loss(task, parts, network).backward()
                gradients.append({n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None})
            assert gradients[0], "the loss has no gradient"
            for name, gradient in gradients[0].items():
                different = difference(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)
                assert not different, (
                    f"the gradient of '{name}' is another where {count} samples are cut into {cut} and {count - cut}: "
                    f"let counts() count what the loss averages over, and divide by totals. {different}"
                )
