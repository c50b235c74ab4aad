"""Recurrent networks: over the rows of an image, over the steps of a series."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register("rnn", inputs=("image",))
class RNN(nn.Module):
    """Recurrent network that reads an image row by row.

    LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014, arXiv 1406.1078); the last state is classified.

    Args:
        cell_type: Recurrent cell, lstm or gru.
        width: Units of a cell's state, in each direction.
        depth: Number of recurrent layers.
        bidirectional: Whether a second network reads the rows from the bottom up.
        dropout: Probability with which a unit is left out of a training step, between layers and before the head.
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
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        rows = images.permute(0, 2, 3, 1).flatten(2)  # (batch, height, width * channels)
        return self.head(self.dropout(self.reader(rows)))


@models.register("lstm", inputs=("series",), targets=("value",))
class LSTM(nn.Module):
    """LSTM over a window of a series; all future values are read off its last state.

    Hochreiter and Schmidhuber 1997.

    Args:
        width: Units of a cell's state.
        depth: Number of recurrent layers.
        dropout: Probability with which a unit is left out of a training step, between layers and before the head.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 64, depth: Count = 1, dropout: Probability = 0.0) -> None:
        super().__init__()
        self.reader = Reader("lstm", spec.shape[1], width, depth, False, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, spec.horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Future values (batch, horizon) of windows (batch, time, features)."""
        return self.head(self.dropout(self.reader(series)))


class Reader(nn.Module):
    """Recurrent layers that turn (batch, time, features) into their last state (batch, width * directions).

    Recurrent weights start orthogonal (Saxe et al. 2013, arXiv 1312.6120), input weights as Glorot and Bengio (2010) say,
    and LSTM forget gates open, with a bias of 1 (Jozefowicz et al. 2015).
    """

    def __init__(
        self, cell_type: Literal["lstm", "gru"], features: int, width: int, depth: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        layers = {"lstm": nn.LSTM, "gru": nn.GRU}[cell_type]
        # torch's dropout lies between layers, and it warns where there is nothing between.
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
