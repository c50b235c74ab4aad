"""Encoders and decoders of vectors, with convolutions for those of images."""

from __future__ import annotations

from torch import Tensor, nn

SLOPE = 0.1
"""Negative slope of the leaky ReLU."""

SMALLEST, DOUBLINGS = 4, 3
"""Halve height and width until both are at most SMALLEST; double channels in the first DOUBLINGS halvings."""


def latent_of(features: int, image: tuple[int, ...], latent_dim: int | None) -> int:
    """Return the length of a code: as given, or half the number of values, of images an eighth, 32 at most."""
    return latent_dim or max(1, min(32, features // (8 if image else 2)))


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


class Encoder(nn.Sequential):
    """Network from vectors (batch, features) to (batch, outputs).

    Args:
        features: Length of a vector.
        image: Channels, height and width of the image that a vector is; empty for none.
        width: Units of the hidden layer, or channels at full size.
        outputs: Length of the output.
        bias: Whether layers have a bias.
    """

    def __init__(self, features: int, image: tuple[int, ...], width: int, outputs: int, *, bias: bool = True) -> None:
        if not image:
            super().__init__(nn.Linear(features, width, bias), nn.LeakyReLU(SLOPE), nn.Linear(width, outputs, bias))
        else:
            channels, height, columns = image
            sizes = _sizes(height, columns)
            widths = [channels, *(width << min(i, DOUBLINGS) for i in range(len(sizes)))]
            layers: list[nn.Module] = [nn.Unflatten(1, image)]
            for i in range(len(sizes)):
                convolution = nn.Conv2d(widths[i], widths[i + 1], 3, stride=2 if i else 1, padding=1, bias=bias)
                layers += [convolution, nn.LeakyReLU(SLOPE)]
            last = widths[-1] * sizes[-1][0] * sizes[-1][1]
            super().__init__(*layers, nn.Flatten(), nn.Linear(last, outputs, bias))


class Decoder(nn.Sequential):
    """Network from codes (batch, latent_dim) to vectors (batch, features); see `Encoder`."""

    def __init__(self, features: int, image: tuple[int, ...], width: int, latent_dim: int) -> None:
        if not image:
            super().__init__(nn.Linear(latent_dim, width), nn.LeakyReLU(SLOPE), nn.Linear(width, features))
        else:
            channels, height, columns = image
            sizes = _sizes(height, columns)
            widths = [width << min(i, DOUBLINGS) for i in range(len(sizes))]
            layers: list[nn.Module] = [
                nn.Linear(latent_dim, widths[-1] * sizes[-1][0] * sizes[-1][1]),
                nn.LeakyReLU(SLOPE),
                nn.Unflatten(1, (widths[-1], *sizes[-1])),
            ]
            for i in reversed(range(len(sizes) - 1)):
                layers += [nn.Upsample(sizes[i]), nn.Conv2d(widths[i + 1], widths[i], 3, padding=1), nn.LeakyReLU(SLOPE)]
            super().__init__(*layers, nn.Conv2d(widths[0], channels, 3, padding=1), nn.Flatten())

    def forward(self, codes: Tensor) -> Tensor:
        # Contiguous, whatever the memory order of the convolutions: values are compared with those of the inputs.
        return super().forward(codes).contiguous()
