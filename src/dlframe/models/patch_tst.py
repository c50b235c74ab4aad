"""Transformers over patches of a series."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.transformer import TransformerLayer
from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec


@models.register(
    "patch_tst",
    inputs=("series",),
    targets=("value",),
    search={"width": "choice(16,32,64)", "depth": "range(1,4)", "dropout": "interval(0,0.3)"},
)
class PatchTST(nn.Module):
    """Transformer over overlapping patches of a series, with a linear head on all of them.

    PatchTST (Nie et al. 2023, arXiv 2211.14730), which is channel-independent: of several series, each is forecast from
    itself, by the same weights. Further columns of a window are refused. Instance normalization is that of the task: the
    last value and the standard deviation of the window. Two differences from the paper: layer norm comes before attention
    and feed-forward layers (Xiong et al. 2020, arXiv 2002.04745) in place of batch norm after them, and patches are shorter,
    for shorter windows.

    Args:
        patch_size: Steps of a patch.
        stride: Steps from patch to patch; the last value is repeated that often at the end.
        width: Features of a patch; must be a multiple of `num_heads`.
        depth: Number of transformer blocks.
        num_heads: Attention heads per block.
        dropout: Dropout probability in each block.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        patch_size: Count = 12,
        stride: Count = 6,
        width: Count = 32,
        depth: Count = 2,
        num_heads: Count = 4,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        time, features = spec.shape
        if features > 1:
            raise ConfigError(
                f"model=patch_tst: is channel-independent and takes the series alone. Received: {features} columns "
                f"({', '.join(spec.input.names) or 'unnamed'}). Choose from: dlinear, lstm, nbeats, tcn",
                "model",
            )
        if width % num_heads:
            raise ConfigError(
                f"model.width: must be a multiple of model.num_heads, {num_heads}. "
                f"Received: {width}. Try: model.width={width + -width % num_heads}"
            )
        if patch_size > time + stride:
            raise ConfigError(
                f"model.patch_size: must be at most the window and model.stride, {time} + {stride}. Received: {patch_size}",
                "model.patch_size",
            )
        self.patch_size = patch_size
        self.stride = stride
        patches = (time + stride - patch_size) // stride + 1
        self.embed = nn.Linear(patch_size, width)
        self.position = nn.Parameter(0.02 * torch.randn(patches, width))
        self.blocks = nn.Sequential(*(TransformerLayer(width, num_heads, 4 * width, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(patches * width, spec.horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Return future values (batch, horizon) of windows (batch, time, 1)."""
        values = functional.pad(series.transpose(1, 2), (0, self.stride), mode="replicate").squeeze(1)
        patches = values.unfold(1, self.patch_size, self.stride)  # (batch, patches, patch_size)
        states = self.norm(self.blocks(self.embed(patches) + self.position))
        return self.head(self.dropout(states.flatten(1)))
