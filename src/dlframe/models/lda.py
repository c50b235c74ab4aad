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
    exempt={"varies": "all sums start at zero", "gradients": "a closed form has no gradients"},
    search={"shrinkage": "interval(0,1)"},
)
class LinearDiscriminant(nn.Module):
    """Linear discriminant analysis of pixels, with one shared covariance.

    Fisher 1936 ("The use of multiple measurements in taxonomic problems"). Counts, sums and products of the images are
    summed over batches in double precision; the first prediction solves for the weights. Without augmentation, one epoch
    gives the final weights.

    Args:
        shrinkage: Fraction of the covariance replaced by its mean variance in every direction (Friedman 1989,
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
        """Accumulate images and targets: indices (batch,) or (batch, classes)."""
        images = images.flatten(1).double()
        if targets.ndim == 1:
            targets = functional.one_hot(targets, len(self.counts))
        fractions = targets.double()
        self.counts += fractions.sum(0)
        self.sums += fractions.T @ images
        self.products += images.T @ images
        self.solved = False

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        if not self.solved:
            self._solve()
        return functional.linear(images.flatten(1), self.weight.to(images.dtype), self.bias.to(images.dtype))

    @torch.no_grad()
    def _solve(self) -> None:
        """Solve for weight S^-1 m, bias log prior - m S^-1 m / 2 (means m)."""
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
