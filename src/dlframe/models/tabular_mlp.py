"""Fully connected networks for tables."""

from __future__ import annotations

from torch import Tensor, nn

from dlframe.models.tabular_inputs import TabularInputs
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register(
    "tabular_mlp",
    inputs=("number", "category"),
    targets=("class", "value"),
    search={"width": "choice(64,128,256,512)", "depth": "range(1,4)", "dropout": "interval(0,0.5)"},
)
class TabularMLP(TabularInputs):
    """Multilayer perceptron of numbers and embedded categories.

    Categories are embedded as by Guo and Berkhahn (2016, arXiv 1604.06737). A missing number is replaced by the training
    mean, and an input says so; a missing or unseen category has an embedding of its own. ReLU, and the initialization of He et
    al. (2015, arXiv 1502.01852).

    Args:
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        dropout: Dropout probability of hidden units.
        embedding_dim: Maximum size of a category's embedding; it is half the number of values, if that is less.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 128,
        depth: Count = 2,
        dropout: Probability = 0.1,
        embedding_dim: Count = 16,
    ) -> None:
        super().__init__(spec, embedding_dim)
        features = self.features
        outputs = len(spec.classes) or spec.horizon
        layers: list[nn.Module] = []
        for _ in range(depth):
            hidden = nn.Linear(features, width)
            nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
            nn.init.zeros_(hidden.bias)
            layers += [hidden, nn.ReLU(inplace=True), nn.Dropout(dropout)]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, outputs))

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes), or values (batch, targets).

        Args:
            inputs: Standardized numbers (batch, columns) with NaN for missing ones, codes of categories (batch, columns), or
                both by the names "numbers" and "categories".
        """
        return self.layers(self.flat(inputs))
