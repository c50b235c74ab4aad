"""Convolutional network of texts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.word_vectors import word_embedding
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec, Ragged


@models.register(
    "text_cnn",
    inputs=("tokens",),
    search={"width": "choice(32,64,128)", "embedding_dim": "choice(32,64,128)", "dropout": "interval(0,0.7)"},
)
class TextCNN(nn.Module):
    """Convolutions of several sizes over embedded words, each with its maximum over the text.

    Kim (2014, arXiv 1408.5882), with one table of embeddings from random weights and without the limit of norms.

    Args:
        embedding_dim: Size of an embedding.
        width: Channels of each kernel size.
        kernel_sizes: Words that a convolution sees.
        dropout: Dropout probability of embeddings and features.
        vectors: Initial embeddings of words: random (none), or GloVe's, of 50 numbers (a package, 76 MB, once).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        width: Count = 64,
        kernel_sizes: tuple[Count, ...] = (3, 4, 5),
        dropout: Probability = 0.3,
        vectors: Literal["none", "glove"] = "none",
    ) -> None:
        super().__init__()
        self.embedding = word_embedding(spec, embedding_dim, vectors)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_dim, width, size) for size in kernel_sizes)
        self.kernel_sizes = kernel_sizes
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * len(kernel_sizes), len(spec.classes))

    @property
    def token_embedding(self) -> nn.Embedding:
        """Embedding that reads the tokens."""
        return self.embedding

    def forward(self, tokens: Ragged) -> Tensor:
        """Return logits (batch, classes) of texts."""
        padded, lengths = tokens.padded()
        embedded = self.dropout(self.embedding(padded)).transpose(1, 2)
        features = []
        for size, convolution in zip(self.kernel_sizes, self.convolutions, strict=True):
            # Each window has a word of the text at its start; the zeros behind the text are as many in any batch.
            responses = convolution(functional.pad(embedded, (0, size - 1)))
            outside = torch.arange(responses.shape[2], device=lengths.device) >= lengths.to(responses.device).view(-1, 1, 1)
            features.append(responses.masked_fill(outside, -torch.inf).amax(2))
        return self.head(self.dropout(functional.relu(torch.cat(features, 1))))
