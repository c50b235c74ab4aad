"""Plain convolutional networks."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register(
    "cnn",
    inputs=("image",),
    search={"width": "choice(16,32,64)", "hidden_dim": "choice(64,128,256)", "dropout": "interval(0,0.5)"},
)
class CNN(nn.Module):
    """Convolutional network of 3x3 pairs with pooling and one hidden layer.

    The architecture of LeNet (LeCun et al. 1998) with the 3x3 pairs of VGG (Simonyan and Zisserman 2014, arXiv 1409.1556)
    and the initialization of He et al. (2015, arXiv 1502.01852). Each block's second convolution doubles the channels.
    Two changes of order save time and keep the result exact: max pooling precedes ReLU, which then sees a quarter of the
    values, and features are flattened in channels-last order.

    Args:
        width: Channels of the first convolution.
        depth: Number of blocks; each halves height and width, down to one pixel.
        hidden_dim: Units of the hidden layer.
        dropout: Dropout probability of hidden units.
        norm: Normalization after each convolution: batch (Ioffe and Szegedy 2015, arXiv 1502.03167) or none.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 32,
        depth: Count = 1,
        hidden_dim: Count = 128,
        dropout: Probability = 0.25,
        norm: Literal["batch", "none"] = "none",
    ) -> None:
        super().__init__()
        channels, height, columns = spec.shape
        layers: list[nn.Module] = []

        def convolution(outputs: int) -> None:
            nonlocal channels
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(outputs))
            channels = outputs

        for block in range(depth):
            convolution(width << block)
            layers.append(nn.ReLU(inplace=True))
            convolution(width << (block + 1))
            pool = (min(2, height), min(2, columns))
            layers += [nn.MaxPool2d(pool), nn.ReLU(inplace=True)]
            height, columns = height // pool[0], columns // pool[1]
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * height * columns, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_dim, len(spec.classes))
        for module in [*layers, self.hidden]:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        # A view of channels-last memory; otherwise a copy in the same order.
        features = self.features(images).permute(0, 2, 3, 1).flatten(1)
        return self.head(self.dropout(self.hidden(features).relu_()))
