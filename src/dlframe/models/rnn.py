"""Recurrent networks over the rows of an image or the steps of a series."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register(
    "rnn",
    inputs=("image",),
    search={
        "cell_type": "choice(lstm,gru)",
        "width": "choice(64,128,256)",
        "depth": "range(1,3)",
        "dropout": "interval(0,0.5)",
    },
)
class RNN(nn.Module):
    """Recurrent network over the rows of an image.

    LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014, arXiv 1406.1078); a linear head classifies the last state.

    Args:
        cell_type: Recurrent cell, lstm or gru.
        width: Units of the hidden state in each direction.
        depth: Number of recurrent layers.
        bidirectional: Add a second network over the rows from bottom to top.
        dropout: Dropout probability between layers and before the head.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        cell_type: Literal["lstm", "gru"] = "lstm",
        width: Count = 128,
        depth: Count = 1,
        bidirectional: bool = True,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        channels, _, columns = spec.shape
        self.reader = Reader(cell_type, channels * columns, width, depth, bidirectional, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * (1 + bidirectional), len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        rows = images.permute(0, 2, 3, 1).flatten(2)  # (batch, height, width * channels)
        return self.head(self.dropout(self.reader(rows)))


@models.register(
    "lstm",
    inputs=("series",),
    targets=("value",),
    search={"width": "choice(32,64,128)", "depth": "range(1,3)", "dropout": "interval(0,0.3)"},
)
class LSTM(nn.Module):
    """LSTM over a window of a series, with a linear head on its last state.

    Hochreiter and Schmidhuber 1997.

    Args:
        width: Units of the hidden state.
        depth: Number of recurrent layers.
        dropout: Dropout probability between layers and before the head.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 64, depth: Count = 1, dropout: Probability = 0.0) -> None:
        super().__init__()
        self.reader = Reader("lstm", spec.shape[1], width, depth, False, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, spec.horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Return future values (batch, horizon) of windows (batch, time, features)."""
        return self.head(self.dropout(self.reader(series)))


class Reader(nn.Module):
    """Recurrent layers that return the last state (batch, width * directions).

    Initialization: recurrent weights orthogonal (Saxe et al. 2013, arXiv 1312.6120), input weights by Glorot and Bengio
    (2010), LSTM forget biases 1 (Jozefowicz et al. 2015).
    """

    def __init__(
        self, cell_type: Literal["lstm", "gru"], features: int, width: int, depth: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        layers = {"lstm": nn.LSTM, "gru": nn.GRU}[cell_type]
        # torch applies dropout between layers and warns if there is only one.
        between = dropout if depth > 1 else 0.0
        self.layers = layers(features, width, depth, batch_first=True, bidirectional=bidirectional, dropout=between)
        for name, parameter in self.layers.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
                if cell_type == "lstm" and "bias_ih" in name:
                    nn.init.ones_(parameter.data[width : 2 * width])
            else:
                for gate in parameter.data.split(width):
                    (nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_)(gate)

    def forward(self, series: Tensor) -> Tensor:
        _, state = self.layers(series)
        hidden = state[0] if isinstance(state, tuple) else state  # (depth * directions, batch, width)
        return torch.cat(hidden[-2:].unbind(), 1) if self.layers.bidirectional else hidden[-1]
