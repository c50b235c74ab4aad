"""LineMOD-Occluded: boxes projected from poses, in closed form, and the split of a folder made for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlframe.data.linemod_occluded import CLASSES, annotated, linemod_occluded, vertices
from dlframe.types import DataError

CAMERA = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
GRID = np.stack(np.meshgrid(*[np.linspace(-50, 50, 31)] * 3), -1).reshape(-1, 3)
"""Vertices of a cube with sides of 100 millimeters."""

MESHES = dict.fromkeys(CLASSES, GRID)


def pose(number: int, x: float, y: float, z: float) -> dict:
    return {"obj_id": number, "cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [x, y, z]}


def test_a_box_spans_the_projected_vertices():
    boxes, labels, about, dropped = annotated([pose(5, 100, 0, 1050)], MESHES, CAMERA)
    assert boxes[0] == pytest.approx([320 + 50 / 1.1 * 0.5, 240 - 25, 320 + 75, 240 + 25])
    assert (labels.tolist(), dropped) == ([1], 0)
    assert about[0] == pytest.approx([(boxes[0][2] - boxes[0][0]) * 50, 0, 0])


def test_a_nearer_object_hides_another():
    far = pose(1, 0, 0, 1500)
    assert annotated([far], MESHES, CAMERA)[2][0, 2] == 0
    half = annotated([far, pose(5, 40, 0, 900)], MESHES, CAMERA)
    assert half[2][0, 2] in (1, 2)
    assert len(half[0]) == 2
    boxes, labels, _, dropped = annotated([far, pose(5, 0, 0, 700)], MESHES, CAMERA)
    assert (labels.tolist(), dropped) == ([1], 1), "of which less than a tenth is visible"
    assert len(boxes) == 1


def test_what_is_outside_is_cut_or_left_out():
    boxes, _, about, dropped = annotated([pose(1, 640, 0, 1050), pose(5, 900, 0, 1050)], MESHES, CAMERA)
    assert dropped == 1
    assert boxes[0][2] == 640
    assert 0.3 < about[0][1] < 0.8


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """100 frames in the layout of BOP."""
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    root = tmp_path / "lmo"
    (root / "rgb").mkdir(parents=True)
    (root / "models").mkdir()
    poses = {}
    for i in range(100):
        Image.new("RGB", (640, 480), (i, 2 * i, 0)).save(root / "rgb" / f"{3 * i:06}.png")
        poses[str(3 * i)] = [pose(1, i - 50, 0, 1000), pose(12, 50 - i, 150, 1200)]
    (root / "scene_gt.json").write_text(json.dumps(poses))
    (root / "camera.json").write_text(json.dumps({"fx": 500, "fy": 500, "cx": 320, "cy": 240}))
    text = "\n".join(" ".join(map(str, point)) for point in GRID)
    for number in CLASSES:
        header = f"ply\nformat ascii 1.0\nelement vertex {len(GRID)}\nproperty float x\nend_header\n"
        (root / "models" / f"obj_{number:06}.ply").write_text(header + text + "\n")
    return root


def test_blocks_of_frames_are_split(folder):
    dataset = linemod_occluded(path=str(folder), image_size=(48, 64))
    parts = {part: sorted(map(int, getattr(dataset, part).ids)) for part in ("train", "validation", "test")}
    assert parts == {
        "train": [3 * i for i in range(60)],
        "validation": [3 * i for i in range(60, 80)],
        "test": [3 * i for i in range(80, 100)],
    }
    # From 20 millimeters left to 80 right of the axis, the nearest side at 950.
    near = np.array([320 - 500 * 20 / 950, 240 - 500 * 50 / 950, 320 + 500 * 80 / 950, 240 + 500 * 50 / 950]) / 10
    assert dataset.test["box"][0][0] == pytest.approx(near, rel=1e-5)
    assert dataset.test["frame"][0].tolist() == pytest.approx([0.1, 0.1, 0, 0, 640, 480])
    assert dataset.spec.classes[0] == "ape"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scene_gt.json", "{", "scene_gt.json cannot be read"),
        ("scene_gt.json", '{"0": [{"obj_id": 99}]}', "scene_gt.json has a wrong pose"),
        ("scene_gt.json", '{"0": []}', "scene_gt.json must have the poses of each frame. Received: none of 000003"),
        ("rgb/last.png", "x", "scene_gt.json must have the poses of each frame. Received: none of last"),
        ("camera.json", "{}", "camera.json must have fx, fy, cx and cy"),
        (
            "models/obj_000001.ply",
            "ply\nformat ascii 1.0\nelement vertex 9\nend_header\n1 2 3\n",
            "obj_000001.ply is not a mesh",
        ),
        ("models/obj_000001.ply", "ply\nformat ascii 1.0\nelement vertex\nend_header\n", "obj_000001.ply is not a mesh"),
        ("rgb/000000.png", "x", "frame 0 is not an image"),
    ],
)
def test_damaged_files(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(DataError) as error:
        linemod_occluded(path=str(folder), image_size=(48, 64))
    assert str(error.value).startswith(f"linemod_occluded: {message}")


def test_a_file_is_missing(folder):
    (folder / "camera.json").unlink()
    with pytest.raises(DataError, match=r"^data.path: must have camera.json"):
        linemod_occluded(path=str(folder))


def test_vertices(folder):
    assert np.array_equal(vertices(folder / "models" / "obj_000001.ply"), GRID)
