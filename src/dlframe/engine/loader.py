"""Batches of a split that is in memory: gathered on the device, a chunk at a time, in an order that (seed, epoch) fixes."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlframe.types import UNLABELLED, Batch, Split


@dataclass
class Place:
    """Where a process stands: its device, its rank among `world` processes, the epoch, and the batches of it that are done."""

    device: torch.device
    rank: int = 0
    world: int = 1
    epoch: int = 0
    batches: int = 0


class Batches:
    """An iterable of chunks, which are lists of batches.

    Each process takes every `world`-th sample of a batch, so that the global batch is the same for any number of
    processes. A last training batch that would leave a device with fewer than two samples is left out: batch
    normalisation has no variance there. In evaluation no sample is left out and none is seen twice.

    Args:
        split: The samples.
        batch_size: Samples in one batch over all processes.
        place: Gives the place; asked when an iteration begins, for the Trainer settles it late.
        seed: Shuffle, by this seed and the epoch; None keeps the order.
        unlabelled: Whether samples without a label take part.
        chunk: Batches in one chunk. May be changed while an iteration goes on.
        limit: Batches in one iteration; 0 for all.
        workers: Threads that gather batches ahead, for data on a disk that is slower than the training. The order is the same.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        place: Callable[[], Place],
        seed: int | None = None,
        unlabelled: bool = True,
        chunk: int = 1,
        limit: int = 0,
        workers: int = 0,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.place = place
        self.seed = seed
        self.chunk = chunk
        labelled = np.arange(len(split)) if unlabelled else np.flatnonzero(split.targets != UNLABELLED)
        self.members = torch.from_numpy(labelled)
        self.limit = limit
        self.workers = workers
        self._resident: tuple[torch.device, Tensor, Tensor] | None = None

    def steps(self, world: int = 1) -> int:
        """Batches in one iteration."""
        full, rest = divmod(len(self.members), self.batch_size)
        smallest = 2 * world if self.seed is not None and full else 1
        count = full + (rest >= smallest)
        return min(count, self.limit) if self.limit else count

    def __iter__(self) -> Iterator[list[Batch]]:
        place = self.place()
        order = self._order(place)
        inputs, targets = self._tensors(place.device)

        def gather(step: int) -> Batch:
            members = order[step * self.batch_size : (step + 1) * self.batch_size]
            index = members.tensor_split(place.world)[place.rank] if place.world > 1 else members
            return Batch(inputs.index_select(0, index), targets.index_select(0, index), index)

        steps = range(place.batches, self.steps(place.world))
        chunk = []
        for batch in _ahead(gather, steps, self.workers) if self.workers else map(gather, steps):
            chunk.append(batch)
            if len(chunk) >= self.chunk:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _order(self, place: Place) -> Tensor:
        members = self.members
        if self.seed is not None:
            generator = torch.Generator().manual_seed((self.seed << 20) + place.epoch)
            members = members[torch.randperm(len(members), generator=generator)]
        return members.to(place.device)

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._resident is None or self._resident[0] != device:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                inputs, targets = torch.from_numpy(self.split.inputs), torch.from_numpy(self.split.targets)
            self._resident = (device, inputs.to(device), targets.to(device))
        return self._resident[1:]


def _ahead(gather: Callable[[int], Batch], steps: Iterable[int], workers: int) -> Iterator[Batch]:
    """`map(gather, steps)`, computed by threads up to two batches each before they are asked for."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(pool.submit(gather, step))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
