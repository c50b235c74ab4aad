"""ConvMixer."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlframe.registry import Count, models
from dlframe.types import ConfigError, DataSpec


@models.register("convmixer", inputs=("image",))
class ConvMixer(nn.Module):
    """ConvMixer: convolutions over positions and channels of image patches.

    Trockman and Kolter 2022, "Patches Are All You Need?", arXiv 2201.09792. All layers keep the
    size of the grid of patches, as in a vision transformer, with large depthwise convolutions instead of attention.

    Args:
        width: Channels of every layer.
        depth: Number of blocks.
        kernel_size: Height and width of a depthwise convolution in patches; odd, to keep the size of the grid.
        patch_size: Height and width of a patch in pixels; remaining rows and columns at the edge are ignored.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        depth: Count = 4,
        kernel_size: Literal[3, 5, 7, 9] = 5,
        patch_size: Count = 2,
    ) -> None:
        super().__init__()
        channels, height, columns = spec.shape
        if patch_size > min(height, columns):
            raise ConfigError(
                f"model.patch_size: must fit into the image, {height} x {columns}. Received: {patch_size}.", "model.patch_size"
            )
        blocks = [Block(width, kernel_size) for _ in range(depth)]
        self.features = nn.Sequential(*activated(nn.Conv2d(channels, width, patch_size, patch_size), width), *blocks)
        self.head = nn.Linear(width, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        return self.head(self.features(images).mean((2, 3)))


class Block(nn.Module):
    """Block x + depthwise(x), followed by a pointwise convolution."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(*activated(nn.Conv2d(width, width, kernel_size, padding="same", groups=width), width))
        self.pointwise = nn.Sequential(*activated(nn.Conv2d(width, width, 1), width))

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, (batch, width, rows, columns)."""
        return self.pointwise(features + self.depthwise(features))


def activated(convolution: nn.Conv2d, width: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return a convolution, GELU and batch norm, in the order of the paper."""
    return convolution, nn.GELU(), nn.BatchNorm2d(width)
