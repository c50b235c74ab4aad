"""Generative adversarial networks whose discriminator classifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.frechet import PART, frechet_distances
from dlframe.registry import Count, NonNegative, Probability, models
from dlframe.types import Dataset, DataSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOPE = 0.2
"""Of the discriminator's leaky ReLU below zero."""

SMALLEST, DOUBLINGS = 4, 3
"""Height and width are halved until neither is above SMALLEST; channels double with the first DOUBLINGS halvings."""


@models.register("gan", networks=("discriminator", "generator"), unlabeled=True, inputs=("image",))
class GAN(nn.Module):
    """Semi-supervised GAN: a discriminator that classifies, and a generator of images that it must tell from real ones.

    Salimans et al. 2016 (arXiv 1606.03498), section 5. A further class, "generated", is given the logit 0, so that the
    softmax says of an image that it is real with probability Z / (Z + 1), where Z is the sum of exp(logits) over the
    classes. With L = log Z the discriminator lowers

        cross-entropy over the classes + adversarial_weight * (softplus(-L(real)) + softplus(L(generated))) / 2

    each term a mean over its images. It differs from the paper in that labeled images come as they fall in a batch of
    all, not in batches of their own: a batch without any has no first term. Labels that were mixed count by their fractions.

    The plan of DCGAN (Radford et al. 2015, arXiv 1511.06434): strided convolutions and leaky ReLU in the discriminator,
    batch norm and ReLU in the generator. It differs in three things. The discriminator has no batch norm, but the
    initialisation of He et al. (2015, arXiv 1502.01852) and a hidden layer, whose features the generator can match
    (Salimans et al. 2016, arXiv 1606.03498). The generator enlarges by copying pixels and convolving, not by transposed
    convolutions, which leave a checkerboard (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). Its images
    are in [0, 1], by a sigmoid, as real ones are before they are normalised: black borders stay black.

    Args:
        width: Channels of both networks at full size; each halving doubles them, up to eight times as many.
        hidden_dim: Units of the discriminator's hidden layer, the features.
        latent_dim: Length of the noise from which an image is drawn.
        dropout: Probability with which a feature before or after the hidden layer is left out of a training step.
        adversarial_weight: Weight of the real-or-generated term; 0 learns from the labels alone.
        generator_loss: What the generator lowers: the squared distance between the mean features of real and of generated
            images (feature_matching), or softplus(-L(generated)) (non_saturating; Goodfellow et al. 2014, arXiv 1406.2661).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 32,
        hidden_dim: Count = 128,
        latent_dim: Count = 64,
        dropout: Probability = 0.25,
        adversarial_weight: NonNegative = 1.0,
        generator_loss: Literal["feature_matching", "non_saturating"] = "feature_matching",
    ) -> None:
        super().__init__()
        self.spec = spec
        self.adversarial_weight = adversarial_weight
        self.generator_loss = generator_loss
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(spec.input, name)).view(-1, 1, 1), persistent=False)
        sizes = halvings(*spec.shape[1:])
        widths = [width << min(halving, DOUBLINGS) for halving in range(len(sizes))]
        self.discriminator = Discriminator(spec, sizes, widths, hidden_dim, dropout)
        self.generator = Generator(spec, sizes, widths, latent_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.discriminator(images)

    def generate(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, channels, height, width) images in [0, 1], from noise of `generator`, or of torch's own."""
        device, dtype = self.mean.device, self.mean.dtype
        return self.generator(torch.randn(count, self.generator.latent_dim, generator=generator, device=device, dtype=dtype))

    def loss(self, images: Tensor, network: str, supervised: Callable[[Tensor], Tensor], fraction: float) -> Tensor:
        """What the discriminator or the generator lowers.

        Args:
            images: (batch, channels, height, width), normalized.
            network: Which of the two.
            supervised: From logits (batch, classes) to the part of the loss that labels give.
            fraction: The batch's part of the samples of the optimizer step.
        """
        if network == "discriminator":
            with torch.no_grad():
                generated = self._generate_normalized(len(images))
            logits = self(images)
            adversarial = fraction * unsupervised(logits, self(generated))
            return supervised(logits) + self.adversarial_weight * adversarial
        generated = self._generate_normalized(len(images))
        if self.generator_loss == "non_saturating":
            return fraction * functional.softplus(-self(generated).logsumexp(1)).mean()
        with torch.no_grad():
            features = self.discriminator.features(images).mean(0)
        return fraction * functional.mse_loss(self.discriminator.features(generated).mean(0), features)

    def _generate_normalized(self, count: int) -> Tensor:
        return (self.generate(count) - self.mean) / self.std

    def samples(self, count: int) -> np.ndarray:
        """(count, channels, height, width) generated images, uint8, from the same noise at each call."""
        generator = torch.Generator(self.mean.device).manual_seed(0)
        with torch.inference_mode():
            parts = [self.generate(min(PART, count - start), generator) for start in range(0, count, PART)]
        return (torch.cat(parts).float() * 255).round().byte().numpy(force=True)

    def figures(self) -> dict[str, Figure]:
        """A grid of generated images."""
        from dlframe import plots

        return {"generated": plots.grid(self.samples(64))}

    def final_metrics(self, dataset: Dataset) -> dict[str, float]:
        """How far generated images are from the test images, and how far real ones are."""
        return frechet_distances(self.spec, dataset, self.samples)


def unsupervised(real: Tensor, generated: Tensor) -> Tensor:
    """Cross-entropy of real or generated, half from each, of logits (batch, classes): -log(Z / (Z + 1)), -log(1 / (Z + 1))."""
    return (functional.softplus(-real.logsumexp(1)).mean() + functional.softplus(generated.logsumexp(1)).mean()) / 2


class Discriminator(nn.Module):
    """Logits of the classes; `features` gives what they are computed from, (batch, hidden_dim)."""

    def __init__(
        self, spec: DataSpec, sizes: Sequence[tuple[int, int]], widths: Sequence[int], hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for halving, (inputs, outputs) in enumerate(zip([spec.shape[0], *widths], widths, strict=False)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2 if halving else 1, padding=1)
            layers += [convolution, nn.LeakyReLU(SLOPE, inplace=True)]
        height, columns = sizes[-1]
        linear = nn.Linear(widths[-1] * height * columns, hidden_dim)
        layers += [nn.Flatten(), nn.Dropout(dropout), linear, nn.LeakyReLU(SLOPE, inplace=True)]
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_dim, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images)))


class Generator(nn.Module):
    """Images (batch, channels, height, width) in [0, 1] from noise (batch, latent_dim)."""

    def __init__(self, spec: DataSpec, sizes: Sequence[tuple[int, int]], widths: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        height, columns = sizes[-1]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, widths[-1] * height * columns, bias=False),
            nn.Unflatten(1, (widths[-1], height, columns)),
        ]
        for halving in reversed(range(len(sizes) - 1)):
            inputs, outputs = widths[halving + 1], widths[halving]
            layers += [
                *(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)),
                *(nn.Upsample(sizes[halving]), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
            ]
        layers += [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), nn.Conv2d(widths[0], spec.shape[0], 3, padding=1)]
        self.layers = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise)


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes from the full one down, each as a convolution of stride 2 leaves it: 28 x 28, 14 x 14, 7 x 7, 4 x 4."""
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes
