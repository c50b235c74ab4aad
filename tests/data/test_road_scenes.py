"""Rendered road scenes: geometry in closed form, and what hides what."""

from __future__ import annotations

import numpy as np
import pytest

from dlframe.data.road_rendering import CLASSES, Body, Canvas, Cuboid, rendered
from dlframe.data.road_scenes import TOWNS, picture, road_scenes

FOCAL = 100.0
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def block(z: float, *, x: float = 0.0, size: tuple[float, float, float] = (2.0, 1.0, 4.0), label: int = 0) -> Body:
    return Body(label, [Cuboid(size, (0, 0, 0), RED if label >= 0 else BLUE)], (x, z))


def view(*bodies: Body):
    canvas = Canvas((80, 120), FOCAL, 1.5, 10)
    return rendered(canvas, list(bodies), (0.5, 0.6, 0.8), "clear", np.random.default_rng(0))


def test_a_block_is_where_a_camera_sees_it():
    """Its front is 8 meters ahead: 2 meters are 25 pixels; the horizon is at row 30, the ground 1.5 meters below the camera."""
    found = view(block(10.0))
    front, back = FOCAL / 8, FOCAL / 12
    left, bottom, top = 60 - front, 30 + 1.5 * front, 30 + 0.5 * back  # the upper side is seen from above
    assert found.boxes[0] == pytest.approx([left, top, 120 - left, bottom], abs=1)
    red = (found.pixels[0].astype(int) - found.pixels[2] > 60).nonzero()
    pixels = [red[1].min(), red[0].min(), red[1].max() + 1, red[0].max() + 1]
    assert found.boxes[0].tolist() == pixels, "the truth is the pixels"
    area, truncation, occlusion = found.about[0]
    assert area == (found.boxes[0][2] - found.boxes[0][0]) * (found.boxes[0][3] - found.boxes[0][1])
    assert (truncation, occlusion, found.hidden[0]) == (0, 0, False)


@pytest.mark.parametrize(
    ("x", "level", "hidden"), [(-2.0, 0, False), (-1.3, 1, False), (-0.55, 2, False), (0.0, 3, True)], ids=str
)
def test_a_wall_hides_what_is_behind(x, level, hidden):
    wall = block(5.0, x=x, size=(1.6, 3.0, 0.1), label=-1)
    found = view(block(10.0), wall)
    assert len(found.labels) == 1, "the wall is not annotated"
    assert found.about[0][2] == level
    assert found.hidden[0] == hidden
    assert found.boxes[0].tolist() == view(block(10.0)).boxes[0].tolist(), "a box is of the whole object, hidden or not"


def test_truncation_is_what_is_outside():
    whole = view(block(10.0))
    assert whole.about[0][1] == 0
    edge = 8 * 60 / FOCAL  # the right edge of the picture, at the distance of the front
    half = view(block(10.0, x=edge, size=(2.0, 1.0, 4.0)))
    assert half.about[0][1] == pytest.approx(0.5, abs=0.2)
    assert half.boxes[0][2] == 120
    assert not len(view(block(10.0, x=40.0)).labels)
    assert not len(view(block(-10.0)).labels), "what is behind the camera is not seen"


def test_weather_changes_pixels_alone():
    views = [picture(3, 5, 7, (64, 160), weather) for weather in ("clear", "rain", "fog", "night")]
    assert all(np.array_equal(views[0].boxes, other.boxes) for other in views[1:])
    light = [v.pixels.mean() for v in views]
    assert light[3] < 0.5 * light[0], "nights are dark"
    contrast = [v.pixels.std() for v in views]
    assert contrast[2] < contrast[0], "fog takes contrast"


def test_splits_are_by_town(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path))
    dataset = road_scenes(images=72, image_size=(32, 64))
    towns = {part: {name.split(",")[0] for name in getattr(dataset, part).groups} for part in TOWNS}
    assert towns["train"] == {f"town {i}" for i in range(8)}
    assert not towns["train"] & (towns["validation"] | towns["test"])
    assert not towns["validation"] & towns["test"]
    assert dataset.source == "rendered, synthetic"
    assert {*np.unique(dataset.train["label"].values)} == {*range(len(CLASSES))}
    boxes = dataset.train["box"].values
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert (boxes.max(0) <= [64, 32, 64, 32]).all()
    assert (dataset.train["box"].lengths == 0).any(), "some streets are empty"
