"""Augmentations of images: drawn for each sample, applied to the whole batch where it lies.

torchvision.transforms.v2 draws once a call: on a batch, every sample would get the same.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval

from dlframe.augmentations import operations
from dlframe.augmentations.operations import uniform
from dlframe.registry import Fraction, Natural, NonNegative, Positive, augmentations
from dlframe.types import Batch, ConfigError, DataSpec

HalfTurn = Annotated[float, Interval(ge=0, le=180)]
HalfCircle = Annotated[float, Interval(ge=0, le=0.5)]
Angle = Annotated[float, Interval(ge=0, lt=90)]
Aspect = Annotated[float, Interval(ge=1)]


@augmentations.register("none", exempt={"varies": "It changes nothing, whatever the seed."})
class Identity:
    """Leaves the batch as it is."""

    def __init__(self, spec: DataSpec) -> None:
        pass

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch


@augmentations.register("flip", targets=("class", "value"))
class Flip:
    """Mirrors images.

    Args:
        direction: Left-right, up-down, or each with its own draw.
        probability: Share of the samples that are mirrored, in each direction.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        direction: Literal["horizontal", "vertical", "both"] = "horizontal",
        probability: Fraction = 0.5,
    ) -> None:
        self.dimensions = {"horizontal": (3,), "vertical": (2,), "both": (2, 3)}[direction]
        self.probability = probability

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        for dimension in self.dimensions:
            chosen = uniform(len(images), 0, 1, images, generator) < self.probability
            images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(dimension), images)
        return batch.replace(inputs=images)


@augmentations.register("crop", targets=("class", "value"))
class Crop:
    """Pads images and cuts a window of their size at a random place.

    Args:
        padding: Pixels added on each side, the largest shift; null for an eighth of the shorter side, as 4 of 32.
        fill: What the padding shows: black, the mirrored image, or its edge.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        padding: Natural | None = None,
        fill: Literal["zeros", "reflect", "edge"] = "zeros",
    ) -> None:
        shorter = min(spec.shape[1:])
        self.padding = max(1, round(shorter / 8)) if padding is None else padding
        self.mode = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}[fill]
        if fill == "reflect" and self.padding >= shorter:
            raise ConfigError(
                f"augmentation.crop.padding: must be smaller than the image, {shorter} pixels, with fill=reflect. "
                f"Received: {self.padding}. Try: augmentation.crop.padding={max(0, shorter // 8)}"
            )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        places = torch.randint(2 * self.padding + 1, (2, count), generator=generator, device=images.device)
        padded = F.pad(images, [self.padding] * 4, mode=self.mode)
        # A view of every window, (batch, channels, places, places, height, width): only the chosen ones are copied.
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return batch.replace(inputs=windows[torch.arange(count, device=images.device), :, places[0], places[1]])


@augmentations.register("affine", targets=("class", "value"))
class Affine:
    """Turns, moves, scales and shears images about their centre, in one bilinear sampling.

    Args:
        degrees: Largest rotation to either side.
        shift: Largest shift along each axis, as a share of the image's side.
        scale: Smallest and largest magnification.
        shear: Largest shear along each axis, in degrees.
        outside: What lies beyond the edges: black, the edge's colour, or the mirrored image.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        degrees: HalfTurn = 15.0,
        shift: Fraction = 0.1,
        scale: tuple[Positive, Positive] = (0.9, 1.1),
        shear: Angle = 0.0,
        outside: Literal["zeros", "border", "reflection"] = "zeros",
    ) -> None:
        if scale[0] > scale[1]:
            raise ConfigError(
                f"augmentation.affine.scale: must be [smallest, largest]. Received: {list(scale)}. "
                f"Try: augmentation.affine.scale=[{scale[1]:g},{scale[0]:g}]"
            )
        self.degrees, self.shift, self.scale, self.shear, self.outside = degrees, shift, scale, shear, outside

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs

        def draw(low: float, high: float) -> torch.Tensor:
            return uniform(len(images), low, high, images, generator)

        warped = operations.warp(
            images,
            degrees=draw(-self.degrees, self.degrees),
            shift=(draw(-self.shift, self.shift), draw(-self.shift, self.shift)),
            scale=draw(*self.scale),
            shear=(
                torch.tan(torch.deg2rad(draw(-self.shear, self.shear))),
                torch.tan(torch.deg2rad(draw(-self.shear, self.shear))),
            ),
            outside=self.outside,
        )
        return batch.replace(inputs=warped)


@augmentations.register("color_jitter")
class ColorJitter:
    """Changes brightness, contrast, saturation and hue, in this order.

    The factors of the first three lie within 1 plus or minus the option and not below 0, as torchvision's. Hue turns in
    the YIQ plane, which keeps luma, not in HSV. Saturation and hue need three channels.

    Args:
        brightness: Largest change of the brightness factor.
        contrast: Largest change of the contrast factor.
        saturation: Largest change of the saturation factor.
        hue: Largest turn of the hue to either side, as a share of the colour circle.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        brightness: NonNegative = 0.2,
        contrast: NonNegative = 0.2,
        saturation: NonNegative = 0.2,
        hue: HalfCircle = 0.0,
    ) -> None:
        changes = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.ranges = {name: (max(0.0, 1 - change), 1 + change) for name, change in changes.items()}
        self.ranges["hue"] = (-hue, hue)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        drawn = {name: uniform(len(images), *limits, images, generator) for name, limits in self.ranges.items()}
        return batch.replace(inputs=operations.recolor(images, **drawn))


@augmentations.register("erasing", targets=("class", "value"))
class Erasing:
    """Hides a rectangle of an image.

    Zhong et al. 2017, "Random Erasing Data Augmentation", arXiv:1708.04896. The paper draws again where a rectangle
    does not fit; here its longer side is cut to the image.

    Args:
        probability: Share of the samples that lose a rectangle.
        area: Smallest and largest share of the image that the rectangle covers.
        aspect: Largest ratio of its sides, either way.
        fill: What it shows: the mean colour of the training set, black, or noise.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        probability: Fraction = 0.5,
        area: tuple[Fraction, Fraction] = (0.02, 0.33),
        aspect: Aspect = 3.3,
        fill: Literal["mean", "black", "noise"] = "mean",
    ) -> None:
        if area[0] > area[1]:
            raise ConfigError(
                f"augmentation.erasing.area: must be [smallest, largest]. Received: {list(area)}. "
                f"Try: augmentation.erasing.area=[{area[1]:g},{area[0]:g}]"
            )
        self.probability, self.area, self.aspect, self.fill = probability, area, aspect, fill
        self.mean = torch.tensor(spec.input.mean).view(1, -1, 1, 1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        chance, size, shape, top, left = torch.rand(5, count, generator=generator, device=images.device)
        pixels = (self.area[0] + size * (self.area[1] - self.area[0])) * height * width
        ratio = self.aspect ** (2 * shape - 1)
        inside = operations.rectangle(images, (pixels * ratio).sqrt(), (pixels / ratio).sqrt(), top, left)
        hidden = inside & (chance < self.probability).view(-1, 1, 1, 1)
        if self.fill == "noise":
            shown = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        elif self.fill == "mean":
            shown = self.mean.to(images)
        else:
            shown = images.new_zeros(())
        return batch.replace(inputs=operations.select(hidden, shown, images))
