"""Residual networks for small images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec

BLOCKS = {
    8: (1, 1, 1),
    14: (2, 2, 2),
    20: (3, 3, 3),
    32: (5, 5, 5),
    44: (7, 7, 7),
    56: (9, 9, 9),
    110: (18, 18, 18),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
}
"""Depth -> residual blocks per stage: 6n + 2 in three stages; 18 and 34, as for ImageNet, in four."""


@models.register("resnet", inputs=("image",), search={"width": "choice(16,32,64)", "dropout": "interval(0,0.3)"})
class ResNet(nn.Module):
    """Residual network with a 3x3 stem, for images of 8 to 64 pixels.

    He et al. 2015 (arXiv 1512.03385): the networks of section 4.2 (depth 6n + 2, three stages) and those of 18 and 34
    layers (four stages). Differences: the stem has no stride or pooling, and every change of width is a 1x1 convolution.

    Args:
        depth: Number of layers with weights on the longest path; 18 and 34 have four stages, the others three.
        width: Channels of the first stage; each further stage halves height and width and doubles the channels.
        dropout: Dropout probability of pooled features.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        depth: Literal[8, 14, 18, 20, 32, 34, 44, 56, 110] = 8,
        width: Count = 32,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(spec.shape[0], width, 3), nn.ReLU(inplace=True))
        channels = width
        blocks = []
        for stage, count in enumerate(BLOCKS[depth]):
            for block in range(count):
                stride = 2 if stage and not block else 1
                blocks.append(ResidualBlock(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        features = self.blocks(self.stem(images)).mean((2, 3))
        return self.head(self.dropout(features))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: relu(shortcut(x) + f(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *convolution(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *convolution(outputs, outputs, 3)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(inputs, outputs, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.relu(self.residual(features) + self.shortcut(features))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a convolution and its batch norm.

    Weights by He et al. 2015 (arXiv 1502.01852) in fan-out mode, as in 1512.03385.
    """
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer, nn.BatchNorm2d(outputs)
