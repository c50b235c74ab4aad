"""Anchor-free detector of objects as points."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec, Ragged

PRIOR = 0.01
"""Confidence of an untrained network, so that the many cells without an object do not dominate the first steps."""

MOST = 100
"""Detections of an image."""

NEAR = 0.5
"""Height of the Gaussian of a center from which a cell learns the box."""


class Maps(NamedTuple):
    """Outputs of a batch.

    Attributes:
        logits: (batch, classes, rows, columns), of the centers of objects.
        sides: (batch, 4, rows, columns) distances from the middle of a cell to left, top, right and bottom of its box, in
            pixels.
        size: Height and width of the images in pixels.
    """

    logits: Tensor
    sides: Tensor
    size: tuple[int, int]


@models.register(
    "center_detector",
    inputs=("image",),
    targets=("box", "class", "value", "number"),
    requires=("box", "class"),
    scoring=("min_confidence", "nms"),
    sample={"name": "composed_digits", "images": 64},
    search={"width": "choice(8,16,32)", "stages": "choice(4,5,6)"},
)
class CenterDetector(nn.Module):
    """Small anchor-free detector: a map of objects' centers per class, and the box around each center.

    Objects as points are from Zhou et al. 2019 (arXiv 1904.07850), as is the focal loss of the centers; boxes are learned
    from cells near the center, as distances to the four sides, weighted to a sum of 1 for each object (Liu et al. 2019, arXiv
    1909.00700), by the generalized overlap (Rezatofighi et al. 2019, arXiv 1902.09630). Other than these, a small network with
    lateral connections (Lin et al. 2017, arXiv 1612.03144) replaces the large one, the Gaussian of a center has the shape of
    its box, and suppression of overlapping boxes of a class follows the search for peaks.

    Args:
        width: Channels of the first stage; each further stage doubles them, up to eight times.
        stages: Number of stages, each with half the height and width of the one before.
        stride: Pixels of a cell of the map, along each side.
        min_confidence: Lowest confidence of a detection.
        nms: Overlap beyond which the less confident of two boxes of a class is left out.
    """

    averages = "objects"

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 16,
        stages: Annotated[int, Interval(ge=2, le=6)] = 5,
        stride: Literal[2, 4, 8, 16] = 4,
        min_confidence: Probability = 0.05,
        nms: Probability = 0.6,
    ) -> None:
        super().__init__()
        self.stride, self.min_confidence, self.nms = stride, min_confidence, nms
        self.classes = len(spec.classes)
        self.below = min(stages, int(math.log2(stride)))
        widths = [min(width << stage, 8 * width) for stage in range(stages)]
        channels = [spec.shape[0], *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(a, b, stride=2), _convolution(b, b)) for a, b in itertools.pairwise(channels)
        )
        joined = max(2 * width, 32)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, joined, 1) for channels in widths[self.below - 1 :])
        self.smooth = _convolution(joined, joined)
        self.heat = nn.Sequential(_convolution(joined, joined), nn.Conv2d(joined, self.classes, 1))
        self.sides = nn.Sequential(_convolution(joined, joined), nn.Conv2d(joined, 4, 1))
        nn.init.constant_(self.heat[-1].bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.normal_(self.heat[-1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.normal_(self.sides[-1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.constant_(self.sides[-1].bias, math.log(2.0))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Maps:
        """Return the maps of images (batch, channels, height, width), normalized."""
        height, width = images.shape[-2:]
        maps = []
        for number, stage in enumerate(self.stages, 1):
            images = stage(images)
            if number >= self.below:
                maps.append(images)
        joined = self.lateral[-1](maps[-1])
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):  # type: ignore[call-overload]
            joined = functional.interpolate(joined, finer.shape[-2:], mode="nearest") + lateral(finer)
        joined = self.smooth(joined)
        return Maps(_whole(self.heat(joined)), _whole(self.sides(joined).clamp(-4, 8).exp() * self.stride), (height, width))

    def losses(self, outputs: Maps, boxes: Ragged, labels: Tensor, ignored: Tensor) -> Tensor:
        """Return the loss of centers and boxes of each image, (batch,), a sum over its objects.

        Args:
            outputs: Maps of a batch.
            boxes: (objects, 4) corners in pixels, by image.
            labels: (objects,) class indices.
            ignored: (objects,) bool, regions in which nothing is learned.
        """
        logits, sides, _ = outputs
        image = torch.repeat_interleave(torch.arange(len(logits), device=logits.device), boxes.lengths)
        heat, masked, weight, owner = target_maps(boxes.values, image, labels, ignored, logits.shape, self.stride)
        chance = logits.sigmoid()
        center = heat == 1
        near = functional.logsigmoid(logits) * (1 - chance) ** 2 * center
        far = functional.logsigmoid(-logits) * chance**2 * (1 - heat) ** 4 * ~center
        centers = -((near + far) * ~masked).flatten(1).sum(1)
        where = (owner >= 0).nonzero(as_tuple=True)
        found = _boxes(sides, self.stride).permute(0, 2, 3, 1)[where]
        missed = 1 - generalized_overlap(found, boxes.values[owner[where]])
        return centers.index_add(0, where[0], missed * weight[where])

    def detect(self, outputs: Maps) -> Ragged:
        """Return detections (n, 6) of each image: left, top, right, bottom in pixels, confidence, class.

        Those of an image depend on this image alone, the most confident first.
        """
        logits, sides, (height, width) = outputs
        heat = logits.sigmoid()
        # A peak is the largest of its neighbors; the first of equal ones is found by the suppression.
        heat = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat)
        score, place = heat.flatten(1).topk(min(MOST, heat[0].numel()))
        cells = heat[0, 0].numel()
        label, cell = place // cells, place % cells
        corners = _boxes(sides, self.stride).flatten(2)
        box = corners.gather(2, cell.unsqueeze(1).expand(-1, 4, -1)).transpose(1, 2)
        box = torch.stack([box[..., 0::2].clamp(0, width), box[..., 1::2].clamp(0, height)], -1).flatten(2)
        kept = (score >= self.min_confidence) & (box[..., 2:] > box[..., :2]).all(-1)
        kept = suppressed(box, score, label, kept, self.nms)
        rows = torch.cat([box, score.unsqueeze(2), label.unsqueeze(2).to(box.dtype)], 2)
        return Ragged(rows[kept], functional.pad(kept.sum(1).cumsum(0), (1, 0)))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _whole(output: Tensor) -> Tensor:
    """Return an output in single precision at least."""
    return output.to(torch.promote_types(output.dtype, torch.float32))


def _boxes(sides: Tensor, stride: int) -> Tensor:
    """Return corners (batch, 4, rows, columns) in pixels from distances to the sides."""
    rows, columns = ((torch.arange(size, device=sides.device) + 0.5) * stride for size in sides.shape[-2:])
    x, y = columns.expand(len(rows), -1), rows.unsqueeze(1).expand(-1, len(columns))
    left, top, right, bottom = sides.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)


def target_maps(
    boxes: Tensor, image: Tensor, labels: Tensor, ignored: Tensor, shape: torch.Size, stride: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the maps of a batch should be.

    Returns:
        heat (batch, classes, rows, columns), 1 at a center, falling around it; masked, likewise, bool, where nothing is
        learned; weight (batch, rows, columns) of the box of a cell, and owner, its object, -1 for none.
    """
    batch, _, rows, columns = shape
    heat = boxes.new_zeros(shape)
    masked = torch.zeros(shape, dtype=torch.bool, device=boxes.device)
    weight = boxes.new_zeros(batch, rows, columns)
    owner = torch.full((batch, rows, columns), -1, dtype=torch.int64, device=boxes.device)
    if not len(boxes):
        return heat, masked, weight, owner
    x, y = ((torch.arange(size, device=boxes.device) + 0.5) * stride for size in (columns, rows))
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = boxes[:, 2:] - boxes[:, :2]
    cell = (center / stride).long()
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    # Around the middle of the central cell, so that it is exactly 1 there; a sixth of the side is one deviation.
    sigma = (size / 6).clamp(min=stride / 3)
    across = torch.exp(-(((x - (column + 0.5).unsqueeze(1) * stride) / sigma[:, :1]) ** 2) / 2)
    down = torch.exp(-(((y - (row + 0.5).unsqueeze(1) * stride) / sigma[:, 1:]) ** 2) / 2)
    inside_x = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    inside_y = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:])
    # One object of each image at a time, the largest first: of several near a cell, the smallest has it.
    order = torch.argsort(size.prod(1), descending=True, stable=True)
    order = order[torch.argsort(image[order], stable=True)]
    count = torch.bincount(image, minlength=batch)
    first = count.cumsum(0) - count
    for place in range(int(count.max())):
        index = order[first[count > place] + place]
        where, kind = image[index], labels[index]
        gauss = down[index].unsqueeze(2) * across[index].unsqueeze(1)
        hidden = ignored[index]
        real = ~hidden.view(-1, 1, 1)
        heat[where, kind] = torch.maximum(heat[where, kind], gauss * real)
        region = inside_y[index].unsqueeze(2) & inside_x[index].unsqueeze(1)
        masked[where, kind] |= region & ~real
        near = (gauss > NEAR) & real
        owner[where] = torch.where(near, index.view(-1, 1, 1), owner[where])
        weight[where] = torch.where(near, gauss, weight[where])
    taken = owner >= 0
    sums = boxes.new_zeros(len(boxes)).index_add_(0, owner[taken], weight[taken])
    weight[taken] = weight[taken] / sums[owner[taken]]
    return heat, masked & (heat < 1), weight, owner


def generalized_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the generalized intersection over union (n,) of corners (n, 4)."""
    inside = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - inside
    hull = (torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])).prod(1)
    return inside / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, threshold: float) -> Tensor:
    """Return which detections remain after greedy suppression within each class of each image.

    Image by image: torchvision moves the classes apart by the largest coordinate, which in a batch would be another image's.

    Args:
        boxes: (batch, detections, 4) corners.
        scores: (batch, detections) confidences.
        labels: (batch, detections) class indices.
        kept: (batch, detections) bool, which take part.
        threshold: Largest overlap of two that remain.
    """
    remaining = torch.zeros_like(kept)
    for image, own in enumerate(kept):
        place = own.nonzero().squeeze(1)
        chosen = batched_nms(boxes[image, place], scores[image, place], labels[image, place], threshold)
        remaining[image, place[chosen]] = True
    return remaining
