"""Vision transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlframe.models.transformer import TransformerLayer
from dlframe.registry import Count, Probability, models
from dlframe.types import ConfigError, DataSpec


@models.register(
    "vit", inputs=("image",), search={"width": "choice(48,96,192)", "depth": "range(2,7)", "dropout": "interval(0,0.3)"}
)
class ViT(nn.Module):
    """Small vision transformer that classifies the mean of its tokens.

    Dosovitskiy et al. 2020 (arXiv 2010.11929) with the mean of the tokens in place of a class token, as in Beyer et al.
    2022 (arXiv 2205.01580). Patch and position embeddings start with unit variance; the paper's positions start smaller
    and need longer training. Linear layers use the initialization of Glorot and Bengio (2010).

    Args:
        patch_size: Height and width of a patch in pixels; must divide those of the image.
        width: Features of a token; must be a multiple of `num_heads`.
        depth: Number of transformer blocks.
        num_heads: Attention heads per block.
        dropout: Dropout probability in each block.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        patch_size: Count = 4,
        width: Count = 96,
        depth: Count = 4,
        num_heads: Count = 4,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        channels, height, columns = spec.shape
        if height % patch_size or columns % patch_size:
            divisors = [n for n in range(1, min(height, columns) + 1) if height % n == 0 and columns % n == 0]
            raise ConfigError(
                f"model.patch_size: must divide the image's height and width, {height} x {columns}. "
                f"Received: {patch_size}. Choose from: {', '.join(map(str, divisors))}."
            )
        if width % num_heads:
            raise ConfigError(
                f"model.width: must be a multiple of model.num_heads, {num_heads}. "
                f"Received: {width}. Try: model.width={width + -width % num_heads}"
            )
        self.embed = nn.Conv2d(channels, width, patch_size, patch_size)
        tokens = (height // patch_size) * (columns // patch_size)
        self.position = nn.Parameter(torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(TransformerLayer(width, num_heads, 4 * width, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(spec.classes))
        nn.init.kaiming_normal_(self.embed.weight, nonlinearity="linear")
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.position  # (batch, tokens, width)
        return self.head(self.norm(self.blocks(tokens)).mean(1))
