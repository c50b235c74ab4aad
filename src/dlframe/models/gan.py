"""Generative adversarial networks whose discriminator classifies."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec

SLOPE = 0.2
"""Of the discriminator's leaky ReLU below zero."""

SMALLEST, DOUBLINGS = 4, 3
"""Height and width are halved until neither is above SMALLEST; channels double with the first DOUBLINGS halvings."""


@models.register("gan", task="adversarial", inputs=("image",))
class GAN(nn.Module):
    """Semi-supervised GAN: a discriminator that classifies, and a generator of images that it must tell from real ones.

    The plan of DCGAN (Radford et al. 2015, arXiv 1511.06434): strided convolutions and leaky ReLU in the discriminator,
    batch norm and ReLU in the generator. It differs in three things. The discriminator has no batch norm, but the
    initialisation of He et al. (2015, arXiv 1502.01852) and a hidden layer, whose features the generator can match
    (Salimans et al. 2016, arXiv 1606.03498). The generator enlarges by copying pixels and convolving, not by transposed
    convolutions, which leave a checkerboard (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). Its images
    are in [0, 1], by a sigmoid, as real ones are before they are normalised: black borders stay black.

    Args:
        width: Channels of both networks at full size; each halving doubles them, up to eight times as many.
        hidden: Units of the discriminator's hidden layer, the features.
        latent: Length of the noise from which an image is drawn.
        dropout: Probability with which a feature before or after the hidden layer is left out of a training step.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 32,
        hidden: Count = 128,
        latent: Count = 64,
        dropout: Probability = 0.25,
    ) -> None:
        super().__init__()
        sizes = halvings(*spec.shape[1:])
        widths = [width << min(halving, DOUBLINGS) for halving in range(len(sizes))]
        self.discriminator = Discriminator(spec, sizes, widths, hidden, dropout)
        self.generator = Generator(spec, sizes, widths, latent)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.discriminator(images)


class Discriminator(nn.Module):
    """Logits of the classes; `features` gives what they are computed from, (batch, hidden)."""

    def __init__(
        self, spec: DataSpec, sizes: Sequence[tuple[int, int]], widths: Sequence[int], hidden: int, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for halving, (inputs, outputs) in enumerate(zip([spec.shape[0], *widths], widths, strict=False)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2 if halving else 1, padding=1)
            layers += [convolution, nn.LeakyReLU(SLOPE, inplace=True)]
        height, columns = sizes[-1]
        linear = nn.Linear(widths[-1] * height * columns, hidden)
        layers += [nn.Flatten(), nn.Dropout(dropout), linear, nn.LeakyReLU(SLOPE, inplace=True)]
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images)))


class Generator(nn.Module):
    """Images (batch, channels, height, width) in [0, 1] from noise (batch, latent)."""

    def __init__(self, spec: DataSpec, sizes: Sequence[tuple[int, int]], widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.latent = latent
        height, columns = sizes[-1]
        layers: list[nn.Module] = [
            nn.Linear(latent, widths[-1] * height * columns, bias=False),
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
