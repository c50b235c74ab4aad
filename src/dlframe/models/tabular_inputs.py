"""Rows of tables as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlframe.types import DataSpec


def by_name(inputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the columns of a table by name, also where there is one kind only."""
    if isinstance(inputs, Tensor):
        return {"numbers" if inputs.is_floating_point() else "categories": inputs}
    return inputs


def numbers_of(spec: DataSpec) -> int:
    """Return how many columns of numbers the data have."""
    return int(spec.inputs["numbers"].shape[0] or 0) if "numbers" in spec.inputs else 0


def cardinalities_of(spec: DataSpec) -> list[int]:
    """Return the number of codes of each category."""
    return [int(size) for size in spec.fitted.get("cardinalities", ())]


class TabularInputs(nn.Module):
    """Base of networks that see a row as one vector.

    Categories are embedded as by Guo and Berkhahn (2016, arXiv 1604.06737). A missing number is replaced by the training
    mean, and an input says so; a missing or unseen category has an embedding of its own.
    """

    def __init__(self, spec: DataSpec, embedding_dim: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, min(embedding_dim, (size + 1) // 2)) for size in cardinalities_of(spec)
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.1)  # type: ignore[union-attr, arg-type]
        embedded = sum(embedding.embedding_dim for embedding in self.embeddings)  # type: ignore[misc]
        self.features = 2 * numbers_of(spec) + int(embedded)

    def flat(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the vectors (batch, features) of rows.

        Args:
            inputs: Standardized numbers (batch, columns) with NaN for missing ones, codes of categories (batch, columns), or
                both by the names "numbers" and "categories".
        """
        inputs = by_name(inputs)
        parts = []
        if (numbers := inputs.get("numbers")) is not None:
            missing = numbers.isnan()
            parts += [numbers.masked_fill(missing, 0), missing.to(numbers.dtype)]
        if (codes := inputs.get("categories")) is not None:
            parts += [embedding(codes[:, i]) for i, embedding in enumerate(self.embeddings)]
        return torch.cat(parts, 1)
