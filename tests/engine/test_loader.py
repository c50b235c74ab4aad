"""Order and coverage of the batches."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch

from dlframe.engine.loader import Batches, Place
from dlframe.types import UNLABELLED, Split


def batches(n: int = 10, size: int = 4, *, rank: int = 0, world: int = 1, epoch: int = 0, **options) -> Batches:
    targets = np.arange(n) % 3
    targets[::5] = UNLABELLED
    split = Split(np.arange(n, dtype=np.uint8)[:, None], targets, np.arange(n))
    return Batches(split, size, place=lambda: Place(torch.device("cpu"), rank, world, epoch), **options)


def indices(loader: Batches) -> list[list[int]]:
    return [batch.index.tolist() for chunk in loader for batch in chunk]


def test_evaluation_keeps_the_order_and_leaves_nothing_out():
    assert indices(batches()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_epoch_has_an_order_of_its_own():
    first, again, second = (indices(batches(epoch=e, seed=7)) for e in (0, 0, 1))
    assert first == again != second
    assert sorted(itertools.chain(*first)) == list(range(10))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_chunk_only_groups(chunk):
    loader = batches(seed=1, chunk=chunk)
    assert indices(loader) == indices(batches(seed=1))
    assert [len(c) for c in loader] == {1: [1, 1, 1], 2: [2, 1], 5: [3]}[chunk]


@pytest.mark.parametrize("n", [8, 9, 10, 11])
def test_processes_share_every_batch(n):
    whole = indices(batches(n))
    left, right = (indices(batches(n, rank=r, world=2)) for r in (0, 1))
    assert [a + b for a, b in zip(left, right, strict=True)] == whole


def test_a_last_training_batch_of_one_is_left_out():
    assert [len(b) for b in indices(batches(9, seed=0))] == [4, 4]
    assert [len(b) for b in indices(batches(1, seed=0))] == [1]
    assert [len(b) for b in indices(batches(11, seed=0, rank=1, world=2))] == [2, 2]


def test_unlabelled_samples_stay_out_unless_they_are_wanted():
    assert sorted(itertools.chain(*indices(batches(seed=0, unlabelled=False)))) == [1, 2, 3, 4, 6, 7, 8, 9]


def test_a_batch_holds_the_samples_of_its_index():
    for chunk in batches(seed=3):
        for batch in chunk:
            assert batch.inputs[:, 0].tolist() == batch.index.tolist()


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_epoch_goes_on_where_it_was_left_with_any_workers(workers, done):
    loader = batches(n=29, seed=3, epoch=2, chunk=2, workers=workers)
    whole = indices(batches(n=29, seed=3, epoch=2))
    loader.place = lambda: Place(torch.device("cpu"), epoch=2, batches=done)
    assert indices(loader) == whole[done:]


def test_workers_end_with_the_iteration():
    before = threading.active_count()
    iterator = iter(batches(n=1000, seed=3, workers=2))
    next(iterator)
    assert threading.active_count() > before
    iterator.close()
    assert threading.active_count() == before


def test_an_error_of_a_worker_is_the_iterations():
    loader = batches(seed=3, workers=2)
    loader.split.inputs = loader.split.inputs[:5]
    with pytest.raises(IndexError, match="out of range"):
        list(loader)
