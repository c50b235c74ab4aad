"""The interval of a run from the table of its predictions."""

from __future__ import annotations

import math

import numpy as np
import pyarrow
import pytest
from scipy import stats

from dlframe.analysis.predictions import estimate
from dlframe.types import Metric

RANDOM = np.random.default_rng(4)
FRACTION, PRICE = Metric(better="max", low=0.0, high=1.0, unit="fraction"), Metric(better="min", low=0.0)


def table(**columns: object) -> pyarrow.Table:
    count = len(next(iter(columns.values())))  # type: ignore[arg-type]
    return pyarrow.table({"id": np.arange(count), **columns})


def test_the_accuracy_of_a_run_has_wilsons_interval():
    right = RANDOM.random(359) < 0.9
    found = estimate(
        table(target=["a"] * 359, prediction=np.where(right, "a", "b").tolist()),
        {"form": "accuracy"},
        value=right.mean(),
        read=FRACTION,
    )
    wilson = stats.binomtest(int(right.sum()), 359).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=5e-4)


def test_copies_in_a_group_tell_no_more_than_one():
    right = RANDOM.random(100) < 0.8
    one = table(target=["a"] * 100, prediction=np.where(right, "a", "b").tolist())
    copies = np.repeat(np.arange(100), 5)
    five = table(**{name: one[name].take(copies).to_pylist() for name in ("target", "prediction")}, group=copies.tolist())
    found = [estimate(t, {"form": "accuracy"}, value=right.mean(), read=FRACTION) for t in (one, five)]
    assert (found[1].low, found[1].high) == pytest.approx((found[0].low, found[0].high))
    alone = estimate(five.drop_columns("group"), {"form": "accuracy"}, value=right.mean(), read=FRACTION)
    assert alone.high - alone.low < 0.6 * (found[1].high - found[1].low)


def test_neighbors_in_blocks_tell_less():
    errors = np.repeat(RANDOM.normal(size=40), 10)
    prices = table(target=np.zeros(400), prediction=errors)
    value = float(np.sqrt((errors**2).mean()))
    blocks, none = (estimate(prices, {"form": "rmse"}, value=value, read=PRICE, blocks=count) for count in (20, 0))
    assert blocks.low < value < blocks.high
    assert blocks.high - blocks.low > 1.5 * (none.high - none.low)


def test_what_is_undefined_has_no_interval():
    prices = table(target=np.zeros(9), prediction=np.full(9, math.nan))
    assert math.isnan(estimate(prices, {"form": "rmse"}, value=math.nan, read=PRICE).low)
    one = table(target=["a", "b", "b"], prediction=["a", "b", "b"])
    recall = {"form": "recall", "average": "positive", "positive": "a"}
    assert math.isnan(estimate(one, recall, value=1.0, read=FRACTION).low), "without its only sample there is no recall"


def test_predictions_of_boxes_without_any_detection():
    boxes = table(
        target=[["cat"], ["cat"], []],
        prediction=[[], [], []],
        score=[[], [], []],
        box=[[], [], []],
        target_box=[[[0.0, 0.0, 9.0, 9.0]], [[5.0, 5.0, 9.0, 9.0]], []],
    )
    found = estimate(boxes, {"form": "detection", "metric": "ap"}, value=0.0, read=FRACTION)
    assert found.value == 0.0
    assert math.isnan(found.low), "nothing varies"


def test_columns_may_have_any_name():
    """Such as "words", the number of words of an utterance."""
    spoken = table(target=["a b", "c"], prediction=["a", "c"], word_errors=[1, 0], words=[2, 1])
    found = estimate(spoken, {"form": "ratio", "column": "word_errors", "by": "words"}, value=1 / 3, read=PRICE)
    assert found.low < found.value < found.high
