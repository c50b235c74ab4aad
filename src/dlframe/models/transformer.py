"""Layers of Transformer encoders."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Self-attention with several heads (Vaswani et al. 2017, arXiv 1706.03762).

    Attention weights are not dropped in training: with dropout, CPUs have no fused kernel, and the matrices of
    length x length take half of a step.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, states: Tensor, inside: Tensor | None) -> Tensor:
        """Return (batch, time, width)."""
        heads = functional.linear(states, self.in_proj_weight, self.in_proj_bias).unflatten(2, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, width / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=inside)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, a residual and layer normalization.

    Parameters have the names and the first values of `torch.nn.TransformerEncoderLayer`, which is slower: its attention
    multiplies transposed states, and its dropout reaches attention weights.

    Args:
        width: Size of a state.
        num_heads: Attention heads; divide the width.
        hidden_dim: Units of the feed-forward network.
        dropout: Dropout probability of its units, and of what is added to the states.
        activation: Activation of its units: gelu or relu.
        norm_first: Whether to normalize what attention and network read (Xiong et al. 2020, arXiv 2002.04745), in place of what
            they return.
        epsilon: Added to the variances of layer normalization.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_dim: int,
        dropout: float = 0.0,
        *,
        activation: str = "gelu",
        norm_first: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.activation = functional.gelu if activation == "gelu" else functional.relu
        self.self_attn = SelfAttention(width, num_heads)
        self.linear1, self.linear2 = nn.Linear(width, hidden_dim), nn.Linear(hidden_dim, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return (batch, time, width).

        Args:
            states: (batch, time, width).
            inside: (batch, 1, 1, time), which states are attended to; None for all.
        """
        if self.norm_first:
            states = states + self.dropout(self.self_attn(self.norm1(states), inside))
            return states + self.dropout(self._feed_forward(self.norm2(states)))
        states = self.norm1(states + self.dropout(self.self_attn(states, inside)))
        return self.norm2(states + self.dropout(self._feed_forward(states)))

    def _feed_forward(self, states: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(states))))


class TransformerLayers(nn.Module):
    """Transformer layers, one after the other; `norm` normalizes what they return."""

    def __init__(self, layers: Iterable[TransformerLayer], norm: nn.LayerNorm | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, states: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return (batch, time, width); see `TransformerLayer`."""
        for layer in self.layers:
            states = layer(states, inside)
        return states if self.norm is None else self.norm(states)
