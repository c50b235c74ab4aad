"""Batches of a split: gathered on the device, in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dlframe.types import Batch, Column, DataError, DataSpec, Lazy, Ragged, Split

T = TypeVar("T")

Call = tuple[Callable[..., Any], Any, tuple[int, ...] | None]
"""Reader, item and seed of a sample; None for a reader that takes no random numbers."""

POOL_BATCHES = 16
"""Batches whose samples are sorted by length together: near enough to random, and little padding."""

FEW_ELEMENTS = 256
"""Elements of a sample below which one call gathers ragged samples faster than slices do."""

TOGETHER = 2048
"""Short samples that are gathered at once, for several steps: what a call costs is as much as hundreds of copies."""


@dataclass(frozen=True)
class ProcessContext:
    """A process of a training: its device, its rank among `world_size` ones, the epoch, and the steps of it that are done."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    steps: int = 0


class Step:
    """One optimizer step. Not a dataclass, which the Trainer would take apart to convert what is in it.

    Args:
        batches: As this process has them. A process without samples of a batch has the batch's first as a stand-in, so that
            all processes do the same work.
        sizes: Samples of each batch over all processes.
        own: Samples of each batch that are this process's: 0 for a stand-in, which counts nothing.
    """

    def __init__(self, batches: list[Batch], sizes: list[int], own: list[int]) -> None:
        self.batches = batches
        self.sizes = sizes
        self.own = own

    def of(self, places: Sequence[int]) -> Step:
        """The step of some of its batches alone."""
        batches, sizes, own = ([column[i] for i in places] for column in (self.batches, self.sizes, self.own))
        return Step(batches, sizes, own)  # type: ignore[arg-type]

    @property
    def samples(self) -> int:
        """Samples of the step over all processes."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Order:
    """How a split is cut into batches.

    Attributes:
        batch_size: Samples in a batch at most, over all processes.
        batch_elements: Elements in a batch at most, padding included, of samples of varying length; 0 for no such limit.
        accumulate: Batches in one optimizer step; the last step of an epoch may have fewer.
        seed: Shuffle, by this seed and the epoch; None keeps the order, or sorts by length.
        max_steps: Steps of all epochs together, which are of equal length then; 0 for no limit.
        round_steps: Steps of a round, which then is what the Trainer takes for an epoch: the passes over the samples follow one
            another, and are validated after every so many steps. 0 has each pass an epoch. Requires `max_steps`.
        limit: Batches in an epoch; 0 for all. Without a seed, of a fixed random subset of the samples.
        least: Samples that each process needs of a training batch: a last batch with fewer is left out where it is 2 or more.
        weights: (samples,) by which an epoch draws samples, with replacement; None has each of them once.
    """

    batch_size: int
    batch_elements: int = 0
    accumulate: int = 1
    seed: int | None = None
    max_steps: int = 0
    round_steps: int = 0
    limit: int = 0
    least: int = 1
    weights: np.ndarray | None = None


class Request:
    """A sample that is being read by a pool, or will be by this process.

    Args:
        pool: Who reads; None for this process, when the sample is asked for.
        column: Name of the column, for messages.
        sample: Name of the sample, for messages.
        call: Reader, item, and seed of the random numbers if any.
        shape: What the reader must give.
    """

    def __init__(self, pool: Executor | None, column: str, sample: Any, call: Call, shape: tuple[int | None, ...]) -> None:
        self.column = column
        self.sample = sample
        self.call = call
        self.shape = shape
        self.future = pool.submit(read_sample, *call) if pool else None

    @property
    def where(self) -> str:
        """Column and sample, for messages: most requests need none."""
        return f"data: '{self.column}' of sample {self.sample}"

    def result(self) -> np.ndarray:
        """The sample.

        Raises:
            DataError: It cannot be read, is not as declared, or kills the process that reads it.
        """
        try:
            values = self.future.result() if self.future else read_sample(*self.call)
        except BrokenProcessPool:
            values = self._alone()
        except DataError:
            raise
        except Exception as error:  # whatever a reader of the user's raises
            raise DataError(f"{self.where} cannot be read: {type(error).__name__}: {error}") from error
        if values.shape != self.shape:
            raise DataError(f"{self.where} must have shape {self.shape}. Received: {values.shape}")
        return values

    def _alone(self) -> np.ndarray:
        """Read in a process of its own: that of the pool died, and with it all that it was asked for."""
        with processes(1) as pool:
            try:
                return pool.submit(read_sample, *self.call).result()
            except BrokenProcessPool:
                raise DataError(f"{self.where}: the process that read it was killed. Is the file damaged?") from None


def read_sample(read: Callable[..., Any], item: Any, seed: tuple[int, ...] | None) -> np.ndarray:
    """One sample of a column that is read when needed."""
    if seed is None:
        return np.asarray(read(item))
    # The same numbers as by the tuple itself, which NumPy takes apart integer by integer.
    return np.asarray(read(item, np.random.default_rng(np.array(seed, np.uint32))))


def processes(workers: int) -> ProcessPoolExecutor:
    """Processes that inherit nothing from this one, whose threads and locks a fork would copy in mid-air."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


class BatchLoader:
    """An iterable of chunks, which are lists of steps.

    Each process takes every `world_size`-th sample of a batch, so that the global batch is the same for any number of
    processes. No sample is left out, unless a last training batch is too small for batch normalization (`Order.least`).

    Args:
        split: The samples.
        spec: What its columns are.
        order: How it is cut into batches.
        context: Gives the context; asked when an iteration begins, for the Trainer settles it late.
        unlabeled: Whether samples without a label take part.
        chunk: Steps in one chunk. May be changed while an iteration goes on.
        workers: Threads, or processes where reading is bound by Python, that prepare batches ahead. The order is the same.
        memory_format: Memory order of images.
        resident: Whether columns are kept on the device, or on the host and copied batch by batch; None decides by the room.
    """

    def __init__(
        self,
        split: Split,
        spec: DataSpec,
        order: Order,
        *,
        context: Callable[[], ProcessContext],
        unlabeled: bool = True,
        chunk: int = 1,
        workers: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
        resident: bool | None = None,
    ) -> None:
        self.split = split
        self.spec = spec
        self.order = order
        self.context = context
        self.chunk = chunk
        self.workers = workers
        self.memory_format = memory_format
        self.resident = resident
        everything = np.arange(len(split))
        self.indices = everything if unlabeled or split.labelled is None else everything[split.labelled]
        self.lengths = _lengths(split, spec)
        self._columns: tuple[torch.device, dict[str, Any]] | None = None
        self._starts: dict[int, list[int]] = {}  # processes -> first step of each pass, as far as it was asked for

    def plan(self, epoch: int = 0, world_size: int = 1) -> list[list[Tensor]]:
        """The positions of the samples of each batch of each step."""
        if self.order.round_steps:
            return self._round(epoch, world_size)
        plan = self._whole_plan(epoch, world_size)
        return plan[: self._left(epoch, world_size)] if self.order.max_steps else plan

    def _round(self, number: int, world_size: int) -> list[list[Tensor]]:
        """The plan of a round, of which the first steps may belong to a pass that began before it."""
        begin, steps = number * self.order.round_steps, self.steps(number, world_size)
        each, before = self._pass_of(begin, world_size)
        plan = self._whole_plan(each, world_size)[begin - before :]
        while len(plan) < steps:
            each += 1
            plan += self._whole_plan(each, world_size)
        return plan[:steps]

    def _pass_of(self, step: int, world_size: int) -> tuple[int, int]:
        """The pass over the samples in which a step lies, counted from 0, and the steps before it."""
        starts = self._starts.setdefault(world_size, [0])
        while starts[-1] <= step:
            starts.append(starts[-1] + self._whole_steps(len(starts) - 1, world_size))
        each = bisect.bisect_right(starts, step) - 1
        return each, starts[each]

    def passes(self, epoch: int, steps: int = 0, world_size: int = 1) -> int:
        """Passes over the samples that are whole after some steps of an epoch of the Trainer."""
        rounds = self.order.round_steps
        return self._pass_of(min(epoch * rounds + steps, self.order.max_steps), world_size)[0] if rounds else epoch

    def _whole_plan(self, epoch: int, world_size: int) -> list[list[Tensor]]:
        """The plan of an epoch in which the training does not end."""
        order = self.order
        indices = torch.from_numpy(self.indices)
        generator = torch.Generator()
        if order.seed is not None:
            generator.manual_seed((order.seed << 20) + epoch)
            indices = indices[self._draw(len(indices), generator)]
        elif order.limit:
            indices = indices[_subset(len(indices), order.limit * order.batch_size)]
        if self.lengths is not None:
            batches = self._buckets(indices, generator, world_size)
        else:
            batches = [*indices.split(order.batch_size)]
            if len(batches) > 1 and len(batches[-1]) < self._least(world_size):
                del batches[-1]
        if order.limit and order.seed is None:
            batches = [batches[i] for i in _subset(len(batches), order.limit).tolist()]
        batches = batches[: order.limit or None]
        return [batches[start : start + order.accumulate] for start in range(0, len(batches), order.accumulate)]

    def _least(self, world_size: int) -> int:
        """Samples that a last batch needs over all processes."""
        order = self.order
        return order.least * world_size if order.seed is not None and order.least > 1 else 1

    def left_out(self, world_size: int = 1) -> int:
        """Samples of each epoch that are left out, as a last batch would have too few."""
        rest = len(self.indices) % self.order.batch_size
        few = self.lengths is None and len(self.indices) > self.order.batch_size and rest < self._least(world_size)
        return rest if few else 0

    def _draw(self, samples: int, generator: torch.Generator) -> Tensor:
        """The order of the samples of an epoch."""
        if self.order.weights is None:
            return torch.randperm(samples, generator=generator)
        weights = torch.from_numpy(self.order.weights[self.indices])
        # Not torch.multinomial, which takes 2**24 categories at most.
        chosen = torch.rand(samples, dtype=torch.float64, generator=generator) * weights.sum()
        return torch.searchsorted(weights.cumsum(0), chosen, right=True).clamp(max=samples - 1)

    def _buckets(self, indices: Tensor, generator: torch.Generator, world_size: int) -> list[Tensor]:
        """Batches of samples of about the same length: sorted within pools, then shuffled within them.

        Each has enough samples for every process in training, whatever the limit of elements says.
        """
        assert self.lengths is not None
        shuffled = self.order.seed is not None
        batches: list[Tensor] = []
        for pool in indices.split(POOL_BATCHES * self.order.batch_size if shuffled else max(1, len(indices))):
            lengths = torch.from_numpy(self.lengths[pool.numpy()])
            by_length = lengths.argsort(stable=True)
            cut = self._cut(pool[by_length], lengths[by_length].tolist(), world_size * self.order.least if shuffled else 1)
            batches += [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()] if shuffled else cut
        return batches

    def _cut(self, indices: Tensor, lengths: Sequence[int], smallest: int) -> list[Tensor]:
        """Cut samples in ascending order of length by their number, and by their elements when padded."""
        order, sizes, size = self.order, [], 0
        for length in lengths:
            full = order.batch_elements and (size + 1) * length > order.batch_elements
            if size >= smallest and (size >= order.batch_size or full):
                sizes.append(size)
                size = 0
            size += 1
        if sizes and size < smallest:
            size += sizes.pop()
        return [*indices.split([*sizes, size])]

    def steps(self, epoch: int = 0, world_size: int = 1) -> int:
        """Optimizer steps in an epoch."""
        steps = self.order.round_steps or self._whole_steps(epoch, world_size)
        return min(steps, self._left(epoch, world_size)) if self.order.max_steps else steps

    def _left(self, epoch: int, world_size: int) -> int:
        """Steps that are left at the beginning of an epoch."""
        return max(0, self.order.max_steps - epoch * (self.order.round_steps or self._whole_steps(0, world_size)))

    def _whole_steps(self, epoch: int, world_size: int) -> int:
        if self.lengths is not None:
            return len(self._whole_plan(epoch, world_size))
        full, rest = divmod(len(self.indices), self.order.batch_size)
        batches = full + (rest >= (self._least(world_size) if full else 1))
        batches = min(batches, self.order.limit) if self.order.limit else batches
        return -(-batches // self.order.accumulate)

    def total_steps(self, epochs: int, world_size: int = 1) -> int:
        """Optimizer steps in a whole run."""
        steps = epochs * self.order.round_steps or self._whole_total(epochs, world_size)
        return min(steps, self.order.max_steps) if self.order.max_steps else steps

    def _whole_total(self, epochs: int, world_size: int) -> int:
        """Steps of so many whole epochs, which differ where batches are cut by elements."""
        if self.order.batch_elements and self.lengths is not None:
            return sum(self._whole_steps(epoch, world_size) for epoch in range(epochs))
        return epochs * self._whole_steps(0, world_size)

    def epochs(self, epochs: int, world_size: int = 1) -> int:
        """Epochs of a run, the last of which may be cut: as many as `Order.max_steps` takes, or else those that are given."""
        if not self.order.max_steps:
            return epochs
        return -(-self.order.max_steps // (self.order.round_steps or max(1, self._whole_steps(0, world_size))))

    def validate_by_steps(self, steps: int, epochs: int, world_size: int = 1) -> None:
        """Have rounds of so many steps, in a training of some passes over the samples, or of `Order.max_steps`."""
        self.order = replace(self.order, max_steps=self.total_steps(epochs, world_size), round_steps=steps)

    def in_pass(self, world_size: int = 1) -> int:
        """Optimizer steps of the first pass over the samples."""
        return self._whole_steps(0, world_size)

    def longest(self, count: int) -> Split:
        """The `count` samples that need the most memory."""
        order = np.arange(len(self.split)) if self.lengths is None else np.argsort(-self.lengths, kind="stable")
        return self.split.take(order[:count])

    def __iter__(self) -> Iterator[list[Step]]:
        context = self.context()
        plan = self.plan(context.epoch, context.world_size)[context.steps :]
        chunk: list[Step] = []
        for step in self.gathered(plan, context):
            chunk.append(step)
            if len(chunk) >= self.chunk:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def batch(self, indices: Tensor) -> Batch:
        """The samples at some positions of the split (samples,), whatever the order; of columns in memory."""
        device = self.context().device
        return self._batch(indices, self._on_device(device), device, {})

    def gathered(self, plan: list[list[Tensor]], context: ProcessContext) -> Iterator[Step]:
        """The steps of a plan, one after the other."""
        lazy = [column for column in self.split.columns.values() if isinstance(column, Lazy)]
        columns = self._on_device(context.device)

        own = plan
        if context.world_size > 1:
            own = [[_part(batch, context) for batch in step] for step in plan]

        def gather(step: int, found: list[dict[str, Any]]) -> Step:
            parts = [self._batch(batch, columns, context.device, part) for batch, part in zip(own[step], found, strict=True)]
            sizes = [*map(len, plan[step])]
            return Step(parts, sizes, [_of_rank(size, context) for size in sizes])

        found = enumerate(_short(own, columns, context.device))
        if not lazy:
            yield from _ahead(gather, found, self.workers) if self.workers else itertools.starmap(gather, found)
            return
        seed = (self.order.seed or 0, context.epoch if self.order.seed is not None else 0)
        with contextlib.ExitStack() as stack:
            pool: Executor | None = None
            if self.workers:
                python = any(column.python for column in lazy)
                pool = processes(self.workers) if python else ThreadPoolExecutor(self.workers)
                stack.callback(pool.shutdown, cancel_futures=True)
            asking = ((step, parts, [self._request(pool, batch, seed) for batch in own[step]]) for step, parts in found)
            for step, parts, asked in _queued(asking, 2 * self.workers):
                for part, columns_asked in zip(parts, asked, strict=True):
                    for name, requests in columns_asked.items():
                        read = [request.result() for request in requests]
                        part[name] = _joined(read, self.spec.fields[name].ragged, context.device)
                yield gather(step, parts)

    def _request(self, pool: Executor | None, indices: Tensor, seed: tuple[int, int]) -> dict[str, list[Request]]:
        """By column, what will give each sample."""
        asked: dict[str, list[Request]] = {}
        chosen = indices.numpy()
        ids = self.split.ids[chosen]
        for name, column in self.split.columns.items():
            if isinstance(column, Lazy):
                shape = self.spec.fields[name].shape
                shapes: Iterable[tuple[int | None, ...]] = itertools.repeat(shape)
                if column.lengths is not None:
                    shapes = ((length, *shape[1:]) for length in column.lengths[chosen].tolist())
                seeds = [(*seed, i) if column.random else None for i in chosen.tolist()]
                samples = zip(ids, column.items[chosen], seeds, shapes, strict=False)
                asked[name] = [Request(pool, name, which, (column.read, item, by), own) for which, item, by, own in samples]
        return asked

    def _batch(self, indices: Tensor, columns: dict[str, Any], device: torch.device, found: dict[str, Any]) -> Batch:
        """A batch; `found` has the columns that are gathered already."""

        def gathered(name: str, column: Any) -> Tensor | Ragged:
            if name in found:
                return found[name]
            if isinstance(column, Ragged):
                return _gathered(column, indices, device)
            return column.index_select(0, indices.to(column.device)).to(device)

        batch = {name: laid_out(gathered(name, column), self.memory_format) for name, column in columns.items()}
        labelled = None
        if self.split.labelled is not None and len(self.indices) == len(self.split):
            labelled = torch.from_numpy(self.split.labelled[indices.cpu().numpy()]).to(device)
        return Batch(batch, indices.to(device), self.spec, labelled)

    def _on_device(self, device: torch.device) -> dict[str, Any]:
        """The columns as tensors, on the device where they are resident; offsets stay on the host."""
        if self._columns is None or self._columns[0] != device:
            where = device if self._resident(device) else torch.device("cpu")
            self._columns = (device, {name: _tensors(column, where) for name, column in self.split.columns.items()})
        return self._columns[1]

    def _resident(self, device: torch.device) -> bool:
        if self.resident is not None or device.type != "cuda":
            return self.resident is not False
        arrays = [column.values if isinstance(column, Ragged) else column for column in self.split.columns.values()]
        size = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        return size < torch.cuda.mem_get_info(device)[0] // 2


def _subset(samples: int, size: int) -> Tensor:
    """Ascending places of `size` samples at most, the same in every run."""
    if size >= samples:
        return torch.arange(samples)
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0))[:size].sort().values


def _part(batch: Tensor, context: ProcessContext) -> Tensor:
    """The samples of a process; the first one as a stand-in for none."""
    return batch[context.rank :: context.world_size] if context.rank < len(batch) else batch[:1]


def _of_rank(size: int, context: ProcessContext) -> int:
    """How many of a batch's samples belong to a process."""
    return len(range(context.rank, size, context.world_size))


class Short:
    """A ragged column of short samples on the host, copied by Arrow: a slice of a NumPy array costs more than its copy.

    Args:
        column: NumPy arrays, which are not copied.
    """

    def __init__(self, column: Ragged) -> None:
        import pyarrow

        values = np.ascontiguousarray(column.values)
        self.element, self.dtype = values.shape[1:], values.dtype
        self.size = values.itemsize * math.prod(self.element)
        buffers = [None, pyarrow.py_buffer(column.offsets.astype(np.int64) * self.size), pyarrow.py_buffer(values)]
        self.samples = pyarrow.LargeBinaryArray.from_buffers(pyarrow.large_binary(), len(column), buffers)

    def gather(self, batches: list[Tensor], device: torch.device) -> Iterator[Ragged]:
        """The samples of each batch: parts of one array, which is gathered by one call."""
        index = torch.cat(batches).numpy()
        _, ends, copied = self.samples.take(index).buffers()
        ends = np.ndarray(len(index) + 1, np.int64, ends) // self.size
        values = torch.from_numpy(np.ndarray((ends[-1], *self.element), self.dtype, copied))
        counts = [batch.numel() for batch in batches]
        edges = ends[[0, *itertools.accumulate(counts)]]
        # A batch of n samples has n + 1 offsets: the end of a batch is the start of the next, and stands in both.
        rows = [count + 1 for count in counts]
        batch = np.repeat(np.arange(len(batches)), rows)
        offsets = torch.from_numpy(ends[np.arange(len(batch)) - batch] - edges[batch])
        # Parts that count their own changes: autograd must not take a change of one batch for a change of another.
        parts = torch.unsafe_split_with_sizes(values.to(device), (edges[1:] - edges[:-1]).tolist())
        return map(Ragged, parts, torch.unsafe_split_with_sizes(offsets.to(device), rows))


def _short(plan: list[list[Tensor]], columns: dict[str, Any], device: torch.device) -> Iterator[list[dict[str, Any]]]:
    """For each step of a plan, by batch, the columns of short samples: gathered for several steps at once."""
    short = {name: column for name, column in columns.items() if isinstance(column, Short)}
    together = max(1, TOGETHER // max(1, sum(len(batch) for step in plan[:1] for batch in step)))
    for start in range(0, len(plan), together):
        steps = plan[start : start + together]
        batches = [batch for step in steps for batch in step]
        found = {name: column.gather(batches, device) for name, column in short.items()}
        for step in steps:
            yield [{name: next(parts) for name, parts in found.items()} for _ in step]


def laid_out(column: Tensor | Ragged, memory_format: torch.memory_format) -> Tensor | Ragged:
    """A column of images in a memory order; any other as it is."""
    return column.contiguous(memory_format=memory_format) if isinstance(column, Tensor) and column.ndim == 4 else column


def _lengths(split: Split, spec: DataSpec) -> np.ndarray | None:
    """The lengths by which samples are sorted: those of the longest inputs; None where all have one shape."""
    lengths = [split[name].lengths for name, field in spec.inputs.items() if field.ragged]
    return np.max(lengths, axis=0) if lengths else None


def _tensors(column: Column, device: torch.device) -> Any:
    if isinstance(column, Lazy):
        return column
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        if isinstance(column, Ragged):
            if device.type == "cpu" and column.values.size < FEW_ELEMENTS * len(column):
                return Short(column)
            return Ragged(torch.from_numpy(column.values).to(device), column.offsets)
        return torch.from_numpy(column).to(device)


def _gathered(column: Ragged, indices: Tensor, device: torch.device) -> Ragged:
    """The samples of a ragged column: slices joined; on a device one index where samples are short."""
    chosen = indices.cpu().numpy()
    starts, ends = column.offsets[chosen], column.offsets[chosen + 1]
    offsets = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    values: Tensor = column.values
    if values.device.type == "cpu":
        array = values.numpy()  # slicing NumPy arrays takes a tenth of the time
        pieces = [array[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        joined = torch.from_numpy(np.concatenate(pieces))
    elif int(offsets[-1]) * values[:1].numel() >= FEW_ELEMENTS * len(chosen):
        joined = torch.cat([values[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
    else:
        flat = np.repeat(starts - offsets[:-1], ends - starts) + np.arange(offsets[-1])
        joined = values.index_select(0, torch.from_numpy(flat).to(values.device))
    return Ragged(joined.to(device), torch.from_numpy(offsets).to(device))


def _joined(samples: list[np.ndarray], ragged: bool, device: torch.device) -> Tensor | Ragged:
    if not ragged:
        return torch.from_numpy(np.stack(samples)).to(device)
    joined = Ragged.of(samples)
    return Ragged(torch.from_numpy(joined.values).to(device), torch.from_numpy(joined.offsets).to(device))


def _queued(items: Iterator[T], ahead: int) -> Iterator[T]:
    """The items, of which `ahead` more are always made already."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def _ahead(gather: Callable[..., Step], arguments: Iterator[tuple[Any, ...]], workers: int) -> Iterator[Step]:
    """`starmap(gather, arguments)`, computed by threads up to two steps each before they are asked for."""
    with ThreadPoolExecutor(workers) as pool:
        for future in _queued((pool.submit(gather, *each) for each in arguments), 2 * workers):
            yield future.result()
