"""Most popular items."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlframe.models.matching import Inputs
from dlframe.registry import models
from dlframe.types import DataSpec


@models.register(
    "popular",
    networks=(),
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
    exempt={
        "varies": "all counts start at zero",
        "gradients": "counts have no gradients",
        "overfits": "the same list for all users has no loss",
    },
)
class Popular(nn.Module):
    """Number of training users who have seen an item, the same list for every user."""

    counts: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(len(spec.inputs["history"].names), dtype=torch.float64))

    def partial_fit(self, inputs: Inputs) -> None:
        """Count the items of histories."""
        items = inputs["history"].values
        self.counts += torch.bincount(items, minlength=len(self.counts))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return counts (batch, items)."""
        return self.counts.float().expand(len(inputs["user"]), -1)
