"""Augmentations that mix each sample with another of its batch, and their labels in the same proportion.

Targets become (batch, classes) floats. An unlabeled sample is a row of zeros: what is mixed from it adds nothing to a
cross-entropy, and the labeled part keeps its fraction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlframe.augmentations.operations import each, rectangle, select, uniform
from dlframe.registry import Fraction, Positive, augmentations
from dlframe.types import Batch, DataSpec


def shares(count: int, alpha: float, p: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """(count,) shares of each sample in its mixture, from Beta(alpha, alpha); 1 for those that are not mixed."""
    # torch.distributions.Beta takes no generator; a Dirichlet of two is the same.
    concentration = torch.full((count, 2), alpha, device=images.device)
    share = torch._sample_dirichlet(concentration, generator)[:, 0]
    return torch.where(uniform(count, 0, 1, images, generator) < p, share, 1.0)


def mixed_targets(batch: Batch, partner: Tensor, share: Tensor) -> Tensor:
    """(batch, classes): each row's own label by its share, its partner's by the rest."""
    targets = batch.targets
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, len(batch.spec.classes)).float()
        if batch.labelled is not None:
            targets = targets * batch.labelled.unsqueeze(1)
    return torch.lerp(targets[partner], targets, share.unsqueeze(1))


@augmentations.register("mixup", targets=("class",))
class Mixup:
    """Weighted means of two images and of their labels.

    Zhang et al. 2017, arXiv:1710.09412, with a weight for each sample.

    Args:
        alpha: The weights are drawn from Beta(alpha, alpha); 1 is uniform, less leaves one image dominant.
        p: Share of the samples that are mixed.
    """

    def __init__(self, spec: DataSpec, *, alpha: Positive = 0.2, p: Fraction = 1.0) -> None:
        self.alpha, self.p = alpha, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        share = shares(len(images), self.alpha, self.p, images, generator)
        return batch.replace(
            inputs=torch.lerp(images[partner], images, each(share, images)),
            targets=mixed_targets(batch, partner, share),
        )


@augmentations.register("cutmix", targets=("class",))
class CutMix:
    """A rectangle of another image, and as much of its label.

    Yun et al. 2019, arXiv:1905.04899, with a rectangle for each sample. It lies wholly inside the image, where the
    paper's may be cut by the edge, so that its area is the one that was drawn.

    Args:
        alpha: The share of the image that stays is drawn from Beta(alpha, alpha); 1 is uniform.
        p: Share of the samples that are mixed.
    """

    def __init__(self, spec: DataSpec, *, alpha: Positive = 1.0, p: Fraction = 1.0) -> None:
        self.alpha, self.p = alpha, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        partner = torch.randperm(count, generator=generator, device=images.device)
        side = (1 - shares(count, self.alpha, self.p, images, generator)).sqrt()
        top, left = torch.rand(2, count, generator=generator, device=images.device)
        inside = rectangle(images, side * height, side * width, top, left)
        share = 1 - inside.float().mean((1, 2, 3))
        return batch.replace(
            inputs=select(inside, images[partner], images),
            targets=mixed_targets(batch, partner, share),
        )
