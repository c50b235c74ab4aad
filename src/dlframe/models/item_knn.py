"""Neighborhoods of items."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlframe.models.matching import Inputs
from dlframe.registry import Count, models
from dlframe.types import ConfigError, DataSpec, Ragged

LARGEST = 30_000
"""Maximum number of items, whose products are a dense matrix."""


@models.register(
    "item_knn",
    networks=(),
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
    exempt={
        "varies": "all counts start at zero",
        "gradients": "a closed form has no gradients",
        "overfits": "similarities have no loss",
    },
    search={"neighbors": "choice(20,50,100,200,500)"},
)
class ItemKNN(nn.Module):
    """Sum of the cosine similarities of an item with those of the history.

    Deshpande and Karypis 2004 ("Item-based top-N recommendation algorithms"), with binary interactions: the similarity of two
    items is the number of their common users, divided by the square root of the product of their numbers of users. Only the
    largest similarities are kept, and those equal to the smallest of them. One epoch gives the final model.

    Args:
        neighbors: Similarities that are kept for each item.
        of: Whose neighbors are kept: those of each item of the history, or those of each item to recommend (target).
    """

    products: Tensor
    similarity: Tensor

    def __init__(self, spec: DataSpec, *, neighbors: Count = 100, of: Literal["history", "target"] = "history") -> None:
        super().__init__()
        items = len(spec.inputs["history"].names)
        if items > LARGEST:
            raise ConfigError(f"model=item_knn: supports {LARGEST:,} items at most. Received: {items:,}.")
        self.neighbors, self.of = min(neighbors, items), of
        self.register_buffer("products", torch.zeros(items, items))
        self.register_buffer("similarity", torch.zeros(items, items), persistent=False)

    def partial_fit(self, inputs: Inputs) -> None:
        """Count the common users of items."""
        seen = self.interactions(inputs["history"])
        self.products.addmm_(seen.T, seen)

    def interactions(self, history: Ragged) -> Tensor:
        """Return whether a user has seen an item, (batch, items) of 0 and 1."""
        seen = self.products.new_zeros(len(history), len(self.products))
        owner = torch.repeat_interleave(torch.arange(len(history), device=seen.device), history.lengths.to(seen.device))
        seen[owner, history.values] = 1
        return seen

    def begin_scoring(self) -> None:
        """Compute the similarities (items of the history, items to recommend)."""
        norm = self.products.diagonal().sqrt().clamp(min=1)
        cosine = self.products / norm[:, None] / norm
        cosine.fill_diagonal_(0)
        axis = 1 if self.of == "history" else 0
        # Of neighbors that are equally similar as the last one all are kept: any choice would be arbitrary.
        least = cosine.topk(self.neighbors, dim=axis).values.select(axis, -1).unsqueeze(axis)
        self.similarity.copy_(cosine.where(cosine >= least, 0))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return sums of similarities (batch, items)."""
        return self.interactions(inputs["history"]) @ self.similarity
