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
"""Negative slope of the discriminator's leaky ReLU."""

SMALLEST, DOUBLINGS = 4, 3
"""Halve height and width until both are at most SMALLEST; double channels in the first DOUBLINGS halvings."""


@models.register(
    "gan",
    networks=("discriminator", "generator"),
    unlabeled=True,
    inputs=("image",),
    search={"width": "choice(16,32,64)", "adversarial_weight": "tag(log,interval(0.1,10))"},
)
class GAN(nn.Module):
    """Semi-supervised GAN whose discriminator classifies images.

    Salimans et al. 2016 (arXiv 1606.03498), section 5. An extra class, "generated", has the logit 0, so that the
    softmax probability of a real image is Z / (Z + 1), where Z is the sum of exp(logits) over the classes. With
    L = log Z the discriminator minimizes

        cross-entropy over the classes + adversarial_weight * (softplus(-L(real)) + softplus(L(generated))) / 2

    each term a mean over its images. Unlike in the paper, one batch mixes labeled and unlabeled images; a batch without
    labels has no first term. Mixed labels count by their fractions.

    The architecture of DCGAN (Radford et al. 2015, arXiv 1511.06434): strided convolutions and leaky ReLU in the
    discriminator, batch norm and ReLU in the generator. Three differences. The discriminator has no batch norm, but the
    initialization of He et al. (2015, arXiv 1502.01852) and a hidden layer, whose features the generator can match
    (Salimans et al. 2016). The generator upsamples by nearest neighbor and convolves, since transposed convolutions leave
    a checkerboard (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). A sigmoid keeps generated images in
    [0, 1], as real images are before normalization: black borders stay black.

    Args:
        width: Channels of both networks at full size; each halving doubles the channels, up to eightfold.
        hidden_dim: Units of the discriminator's hidden layer.
        latent_dim: Length of the noise vector of an image.
        dropout: Dropout probability of features before and after the hidden layer.
        adversarial_weight: Weight of the adversarial term; 0 trains on labels alone.
        generator_loss: Loss of the generator: squared distance between the mean features of real and generated images
            (feature_matching), or softplus(-L(generated)) (non_saturating; Goodfellow et al. 2014, arXiv 1406.2661).
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
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        return self.discriminator(images)

    def generate(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return generated images (count, channels, height, width) in [0, 1]."""
        device, dtype = self.mean.device, self.mean.dtype
        return self.generator(torch.randn(count, self.generator.latent_dim, generator=generator, device=device, dtype=dtype))

    def loss(self, images: Tensor, network: str, supervised: Callable[[Tensor], Tensor], fraction: float) -> Tensor:
        """Return the loss of the discriminator or the generator.

        Args:
            images: (batch, channels, height, width), normalized.
            network: "discriminator" or "generator".
            supervised: Function from logits (batch, classes) to the supervised part of the loss.
            fraction: Samples of the batch divided by those of the optimizer step.
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
        """Return uint8 images (count, channels, height, width) from fixed noise."""
        generator = torch.Generator(self.mean.device).manual_seed(0)
        with torch.inference_mode():
            parts = [self.generate(min(PART, count - start), generator) for start in range(0, count, PART)]
        return (torch.cat(parts).float() * 255).round().byte().numpy(force=True)

    def figures(self) -> dict[str, Figure]:
        """Return a grid of generated images."""
        from dlframe import plots

        return {"generated": plots.grid(self.samples(64))}

    def final_metrics(self, dataset: Dataset) -> dict[str, float]:
        """Return Fréchet distances of generated and real images to the test images."""
        return frechet_distances(self.spec, dataset, self.samples)


def unsupervised(real: Tensor, generated: Tensor) -> Tensor:
    """Return the real-or-generated loss of logits (batch, classes).

    The mean of -log(Z / (Z + 1)) over real images and -log(1 / (Z + 1)) over generated images.
    """
    return (functional.softplus(-real.logsumexp(1)).mean() + functional.softplus(generated.logsumexp(1)).mean()) / 2


class Discriminator(nn.Module):
    """Convolutional classifier; `features` returns the hidden layer."""

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
    """Network from noise (batch, latent_dim) to images in [0, 1]."""

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
    """Return the sizes after stride-2 convolutions: 28 x 28, 14 x 14, ..."""
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes
