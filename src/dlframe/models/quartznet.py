"""Convolutions over speech, for CTC."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.readers.audio.mel import MELS, STRIDE
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec, Ragged


class Separable(nn.Module):
    """Convolution over time for each channel, then one over the channels of each step.

    What lies behind the end of a sample is set to 0 before each convolution, and the norm is that of each step alone: a
    sample is independent of others and of its padding.
    """

    def __init__(self, channels: int, width: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.over_time = nn.Conv1d(
            channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.over_channels = nn.Linear(channels, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: Tensor, inside: Tensor) -> Tensor:
        """Return (batch, time / stride, width) of (batch, time, channels), of which `inside` (batch, time, 1) counts."""
        filtered = self.over_time((steps * inside).transpose(1, 2)).transpose(1, 2)
        return self.norm(self.over_channels(filtered))


class Block(nn.Module):
    """Separable convolutions with a residual connection around them."""

    def __init__(self, width: int, kernel_size: int, repeat: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Separable(width, width, kernel_size) for _ in range(repeat))
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor, inside: Tensor) -> Tensor:
        found = steps
        for i, layer in enumerate(self.layers):
            found = layer(self.dropout(found.relu()) if i else found, inside)
        return self.dropout((found + steps).relu())


@models.register(
    "quartznet",
    inputs=("audio",),
    targets=("tokens",),
    task="transcription",
    sample={"name": "tones", "utterances": 60},
    search={"width": "choice(96,128,192,256)", "depth": "range(3,8)", "dropout": "interval(0,0.3)"},
)
class QuartzNet(nn.Module):
    """Separable convolutions with residual connections, for CTC.

    Kriman et al. 2019, arXiv 1910.10261. Kernels grow with the depth. Unlike there, the norm is a layer norm of each step,
    by which a sample is independent of its neighbors and its padding in training too.

    Args:
        width: Channels.
        depth: Number of blocks.
        repeat: Convolutions in a block.
        kernel_size: Kernel size of the first block, in steps of 20 ms; odd. That of the last one is twice as large.
        dropout: Dropout probability after each convolution.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 128,
        depth: Count = 4,
        repeat: Count = 1,
        kernel_size: Count = 11,
        dropout: Probability = 0.05,
    ) -> None:
        super().__init__()
        sizes = [int(kernel_size * (1 + i / max(1, depth - 1))) // 2 * 2 + 1 for i in range(depth)]
        self.first = Separable(MELS, width, sizes[0], STRIDE)
        self.blocks = nn.ModuleList(Block(width, size, repeat, dropout) for size in sizes)
        self.last = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, 1 + len(spec.target.names))

    def forward(self, features: Ragged) -> tuple[Tensor, Tensor]:
        """Return logits (batch, steps, blank and letters) of features (frames, mels), and their lengths (batch,)."""
        frames, lengths = features.padded()
        steps = self.first(frames, within(lengths, frames.shape[1])).relu()
        lengths = -(-lengths // STRIDE)
        inside = within(lengths, steps.shape[1])
        for block in self.blocks:
            steps = block(steps, inside)
        return self.head(functional.relu(self.last(steps))), lengths


def within(lengths: Tensor, longest: int) -> Tensor:
    """Return whether each step is within its sample, (batch, longest, 1)."""
    return (torch.arange(longest, device=lengths.device) < lengths[:, None])[:, :, None]
