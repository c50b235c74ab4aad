"""Augmentations that mix pairs of samples and their labels.

Targets become (batch, classes) floats. The row of an unlabeled sample is zero: the sample adds nothing to a
cross-entropy, and its partner's label keeps its fraction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlframe.augmentations.operations import each, fractions, rectangle, select
from dlframe.registry import Fraction, Positive, augmentations
from dlframe.types import Batch, DataSpec


def mixed_targets(batch: Batch, partner: Tensor, fraction: Tensor) -> Tensor:
    """Return labels (batch, classes), mixed with those of the partners."""
    targets = batch.targets
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, len(batch.spec.classes)).float()
        if batch.labelled is not None:
            targets = targets * batch.labelled.unsqueeze(1)
    return torch.lerp(targets[partner], targets, fraction.unsqueeze(1).to(targets.dtype))


@augmentations.register("mixup", targets=("class",))
class Mixup:
    """Weighted mean of two images and of their labels.

    Zhang et al. 2017, arXiv:1710.09412, with one weight per sample.

    Args:
        alpha: Parameter of Beta(alpha, alpha), which draws the weights; 1 is uniform, smaller favors one image.
        p: Probability of mixing a sample.
    """

    def __init__(self, spec: DataSpec, *, alpha: Positive = 0.2, p: Fraction = 1.0) -> None:
        self.alpha, self.p = alpha, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        fraction = fractions(len(images), self.alpha, self.p, images, generator)
        return batch.replace(
            inputs=torch.lerp(images[partner], images, each(fraction, images)),
            targets=mixed_targets(batch, partner, fraction),
        )


@augmentations.register("cutmix", targets=("class",))
class CutMix:
    """Rectangle of another image, with the same fraction of its label.

    Yun et al. 2019, arXiv:1905.04899, with one rectangle per sample. The rectangle lies inside the image, so its area is
    the drawn one; the paper's may be cut off at the edge.

    Args:
        alpha: Parameter of Beta(alpha, alpha), which draws the fraction of the image to keep; 1 is uniform.
        p: Probability of mixing a sample.
    """

    def __init__(self, spec: DataSpec, *, alpha: Positive = 1.0, p: Fraction = 1.0) -> None:
        self.alpha, self.p = alpha, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        partner = torch.randperm(count, generator=generator, device=images.device)
        side = (1 - fractions(count, self.alpha, self.p, images, generator)).sqrt()
        top, left = torch.rand(2, count, generator=generator, device=images.device)
        inside = rectangle(images, side * height, side * width, top, left)
        fraction = 1 - inside.float().mean((1, 2, 3))
        return batch.replace(
            inputs=select(inside, images[partner], images),
            targets=mixed_targets(batch, partner, fraction),
        )
