"""Augmentation policies that draw operations and strengths per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from dlframe.augmentations import operations
from dlframe.augmentations.operations import uniform
from dlframe.registry import Count, Fraction, augmentations
from dlframe.types import Batch, DataSpec

Operation = Callable[[Tensor, Tensor], Tensor]
"""(images, strength in [-1, 1]) -> images. Undirected operations use the absolute strength."""

RANGES = {
    "standard": {"shear": 0.3, "translate": 150 / 331, "degrees": 30.0, "factor": 0.9, "bits": 4.0},
    "wide": {"shear": 0.99, "translate": 150 / 331, "degrees": 135.0, "factor": 0.99, "bits": 6.0},
}
"""Maximum strengths of RandAugment and TrivialAugment; translation as a fraction of the image."""


class Policy:
    """The 14 operations of both papers; saturation for three channels only."""

    def __init__(self, channels: int, *, shear: float, translate: float, degrees: float, factor: float, bits: float) -> None:
        self.choices: list[Operation] = [
            lambda images, s: images,
            lambda images, s: operations.autocontrast(images),
            lambda images, s: operations.equalize(images),
            lambda images, s: operations.warp(images, degrees=degrees * s),
            lambda images, s: operations.warp(images, shear=(shear * s, 0 * s)),
            lambda images, s: operations.warp(images, shear=(0 * s, shear * s)),
            lambda images, s: operations.warp(images, translate=(translate * s, 0 * s)),
            lambda images, s: operations.warp(images, translate=(0 * s, translate * s)),
            lambda images, s: operations.recolor(images, brightness=1 + factor * s),
            lambda images, s: operations.recolor(images, contrast=1 + factor * s),
            lambda images, s: operations.sharpness(images, 1 + factor * s),
            lambda images, s: operations.posterize(images, 8 - bits * s.abs()),
            lambda images, s: operations.solarize(images, 1 - s.abs()),
        ]
        if channels == 3:
            self.choices.append(lambda images, s: operations.recolor(images, saturation=1 + factor * s))

    def __call__(self, images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
        """Apply a random operation to each image, in batches by operation.

        Args:
            images: (batch, channels, height, width) in [0, 1].
            strength: (batch,) in [-1, 1].
            generator: Source of random numbers.
        """
        drawn = torch.randint(len(self.choices), (len(images),), generator=generator, device=images.device)
        sizes = drawn.bincount(minlength=len(self.choices)).tolist()
        changed = images.clone()
        for apply, index in zip(self.choices, drawn.argsort(stable=True).split(sizes), strict=True):
            if len(index):
                changed[index] = apply(images[index], strength[index])
        return changed


@augmentations.register("rand_augment", targets=("class", "value"))
class RandAugment:
    """RandAugment: random operations of one strength.

    Cubuk et al. 2019, arXiv:1909.13719. The sign of the strength is drawn per sample and operation.

    Args:
        num_ops: Number of consecutive operations per sample.
        magnitude: Strength, as a fraction of the maximum; 0.3 is the paper's 9 of 30.
    """

    def __init__(self, spec: DataSpec, *, num_ops: Count = 2, magnitude: Fraction = 0.3) -> None:
        self.policy = Policy(spec.shape[0], **RANGES["standard"])
        self.num_ops, self.magnitude = num_ops, magnitude

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        for _ in range(self.num_ops):
            right = uniform(len(images), 0, 1, images, generator) < 0.5
            images = self.policy(images, torch.where(right, self.magnitude, -self.magnitude), generator)
        return batch.replace(inputs=images)


@augmentations.register("trivial_augment", targets=("class", "value"))
class TrivialAugment:
    """TrivialAugment: one random operation of random strength.

    Mueller and Hutter 2021, arXiv:2103.10158. The strength is continuous, not one of 31 steps.

    Args:
        space: Range of strengths: that of the paper (wide), or of RandAugment (standard).
    """

    def __init__(self, spec: DataSpec, *, space: Literal["wide", "standard"] = "wide") -> None:
        self.policy = Policy(spec.shape[0], **RANGES[space])

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        strength = uniform(len(batch.inputs), -1, 1, batch.inputs, generator)
        return batch.replace(inputs=self.policy(batch.inputs, strength, generator))
