"""Tokens that are dropped and swapped, and rows between neighbors, against what they must be one by one."""

import numpy as np
import pytest
import torch
from tests.samples import batch_of

from dlframe.contracts.samples import sentences, wines
from dlframe.registry import augmentations
from dlframe.registry.plugins import discover
from dlframe.types import Batch, Ragged

discover()


def build(name: str, spec, **options):
    return augmentations.build({"name": name, **options}, spec=spec)


def texts(count: int = 16):
    data = sentences()
    return data, batch_of(data.train, data.spec, count)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropped_tokens(p):
    data, batch = texts()
    found = build("token_dropout", data.spec, p=p)(batch, torch.Generator().manual_seed(0))["text"]
    kept = 0
    for own, before in zip(found, batch["text"], strict=True):
        rest = iter(before.tolist())
        assert all(token in rest for token in own.tolist()), "a subsequence of the text"
        assert len(own) >= 1
        kept += len(own)
    total = len(batch["text"].values)
    assert kept == {0.0: total, 1.0: 16}.get(p, pytest.approx(0.7 * total, rel=0.1))
    hidden = build("token_dropout", data.spec, p=p, hide=True)(batch, torch.Generator().manual_seed(0))["text"]
    changed = hidden.values != batch["text"].values
    assert hidden.offsets.tolist() == batch["text"].offsets.tolist()
    assert (hidden.values[changed] == 1).all()


def test_swapped_tokens_are_neighbors():
    data, batch = texts()
    found = build("token_swap", data.spec, p=0.5)(batch, torch.Generator().manual_seed(0))["text"]
    swapped = 0
    for own, before in zip(found, batch["text"], strict=True):
        one, other, i = own.tolist(), before.tolist(), 0
        while i < len(other):
            if one[i] != other[i]:
                assert one[i : i + 2] == other[i : i + 2][::-1]
                swapped += 1
                i += 1
            i += 1
    assert swapped > 10
    same = build("token_swap", data.spec, p=0.0)(batch, torch.Generator())["text"]
    assert torch.equal(same.values, batch["text"].values)


@pytest.mark.parametrize("name", ["token_dropout", "token_swap"])
def test_the_ends_of_an_encoder_stay(name):
    data, _ = texts()
    spec = data.spec
    kept = dict(spec.fitted["text"]) | {"prefix": [0], "suffix": [1]}
    own = type(spec)(spec.name, spec.inputs, spec.targets, {**spec.fitted, "text": kept})
    values = torch.tensor([2, 7, 8, 9, 3, 2, 3, 2, 5, 3], dtype=torch.int32)
    batch = Batch({"text": Ragged(values, torch.tensor([0, 5, 7, 10])), "label": torch.tensor([0, 1, 0])}, torch.arange(3), own)
    for seed in range(5):
        found = build(name, own, p=0.9)(batch, torch.Generator().manual_seed(seed))["text"]
        assert [(int(text[0]), int(text[-1])) for text in found] == [(2, 3)] * 3


def test_rows_lie_between_neighbors_of_their_class():
    """Each moved row is on the line to one of the k nearest others of its class; other classes stay as they are."""
    data = wines()
    spec = type(data.spec)(data.spec.name, data.spec.inputs, data.spec.targets, {**data.spec.fitted, "counts": [9, 4, 3]})
    batch = batch_of(data.train, spec)
    result = build("smote", spec, k=2, pos_label=spec.classes[0])(batch, torch.Generator().manual_seed(0))
    before, after, targets = batch["numbers"].numpy(), result["numbers"].numpy(), batch["target"].numpy()
    assert np.array_equal(after[targets != 0], before[targets != 0], equal_nan=True)
    own, moved = before[targets == 0], after[targets == 0]
    field = spec.inputs["numbers"]
    scaled = np.nan_to_num((own - np.array(field.mean)) / np.array(field.std))
    assert not np.array_equal(own, moved, equal_nan=True)
    for i, row in enumerate(moved):
        distance = np.sqrt(((scaled - scaled[i]) ** 2).sum(1))
        distance[distance == 0] = np.inf
        fits = False
        for j in np.argsort(distance)[:2]:
            line = np.where(np.isnan(own[i]) | np.isnan(own[j]), 0, own[j] - own[i])
            steps = [(row[c] - own[i][c]) / line[c] for c in range(3) if line[c]]
            fits |= bool(np.ptp(steps) < 1e-6 and 0 <= steps[0] <= 1)
        assert fits, f"row {i} is on no line to a neighbor"
        assert np.array_equal(np.isnan(row), np.isnan(own[i]))


def test_the_rarest_class_is_moved_and_copies_are_no_neighbors():
    data = wines()
    spec = type(data.spec)(data.spec.name, data.spec.inputs, data.spec.targets, {**data.spec.fitted, "counts": [9, 4, 3]})
    part = data.train.take(np.array([0, 1, 15, 15, 15]))
    batch = batch_of(part, spec)
    result = build("smote", spec)(batch, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(result["numbers"].numpy(), batch["numbers"].numpy())
    assert torch.equal(result["target"], batch["target"])
