"""Augmentations of boxes against the pixels of rectangles of one color each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.detection_cases.given import HERE

from dlframe.augmentations import geometry
from dlframe.augmentations.geometry import Boxes
from dlframe.config import load
from dlframe.registry import augmentations
from dlframe.registry.plugins import discover
from dlframe.types import Batch, ConfigError, DataSpec, Field, Ragged

discover()
NAMES = ("car", "bus", "inside", "half", "sliver", "touching", "outside", "crowd")


def spec_of(height: int, width: int) -> DataSpec:
    image = Field(kind="image", dtype="uint8", shape=(3, height, width), mean=(0.5,) * 3, std=(0.2,) * 3)
    targets = {
        "box": Field(kind="box", dtype="float32", shape=(None, 4)),
        "label": Field(kind="class", dtype="int64", shape=(None,), names=NAMES, along="box"),
        "about": Field(kind="value", dtype="float32", shape=(None, 4), names=("crowd", "red", "green", "blue"), along="box"),
    }
    return DataSpec("rectangles", {"image": image}, targets)


def batch_of(case: str, *files: str) -> Batch:
    """Images of a case with their objects; what goes along are the crowd flag and the color."""
    content = json.loads((HERE / case / "boxes.json").read_text())
    images, objects = [], []
    for file in files or ("image.png",):
        images.append(np.asarray(Image.open(HERE / case / file).convert("RGB")).transpose(2, 0, 1))
        objects.append((content[file] if files else content)["objects"])
    spec = spec_of(*images[0].shape[1:])
    columns: dict[str, Any] = {
        "box": [[o["box"] for o in own] for own in objects],
        "label": [[NAMES.index(o["class"]) for o in own] for own in objects],
        "about": [[[float(o.get("crowd", False)), *o["colour"]] for o in own] for own in objects],
    }
    offsets = torch.tensor([0, *np.cumsum([len(own) for own in objects])])
    ragged = {
        name: Ragged(
            torch.tensor([v for own in values for v in own], dtype=torch.int64 if name == "label" else torch.float32), offsets
        )
        for name, values in columns.items()
    }
    pixels = torch.tensor(np.array(images)).float() / 255
    return Batch({"image": pixels, **ragged}, torch.arange(len(images)), spec)


def told(batch: Batch, image: int = 0) -> dict[str, list[float]]:
    """Class -> box."""
    return {NAMES[label]: box.tolist() for label, box in zip(batch["label"][image], batch["box"][image], strict=True)}


def assert_pixels(batch: Batch, *, image: int, tolerance: float = 0.01) -> None:
    """Each box, of an object that hides none, spans the pixels of its color; of objects twice in an image, they fill it."""
    pixels = batch["image"][image] * 255
    colors = [about[1:] for about in batch["about"][image].tolist()]
    for box, color in zip(batch["box"][image].tolist(), colors, strict=True):
        same = (pixels - torch.tensor(color)[:, None, None]).abs().amax(0) < 2
        if colors.count(color) == 1:
            places = same.nonzero()
            low, high = places.amin(0).flip(0).tolist(), (places.amax(0) + 1).flip(0).tolist()
            assert [*low, *high] == pytest.approx(box, abs=tolerance)
        left, top, right, bottom = (round(side + by) for side, by in zip(box, (1.5, 1.5, -1.5, -1.5), strict=True))
        assert same[top:bottom, left:right].all()


def windowed(batch: Batch, scale: tuple[float, float], offset: tuple[float, float], size: tuple[int, int]) -> Batch:
    factor, moved = (torch.tensor([pair]).expand(len(batch), -1) for pair in (scale, offset))
    boxes = Boxes(batch.spec)
    changed = boxes.within(batch, boxes.placed(batch, factor, moved), size, 0)
    return changed.replace(inputs=geometry.resampled(batch.inputs, factor, moved, size))


def with_boxes(batch: Batch, images: torch.Tensor, boxes: torch.Tensor) -> Batch:
    return batch.replace(inputs=images, box=batch["box"].like(boxes))


def operations(batch: Batch) -> dict[str, Batch]:
    """The operations of a case by name."""
    images, boxes = batch.inputs, batch["box"].values
    height, width = images.shape[2:]
    flip_x = with_boxes(batch, images.flip(3), geometry.flipped(boxes, width, 3))
    flip_y = with_boxes(batch, images.flip(2), geometry.flipped(boxes, height, 2))
    swap = with_boxes(batch, images.transpose(2, 3), geometry.transposed(boxes))
    clockwise = with_boxes(batch, swap.inputs.flip(3), geometry.flipped(swap["box"].values, height, 3))
    counter = with_boxes(batch, swap.inputs.flip(2), geometry.flipped(swap["box"].values, width, 2))
    half = with_boxes(batch, flip_x.inputs.flip(2), geometry.flipped(flip_x["box"].values, height, 2))
    return {
        "flip left to right": flip_x,
        "flip top to bottom": flip_y,
        "swap x and y": swap,
        "turn by 90 degrees clockwise": clockwise,
        "turn by 90 degrees counterclockwise": counter,
        "turn by 180 degrees": half,
        "resize to 120 x 60": windowed(batch, (2, 1.5), (0, 0), (60, 120)),
        "pad 3 left, 5 top, 7 right, 9 bottom": windowed(batch, (1, 1), (3, 5), (54, 70)),
        "cut x 5 to 55, y 2 to 32": windowed(batch, (1, 1), (-5, -2), (30, 50)),
    }


def test_geometry():
    batch = batch_of("augment-geometry")
    values = json.loads((HERE / "augment-geometry" / "expected.json").read_text())["values"]
    found = operations(batch)
    assert {key.rpartition(":")[0] for key in values} - {*found} == {"flip left to right twice"}
    for name, changed in found.items():
        height, width = changed.inputs.shape[2:]
        assert [width, height] == values[f"{name}: size"]["value"]
        assert told(changed) == {kind: pytest.approx(values[f"{name}: {kind}"]["value"], abs=1e-4) for kind in ("car", "bus")}
        if not name.startswith("resize"):  # whose interpolation mixes colors at the edges
            assert_pixels(changed, image=0)


def test_a_flip_moves_the_boxes_of_the_images_that_it_turns():
    batch = batch_of("augment-mosaic-mixup", "0.png", "1.png", "2.png", "3.png")
    flip = augmentations.build({"name": "flip", "direction": "both"}, spec=batch.spec)
    turned = 0
    for seed in range(4):
        changed = flip(batch, torch.Generator().manual_seed(seed))
        for image in range(4):
            assert_pixels(changed, image=image)
            turned += not torch.equal(changed["box"][image], batch["box"][image])
    assert 4 < turned < 16
    twice = augmentations.build({"name": "flip", "p": 1.0}, spec=batch.spec)
    again = twice(twice(batch, torch.Generator()), torch.Generator())
    assert torch.equal(again["box"].values, batch["box"].values)


@pytest.mark.parametrize("run", ["at least a tenth visible", "whatever is visible"])
def test_slivers_go_with_their_flags(run):
    case = json.loads((HERE / "augment-crop-slivers" / "expected.json").read_text())
    left, top, right, bottom = case["options"][run]["window"]
    batch = batch_of("augment-crop-slivers")
    boxes = Boxes(batch.spec)
    one, offset = torch.ones(1, 2), torch.tensor([[-left, -top]])
    changed = boxes.within(
        batch, boxes.placed(batch, one, offset), (bottom - top, right - left), case["options"][run]["visible"]
    )
    wanted = case["runs"][run]["images"]["image.png"]["objects"]
    assert told(changed) == {o["class"]: o["box"] for o in wanted}
    crowd = {NAMES[label]: bool(about[0]) for label, about in zip(changed["label"][0], changed["about"][0], strict=True)}
    assert crowd == {o["class"]: o["crowd"] for o in wanted}
    assert_pixels(changed.replace(inputs=batch.inputs[:, :, top:bottom, left:right]), image=0)


@pytest.mark.parametrize("run", ["mosaic", "mosaic, corner 8 120"])
def test_mosaic(run):
    case = json.loads((HERE / "augment-mosaic-mixup" / "expected.json").read_text())
    batch = batch_of("augment-mosaic-mixup", *case["options"][run]["images"])
    # The canvas of the case is twice as large as its images: they stand in one of that size, at the corner that touches.
    places = [(100, 100), (0, 100), (100, 0), (0, 0)]
    large = torch.zeros(4, 3, 200, 200)
    for image, (x, y) in enumerate(places):
        large[image, :, y : y + 100, x : x + 100] = batch.inputs[image]
    boxes = Boxes(batch.spec)
    shifted = boxes.placed(batch, torch.ones(4, 2), torch.tensor(places))
    batch = with_boxes(batch, large, shifted)
    corner = torch.tensor([case["options"][run]["corner"]]).expand(4, -1)
    changed = geometry.mosaic(batch, boxes, [torch.full((4,), i) for i in range(4)], corner)
    wanted = case["runs"][run]["images"]["mosaic"]["objects"]
    assert sorted(changed["box"][0].tolist()) == sorted(o["box"] for o in wanted)
    assert_pixels(changed, image=0)


def test_mixup_has_the_objects_of_both():
    case = json.loads((HERE / "augment-mosaic-mixup" / "expected.json").read_text())
    batch = batch_of("augment-mosaic-mixup", *case["options"]["mixup"]["images"])
    changed = geometry.mixup(batch, Boxes(batch.spec), torch.tensor([1, 0]), torch.tensor([0.5, 1.0]))
    wanted = case["runs"]["mixup"]["images"]["mixup"]["objects"]
    assert sorted(changed["box"][0].tolist()) == sorted(o["box"] for o in wanted)
    assert torch.equal(changed.inputs[0], (batch.inputs[0] + batch.inputs[1]) / 2)
    assert torch.equal(changed.inputs[1], batch.inputs[1]), "an image that is not mixed keeps its own objects alone"
    assert torch.equal(changed["box"][1], batch["box"][1])


@pytest.mark.parametrize("name", ["scale_jitter", "object_crop", "mosaic"])
def test_boxes_follow_the_pixels(name):
    """Within a pixel and a half: an interpolated edge has no color of its own."""
    batch = batch_of("augment-mosaic-mixup", "0.png", "1.png", "2.png", "3.png")
    augment = augmentations.build({"name": name, "min_visible": 0.0}, spec=batch.spec)
    changed_boxes = 0
    for seed in range(8):
        changed = augment(batch, torch.Generator().manual_seed(seed))
        assert (changed["box"].values[:, 2:] > changed["box"].values[:, :2]).all()
        assert changed["box"].values.min() >= 0
        assert changed["box"].values.max() <= 100
        assert len(changed["label"].values) == len(changed["about"].values) == len(changed["box"].values)
        changed_boxes += not torch.equal(changed["box"].offsets, batch["box"].offsets) or not torch.equal(
            changed["box"].values, batch["box"].values
        )
        for image in range(4):
            assert_pixels(changed, image=image, tolerance=1.5)
    assert changed_boxes >= 6


def test_colors_change_within_the_boxes():
    """A rectangle of one color is one of another color, at the place of its box."""
    batch = batch_of("augment-mosaic-mixup", "0.png", "1.png", "2.png", "3.png")
    jitter = augmentations.build({"name": "color_jitter", "brightness": 0.3}, spec=batch.spec)
    changed = jitter(batch, torch.Generator().manual_seed(0))
    assert changed["box"] is batch["box"]
    for image in range(4):
        (left, top, right, bottom) = batch["box"][image][0].int().tolist()
        color = changed["image"][image, :, top, left]
        assert not torch.allclose(color, batch["image"][image, :, top, left], atol=0.02)
        same = (changed["image"][image] - color[:, None, None]).abs().amax(0) < 1e-3
        places = same.nonzero()
        assert [*places.amin(0).flip(0).tolist(), *(places.amax(0) + 1).flip(0).tolist()] == [left, top, right, bottom]


def test_mixed_images_show_the_objects_of_both():
    batch = batch_of("augment-mosaic-mixup", "0.png", "1.png", "2.png", "3.png")
    mix = augmentations.build({"name": "box_mixup", "p": 0.7}, spec=batch.spec)
    kinds = set()
    for seed in range(4):
        changed = mix(batch, torch.Generator().manual_seed(seed))
        for image in range(4):
            pixels, boxes = changed["image"][image], changed["box"][image].tolist()
            own = batch["box"][image].tolist()
            kinds.add(len(boxes) - len(own))
            if len(boxes) == len(own):
                assert torch.allclose(pixels, batch["image"][image]), "not mixed, or with itself"
                assert boxes == own
                continue
            others = [i for i in range(4) if i != image and own + batch["box"][i].tolist() == boxes]
            assert any(_is_between(pixels, batch["image"][image], batch["image"][other]) for other in others)
    assert kinds == {0, 1}, "some are mixed, with one object of the other image"


def _is_between(mixed: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether an image is a weighted mean of two."""
    difference = (one - other).flatten()
    weight = (mixed - other).flatten() @ difference / (difference @ difference).clamp(min=1e-9)
    return bool(0 < weight <= 1 and torch.allclose(mixed, torch.lerp(other, one, weight), atol=1e-4))


def test_a_crop_shows_an_object_whole():
    batch = batch_of("augment-mosaic-mixup", "0.png", "1.png", "2.png", "3.png")
    crop = augmentations.build({"name": "object_crop", "p": 1.0}, spec=batch.spec)
    areas = (batch["box"].values[:, 2:] - batch["box"].values[:, :2]).prod(1)
    for seed in range(8):
        changed = crop(batch, torch.Generator().manual_seed(seed))
        assert (changed["box"].lengths == 1).all(), "each image has one object, which stays"
        grown = (changed["box"].values[:, 2:] - changed["box"].values[:, :2]).prod(1) / areas
        assert (grown >= 1 - 1e-5).all(), "a whole object in a window is no smaller than before"


@pytest.mark.parametrize("name", ["crop", "affine", "erasing", "cutmix", "mixup", "rand_augment", "trivial_augment"])
def test_what_moves_pixels_without_boxes_is_refused(name):
    with pytest.raises(
        ConfigError, match=rf"augmentation={name}: takes .* targets, but data=composed_digits has box and class"
    ):
        load(["task=object_detection", f"augmentation={name}"])


def test_what_boxes_can_bear():
    load(["task=object_detection", "augmentation=[flip,color_jitter,scale_jitter,object_crop,mosaic,box_mixup]"])
