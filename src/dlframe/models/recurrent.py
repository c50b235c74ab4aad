"""Recurrent layers over sequences of varying length."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BidirectionalLSTM(nn.Module):
    """An LSTM in each direction over padded sequences, of which each is read as if it were alone.

    The one that reads from the end to the beginning is given sequences that are reversed within their lengths. That is what
    torch does with a packed sequence, but the time that the gradients of one take on a CPU grows with the square of its length.

    Args:
        features: Numbers of a step.
        width: Units in each direction.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(features, width, batch_first=True)
        self.backwards = nn.LSTM(features, width, batch_first=True)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """Return states (batch, time, 2 * width) of steps (batch, time, features); what is beyond a length means nothing."""
        time = torch.arange(steps.shape[1], device=steps.device)
        mirrored = lengths.to(steps.device).unsqueeze(1) - 1 - time
        places = torch.where(mirrored >= 0, mirrored, time).unsqueeze(2)  # (batch, time, 1): their own are their mirror's
        from_end, _ = self.backwards(steps.take_along_dim(places, 1))
        return torch.cat([self.forwards(steps)[0], from_end.take_along_dim(places, 1)], 2)
