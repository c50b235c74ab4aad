"""Image augmentations, drawn per sample and applied to a batch on its device.

torchvision.transforms.v2 draws once per call: all samples of a batch would get the same transform.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval

from dlframe.augmentations import operations
from dlframe.augmentations.geometry import flipped
from dlframe.augmentations.operations import uniform
from dlframe.registry import Fraction, Natural, NonNegative, Positive, augmentations
from dlframe.types import Batch, ConfigError, DataSpec

HalfTurn = Annotated[float, Interval(ge=0, le=180)]
HalfCircle = Annotated[float, Interval(ge=0, le=0.5)]
Angle = Annotated[float, Interval(ge=0, lt=90)]


@augmentations.register("none", exempt={"varies": "The identity draws nothing."})
class Identity:
    """Identity: no augmentation."""

    def __init__(self, spec: DataSpec) -> None:
        pass

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch


@augmentations.register("flip", targets=("class", "value", "box", "number"))
class Flip:
    """Random horizontal or vertical flip, of boxes too.

    Args:
        direction: Horizontal, vertical, or both with independent draws.
        p: Probability of a flip in each direction.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        direction: Literal["horizontal", "vertical", "both"] = "horizontal",
        p: Fraction = 0.5,
    ) -> None:
        self.dimensions = {"horizontal": (3,), "vertical": (2,), "both": (2, 3)}[direction]
        self.p = p
        self.boxes = spec.of_kind("box", spec.targets)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        columns = {name: batch[name] for name in self.boxes}
        for dimension in self.dimensions:
            chosen = uniform(len(images), 0, 1, images, generator) < self.p
            images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(dimension), images)
            for name, boxes in columns.items():
                turned = flipped(boxes.values, images.shape[dimension], dimension)
                own = chosen.repeat_interleave(boxes.lengths).unsqueeze(1)
                columns[name] = boxes.like(torch.where(own, turned, boxes.values))
        return batch.replace(inputs=images, **columns)


@augmentations.register(
    "alternating_flip", targets=("class", "value"), exempt={"varies": "It follows the epoch and draws nothing."}
)
class AlternatingFlip:
    """Horizontal flip of each image in every second epoch, of half of the images at a time.

    Jordan 2024, arXiv 2404.00498: every two epochs have both forms of each image, where random flips repeat one of them.
    """

    def __init__(self, spec: DataSpec) -> None:
        self.epoch = 0

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Remember the epoch."""
        self.epoch = epoch

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        # Which half: a bit of a product (Knuth, TAOCP 3, 6.4), as neighbors in a data set may be alike.
        bit = (batch.index * 2654435761 >> 16) & 1
        chosen = (bit + self.epoch) % 2 == 1
        images = batch.inputs
        return batch.replace(inputs=operations.select(chosen.view(-1, 1, 1, 1), images.flip(3), images))


@augmentations.register("crop", targets=("class", "value"))
class Crop:
    """Random crop of the padded image, in the original size.

    Args:
        padding: Pixels added on each side; null for an eighth of the shorter side (4 of 32).
        padding_mode: Content of the padding: black, the mirrored image, or the edge pixels.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        padding: Natural | None = None,
        padding_mode: Literal["zeros", "reflect", "edge"] = "zeros",
    ) -> None:
        shorter = min(spec.shape[1:])
        self.padding = max(1, round(shorter / 8)) if padding is None else padding
        self.mode = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}[padding_mode]
        if padding_mode == "reflect" and self.padding >= shorter:
            raise ConfigError(
                f"augmentation.crop.padding: must be smaller than the image, {shorter} pixels, with padding_mode=reflect. "
                f"Received: {self.padding}. Try: augmentation.crop.padding={max(0, shorter // 8)}"
            )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        places = torch.randint(2 * self.padding + 1, (2, count), generator=generator, device=images.device)
        padded = F.pad(images, [self.padding] * 4, mode=self.mode)
        # A view of all windows, (batch, channels, tops, lefts, height, width): only the chosen ones are copied.
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return batch.replace(inputs=windows[torch.arange(count, device=images.device), :, places[0], places[1]])


@augmentations.register("affine", targets=("class", "value"))
class Affine:
    """Random affine transform about the center, in one bilinear sampling.

    Args:
        degrees: Maximum rotation in either direction.
        translate: Maximum translation along each axis, as a fraction of the image's side.
        scale: Minimum and maximum scale.
        shear: Maximum shear along each axis, in degrees.
        padding_mode: Content outside the image: black, the edge pixels, or the mirrored image.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        degrees: HalfTurn = 15.0,
        translate: Fraction = 0.1,
        scale: tuple[Positive, Positive] = (0.9, 1.1),
        shear: Angle = 0.0,
        padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    ) -> None:
        if scale[0] > scale[1]:
            raise ConfigError(
                f"augmentation.affine.scale: must be [smallest, largest]. Received: {list(scale)}. "
                f"Try: augmentation.affine.scale=[{scale[1]:g},{scale[0]:g}]"
            )
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear
        self.padding_mode = padding_mode

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs

        def draw(low: float, high: float) -> torch.Tensor:
            return uniform(len(images), low, high, images, generator)

        warped = operations.warp(
            images,
            degrees=draw(-self.degrees, self.degrees),
            translate=(draw(-self.translate, self.translate), draw(-self.translate, self.translate)),
            scale=draw(*self.scale),
            shear=(
                torch.tan(torch.deg2rad(draw(-self.shear, self.shear))),
                torch.tan(torch.deg2rad(draw(-self.shear, self.shear))),
            ),
            padding_mode=self.padding_mode,
        )
        return batch.replace(inputs=warped)


@augmentations.register("color_jitter")
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in this order.

    The first three factors lie in [max(0, 1 - option), 1 + option], as in torchvision. Hue is rotated in YIQ space,
    which keeps luma, not in HSV. Saturation and hue require three channels.

    Args:
        brightness: Maximum change of the brightness factor.
        contrast: Maximum change of the contrast factor.
        saturation: Maximum change of the saturation factor.
        hue: Maximum rotation of the hue in either direction, as a fraction of the color circle.
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
    """Random erasing: replace a rectangle of an image.

    Zhong et al. 2017, "Random Erasing Data Augmentation", arXiv:1708.04896. The paper redraws a rectangle that does not
    fit; here its longer side is clipped to the image.

    Args:
        p: Probability of erasing a sample.
        scale: Minimum and maximum area, as a fraction of the image.
        ratio: Minimum and maximum aspect ratio, height to width.
        value: Content of the rectangle: the mean color of the training set, black, or uniform noise.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        p: Fraction = 0.5,
        scale: tuple[Fraction, Fraction] = (0.02, 0.33),
        ratio: tuple[Positive, Positive] = (0.3, 3.3),
        value: Literal["mean", "black", "noise"] = "mean",
    ) -> None:
        for name, limits in {"scale": scale, "ratio": ratio}.items():
            if limits[0] > limits[1]:
                raise ConfigError(
                    f"augmentation.erasing.{name}: must be [smallest, largest]. Received: {list(limits)}. "
                    f"Try: augmentation.erasing.{name}=[{limits[1]:g},{limits[0]:g}]"
                )
        self.p, self.scale, self.ratio, self.value = p, scale, ratio, value
        self.mean = torch.tensor(spec.input.mean).view(1, -1, 1, 1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        chance, size, shape, top, left = torch.rand(5, count, generator=generator, device=images.device)
        pixels = (self.scale[0] + size * (self.scale[1] - self.scale[0])) * height * width
        ratio = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** shape
        inside = operations.rectangle(images, (pixels * ratio).sqrt(), (pixels / ratio).sqrt(), top, left)
        hidden = inside & (chance < self.p).view(-1, 1, 1, 1)
        if self.value == "noise":
            shown = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        elif self.value == "mean":
            shown = self.mean.to(images)
        else:
            shown = images.new_zeros(())
        return batch.replace(inputs=operations.select(hidden, shown, images))
