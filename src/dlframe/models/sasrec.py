"""Self-attentive recommender."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.sequences import Sequential
from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each with dropout, a residual and layer normalization."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.attention, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, time, width)."""
        query, key, value = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in self.attention(x).chunk(3, 2))
        p = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        drop = functional.dropout
        x = self.norms[0](x + drop(self.output(mixed.transpose(1, 2).flatten(2)), p))
        return self.norms[1](x + drop(self.narrow(functional.gelu(self.wide(x))), p))


@models.register(
    "sasrec",
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
)
class SASRec(Sequential):
    """Causal Transformer over the last items of a user, which predicts the next one.

    Kang and McAuley 2018 (arXiv 1808.09781), with softmax over all items instead of one drawn item (Klenitskiy and Vasilev
    2023, arXiv 2309.07602), GELU, and layer normalization after each residual. Positions count from the oldest item read.

    Args:
        width: Numbers in the embedding of an item.
        depth: Number of layers.
        num_heads: Heads of an attention.
        dropout: Dropout probability of embeddings, attention weights and the outputs of layers.
        length: Items that are read.
        loss: Loss: softmax over all items, or pairwise (bpr) or log loss (pointwise) against drawn items.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        depth: Count = 2,
        num_heads: Count = 2,
        dropout: Probability = 0.5,
        length: Count = 50,
        loss: Literal["softmax", "bpr", "pointwise"] = "softmax",
    ) -> None:
        super().__init__(spec, width=width, length=length, loss=loss)
        if width % num_heads:
            raise ConfigError(f"model.num_heads: must divide model.width={width}. Received: {num_heads}.", "model.num_heads")
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, num_heads, dropout) for _ in range(depth)))

    def encode(self, items: Tensor) -> Tensor:
        return self.blocks(self.dropout(self.norm(self.item(items) + self.position[: items.shape[1]])))
