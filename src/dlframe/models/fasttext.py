"""Bag of embedded n-grams."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec, Ragged

FACTOR = 116_049_371
"""Odd factor by which an n-gram's hash takes the next word."""


@models.register(
    "fasttext",
    inputs=("tokens",),
    search={"embedding_dim": "choice(16,32,64,128)", "ngrams": "range(1,4)", "dropout": "interval(0,0.7)"},
)
class FastText(nn.Module):
    """Linear classifier of the mean of embedded words and n-grams.

    fastText (Joulin et al. 2016, arXiv 1607.01759): n-grams of words share a table of embeddings, in which a hash gives each
    its row. Differences: dropout of the mean, and any optimizer, at ten times its learning rate.

    Args:
        embedding_dim: Size of an embedding.
        ngrams: Words of the longest n-gram; 1 for words alone.
        buckets: Rows of the table of n-grams.
        dropout: Dropout probability of the mean.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 32,
        ngrams: Count = 2,
        buckets: Count = 131_072,
        dropout: Probability = 0.3,
    ) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(2 + len(spec.fitted["vocabulary"]), embedding_dim))
        self.ngrams = nn.Parameter(torch.empty(buckets if ngrams > 1 else 0, embedding_dim))
        self.longest = ngrams
        for table in (self.words, self.ngrams):
            nn.init.uniform_(table, -1 / embedding_dim, 1 / embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embedding_dim, len(spec.classes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group: a word is in few batches, and takes larger steps than a weight that is in all."""
        return [{"params": list(self.parameters()), "lr_scale": 10.0}]

    def forward(self, tokens: Ragged) -> Tensor:
        """Return logits (batch, classes) of texts."""
        total = functional.embedding_bag(tokens.values, self.words, tokens.offsets[:-1].to(tokens.values.dtype), mode="sum")
        count = tokens.lengths
        for n, grams in enumerate(hashed_ngrams(tokens, self.longest), 2):
            rows = (grams.values % len(self.ngrams)).to(tokens.values.dtype)
            total = total + functional.embedding_bag(rows, self.ngrams, grams.offsets[:-1].to(rows.dtype), mode="sum")
            count = count + (tokens.lengths - n + 1).clamp(min=0)
        return self.head(self.dropout(total / count.unsqueeze(1).to(total.dtype)))

    def contributions(self, tokens: Tensor, label: int) -> Tensor:
        """Return what each token (length,) of a text adds to the logit of a class, less the mean of the others, (length,).

        An n-gram's part is shared equally by its words.
        """
        one = Ragged(tokens, torch.tensor([0, len(tokens)], device=tokens.device))
        classes = self.head.weight
        others = (classes.sum(0) - classes[label]) / max(1, len(classes) - 1)
        direction = classes[label] - others
        total, count = self.words[tokens] @ direction, len(tokens)
        for n, grams in enumerate(hashed_ngrams(one, self.longest), 2):
            parts = self.ngrams[grams.values % len(self.ngrams)] @ direction / n
            for i in range(n):
                total = total.index_add(0, torch.arange(i, i + len(parts), device=tokens.device), parts)
            count += len(parts)
        return total / count


def hashed_ngrams(tokens: Ragged, longest: int) -> list[Ragged]:
    """Return the hashes (int64, not negative) of the n-grams of each text, for n from 2 to `longest`."""
    values, lengths = tokens.values.long(), tokens.lengths
    text = torch.repeat_interleave(torch.arange(len(tokens), device=values.device), lengths)
    found, hashed = [], values
    for n in range(2, longest + 1):
        hashed = (hashed[:-1] * FACTOR + values[n - 1 :]) & (2**62 - 1)
        count = (lengths - n + 1).clamp(min=0)
        offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
        found.append(Ragged(hashed[text[: len(hashed)] == text[n - 1 :]], offsets))
    return found
