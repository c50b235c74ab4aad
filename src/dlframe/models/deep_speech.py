"""Recurrent layers over speech, for CTC."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlframe.models.recurrent import BidirectionalLSTM
from dlframe.readers.audio.mel import MELS, STRIDE
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec, Ragged


@models.register(
    "deep_speech",
    inputs=("audio",),
    targets=("tokens",),
    task="transcription",
    sample={"name": "tones", "utterances": 60},
    search={"width": "choice(96,128,256)", "depth": "range(1,4)", "dropout": "interval(0,0.3)"},
)
class DeepSpeech(nn.Module):
    """Convolutions over time and frequency, then bidirectional LSTM layers, for CTC.

    In the style of Deep Speech 2 (Amodei et al. 2015, arXiv 1512.02595), smaller: two convolutions, and layer norms of each
    step instead of batch norms, by which a sample is independent of its neighbors and its padding.

    Args:
        width: Units of the LSTM in each direction.
        depth: Number of LSTM layers.
        channels: Channels of the convolutions.
        dropout: Dropout probability between layers.
    """

    def __init__(
        self, spec: DataSpec, *, width: Count = 128, depth: Count = 2, channels: Count = 16, dropout: Probability = 0.1
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, (11, 21), stride=(STRIDE, 2), padding=(5, 10))
        self.second = nn.Conv2d(channels, channels, (5, 11), stride=(1, 2), padding=(2, 5))
        features = channels * (MELS // 4)
        self.norm = nn.LayerNorm(features)
        self.layers = nn.ModuleList(BidirectionalLSTM(2 * width if i else features, width) for i in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, 1 + len(spec.target.names))

    def forward(self, features: Ragged) -> tuple[Tensor, Tensor]:
        """Return logits (batch, steps, blank and letters) of features (frames, mels), and their lengths (batch,)."""
        frames, lengths = features.padded()
        found = self.first(frames[:, None]).relu()  # (batch, channels, steps, mels / 2)
        lengths = -(-lengths // STRIDE)
        inside = (torch.arange(found.shape[2], device=lengths.device) < lengths[:, None])[:, None, :, None]
        found = self.second(found * inside).relu()
        steps = self.norm(found.transpose(1, 2).flatten(2))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            steps = norm(layer(self.dropout(steps), lengths))
        return self.head(self.dropout(steps)), lengths
