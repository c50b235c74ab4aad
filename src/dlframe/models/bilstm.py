"""Recurrent network of texts, with attention."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlframe.models.recurrent import BidirectionalLSTM
from dlframe.models.word_vectors import word_embedding
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec, Ragged


@models.register(
    "bilstm",
    inputs=("tokens",),
    search={"width": "choice(32,64,128)", "embedding_dim": "choice(32,64,128)", "dropout": "interval(0,0.7)"},
)
class BiLSTM(nn.Module):
    """Bidirectional LSTM over embedded words, averaged by attention.

    Yang et al. (2016, "Hierarchical attention networks for document classification"), with the level of words only: the
    weight of a word is the softmax of v^T tanh(W h + b) over the text.

    Args:
        embedding_dim: Size of an embedding.
        width: Units of the state in each direction.
        dropout: Dropout probability of embeddings and of the average.
        vectors: Initial embeddings of words: random (none), or GloVe's, of 50 numbers (a package, 76 MB, once).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        width: Count = 64,
        dropout: Probability = 0.3,
        vectors: Literal["none", "glove"] = "none",
    ) -> None:
        super().__init__()
        self.embedding = word_embedding(spec, embedding_dim, vectors)
        self.reader = BidirectionalLSTM(embedding_dim, width)
        self.attention = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.Tanh(), nn.Linear(2 * width, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, len(spec.classes))

    @property
    def token_embedding(self) -> nn.Embedding:
        """Embedding that reads the tokens."""
        return self.embedding

    def forward(self, tokens: Ragged) -> Tensor:
        """Return logits (batch, classes) of texts."""
        padded, lengths = tokens.padded()
        states = self.reader(self.dropout(self.embedding(padded)), lengths)
        outside = torch.arange(states.shape[1], device=states.device) >= lengths.to(states.device).unsqueeze(1)
        weights = self.attention(states).squeeze(2).masked_fill(outside, -torch.inf).softmax(1)
        return self.head(self.dropout(torch.einsum("bt,btd->bd", weights, states)))
