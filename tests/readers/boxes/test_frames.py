"""Frames against the pixels of fitted images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dlframe.readers.boxes.frames import frame_of, original, place_of, placed
from dlframe.readers.images import displayed_size, read_image
from dlframe.readers.modes import Decoding


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("size", [(200, 100), (100, 230), (64, 64), (301, 97), (40, 20)])
@pytest.mark.parametrize("target", [(64, 64), (48, 128)])
def test_a_box_is_where_its_pixels_are(tmp_path, fit, size, target):
    width, height = size
    box = np.array([[width * 0.25, height * 0.125, width * 0.75, height * 0.5]]).round()
    left, top, right, bottom = box[0].astype(int)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top:bottom, left:right] = (250, 10, 10)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    fitted = read_image(tmp_path / "x.png", target, "rgb", decoding=Decoding(fit=fit, background="black")).pixels
    frame = frame_of(size, target, fit)
    moved = placed(box, frame)
    red = fitted[0].astype(float) / 250
    # The red of all pixels is the area of the box; its middle that of the box.
    sides = moved[0, 2:] - moved[0, :2]
    assert red.sum() == pytest.approx(sides.prod(), rel=0.06)
    x, y = np.arange(target[1]) + 0.5, np.arange(target[0]) + 0.5
    middle = [(red.sum(0) * x).sum() / red.sum(), (red.sum(1) * y).sum() / red.sum()]
    assert middle == pytest.approx((moved[0, :2] + moved[0, 2:]) / 2, abs=0.12)
    assert original(moved, frame) == pytest.approx(box, abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "fit", "place"),
    [
        ((20, 60), "squash", [0, 0, 60, 20]),
        ((20, 60), "pad", [0, -20, 60, 40]),
        ((60, 20), "pad", [-20, 0, 40, 60]),
        ((20, 60), "crop", [20, 0, 40, 20]),
        ((24, 24), "crop", [0, 0, 24, 24]),
    ],
)
def test_the_place_of_a_fitted_image_in_the_original(shape, fit, place):
    assert place_of(shape, (24, 24), fit) == pytest.approx(place, abs=1e-3)


def test_the_size_is_that_of_the_image_as_displayed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "plain.png")
    assert (
        displayed_size(tmp_path / "turned.jpg")
        == (20, 30)
        == read_image(tmp_path / "turned.jpg", (30, 20), "rgb").pixels.shape[:0:-1]
    )
    assert displayed_size(tmp_path / "plain.png") == (30, 20)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link.png").symlink_to(tmp_path / "plain.png")
    assert displayed_size(tmp_path / "inner" / "link.png", tmp_path / "inner") is None
    (tmp_path / "no.png").write_text("no image")
    assert displayed_size(tmp_path / "no.png") is None
