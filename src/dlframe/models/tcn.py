"""Temporal convolutional networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec


@models.register(
    "tcn",
    inputs=("series",),
    targets=("value",),
    search={"width": "choice(16,32,64)", "kernel_size": "choice(2,3,5)", "dropout": "interval(0,0.3)"},
)
class TCN(nn.Module):
    """Temporal convolutional network with a linear head on its last step.

    Bai, Kolter and Koltun 2018 (arXiv 1803.01271): residual blocks of two dilated causal convolutions with weight
    normalization, ReLU and dropout of whole channels; the dilation doubles from block to block.

    Args:
        width: Channels.
        depth: Number of residual blocks; null for as many as see the whole window.
        kernel_size: Steps of a convolution; at least 2.
        dropout: Dropout probability of channels.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 32,
        depth: Count | None = None,
        kernel_size: Count = 3,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        time, features = spec.shape
        if kernel_size < 2:
            raise ConfigError(
                "model.kernel_size: must be at least 2, or no step sees another. Received: 1", "model.kernel_size"
            )
        if depth is None:
            depth = 1
            while 1 + 2 * (kernel_size - 1) * (2**depth - 1) < time:
                depth += 1
        sizes = [features, *[width] * depth]
        self.blocks = nn.Sequential(
            *(Block(sizes[i], width, kernel_size, 2**i, dropout) for i in range(depth)),
        )
        self.head = nn.Linear(width, spec.horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Return future values (batch, horizon) of windows (batch, time, features)."""
        return self.head(self.blocks(series.transpose(1, 2))[:, :, -1])


class Block(nn.Module):
    """Residual block of two causal convolutions, of (batch, channels, time)."""

    def __init__(self, channels: int, width: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.padding = (kernel_size - 1) * dilation
        self.first = weight_norm(nn.Conv1d(channels, width, kernel_size, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(width, width, kernel_size, dilation=dilation))
        self.dropout = nn.Dropout1d(dropout)
        self.shortcut = nn.Conv1d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, series: Tensor) -> Tensor:
        states = series
        for convolution in (self.first, self.second):
            states = self.dropout(functional.relu(convolution(functional.pad(states, (self.padding, 0)))))
        return functional.relu(states + self.shortcut(series))
