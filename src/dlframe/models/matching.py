"""Base class of recommenders that match a user's state with items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from dlframe.types import Ragged

Inputs = dict[str, Any]
"""Columns of a batch: "user" (batch,), and "history", `Ragged` items of each user in the order of time."""


class Matching(nn.Module, ABC):
    """Base class of recommenders that learn states of users and score items by them.

    `criterion` is the loss of the task: softmax, in_batch, bpr or pointwise. `new_users` tells whether users that training
    has not seen, whose number is -1, have a state.
    """

    criterion: str
    new_users = True

    @abstractmethod
    def states(self, inputs: Inputs) -> Tensor:
        """Return the state before each item of the histories, by which it is predicted, (elements, width)."""

    @abstractmethod
    def last_states(self, inputs: Inputs) -> Tensor:
        """Return the states after the histories, (batch, width)."""

    @abstractmethod
    def match(self, states: Tensor, items: Tensor | None = None) -> Tensor:
        """Return the scores of items (n, candidates) by states (n, width); of all items by default."""

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the scores of all items, (batch, items)."""
        return self.match(self.last_states(inputs))


def dot(states: Tensor, embeddings: Tensor, items: Tensor | None) -> Tensor:
    """Return products of states (n, width) with the embeddings of items (n, candidates), or of all items."""
    if items is None:
        return states @ embeddings.T
    return (embeddings[items] * states[:, None]).sum(-1)


def repeated(states: Tensor, history: Ragged) -> Tensor:
    """Return the state of each user for each item of the history, (elements, width)."""
    return torch.repeat_interleave(states, history.lengths.to(states.device), 0)
