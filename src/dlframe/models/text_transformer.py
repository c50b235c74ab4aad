"""Transformer of texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlframe.models.transformer import TransformerLayer, TransformerLayers
from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec, Ragged


@models.register(
    "text_transformer",
    inputs=("tokens",),
    search={"width": "choice(32,64,128)", "depth": "range(1,4)", "dropout": "interval(0,0.5)"},
)
class TextTransformer(nn.Module):
    """Small transformer over embedded words, from random weights, averaged over the text.

    Vaswani et al. (2017, arXiv 1706.03762): sinusoidal positions, so that texts may be of any length. Layer norm comes before
    attention and feed-forward layers (Xiong et al. 2020, arXiv 2002.04745).

    Args:
        width: Size of embeddings and states.
        depth: Number of layers.
        num_heads: Attention heads; divide the width.
        dropout: Dropout probability of embeddings and of what layers add; attention weights are not dropped.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        depth: Count = 2,
        num_heads: Count = 4,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ConfigError(f"model.width: must be a multiple of {2 * num_heads}, twice model.num_heads. Received: {width}.")
        self.embedding = nn.Embedding(2 + len(spec.fitted["vocabulary"]), width, padding_idx=0)
        self.layers = TransformerLayers(
            (TransformerLayer(width, num_heads, 4 * width, dropout) for _ in range(depth)), nn.LayerNorm(width)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, len(spec.classes))

    @property
    def token_embedding(self) -> nn.Embedding:
        """Embedding that reads the tokens."""
        return self.embedding

    def forward(self, tokens: Ragged) -> Tensor:
        """Return logits (batch, classes) of texts."""
        padded, lengths = tokens.padded()
        embedded = self.embedding(padded)
        states = self.dropout(embedded + _positions(embedded))
        inside = torch.arange(padded.shape[1], device=states.device) < lengths.to(states.device).unsqueeze(1)
        states = self.layers(states, inside[:, None, None, :]).masked_fill(~inside.unsqueeze(2), 0)
        return self.head(states.sum(1) / lengths.to(states).unsqueeze(1))


def _positions(like: Tensor) -> Tensor:
    """Return the sinusoids (length, width) of a batch (samples, length, width)."""
    _, length, width = like.shape
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10_000.0) / width))
    angles = torch.arange(length, device=like.device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1).to(like.dtype)
