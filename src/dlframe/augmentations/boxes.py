"""Augmentations of images with boxes, drawn per sample."""

from __future__ import annotations

import torch

from dlframe.augmentations import geometry
from dlframe.augmentations.geometry import Boxes
from dlframe.augmentations.operations import fractions, uniform
from dlframe.registry import Fraction, Positive, augmentations
from dlframe.types import Batch, ConfigError, DataSpec


@augmentations.register(
    "scale_jitter", targets=("box", "class", "value", "number"), sample={"name": "composed_digits", "images": 64}
)
class ScaleJitter:
    """Random scale and place of an image with its boxes.

    As in Ghiasi et al. 2020 (arXiv 2012.07177): a smaller image is placed in one of its mean color, of a larger one a window
    is shown.

    Args:
        scale: Smallest and largest scale.
        min_visible: Least fraction of a box that must remain for its object to be kept.
    """

    def __init__(self, spec: DataSpec, *, scale: tuple[Positive, Positive] = (0.6, 1.6), min_visible: Fraction = 0.1) -> None:
        if scale[0] > scale[1]:
            raise ConfigError(
                f"augmentation.scale_jitter.scale: must be [smallest, largest]. Received: {list(scale)}. "
                f"Try: augmentation.scale_jitter.scale=[{scale[1]:g},{scale[0]:g}]"
            )
        self.boxes, self.scale, self.min_visible = Boxes(spec), scale, min_visible

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        height, width = images.shape[2:]
        factor = uniform(len(images), *self.scale, images, generator)
        place = torch.rand(len(images), 2, generator=generator, device=images.device)
        offset = place * torch.tensor([width, height], device=images.device) * (1 - factor.unsqueeze(1))
        scale = factor.unsqueeze(1).expand(-1, 2)
        moved = self.boxes.placed(batch, scale, offset)
        changed = self.boxes.within(batch, moved, (height, width), self.min_visible)
        return changed.replace(inputs=geometry.resampled(images, scale, offset))


@augmentations.register(
    "object_crop", targets=("box", "class", "value", "number"), sample={"name": "composed_digits", "images": 64}
)
class ObjectCrop:
    """Random window of an image, in the original size, that shows at least one object whole.

    After Liu et al. 2015 (SSD, arXiv 1512.02325), with the aspect ratio kept. An image without objects is cropped anywhere.

    Args:
        p: Probability of a crop.
        scale: Smallest and largest side of the window, as a fraction of the image's.
        min_visible: Least fraction of a box that must remain for its object to be kept.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        p: Fraction = 0.5,
        scale: tuple[Fraction, Fraction] = (0.4, 1.0),
        min_visible: Fraction = 0.1,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                f"augmentation.object_crop.scale: must be [smallest, largest], above 0. Received: {list(scale)}. "
                f"Try: augmentation.object_crop.scale=[0.4,1]"
            )
        self.boxes, self.p, self.scale, self.min_visible = Boxes(spec), p, scale, min_visible

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        sides = torch.tensor([width, height], device=images.device, dtype=torch.float32)
        part = uniform(count, *self.scale, images, generator)
        part = torch.where(uniform(count, 0, 1, images, generator) < self.p, part, 1.0)
        chance = torch.rand(count, generator=generator, device=images.device)
        place = torch.rand(count, 2, generator=generator, device=images.device)
        column = batch[self.boxes.box]
        has = column.lengths > 0
        # The object of each image that stays whole; the window is made larger where it must be.
        chosen = column.offsets[:-1] + (chance * column.lengths).long()
        whole = torch.zeros(count, 4, device=images.device)
        whole[has] = column.values[chosen[has]].float()
        needed = ((whole[:, 2:] - whole[:, :2]) / sides).amax(1)
        side = torch.maximum(part, needed).clamp(max=1).unsqueeze(1) * sides
        low = torch.where(has[:, None], (whole[:, 2:] - side).clamp(min=0), 0.0)
        high = torch.where(has[:, None], torch.minimum(whole[:, :2], sides - side), sides - side)
        start = low + place * (high - low).clamp(min=0)
        scale = sides / side
        moved = self.boxes.placed(batch, scale, -start * scale)
        changed = self.boxes.within(batch, moved, (height, width), self.min_visible)
        return changed.replace(inputs=geometry.resampled(images, scale, -start * scale))


@augmentations.register("mosaic", targets=("box", "class", "value", "number"), sample={"name": "composed_digits", "images": 64})
class Mosaic:
    """Parts of four images around a random corner, with their boxes.

    Bochkovskiy et al. 2020 (YOLOv4, arXiv 2004.10934); the canvas has the size of an image, so objects keep theirs.

    Args:
        p: Probability of a mosaic instead of the image itself.
        center: Range of the corner, as fractions of the sides.
        min_visible: Least fraction of a box that must remain for its object to be kept.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        p: Fraction = 0.5,
        center: tuple[Fraction, Fraction] = (0.25, 0.75),
        min_visible: Fraction = 0.1,
    ) -> None:
        if center[0] > center[1]:
            raise ConfigError(
                f"augmentation.mosaic.center: must be [smallest, largest]. Received: {list(center)}. "
                f"Try: augmentation.mosaic.center=[{center[1]:g},{center[0]:g}]"
            )
        self.boxes, self.p, self.center, self.min_visible = Boxes(spec), p, center, min_visible

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        count, _, height, width = images.shape
        own = torch.arange(count, device=images.device)
        partners = [own, *(torch.randperm(count, generator=generator, device=images.device) for _ in range(3))]
        place = torch.rand(count, 2, generator=generator, device=images.device)
        corner = (self.center[0] + place * (self.center[1] - self.center[0])) * torch.tensor(
            [width, height], device=place.device
        )
        made = uniform(count, 0, 1, images, generator) < self.p
        # The whole image is what is above left of the lower right corner of the canvas.
        corner = torch.where(made.unsqueeze(1), corner.round().long(), torch.tensor([width, height], device=place.device))
        return geometry.mosaic(batch, self.boxes, partners, corner, self.min_visible)


@augmentations.register(
    "box_mixup", targets=("box", "class", "value", "number"), sample={"name": "composed_digits", "images": 64}
)
class BoxMixup:
    """Weighted mean of two images, with the objects of both.

    Zhang et al. 2019 (arXiv 1902.04103); objects are not weighted, as in Ge et al. 2021 (YOLOX, arXiv 2107.08430).

    Args:
        alpha: Parameter of Beta(alpha, alpha), which draws the weights; the larger, the nearer to equal ones.
        p: Probability of mixing a sample.
    """

    def __init__(self, spec: DataSpec, *, alpha: Positive = 8.0, p: Fraction = 0.5) -> None:
        self.boxes, self.alpha, self.p = Boxes(spec), alpha, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.inputs
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        fraction = fractions(len(images), self.alpha, self.p, images, generator)
        return geometry.mixup(batch, self.boxes, partner, fraction)
