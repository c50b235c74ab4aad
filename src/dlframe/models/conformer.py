"""Attention and convolutions over speech, for CTC."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.readers.audio.mel import MELS, STRIDE
from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec, Ragged


def feed_forward(width: int, dropout: float) -> nn.Sequential:
    """Return a layer norm and two linear layers, four times as wide between them."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
    )


def rotated(steps: Tensor) -> Tensor:
    """Return queries or keys (..., time, width) turned by angles that grow with time, pair by pair."""
    half = steps.shape[-1] // 2
    speed = 10000 ** (-torch.arange(half, device=steps.device, dtype=torch.float32) / half)
    angle = torch.arange(steps.shape[-2], device=steps.device, dtype=torch.float32)[:, None] * speed
    cos, sin = angle.cos().to(steps.dtype), angle.sin().to(steps.dtype)
    left, right = steps[..., :half], steps[..., half:]
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)


class Attention(nn.Module):
    """Self-attention of the steps of a sample, with rotary positions."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, steps: Tensor, inside: Tensor) -> Tensor:
        heads = self.queries_keys_values(self.norm(steps)).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, width / heads)
        found = functional.scaled_dot_product_attention(
            rotated(queries),
            rotated(keys),
            values,
            attn_mask=inside[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(found.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """Gated convolution over the time of each channel."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gated = nn.Linear(width, 2 * width)
        self.over_time = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.inner_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, steps: Tensor, inside: Tensor) -> Tensor:
        found = functional.glu(self.gated(self.norm(steps)), -1) * inside[:, :, None]
        found = self.over_time(found.transpose(1, 2)).transpose(1, 2)
        return self.out(functional.silu(self.inner_norm(found)))


class Block(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer, each with a residual connection."""

    def __init__(self, width: int, num_heads: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.before, self.after = feed_forward(width, dropout), feed_forward(width, dropout)
        self.attention = Attention(width, num_heads, dropout)
        self.convolution = Convolution(width, kernel_size)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor, inside: Tensor) -> Tensor:
        steps = steps + 0.5 * self.dropout(self.before(steps))
        steps = steps + self.dropout(self.attention(steps, inside))
        steps = steps + self.dropout(self.convolution(steps, inside))
        return self.norm(steps + 0.5 * self.dropout(self.after(steps)))


@models.register(
    "conformer",
    inputs=("audio",),
    targets=("tokens",),
    task="transcription",
    sample={"name": "tones", "utterances": 60},
    search={"width": "choice(96,144,192)", "depth": "range(2,8)", "dropout": "interval(0,0.3)"},
)
class Conformer(nn.Module):
    """Attention and convolutions, for CTC.

    Gulati et al. 2020, arXiv 2005.08100. Unlike there: layer norms instead of batch norms, by which a sample is independent of
    its neighbors and its padding; rotary positions (Su et al. 2021, arXiv 2104.09864) instead of relative ones; one
    convolution that halves the steps instead of two.

    Args:
        width: Channels.
        depth: Number of blocks.
        num_heads: Heads of the attention; their number divides `width`, into even parts.
        kernel_size: Kernel size of the convolutions in steps of 20 ms; an even one is taken as the next odd one.
        dropout: Dropout probability.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 96,
        depth: Count = 4,
        num_heads: Count = 4,
        kernel_size: Count = 15,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ConfigError(
                f"model.width: must be divisible by twice model.num_heads, {2 * num_heads}. Received: {width}.", "model.width"
            )
        self.first = nn.Conv1d(MELS, width, 5, stride=STRIDE, padding=2)
        self.blocks = nn.ModuleList(Block(width, num_heads, kernel_size | 1, dropout) for _ in range(depth))
        self.head = nn.Linear(width, 1 + len(spec.target.names))

    def forward(self, features: Ragged) -> tuple[Tensor, Tensor]:
        """Return logits (batch, steps, blank and letters) of features (frames, mels), and their lengths (batch,)."""
        frames, lengths = features.padded()
        steps = self.first(frames.transpose(1, 2)).transpose(1, 2)
        lengths = -(-lengths // STRIDE)
        inside = torch.arange(steps.shape[1], device=lengths.device) < lengths[:, None]
        for block in self.blocks:
            steps = block(steps, inside)
        return self.head(steps), lengths
