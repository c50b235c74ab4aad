"""Order and coverage of the batches; ragged and lazy columns."""

from __future__ import annotations

import itertools
import os
import threading

import numpy as np
import pytest
import torch

from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.types import DataError, DataSpec, Field, Lazy, Ragged, Split

CPU = torch.device("cpu")
SPEC = DataSpec("numbers", {"x": Field(kind="number", dtype="uint8", shape=(1,))}, {"y": Field(kind="value", dtype="int64")})
WORDS = DataSpec("words", {"tokens": Field(kind="tokens", dtype="int64", shape=(None,))}, {})


def batches(
    n: int = 10, size: int = 4, *, rank: int = 0, world: int = 1, epoch: int = 0, done: int = 0, **options
) -> BatchLoader:
    columns = {"x": np.arange(n, dtype=np.uint8)[:, None], "y": np.arange(n) % 3}
    split = Split(columns, np.arange(n), labelled=np.arange(n) % 5 != 0)
    own = ("seed", "limit", "accumulate", "least", "weights")
    order = Order(size, **{key: options.pop(key) for key in own if key in options})
    return BatchLoader(split, SPEC, order, context=lambda: ProcessContext(CPU, rank, world, epoch, done), **options)


def indices(loader: BatchLoader) -> list[list[int]]:
    return [batch.index.tolist() for chunk in loader for step in chunk for batch in step.batches]


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
    """A process without a sample of a batch has its first one as a stand-in, which counts nothing."""
    whole = indices(batches(n))
    parts = [indices(batches(n, rank=rank, world=2)) for rank in (0, 1)]
    assert [[batch[0::2], batch[1::2] or batch] for batch in whole] == [list(pair) for pair in zip(*parts, strict=True)]
    own = [[step.own for chunk in batches(n, rank=rank, world=2) for step in chunk] for rank in (0, 1)]
    assert [a + b for (a,), (b,) in zip(*own, strict=True)] == [len(batch) for batch in whole]


def test_no_training_sample_is_left_out():
    assert [len(b) for b in indices(batches(9, seed=0))] == [4, 4, 1]
    assert batches(9, seed=0).left_out() == 0


def test_a_last_training_batch_that_is_too_small_for_batch_normalization_is_left_out():
    assert [len(b) for b in indices(batches(9, seed=0, least=2))] == [4, 4]
    assert [len(b) for b in indices(batches(1, seed=0, least=2))] == [1]
    assert [len(b) for b in indices(batches(11, seed=0, rank=1, world=2, least=2))] == [2, 2]
    assert [len(b) for b in indices(batches(9, least=2))] == [4, 4, 1]
    assert [batches(n, seed=0, least=2).left_out(world) for n, world in ((9, 1), (11, 2), (10, 1), (1, 1))] == [1, 3, 0, 0]


def test_a_part_of_a_split_that_is_scored_is_drawn_once_from_all_of_it():
    few = batches(100, limit=2)
    (first, second) = indices(few)
    assert [*first, *second] == sorted({*first, *second})
    assert max(second) > 50
    assert indices(batches(100, limit=2, epoch=5)) == [first, second]
    assert indices(batches(7, limit=2)) == [[0, 1, 2, 3], [4, 5, 6]]


def test_unlabeled_samples_stay_out_unless_they_are_wanted():
    wanted, unwanted = batches(seed=0), batches(seed=0, unlabeled=False)
    assert sorted(itertools.chain(*indices(unwanted))) == [1, 2, 3, 4, 6, 7, 8, 9]
    for loader in (wanted, unwanted):
        for batch in (batch for chunk in loader for step in chunk for batch in step.batches):
            expected = [index % 5 != 0 for index in batch.index.tolist()]
            assert (batch.labelled.tolist() if loader is wanted else batch.labelled) == (expected if loader is wanted else None)


def test_a_batch_holds_the_samples_of_its_index():
    for chunk in batches(seed=3):
        for batch in (batch for step in chunk for batch in step.batches):
            assert batch.inputs[:, 0].tolist() == batch.index.tolist()
            assert batch.targets.tolist() == [index % 3 for index in batch.index.tolist()]


def test_the_last_step_of_an_epoch_has_what_is_left():
    steps = [step for chunk in batches(22, seed=0, accumulate=2) for step in chunk]
    assert [[len(batch) for batch in step.batches] for step in steps] == [[4, 4], [4, 4], [4, 2]]
    assert [step.samples for step in steps] == [8, 8, 6]
    (step, *_) = next(iter(batches(22, seed=0, accumulate=2, rank=1, world=2)))
    assert ([len(batch) for batch in step.batches], step.sizes) == ([2, 2], [4, 4])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 10, 23])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"seed": 0}, {"seed": 0, "accumulate": 3}, {"seed": 0, "limit": 2}, {"seed": 0, "least": 2}]
)
def test_the_plan_is_what_is_counted(n, world, options):
    loader = batches(n, **options)
    assert loader.steps(0, world) == len(loader.plan(0, world))
    assert loader.total_steps(3, world) == sum(len(loader.plan(epoch, world)) for epoch in range(3))


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_epoch_resumes_where_it_was_left_with_any_workers(workers, done):
    whole = indices(batches(n=29, seed=3, epoch=2))
    assert indices(batches(n=29, seed=3, epoch=2, chunk=2, workers=workers, done=done)) == whole[done:]


def test_workers_end_with_the_iteration():
    before = threading.active_count()
    iterator = iter(batches(n=1000, seed=3, workers=2))
    next(iterator)
    assert threading.active_count() > before
    iterator.close()
    assert threading.active_count() == before


def test_an_error_of_a_worker_is_the_iterations():
    loader = batches(seed=3, workers=2)
    loader.split.columns["x"] = loader.split["x"][:5]
    with pytest.raises(IndexError, match="out of range"):
        list(loader)


def test_weighted_samples_are_drawn_by_their_weights():
    weights = np.array([0.0, 1, 0, 3, 0, 0, 0, 0, 0, 0])
    loader = batches(seed=0, weights=weights)
    counts = np.bincount([i for epoch in range(200) for step in loader.plan(epoch) for b in step for i in b.tolist()])
    assert set(np.flatnonzero(counts)) == {1, 3}
    assert counts[3] / counts.sum() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("resident", [True, False, None])
def test_where_columns_are_kept_does_not_matter(resident):
    assert indices(batches(seed=1, resident=resident)) == indices(batches(seed=1))


# --- samples of varying length

LENGTHS = np.random.default_rng(0).integers(1, 60, 500)
RAGGED = Ragged.of([np.arange(length) + 1000 * i for i, length in enumerate(LENGTHS)])


def words(size: int = 8, *, world: int = 1, rank: int = 0, column=RAGGED, epoch: int = 0, **options) -> BatchLoader:
    split = Split({"tokens": column}, np.array([f"word {i}" for i in range(len(column))]))
    order = Order(size, **{key: options.pop(key) for key in ("seed", "limit", "batch_elements") if key in options})
    return BatchLoader(split, WORDS, order, context=lambda: ProcessContext(CPU, rank, world, epoch), **options)


def padded(plan) -> tuple[int, int]:
    """Elements of all batches of a plan when padded, and those that are not padding."""
    lengths = [LENGTHS[batch.numpy()] for step in plan for batch in step]
    return sum(len(x) * x.max() for x in lengths), sum(x.sum() for x in lengths)


def test_batches_have_samples_of_about_the_same_length():
    loader = words(seed=0)
    plan = loader.plan(3)
    assert sorted(i for step in plan for batch in step for i in batch.tolist()) == list(range(500))
    assert [b.tolist() for s in loader.plan(3) for b in s] == [b.tolist() for s in plan for b in s]
    total, own = padded(plan)
    assert total / own < 1.15
    first = [batch.tolist() for step in plan for batch in step]
    assert first != sorted(first, key=lambda batch: LENGTHS[batch].max()), "batches are shuffled"
    total, own = padded(words().plan())
    assert total / own < 1.05


@pytest.mark.parametrize("world", [1, 3])
def test_batches_are_cut_by_their_elements(world):
    loader = words(10**6, seed=0, batch_elements=300)
    plan = loader.plan(0, world)
    assert sorted(i for step in plan for batch in step for i in batch.tolist()) == list(range(500))
    sizes = [len(batch) for step in plan for batch in step]
    assert min(sizes) >= world
    costs = [len(batch) * LENGTHS[batch.numpy()].max() for step in plan for batch in step]
    # A batch may be larger only where every process needs a sample of it.
    assert all(cost <= 300 or size <= 2 * world for cost, size in zip(costs, sizes, strict=True))
    assert loader.steps(0, world) == len(plan)
    assert loader.total_steps(2, world) == sum(len(loader.plan(epoch, world)) for epoch in (0, 1))


@pytest.mark.parametrize("width", [(), (300,)])
def test_a_ragged_batch_holds_the_samples_of_its_index(width):
    """Short samples are gathered by one index, long ones by slices."""
    column = RAGGED if not width else RAGGED.like(np.repeat(RAGGED.values[:, None], 300, 1))
    for chunk in words(seed=0, column=column, limit=5):
        for batch in (batch for step in chunk for batch in step.batches):
            expected = column.take(batch.index.numpy())
            assert np.array_equal(batch["tokens"].values.numpy(), expected.values)
            assert np.array_equal(batch["tokens"].offsets.numpy(), expected.offsets)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float32"])
@pytest.mark.parametrize("world", [1, 3])
def test_short_samples_of_several_steps_are_gathered_apart(dtype, world):
    """Samples may be empty, and a process may have none of the last batch."""
    lengths = np.random.default_rng(1).integers(0, 3, 700)
    values = np.random.default_rng(2).integers(0, 2, (lengths.sum(), 2)).astype(dtype)
    for column in (
        Ragged(values, np.array([0, *np.cumsum(lengths)], np.int32)),
        Ragged(np.zeros((0, 2), dtype), np.zeros(701, np.int64)),
    ):
        for rank in range(world):
            found = [batch for chunk in words(10, column=column, world=world, rank=rank) for s in chunk for batch in s.batches]
            for batch in found:  # in place: a change of one batch is none of another
                before = [other["tokens"].values._version for other in found if other is not batch]
                batch["tokens"].values.logical_not_()
                assert before == [other["tokens"].values._version for other in found if other is not batch]
            for batch in found:
                expected = column.take(batch.index.numpy())
                assert batch["tokens"].values.dtype == torch.from_numpy(values).dtype
                assert np.array_equal(batch["tokens"].values.numpy(), np.logical_not(expected.values).astype(dtype))
                assert batch["tokens"].offsets.tolist() == expected.offsets.tolist()


def noisy(item: int, random: np.random.Generator) -> np.ndarray:
    """A sample with numbers of its own generator."""
    return RAGGED[int(item)] + random.integers(0, 1000, LENGTHS[item])


def faulty(item: int, random: np.random.Generator) -> np.ndarray:
    if item == 3:
        raise OSError("the disk is gone")
    return RAGGED[int(item)]


def short(item: int, random: np.random.Generator) -> np.ndarray:
    return RAGGED[int(item)][: 5 if item == 3 else None]


def deadly(item: int, random: np.random.Generator) -> np.ndarray:
    if item == 3:
        os._exit(1)
    return RAGGED[int(item)]


def lazy(read, count: int = 40, **options) -> Lazy:
    return Lazy(read, np.arange(count), "1", LENGTHS[:count], **options)


def values(loader: BatchLoader) -> list[list[int]]:
    return [batch["tokens"].values.tolist() for chunk in loader for step in chunk for batch in step.batches]


@pytest.mark.parametrize("workers", [1, 3])
def test_samples_are_read_alike_by_any_threads(workers):
    alone = values(words(seed=0, column=lazy(noisy), epoch=1))
    assert values(words(seed=0, column=lazy(noisy), epoch=1, workers=workers)) == alone
    assert values(words(seed=0, column=lazy(noisy), epoch=2)) != alone
    assert values(words(4, seed=0, column=lazy(noisy), epoch=1))[0] != alone[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_reader_may_do_without_random_numbers(workers):
    assert values(words(seed=0, column=lazy(RAGGED.__getitem__, random=False), workers=workers)) == values(
        words(seed=0, column=RAGGED.take(np.arange(40)))
    )


def test_samples_are_read_alike_by_processes():
    alone = values(words(seed=0, column=lazy(noisy, python=True)))
    assert values(words(seed=0, column=lazy(noisy, python=True), workers=2)) == alone


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("read", "message"),
    [
        (faulty, "data: 'tokens' of sample word 3 cannot be read: OSError: the disk is gone"),
        (short, f"data: 'tokens' of sample word 3 must have shape ({LENGTHS[3]},). Received: (5,)"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named(read, message, workers):
    with pytest.raises(DataError) as error:
        values(words(column=lazy(read), workers=workers))
    assert str(error.value) == message


def test_a_sample_that_kills_its_process_is_named():
    with pytest.raises(DataError, match=r"^data: 'tokens' of sample word 3: the process that read it was killed"):
        values(words(column=lazy(deadly, python=True), workers=2))


def test_the_longest_samples_are_tried_first():
    longest = words().longest(3)
    assert sorted(longest["tokens"].lengths) == sorted(LENGTHS)[-3:]
