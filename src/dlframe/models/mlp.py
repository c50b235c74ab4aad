"""Fully connected networks."""

from __future__ import annotations

from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register(
    "mlp", inputs=("image",), search={"width": "choice(64,128,256,512)", "depth": "range(1,4)", "dropout": "interval(0,0.5)"}
)
class MLP(nn.Module):
    """Multilayer perceptron of the flattened image.

    ReLU, and the initialization of He et al. (2015, arXiv 1502.01852).

    Args:
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        dropout: Dropout probability of hidden units.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 256, depth: Count = 2, dropout: Probability = 0.1) -> None:
        super().__init__()
        features = spec.shape[0] * spec.shape[1] * spec.shape[2]
        layers: list[nn.Module] = []
        for _ in range(depth):
            hidden = nn.Linear(features, width)
            nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
            nn.init.zeros_(hidden.bias)
            layers += [hidden, nn.ReLU(inplace=True), nn.Dropout(dropout)]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, len(spec.classes)))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        return self.layers(images.flatten(1))
