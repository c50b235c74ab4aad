"""Neural matrix factorization."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.matching import Inputs, Matching, repeated
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec

ELEMENTS = 2**24
"""Hidden units of pairs of user and item at once, when all items are scored."""


@models.register(
    "neumf",
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
)
class NeuMF(Matching):
    """Weighted products of embeddings, plus an MLP of other embeddings of user and item.

    He et al. 2017 (arXiv 1708.05031), trained from scratch, without pretraining its two parts.

    Args:
        width: Numbers in an embedding, of which user and item have two each.
        hidden: Units of the hidden layers of the MLP; without any, there is no MLP.
        dropout: Dropout probability of hidden units.
        loss: Loss: log loss of seen and unseen items (pointwise), pairwise (bpr), or softmax over all items.
    """

    new_users = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        hidden: tuple[Count, ...] = (128, 64),
        dropout: Probability = 0.1,
        loss: Literal["pointwise", "bpr", "softmax"] = "pointwise",
    ) -> None:
        super().__init__()
        self.criterion = loss
        sizes = (2 * width, *hidden)
        self.sizes = sizes
        self.user = nn.Embedding(len(spec.inputs["user"].names), 2 * width)
        self.item = nn.Embedding(len(spec.inputs["history"].names), 2 * width)
        for embedding in (self.user, self.item):
            nn.init.normal_(embedding.weight, std=0.05)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width + (sizes[-1] if hidden else 0), 1)

    def last_states(self, inputs: Inputs) -> Tensor:
        return self.user(inputs["user"])

    def states(self, inputs: Inputs) -> Tensor:
        return repeated(self.last_states(inputs), inputs["history"])

    def match(self, states: Tensor, items: Tensor | None = None) -> Tensor:
        if items is not None:
            return self.pairs(states, self.item(items))
        every = self.item.weight[None]
        size = max(1, ELEMENTS // (every.shape[1] * max(self.sizes)))
        return torch.cat([self.pairs(part, every) for part in states.split(size)])

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        """Return scores (n, candidates) of states (n, 2 width) and embeddings (n or 1, candidates, 2 width)."""
        width = users.shape[1] // 2
        parts = [users[:, None, :width] * items[..., :width]]
        if self.layers:
            first, *others = self.layers
            assert isinstance(first, nn.Linear)
            # The first layer of (user, item) is a sum, of which each part is computed once.
            own, other = first.weight.split(width, 1)
            hidden = functional.linear(users[:, width:], own, first.bias)[:, None] + functional.linear(
                items[..., width:], other
            )
            hidden = self.dropout(hidden.relu())
            for layer in others:
                hidden = self.dropout(layer(hidden).relu())
            parts.append(hidden)
        return self.head(torch.cat(parts, -1)).squeeze(-1)
