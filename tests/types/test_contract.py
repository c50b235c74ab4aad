"""Data that are not as declared are refused, each with a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlframe.types import DataError, Dataset, DataSpec, Field, Lazy, Ragged, Split, check_dataset

IDS = np.array(["first", "second", "third"])
SPEC = DataSpec(
    "boxes",
    inputs={"image": Field(kind="image", dtype="uint8", shape=(1, 2, 2))},
    targets={
        "box": Field(kind="box", dtype="float32", shape=(None, 4)),
        "label": Field(kind="class", dtype="int64", shape=(None,), names=("cat", "dog"), along="box"),
    },
)
TOKENS = DataSpec("text", {"tokens": Field(kind="tokens", dtype="int64", shape=(None,))}, {})


def columns(**changes: Any) -> dict[str, Any]:
    boxes = Ragged(np.zeros((3, 4), np.float32), np.array([0, 2, 2, 3]))  # the second image has no object
    labels = Ragged(np.array([0, 1, 1]), np.array([0, 2, 2, 3]))
    found = {"image": np.zeros((3, 1, 2, 2), np.uint8), "box": boxes, "label": labels, **changes}
    return {name: column for name, column in found.items() if column is not None}


def dataset(spec: DataSpec = SPEC, validation: Split | None = None, **changes: Any) -> Dataset:
    split = Split(columns(**changes) if spec is SPEC else changes, IDS)
    return Dataset(spec, split, split if validation is None else validation, split, "", "")


def test_what_is_as_declared_passes():
    data = dataset()
    assert check_dataset(data) is data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": None}, "the declared column 'box' is missing"),
        ({"boxx": np.zeros(3)}, "the column 'boxx' is not declared. Did you mean 'box'?"),
        ({"image": np.zeros((2, 1, 2, 2), np.uint8)}, "'image' must have 3 samples, one per id. Received: 2"),
        ({"image": np.zeros((3, 1, 2, 2))}, "'image' must be uint8. Received: float64"),
        ({"image": np.zeros((3, 1, 2, 3), np.uint8)}, "'image' must have samples of shape (1, 2, 2). Received: (1, 2, 3)"),
        (
            {"image": Ragged(np.zeros((3, 2, 2), np.uint8), np.arange(4))},
            "'image' has shape (1, 2, 2) and must be one array. Received: samples of varying length",
        ),
        (
            {"box": np.zeros((3, 4), np.float32)},
            "'box' has shape (None, 4) and must be Ragged. Received: one array of shape (3, 4)",
        ),
        (
            {"box": Ragged(np.zeros((3, 4), np.float32), np.array([0, 2, 1, 3]))},
            "'box' must have ascending offsets. Received: 2, then 1",
        ),
        (
            {"box": Ragged(np.zeros((3, 4), np.float32), np.array([0, 1, 2, 9]))},
            "'box' must have integer offsets from 0 to 3. Received: int64 from 0 to 9",
        ),
        (
            {"label": Ragged(np.array([0, 1, 1]), np.array([0, 1, 2, 3]))},
            "'label' must have the lengths of 'box', sample first",
        ),
        (
            {"label": Ragged(np.array([0, 1, 2]), np.array([0, 2, 2, 3]))},
            "'label' must hold class indices from 0 to 1. Received: 2 in sample third",
        ),
    ],
)
def test_a_column_that_is_not_as_declared(changes, message):
    with pytest.raises(DataError) as error:
        check_dataset(dataset(**changes))
    assert str(error.value) == f"data=boxes: {message} (in the train split)."


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            Ragged(np.arange(3), np.array([0, 1, 1, 3])),
            "must have at least 1 element per sample. Received: none in sample second",
        ),
        (Lazy(lambda i, r: i, np.arange(3), "1"), "has shape (None,) and must have lengths"),
        (
            Lazy(lambda i, r: i, np.arange(3), "1", np.array([1, 0, 2])),
            "must have at least 1 element per sample. Received: none in sample second",
        ),
    ],
)
def test_samples_of_varying_length(column, message):
    with pytest.raises(DataError) as error:
        check_dataset(dataset(TOKENS, tokens=column))
    assert str(error.value) == f"data=text: 'tokens' {message} (in the train split)."


def test_splits():
    empty = Split(
        {name: column[:0] if isinstance(column, np.ndarray) else column for name, column in columns().items()}, IDS[:0]
    )
    with pytest.raises(DataError, match=r"^data=boxes: the validation split is empty\.$"):
        check_dataset(dataset(validation=empty))
    unlabeled = Split(columns(), IDS, labelled=np.array([True, False, True]))
    with pytest.raises(DataError, match=r"^data=boxes: only training samples may be unlabeled \(in the validation split\)\.$"):
        check_dataset(dataset(validation=unlabeled))
    short = Split(columns(), IDS, groups=np.array(["a"]))
    with pytest.raises(DataError, match=r"^data=boxes: 'groups' must have 3 samples, one per id\. Received: 1"):
        check_dataset(Dataset(SPEC, short, short, short, "", ""))


VALUE = Field(kind="value", dtype="int64")


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ({}, {}, "must have an input. Received: none."),
        (
            {"x": Field(kind="value", dtype="int64")},
            {"x": Field(kind="value", dtype="int64")},
            "'x' must not be an input and",
        ),
        (
            {"inputs": Field(kind="value", dtype="int64")},
            {},
            "'inputs' is a reserved name of columns.",
        ),
        ({"x": Field(kind="image", dtype="uint8", shape=(3, None))}, {}, "'x' has shape (3, None): only the first length may"),
        ({"x": Field(kind="value", dtype="int64", along="y")}, {}, "'x' is along 'y', which is not declared."),
    ],
)
def test_declarations(inputs, targets, message):
    split = Split({}, IDS)
    with pytest.raises(DataError) as error:
        check_dataset(Dataset(DataSpec("odd", inputs, targets), split, split, split, "", ""))
    assert str(error.value).startswith(f"data=odd: {message}")
