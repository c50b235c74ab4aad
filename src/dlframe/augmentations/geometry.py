"""Geometry of images with boxes: what happens to the pixels happens to the boxes.

Boxes are left, top, right and bottom at the edges of pixels, so that a flip is width - x, without a 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dlframe.augmentations.operations import each
from dlframe.types import Batch, DataSpec, Ragged

VISIBLE = 0.1
"""Fraction of a box that must remain in an image, below which the object is left out."""


def flipped(boxes: Tensor, side: Tensor | int, dimension: int) -> Tensor:
    """Return corners (n, 4) after a flip along x (dimension 3 of images) or y (2).

    Args:
        boxes: (n, 4) corners.
        side: Width or height of the images.
        dimension: Dimension of images (batch, channels, height, width) that is reversed.
    """
    low, high = (0, 2) if dimension == 3 else (1, 3)
    columns = list(boxes.unbind(1))
    columns[low], columns[high] = side - boxes[:, high], side - boxes[:, low]
    return torch.stack(columns, 1)


def transposed(boxes: Tensor) -> Tensor:
    """Return corners (n, 4) after x and y have changed places."""
    return boxes[:, [1, 0, 3, 2]]


def resampled(images: Tensor, scale: Tensor, offset: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Scale and move images, in one bilinear sampling; what was outside has the mean color of the image.

    Args:
        images: (batch, channels, height, width).
        scale: (batch, 2) factors of x and y.
        offset: (batch, 2) pixels by which the scaled image is moved: new x = scale * x + offset.
        size: Height and width of the result; None for those of the images.
    """
    height, width = images.shape[2:]
    rows, columns = size or (height, width)
    # In the coordinates of `grid_sample`, from -1 to 1 between the edges: old = (new - offset) / scale.
    old, new = (torch.tensor(sides, device=images.device, dtype=torch.float32) for sides in ((width, height), (columns, rows)))
    scale, offset = scale.float(), offset.float()
    factor = new / old / scale
    shift = (new / 2 - offset) / scale * 2 / old - 1
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = factor.unbind(1)
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, [len(images), 1, rows, columns], align_corners=False)
    mean = images.mean((2, 3), keepdim=True)
    moved = functional.grid_sample(images.float() - mean.float(), grid, align_corners=False) + mean.float()
    return moved.clamp(0, 1).to(images.dtype)


class Boxes:
    """Columns of a batch that go along with boxes.

    Args:
        spec: Specification of data with a box target.
    """

    def __init__(self, spec: DataSpec) -> None:
        (self.box,) = spec.of_kind("box", spec.targets)
        self.along = [name for name, field in spec.targets.items() if name == self.box or field.along == self.box]

    def image(self, batch: Batch) -> Tensor:
        """Return (objects,) the image of each object."""
        boxes: Ragged = batch[self.box]
        return torch.repeat_interleave(torch.arange(len(batch), device=batch.index.device), boxes.lengths)

    def placed(self, batch: Batch, scale: Tensor, offset: Tensor) -> Tensor:
        """Return corners (n, 4) scaled and moved with their images, see `resampled`."""
        image = self.image(batch)
        boxes = batch[self.box].values
        return boxes * scale[image].repeat(1, 2).to(boxes.dtype) + offset[image].repeat(1, 2).to(boxes.dtype)

    def taken(self, batch: Batch, index: Tensor) -> Batch:
        """Return the objects of the images at `index`; other columns are those of the batch."""
        boxes: Ragged = batch[self.box]
        lengths = boxes.lengths[index]
        offsets = functional.pad(lengths.cumsum(0), (1, 0))
        rows = torch.repeat_interleave(boxes.offsets[:-1][index] - offsets[:-1], lengths)
        rows = rows + torch.arange(len(rows), device=rows.device)
        return batch.replace(**{name: Ragged(batch[name].values[rows], offsets) for name in self.along})

    def within(self, batch: Batch, boxes: Tensor, size: tuple[int, int], visible: float = VISIBLE) -> Batch:
        """Return the batch with boxes cut to the image, without objects of which too little remains.

        Args:
            batch: The batch, with the objects before they were moved.
            boxes: (n, 4) corners after.
            size: Height and width of the image.
            visible: Least fraction of the area that must remain; nothing without area does.
        """
        bound = torch.tensor([size[1], size[0]] * 2, device=boxes.device, dtype=boxes.dtype)
        cut = torch.minimum(boxes.clamp(min=0), bound)
        area, left = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (boxes, cut))
        return self.kept(batch.replace(**{self.box: batch[self.box].like(cut)}), (left > 0) & (left >= visible * area))

    def kept(self, batch: Batch, keep: Tensor) -> Batch:
        """Return the batch with the objects where `keep`, (n,) bool, is true, and with all that goes along."""
        offsets = functional.pad(keep.long().cumsum(0), (1, 0))[batch[self.box].offsets]
        return batch.replace(**{name: Ragged(batch[name].values[keep], offsets) for name in self.along})

    def joined(self, parts: list[Batch]) -> Batch:
        """Return the first batch with the objects of all, which have equally many images."""
        image = torch.cat([self.image(part) for part in parts])
        order = torch.argsort(image, stable=True)
        offsets = functional.pad(torch.bincount(image, minlength=len(parts[0])).cumsum(0), (1, 0))
        columns = {name: torch.cat([part[name].values for part in parts])[order] for name in self.along}
        return parts[0].replace(**{name: Ragged(values, offsets) for name, values in columns.items()})


def mosaic(batch: Batch, boxes: Boxes, partners: list[Tensor], corner: Tensor, visible: float = VISIBLE) -> Batch:
    """Put four images around a corner, cut where they leave the canvas.

    Args:
        batch: Images in [0, 1].
        boxes: Columns of the boxes.
        partners: Four of (batch,): the images above left, above right, below left and below right.
        corner: (batch, 2) x and y of the corner, whole pixels.
        visible: Least fraction of an object's area that must remain.
    """
    images = batch.inputs
    height, width = images.shape[2:]
    x, y = corner.unbind(1)
    columns, rows = torch.arange(width, device=images.device), torch.arange(height, device=images.device)
    canvas = torch.zeros_like(images)
    parts = []
    for number, partner in enumerate(partners):
        right, below = number % 2 == 1, number >= 2
        # The corner of the image that touches: its lower right one above left, and so on.
        offset = torch.stack([x if right else x - width, y if below else y - height], 1)
        across = (columns >= x[:, None]) if right else (columns < x[:, None])
        down = (rows >= y[:, None]) if below else (rows < y[:, None])
        source_x = (columns - offset[:, :1]).clamp(0, width - 1)
        source_y = (rows - offset[:, 1:]).clamp(0, height - 1)
        inside = (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)
        sample = torch.arange(len(images), device=images.device)[:, None, None]
        moved = images[partner][sample, :, source_y[:, :, None], source_x[:, None, :]].permute(0, 3, 1, 2)
        canvas = torch.where(inside, moved, canvas)
        own = boxes.taken(batch, partner)
        parts.append(boxes.within(own, boxes.placed(own, torch.ones_like(offset), offset), (height, width), visible))
    return boxes.joined(parts).replace(inputs=canvas)


def mixup(batch: Batch, boxes: Boxes, partner: Tensor, fraction: Tensor) -> Batch:
    """Return weighted means of pairs of images, with the objects of both; of an image with itself, these once.

    Args:
        batch: Images in [0, 1].
        boxes: Columns of the boxes.
        partner: (batch,) the other image.
        fraction: (batch,) weight of the first; 1 leaves an image with its own objects alone.
    """
    images = batch.inputs
    mixed = torch.lerp(images[partner], images, each(fraction, images))
    other = boxes.taken(batch, partner)
    mixing = (fraction < 1) & (partner != torch.arange(len(images), device=partner.device))
    other = boxes.kept(other, mixing[boxes.image(other)])
    return boxes.joined([batch, other]).replace(inputs=mixed)
