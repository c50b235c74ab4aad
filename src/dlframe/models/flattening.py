"""Inputs of any kind as vectors: rows of tables, windows of series, and images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.tabular_inputs import by_name, cardinalities_of, numbers_of
from dlframe.types import ConfigError, DataSpec

LARGEST = 100_000
"""Largest vector."""


class Flattening(nn.Module):
    """Function from inputs to vectors.

    Of a table: standardized numbers, 0 for a missing one, and an indicator per value of a category.

    Args:
        spec: Data with inputs of one shape.

    Raises:
        ConfigError: The vector would be too long.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.sizes = cardinalities_of(spec)
        self.is_table = bool({"numbers", "categories"} & spec.inputs.keys())
        self.features = numbers_of(spec) + sum(self.sizes) if self.is_table else int(torch.Size(spec.shape).numel())
        if self.features > LARGEST:
            raise ConfigError(
                f"model: takes inputs of {LARGEST:,} values at most. Received: {self.features:,}. Try: data.drop=[COLUMN], "
                "or a smaller data.image_size"
            )

    def forward(self, inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Return vectors (batch, features), and which of their values are known; None for all."""
        if not self.is_table:
            return inputs.flatten(1), None
        columns, parts, known = by_name(inputs), [], []
        if (numbers := columns.get("numbers")) is not None:
            known.append(~numbers.isnan())
            parts.append(numbers.nan_to_num(0.0))
        if (codes := columns.get("categories")) is not None:
            for i, size in enumerate(self.sizes):
                parts.append(functional.one_hot(codes[:, i].long(), size).to(parts[0].dtype if parts else torch.float32))
                known.append(torch.ones_like(parts[-1], dtype=torch.bool))
        return torch.cat(parts, 1), torch.cat(known, 1)
