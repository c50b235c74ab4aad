"""Residual networks for tables."""

from __future__ import annotations

from torch import Tensor, nn

from dlframe.models.tabular_inputs import TabularInputs
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register(
    "tabular_resnet",
    inputs=("number", "category"),
    targets=("class", "value"),
    search={"width": "choice(64,96,128,256)", "depth": "range(1,5)", "dropout": "interval(0,0.5)"},
)
class TabularResNet(TabularInputs):
    """Residual blocks of two linear layers over numbers and embedded categories.

    ResNet of Gorishniy et al. (2021, arXiv 2106.11959): each block adds linear(ReLU(linear(batch norm))) to its input; batch
    norm and ReLU come before the head.

    Args:
        width: Units between blocks.
        hidden_dim: Units within a block.
        depth: Number of blocks.
        dropout: Dropout probability within a block.
        embedding_dim: Maximum size of a category's embedding; it is half the number of values, if that is less.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 96,
        hidden_dim: Count = 192,
        depth: Count = 2,
        dropout: Probability = 0.2,
        embedding_dim: Count = 16,
    ) -> None:
        super().__init__(spec, embedding_dim)
        self.first = nn.Linear(self.features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width),
                nn.Linear(width, hidden_dim),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden_dim, width),
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(
            nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, len(spec.classes) or spec.horizon)
        )

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes), or values (batch, targets), of rows; see `TabularInputs.flat`."""
        states = self.first(self.flat(inputs))
        for block in self.blocks:
            states = states + block(states)
        return self.head(states)
