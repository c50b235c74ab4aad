"""The detector of centers: what it should learn, and what it finds, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from dlframe.data.composed_digits import composed_digits
from dlframe.models.center_detector import Maps, generalized_overlap, target_maps
from dlframe.registry import models
from dlframe.registry.plugins import discover
from dlframe.types import Ragged

discover()


def targets(boxes: list, labels: list[int], ignored: list[bool] | None = None):
    box = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    hidden = torch.tensor(ignored or [False] * len(box))
    return target_maps(
        box, torch.zeros(len(box), dtype=torch.long), torch.tensor(labels), hidden, torch.Size([1, 3, 16, 16]), 4
    )


def test_a_center_is_where_the_box_is():
    heat, masked, weight, owner = targets([[8, 16, 24, 40]], [1])
    assert (heat == 1).nonzero().tolist() == [[0, 1, 7, 4]], "the cell of the middle, (16, 28)"
    assert not heat[0, [0, 2]].any()
    assert not masked.any()
    assert weight.sum() == pytest.approx(1), "the weights of an object add up to 1, whatever its size"
    assert {*owner[weight > 0].tolist()} == {0}


def test_of_two_objects_the_smaller_has_the_cells():
    heat, _, weight, owner = targets([[0, 0, 60, 60], [24, 24, 40, 40]], [0, 2])
    assert owner[0, 8, 8] == 1
    assert heat[0, 0].max() == heat[0, 2].max() == 1
    assert weight[owner == 0].sum() == pytest.approx(1)
    assert weight[owner == 1].sum() == pytest.approx(1)


def test_nothing_is_learned_in_what_is_ignored():
    heat, masked, weight, owner = targets([[8, 8, 40, 40]], [1], [True])
    assert not heat.any()
    assert not weight.any()
    assert (owner == -1).all()
    assert masked[0, 1, 2:10, 2:10].all()
    assert masked.sum() == 64, "other classes and places are learned"


def test_overlap_is_that_of_torchvision():
    random = np.random.default_rng(0)
    low, size = torch.from_numpy(random.uniform(0, 20, (2, 50, 2))), torch.from_numpy(random.uniform(1, 20, (2, 50, 2)))
    boxes, others = (torch.cat([a, a + b], 1) for a, b in zip(low, size, strict=True))
    assert torch.allclose(1 - generalized_overlap(boxes, others), generalized_box_iou_loss(boxes, others), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"stride": 8}, {"stride": 16, "stages": 4}, {"stages": 2, "stride": 2}, {"stages": 6}])
def test_a_perfect_map_gives_the_boxes(options):
    """Heat and sides as they should be are decoded into the boxes that they were made of."""
    spec = composed_digits(images=8).spec
    model = models.build({"name": "center_detector", **options}, spec=spec).eval()
    boxes = torch.tensor([[4.0, 6, 30, 28], [34, 30, 60, 62]])
    labels = torch.tensor([3, 7])
    logits, sides, size = model(torch.zeros(1, 1, 64, 64))
    none = torch.zeros(2, dtype=torch.bool)
    heat, _, _, owner = target_maps(boxes, torch.zeros(2, dtype=torch.long), labels, none, logits.shape, model.stride)
    rows, columns = ((torch.arange(size) + 0.5) * model.stride for size in sides.shape[-2:])
    place = torch.stack([columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))] * 2)
    own = boxes[owner[0].clamp(min=0)].permute(2, 0, 1)
    distance = (own - place) * torch.tensor([-1, -1, 1, 1]).view(4, 1, 1)
    found = model.detect(Maps(torch.logit(heat, 1e-6), distance[None], size))
    assert isinstance(found, Ragged)
    best = found[0][found[0][:, 4] > 0.99]
    order = best[:, 0].argsort()
    assert torch.allclose(best[order, :4], boxes, atol=1e-4)
    assert best[order, 5].tolist() == [3, 7]
