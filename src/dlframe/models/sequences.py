"""Base class of recommenders that read the items of a user in the order of time."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from dlframe.models.matching import Inputs, Matching, dot
from dlframe.types import DataSpec, Ragged


class Sequential(Matching):
    """Base class of recommenders that read the last items of a user.

    In training, long histories are cut into overlapping windows, so that each item is predicted once, from at least half a
    window of items before it where there are as many. Before the first item a learned one is read. Scores are products with
    the embeddings of the items.
    """

    def __init__(self, spec: DataSpec, *, width: int, length: int, loss: Literal["softmax", "bpr", "pointwise"]) -> None:
        super().__init__()
        self.criterion = loss
        self.length = length
        self.items = len(spec.inputs["history"].names)
        self.item = nn.Embedding(self.items + 1, width)  # the last one begins a sequence
        nn.init.normal_(self.item.weight, std=0.02)

    @abstractmethod
    def encode(self, items: Tensor) -> Tensor:
        """Return the state after each item of sequences (batch, time), (batch, time, width); no state sees later items."""

    def read(self, history: Ragged) -> tuple[Tensor, Tensor]:
        """Return what is read before each item: begin, first, ..., last, concatenated, (elements + batch,); and offsets."""
        offsets = history.offsets.to(history.values.device)
        begins = offsets[:-1] + torch.arange(len(history), device=offsets.device)
        read = history.values.new_full((len(history.values) + len(history),), self.items)
        inside = torch.ones(len(read), dtype=torch.bool, device=offsets.device)
        inside[begins] = False
        read[inside] = history.values
        return read, begins

    def states(self, inputs: Inputs) -> Tensor:
        history: Ragged = inputs["history"]
        read, begins = self.read(history)
        lengths, device = history.lengths.to(read.device), read.device
        step = max(1, self.length // 2)
        # Windows end after length, length + step, ... items; the first has all items new, the others the last `step`.
        windows = 1 + (lengths - self.length).clamp(min=0).add(step - 1).div(step, rounding_mode="floor")
        user = torch.repeat_interleave(torch.arange(len(lengths), device=device), windows)
        number = torch.arange(len(user), device=device) - (windows.cumsum(0) - windows)[user]
        first = number * step
        place = first[:, None] + torch.arange(min(self.length, int(lengths.max())), device=device)
        valid = place < lengths[user, None]
        new = valid & ((number == 0)[:, None] | (place >= (first + self.length - step)[:, None]))
        items = read[(begins[user, None] + place).clamp(max=len(read) - 1)].masked_fill(~valid, self.items)
        return self.encode(items)[new]

    def last_states(self, inputs: Inputs) -> Tensor:
        history: Ragged = inputs["history"]
        read, begins = self.read(history)
        count = history.lengths.to(read.device) + 1
        known = count.clamp(max=self.length)
        place = torch.arange(int(known.max()), device=read.device)
        index = ((begins + count - known)[:, None] + place).clamp(max=len(read) - 1)
        items = read[index].masked_fill(place >= known[:, None], self.items)
        return self.encode(items)[torch.arange(len(known), device=read.device), known - 1]

    def match(self, states: Tensor, items: Tensor | None = None) -> Tensor:
        return dot(states, self.item.weight[:-1], items)
