"""Convolutional network that reaches 94 % on CIFAR-10 with few operations."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Count, Positive, models
from dlframe.types import DataSpec

EPS = 5e-4
"""Added to the variances of patches."""

LOGITS = 1 / 9
"""Factor of the logits."""


@models.register("airbench", inputs=("image",), search={"width": "choice(16,32,64)"})
class Airbench(nn.Module):
    """Convolutional network of eight layers whose first layer whitens patches.

    Jordan 2024 (arXiv 2404.00498), after Page 2018 ("How to train your ResNet"). The first layer has the principal components
    of 2 x 2 patches of training images, divided by their standard deviations, and the same with the other sign; it is fitted
    once and not trained, except its bias. Other convolutions start as the identity, the scales of batch normalization are 1,
    and its biases learn faster. Unlike in the paper, the bias of the first layer is trained to the end, and images may be of
    any size: pooling is left out where one pixel is left.

    Args:
        width: Channels of the first group of convolutions; the two others have four times as many.
        whitening: Filters of the first layer: fitted to patches, or trained from random ones (none).
        bias_lr_scale: Learning rate of the biases of batch normalization, relative to the optimizer's.
    """

    whiten: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        whitening: Literal["patches", "none"] = "patches",
        bias_lr_scale: Positive = 64.0,
    ) -> None:
        super().__init__()
        channels = spec.shape[0]
        filters = nn.init.kaiming_uniform_(torch.empty(8 * channels, channels, 2, 2), a=5**0.5)
        self.fitted = whitening == "patches"
        if self.fitted:
            self.register_buffer("whiten", filters)
        else:
            self.whiten = nn.Parameter(filters)
        self.bias = nn.Parameter(torch.zeros(len(filters)))
        self.bias_lr_scale = bias_lr_scale
        widths = [len(filters), width, 4 * width, 4 * width]
        self.groups = nn.Sequential(*(_Group(a, b) for a, b in pairwise(widths)))
        self.head = nn.Linear(widths[-1], len(spec.classes), bias=False)

    @torch.no_grad()
    def fit_inputs(self, images: Tensor) -> None:
        """Fit the filters of the first layer to normalized training images (n, channels, height, width)."""
        if self.fitted:
            self.whiten.copy_(whitening_filters(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        features = self.groups(functional.gelu(functional.conv2d(images, self.whiten, self.bias)))
        return self.head(features.amax((2, 3))) * LOGITS

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the biases of batch normalization, and all other parameters that are trained."""
        norms = [layer.bias for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]
        known = {id(bias) for bias in norms}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return [{"params": norms, "lr_scale": self.bias_lr_scale}, {"params": others, "lr_scale": 1.0}]


class _Group(nn.Module):
    """Two convolutions with batch normalization, the first one pooled."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(inputs, outputs), _convolution(outputs, outputs)
        self.first_norm, self.second_norm = _norm(outputs), _norm(outputs)

    def forward(self, features: Tensor) -> Tensor:
        features = self.first(features)
        if min(features.shape[2:]) > 1:
            features = functional.max_pool2d(features, 2)
        features = functional.gelu(self.first_norm(features))
        return functional.gelu(self.second_norm(self.second(features)))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a convolution whose first channels are its inputs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def whitening_filters(images: Tensor) -> Tensor:
    """Return filters (8 channels, channels, 2, 2) whose outputs on the patches of `images` are uncorrelated, of variance 1.

    Args:
        images: (n, channels, height, width), normalized; second moments are taken about 0.
    """
    channels = images.shape[1]
    patches = images.double().unfold(2, 2, 1).unfold(3, 2, 1)  # (n, channels, rows, columns, 2, 2)
    flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * channels)
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    filters = (vectors / (values + EPS).sqrt()).T.flip(0).reshape(-1, channels, 2, 2)  # the largest variance first
    return torch.cat([filters, -filters]).to(images.dtype)
