"""Linear discriminant analysis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Fraction, models
from dlframe.types import DataSpec


@models.register(
    "lda",
    networks=(),
    inputs=("image",),
    exempt={"varies": "it starts from zero sums, whatever the seed", "gradients": "it has none"},
)
class LinearDiscriminant(nn.Module):
    """Linear discriminant analysis on the pixels: one Gaussian a class, with one covariance for all.

    Fisher 1936 ("The use of multiple measurements in taxonomic problems"). Counts, sums and products of the images are
    added up batch by batch in double precision; the weights are solved for when the first prediction is asked for. One
    epoch is enough without augmentation; more of them change nothing.

    Args:
        shrinkage: Share of the covariance that is replaced by its mean variance in every direction (Friedman 1989,
            "Regularized discriminant analysis").
    """

    counts: Tensor
    sums: Tensor
    products: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, spec: DataSpec, *, shrinkage: Fraction = 0.1) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        features, classes = spec.shape[0] * spec.shape[1] * spec.shape[2], len(spec.classes)
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(classes, features, dtype=torch.float64))
        self.register_buffer("products", torch.zeros(features, features, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(classes, features), persistent=False)
        self.register_buffer("bias", torch.zeros(classes), persistent=False)
        self.solved = False
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "solved", False))

    def partial_fit(self, images: Tensor, targets: Tensor) -> None:
        """Add up images (batch, channels, height, width) and targets: (batch,) class numbers, or (batch, classes) shares."""
        images = images.flatten(1).double()
        if targets.ndim == 1:
            targets = functional.one_hot(targets, len(self.counts))
        shares = targets.double()
        self.counts += shares.sum(0)
        self.sums += shares.T @ images
        self.products += images.T @ images
        self.solved = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        if not self.solved:
            self._solve()
        return functional.linear(images.flatten(1), self.weight.to(images.dtype), self.bias.to(images.dtype))

    @torch.no_grad()
    def _solve(self) -> None:
        """With class means m and covariance S: weight S^-1 m, bias log prior - m S^-1 m / 2."""
        total = self.counts.sum().clamp(min=1)
        means = self.sums / self.counts.clamp(min=1).unsqueeze(1)
        covariance = (self.products - self.sums.T @ means) / total
        variance = covariance.diagonal().mean().clamp(min=1e-6)
        covariance = torch.lerp(covariance, variance * torch.eye(len(covariance)).to(covariance), max(self.shrinkage, 1e-6))
        weight = torch.linalg.solve(covariance, means.T).T
        priors = (self.counts.clamp(min=0.5) / total).log()
        self.weight.copy_(weight)
        self.bias.copy_(priors - (weight * means).sum(1) / 2)
        self.solved = True
