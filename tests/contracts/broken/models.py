"""Models that break a contract each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlframe.registry import Count, models
from dlframe.types import DataSpec


class Pixels(nn.Module):
    """Logistic regression."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        channels, height, width = spec.shape
        self.head = nn.Linear(channels * height * width, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


@models.register("unused", inputs=("image",))
class Unused(Pixels):
    """A layer that no output depends on."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.forgotten = nn.Linear(3, 3)


@models.register("forgetful", inputs=("image",))
class Forgetful(Pixels):
    """A number that is learned and is not in the state."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.largest = 0.0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.largest = float(torch.rand(())) + self.largest
        return super().forward(images) + self.largest * images.flatten(1)[:, :1]


@models.register("undocumented", inputs=("image",))
class Undocumented(Pixels):
    """An option without a sentence."""

    def __init__(self, spec: DataSpec, *, depth: Count = 1) -> None:
        super().__init__(spec)


@models.register("many_classes", inputs=("image",))
class ManyClasses(nn.Module):
    """A width that is its own."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(spec.shape), 100)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


@models.register("listener", inputs=("audio",))
class Listener(nn.Module):
    """Nothing can be tried on it: there is no such data."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
