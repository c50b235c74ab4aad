"""Transformers for tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlframe.models.tabular_inputs import by_name, cardinalities_of, numbers_of
from dlframe.models.transformer import TransformerLayer, TransformerLayers
from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec


@models.register(
    "ft_transformer",
    inputs=("number", "category"),
    targets=("class", "value"),
    search={"width": "choice(16,32,64)", "depth": "range(1,4)", "dropout": "interval(0,0.5)"},
)
class FTTransformer(nn.Module):
    """Transformer over the columns of a row, each a token.

    Gorishniy et al. (2021, arXiv 2106.11959): a number times a vector of its column, plus another; a category has an
    embedding; a further token collects what the head sees. Differences: GELU, the same dropout everywhere but none of
    attention weights. A missing number has a vector of its column in place of the product.

    Args:
        width: Size of a token.
        depth: Number of layers.
        num_heads: Attention heads; divide the width.
        dropout: Dropout probability.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 32,
        depth: Count = 2,
        num_heads: Count = 4,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"model.width: must be a multiple of model.num_heads={num_heads}. Received: {width}.")
        numbers, sizes = numbers_of(spec), cardinalities_of(spec)
        shapes = {"slope": numbers, "missing": numbers, "offset": numbers + len(sizes), "summary": 1}
        for name, rows in shapes.items():
            setattr(self, name, nn.Parameter(nn.init.uniform_(torch.empty(rows, width), -(width**-0.5), width**-0.5)))
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        for embedding in self.embeddings:
            nn.init.uniform_(embedding.weight, -(width**-0.5), width**-0.5)  # type: ignore[union-attr, arg-type]
        self.layers = TransformerLayers(TransformerLayer(width, num_heads, 2 * width, dropout) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, len(spec.classes) or spec.horizon))

    slope: Tensor
    missing: Tensor
    offset: Tensor
    summary: Tensor

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes), or values (batch, targets), of rows.

        Args:
            inputs: Standardized numbers (batch, columns) with NaN for missing ones, codes of categories (batch, columns), or
                both by the names "numbers" and "categories".
        """
        inputs = by_name(inputs)
        tokens = []
        if (numbers := inputs.get("numbers")) is not None:
            absent = numbers.isnan().unsqueeze(2)
            tokens.append(torch.where(absent, self.missing, numbers.nan_to_num(0.0).unsqueeze(2) * self.slope))
        if (codes := inputs.get("categories")) is not None:
            tokens += [embedding(codes[:, i]).unsqueeze(1) for i, embedding in enumerate(self.embeddings)]
        columns = torch.cat(tokens, 1) + self.offset
        states = self.layers(torch.cat([self.summary.expand(len(columns), 1, -1), columns], 1))
        return self.head(states[:, 0])
