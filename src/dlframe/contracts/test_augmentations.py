"""What every augmentation promises."""

from __future__ import annotations

import torch

from dlframe.contracts.building import build, equal, task_for
from dlframe.contracts.samples import batch_of, suitable
from dlframe.contracts.selection import contract
from dlframe.types import Batch, Dataset, Ragged


def batch(data: Dataset) -> Batch:
    """All samples of a data set as an augmentation gets them: images as floats in [0, 1], sounds as features of their task."""
    return task_for(data).features(batch_of(data.train, data.spec))


@contract("augmentation")
def test_augments(entry):
    """Shape, type and range are kept; the input is not written to; mixed targets are fractions of the classes."""
    for data in suitable(entry):
        given, before = batch(data), batch(data)
        result = build(entry, spec=data.spec)(given, torch.Generator().manual_seed(0))
        for name, column in before.columns.items():
            assert equal(given[name], column), (
                f"it writes to its input: '{name}' has changed. Change a copy, by batch.replace(...)"
            )
        assert torch.equal(result.index, before.index), "it must keep the batch's index: use batch.replace(...)"
        for name, field in data.spec.inputs.items():
            new, old = (x[name].values if isinstance(x[name], Ragged) else x[name] for x in (result, before))
            assert (new.shape[1:], new.dtype) == (old.shape[1:], old.dtype), (
                f"it must keep shape and type of '{name}', {tuple(old.shape)} and {old.dtype}. "
                f"Received: {tuple(new.shape)} and {new.dtype}"
            )
            assert len(result[name]) == len(before), f"it must keep the number of samples of '{name}'"
            assert not new.is_floating_point() or new.isfinite().all(), f"'{name}' is not finite"
            if field.kind == "image":
                within = new.min() >= 0 and new.max() <= 1
                assert within, f"'{name}' must stay from 0 to 1. Received: {new.min():.3g} to {new.max():.3g}"
        for name, field in data.spec.targets.items():
            new, old = result[name], before[name]
            if field.kind not in ("class", "value") or isinstance(old, Ragged):
                continue  # it may move boxes, and drop those that leave the image
            if field.kind == "value" or new.shape == old.shape:
                assert equal(new, old), f"it must leave the targets '{name}' as they are, or mix classes"
                continue
            assert new.shape == (len(old), len(field.names)), f"mixed '{name}' must be a fraction for each class"
            torch.testing.assert_close(new.sum(1), torch.ones(len(old)), msg=f"the fractions of '{name}' must add up to 1")
            assert new.min() >= 0, f"a fraction of '{name}' is negative"


@contract("augmentation")
def test_draws_from_the_generator(entry):
    """The same generator gives the same batch, whatever the state of torch's own."""
    for data in suitable(entry):
        augment = build(entry, spec=data.spec)
        results = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            results.append(augment(batch(data), torch.Generator().manual_seed(0)).columns)
        assert equal(*results), "it draws from torch's own generator: pass generator= on to every draw"
