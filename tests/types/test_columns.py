"""Fields, columns and splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.samples import batch_of, image_spec

from dlframe.data.digits import digits
from dlframe.types import DataError, Dataset, DataSpec, Field, Lazy, Ragged, Split

WORDS = Ragged.of([np.array([1, 2, 3]), np.array([4]), np.array([5, 6])])


def test_ragged_samples_are_those_that_were_put_in():
    assert [sample.tolist() for sample in WORDS] == [[1, 2, 3], [4], [5, 6]]
    assert (len(WORDS), WORDS.lengths.tolist(), WORDS[-1].tolist()) == (3, [3, 1, 2], [5, 6])
    assert [sample.tolist() for sample in WORDS.take(np.array([2, 0, 2]))] == [[5, 6], [1, 2, 3], [5, 6]]
    assert len(WORDS.take(np.array([], dtype=np.int64))) == 0
    with pytest.raises(IndexError, match="sample 3 of 3"):
        WORDS[3]


def test_ragged_samples_are_padded():
    tensors = Ragged(torch.from_numpy(WORDS.values), torch.from_numpy(WORDS.offsets))
    padded, lengths = tensors.padded(-1)
    assert padded.tolist() == [[1, 2, 3], [4, -1, -1], [5, 6, -1]]
    assert lengths.tolist() == [3, 1, 2]
    empty = Ragged(torch.zeros(0, 4), torch.zeros(3, dtype=torch.int64))
    assert empty.padded()[0].shape == (2, 0, 4)
    wide = tensors.like(torch.arange(12).view(6, 2))
    assert wide.padded()[0].shape == (3, 3, 2)


def dataset(**changes) -> Dataset:
    """Words with their letters, the same in every split but for `changes` of the training split."""
    spec = DataSpec("words", {"letters": Field(kind="tokens", dtype="int64", shape=(None,))}, {})
    split = Split({"letters": WORDS}, np.array(["a", "b", "c"]))
    return Dataset(spec, replace(split, **changes), split, split, "", "")


def test_a_fingerprint_is_of_values_not_of_objects():
    first = dataset().fingerprint
    copied = Ragged(WORDS.values.copy(), WORDS.offsets.copy())
    assert dataset(columns={"letters": copied}).fingerprint == first
    moved = Ragged(WORDS.values, np.array([0, 2, 4, 6]))
    other = Ragged(WORDS.values + 1, WORDS.offsets)
    known = np.array([True, True, False])
    changed = [
        dataset(columns={"letters": moved}),
        dataset(columns={"letters": other}),
        dataset(labelled=known),
        dataset(groups=np.array(["x", "x", "y"])),
    ]
    assert len({first, *(data.fingerprint for data in changed)}) == 5


def test_the_fingerprint_of_what_is_read_later_is_of_its_items_and_version():
    def lazy(version: str, items: tuple[str, ...] = ("1", "2", "3")) -> str:
        column = Lazy(lambda item, random: np.zeros(1), np.array(items), version, np.array([3, 1, 2]))
        return dataset(columns={"letters": column}).fingerprint

    assert lazy("1") == lazy("1")
    assert len({lazy("1"), lazy("2"), lazy("1", ("1", "2", "4"))}) == 3


def test_objects_have_no_fingerprint():
    with pytest.raises(DataError, match=r"^data=words: arrays of Python objects are not supported. Use Ragged or strings\.$"):
        _ = dataset(columns={"letters": np.array([None, {}, []], dtype=object)}).fingerprint


def test_the_fingerprint_of_digits_is_that_of_earlier_versions():
    assert digits().fingerprint == "5ed0c0c6320d"


def test_an_only_input_needs_no_name():
    spec = image_spec("x", (1, 8, 8), ("no", "yes"))
    assert (spec.input.kind, spec.target.kind, spec.shape, spec.classes) == ("image", "class", (1, 8, 8), ("no", "yes"))
    batch = batch_of(digits().test, digits().spec, 3)
    assert batch.inputs is batch["image"]
    assert batch.replace(targets=batch.targets + 1)["label"].tolist() == (batch["label"] + 1).tolist()
    several = replace(spec, inputs={"left": spec.input, "right": spec.input})
    with pytest.raises(DataError, match=r"^data: must have one input here\. Received: left, right\.$"):
        _ = several.input
    with pytest.raises(DataError, match=r"^data: no such column. Received: 'labl'\. Did you mean 'label'\?$"):
        digits().test["labl"]
