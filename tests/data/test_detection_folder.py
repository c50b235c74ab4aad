"""Folders of annotated images, as a user names them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlframe.data import detection_folder as module
from dlframe.registry import data
from dlframe.registry.plugins import discover
from dlframe.types import PARTS, DataError, Dataset

discover()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))


def build(path: Path, **options: Any) -> Dataset:
    return data.build({"name": "detection_folder", "path": str(path), "image_size": (32, 32), **options})


def picture(file: Path, size: tuple[int, int] = (64, 48)) -> None:
    """A picture unlike the others, so that none is in two splits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = np.random.default_rng([*file.as_posix().encode()])
    Image.fromarray(seed.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(file)


def coco(file: Path, images: int, start: int = 0, folder: str = "", kinds: tuple[str, ...] = ("car", "bus")) -> None:
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 5 * i, "name": k} for i, k in enumerate(kinds)],
    }
    for i in range(start, start + images):
        picture(file.parent / folder / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
        for k in range(i % 3):
            content["annotations"].append({"image_id": i, "category_id": 5 * (k % len(kinds)), "bbox": [4 + k, 2, 20, 30]})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def names(dataset: Dataset) -> dict[str, list[str]]:
    return {part: sorted(getattr(dataset, part).ids.tolist()) for part in ("train", "validation", "test")}


def test_three_files_are_three_splits(tmp_path):
    """As in COCO: annotations/instances_train.json beside a folder of images."""
    for i, part in enumerate(("train2017", "val2017", "test2017")):
        coco(tmp_path / "own" / part / "x.json", 4, 4 * i)
        (tmp_path / "own" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "own" / part / "x.json").rename(tmp_path / "own" / "annotations" / f"instances_{part}.json")
    dataset = build(tmp_path / "own")
    assert dataset.splits == "as given"
    assert names(dataset)["test"] == sorted(f"test2017/{i}.png" for i in range(8, 12))
    assert dataset.spec.classes == ("car", "bus")
    assert dataset.source == f"{tmp_path / 'own'} (coco)"
    assert dataset.test["box"].values[0] == pytest.approx([2, 5, 12, 20]), "halved, and moved down by 4 rows"
    assert dataset.test["frame"][0].tolist() == [0.5, 0.5, 0, 4, 64, 48]


def test_folders_of_roboflow(tmp_path):
    for i, part in enumerate(("train", "valid")):
        coco(tmp_path / "own" / part / "_annotations.coco.json", 12, 12 * i)
    dataset = build(tmp_path / "own")
    assert dataset.splits == "val as given is the test set, validation 10 % of train by hash"
    assert all(name.startswith("valid/") for name in names(dataset)["test"])
    assert all(name.startswith("train/") for name in names(dataset)["validation"] + names(dataset)["train"])


def test_a_new_image_moves_no_other(tmp_path):
    coco(tmp_path / "own" / "a.json", 40)
    before = names(build(tmp_path / "own"))
    coco(tmp_path / "own" / "a.json", 41)
    after = names(build(tmp_path / "own"))
    assert all(set(before[part]) <= set(after[part]) for part in before)
    assert min(map(len, before.values())) >= 3


def test_groups_stay_together(tmp_path, capsys):
    coco(tmp_path / "own" / "a.json", 40)
    dataset = build(tmp_path / "own", group=r"^(\d)")
    groups = {part: set(getattr(dataset, part).groups.tolist()) for part in ("train", "validation", "test")}
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]


def test_it_is_read_once(tmp_path, monkeypatch, capsys):
    coco(tmp_path / "own" / "a.json", 12)
    first = build(tmp_path / "own")
    assert "Decoding 12 images" in capsys.readouterr().err
    monkeypatch.setattr(module, "read_image", None)
    assert build(tmp_path / "own").fingerprint == first.fingerprint
    assert "4 of 12 images have no object" not in capsys.readouterr().err


def test_what_is_said(tmp_path, capsys):
    coco(tmp_path / "own" / "a.json", 12, kinds=("car", "bus", "tram"))
    build(tmp_path / "own")
    said = capsys.readouterr().err
    assert "detection_folder: train: " in said
    assert "images have no object" in said
    assert "has no object of 1 of 3 classes: tram" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "a.json").unlink(), "data.format: annotations are not recognized"),
        (lambda root: (root / "a.json").write_text("{"), "detection_folder: a.json, line 1, column 2: is not JSON"),
        (lambda root: (root / "a.json").write_text("[" * 100_000), "detection_folder: a.json cannot be read"),
        (lambda root: (root / "3.png").write_bytes(b"\x89PNG"), "detection_folder: 3.png is PNG, damaged"),
        (lambda root: coco(root / "b.json", 3, 50), "data.path: must name one of several JSON files"),
    ],
    ids=["nothing", "no JSON", "deep", "damaged image", "two files"],
)
def test_bad_folders(tmp_path, change, message):
    root = tmp_path / "own"
    coco(root / "a.json", 12)
    change(root)
    with pytest.raises(DataError) as error:
        build(root)
    assert str(error.value).startswith(message)


def test_a_damaged_image_may_be_left_out(tmp_path, capsys):
    coco(tmp_path / "own" / "a.json", 12)
    (tmp_path / "own" / "3.png").write_bytes(b"\x89PNG")
    dataset = build(tmp_path / "own", on_error="skip")
    assert sum(map(len, names(dataset).values())) == 11
    assert "skipped 1: 3.png is PNG, damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "..\\secret.png", "x" * 5000, "a\0b"])
def test_names_that_lead_outside(tmp_path, name):
    root = tmp_path / "own"
    coco(root / "a.json", 4)
    picture(tmp_path / "secret.png")
    content = json.loads((root / "a.json").read_text())
    content["images"][1]["file_name"] = name
    (root / "a.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"^detection_folder: a.json, image 1: there must be a file in own or beside\. Received: "
    ):
        build(root)


def test_a_link_out_of_the_folder(tmp_path):
    root = tmp_path / "own"
    coco(root / "a.json", 4)
    picture(tmp_path / "secret.png")
    (root / "2.png").unlink()
    os.symlink(tmp_path / "secret.png", root / "2.png")
    with pytest.raises(DataError, match=r"^detection_folder: a.json, image 2: there must be a file"):
        build(root)


def test_bdd(tmp_path):
    root = tmp_path / "own"
    for i in range(6):
        picture(root / "images" / f"{i}.jpg")
    labels = [{"category": "car", "box2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}, "attributes": {"occluded": True}}]
    labels.append({"category": "lane", "poly2d": []})
    (root / "labels.json").write_text(json.dumps([{"name": f"{i}.jpg", "labels": labels[: i % 3]} for i in range(6)]))
    dataset = build(root)
    assert dataset.spec.classes == ("car",)
    assert dataset.source.endswith("(bdd)")
    about = np.concatenate([getattr(dataset, part)["about"].values for part in ("train", "validation", "test")])
    assert len(about) == 4
    assert (about == [29 * 38, 0, 0, -1, 1]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "labels.json must be a list of images with labels"),
        ({"frames": []}, "labels.json must be a list of images with labels"),
        ([5], "labels.json, image 1: must name a file. Received: None."),
        ([{"name": "9.jpg"}], "labels.json, image 9.jpg: must name a file. Received: 9.jpg."),
        (
            [{"name": "0.jpg"}, {"name": "./0.jpg"}],
            "labels.json, image ./0.jpg: an image must be listed once. Received: ./0.jpg.",
        ),
        ([{"name": "0.jpg", "labels": 5}], "labels.json, image 0.jpg: labels must be a list of objects. Received: 5."),
        (
            [{"name": "0.jpg", "labels": ["car"]}],
            "labels.json, image 0.jpg: labels must be a list of objects. Received: ['car'].",
        ),
        (
            [{"name": "0.jpg", "labels": [{"category": "car", "box2d": {"x1": 1, "y1": 2, "x2": None, "y2": 4}}]}],
            "labels.json, image 0.jpg, label 1: must have a category and box2d with finite x1, y1, x2, y2. Received: ",
        ),
    ],
)
def test_what_is_no_file_of_bdd(tmp_path, content, message):
    picture(tmp_path / "own" / "images" / "0.jpg")
    (tmp_path / "own" / "labels.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        build(tmp_path / "own" / "labels.json", format="bdd")
    assert str(error.value).startswith(f"detection_folder: {message}")


def test_regions_without_a_class_are_ignored_for_each(tmp_path):
    root = tmp_path / "own" / "training"
    for i in range(6):
        picture(root / "image_2" / f"{i:06}.png")
        rest = "0 0 0 0 0 0 0"
        rows = [f"Car 0.1 2 0 2 2 30 40 {rest}", f"Cyclist 0 0 0 40 2 50 40 {rest}", f"DontCare -1 -1 -10 50 0 60 9 {rest}"]
        (root / "label_2").mkdir(exist_ok=True)
        (root / "label_2" / f"{i:06}.txt").write_text("\n".join(rows))
    split = build(tmp_path / "own").train
    assert split["label"][0].tolist() == [0, 1, 0, 1]
    assert split["about"][0][:, 1:].tolist() == [
        [0, 0, pytest.approx(0.1), 2],
        [0, 0, 0, 0],
        [1, 1, -1, -1],
        [1, 1, -1, -1],
    ]


@pytest.mark.parametrize("numbers", ["5 0", "0.1 9", "-0.5 0", "0 1.5"])
def test_occlusion_and_truncation_out_of_range(tmp_path, numbers):
    root = tmp_path / "own"
    for i in range(6):
        picture(root / "image_2" / f"{i:06}.png")
        (root / "label_2").mkdir(exist_ok=True)
        (root / "label_2" / f"{i:06}.txt").write_text(f"Car {numbers} 0 2 2 30 40 0 0 0 0 0 0 0")
    with pytest.raises(
        DataError, match=r"^detection_folder: 000000.txt, line 1: the truncation must be 0 to 1 and the occlusion"
    ):
        build(root)


def test_far_more_pixels_than_their_files(tmp_path):
    root = tmp_path / "own"
    coco(root / "a.json", 6)
    rule = r"6 images of 8192 x 8192 pixels take .* GB, more than 1000 times their files"
    with pytest.raises(DataError, match=rf"^data.image_size: {rule} .* Try: data.image_size=\[256,256\]$"):
        build(root, image_size=(8192, 8192))


def test_holes_of_files_are_no_content(tmp_path):
    root = tmp_path / "own"
    coco(root / "a.json", 6)
    for i in range(6):
        os.truncate(root / f"{i}.png", 2**21)  # takes no block of the disk
    with pytest.raises(DataError, match=r"^data.image_size: .*, more than 1000 times their files \(0.0"):
        build(root, image_size=(8192, 8192))


def test_a_file_in_a_folder_of_annotations_has_its_images_beside_it(tmp_path):
    coco(tmp_path / "own" / "train" / "x.json", 8)
    (tmp_path / "own" / "annotations").mkdir()
    file = tmp_path / "own" / "annotations" / "instances_train.json"
    (tmp_path / "own" / "train" / "x.json").rename(file)
    first = build(file)
    assert sum(map(len, names(first).values())) == 8
    picture(tmp_path / "own" / "train" / "0.png", (64, 48))
    os.utime(tmp_path / "own" / "train" / "0.png", (1, 1))
    Image.new("RGB", (64, 48)).save(tmp_path / "own" / "train" / "0.png")
    assert build(file).fingerprint != first.fingerprint, "a changed image is read again"


def test_a_test_split_of_training_images_is_refused(tmp_path):
    for part in ("train", "val", "test"):
        coco(tmp_path / "own" / part / "_annotations.coco.json", 6)
    for i in range(6):
        for part in ("val", "test"):
            (tmp_path / "own" / part / f"{i}.png").write_bytes((tmp_path / "own" / "train" / f"{i}.png").read_bytes())
    refusal = build(tmp_path / "own").refusal
    assert refusal.startswith("detection_folder: validation: 6 of 6 images are in train too: a score on them says little.")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("iscrowd", "0", "iscrowd must be 0 or 1"),
        ("ignore", 2, "ignore must be 0 or 1"),
        ("difficult", [1], "difficult must be 0 or 1"),
        ("area", -5, "area must be a finite number of at least 0"),
        ("area", float("nan"), "area must be a finite number of at least 0"),
        ("area", "600", "area must be a finite number of at least 0"),
    ],
)
def test_flags_and_areas_that_are_none(tmp_path, key, value, rule):
    root = tmp_path / "own"
    coco(root / "a.json", 12)
    content = json.loads((root / "a.json").read_text())
    content["annotations"][1][key] = value
    (root / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"^detection_folder: a.json, annotation number 2: {rule}. Received: "):
        build(root)
    left = build(root, on_error="skip")
    boxes = sum(len(getattr(left, part)["label"].values) for part in ("train", "validation", "test"))
    assert boxes == len(content["annotations"]) - 1


def test_one_photograph_under_two_names_is_said(tmp_path, capsys):
    """In splits that are drawn, as in those that are given."""
    root = tmp_path / "own"
    coco(root / "a.json", 12)
    for i in range(6):
        (root / f"{i + 6}.png").write_bytes((root / f"{i}.png").read_bytes())
    dataset = build(root)
    contents = {
        part: {image.tobytes() for image in getattr(dataset, part)["image"]} for part in ("train", "validation", "test")
    }
    assert contents["train"] & (contents["validation"] | contents["test"])
    assert "in train too: not unseen" in capsys.readouterr().err


def emptied(file: Path, images: Iterable[int]) -> None:
    """Take the objects out of some images of a JSON file."""
    content = json.loads(file.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in images]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("kept", [(1, 2, 4), (5, 7, 8), (4, 5, 8, 10, 11)])
def test_each_split_has_objects_where_there_are_enough(tmp_path, kept):
    coco(tmp_path / "own" / "a.json", 12)
    emptied(tmp_path / "own" / "a.json", set(range(12)) - {*kept})
    dataset = build(tmp_path / "own")
    assert all(len(getattr(dataset, part)["label"].values) for part in PARTS)
    assert sum(map(len, names(dataset).values())) == 12


@pytest.mark.parametrize("crowds", [False, True])
def test_too_few_images_with_objects_to_split(tmp_path, crowds):
    """A crowd is no object that a metric counts."""
    file = tmp_path / "own" / "a.json"
    coco(file, 12)
    emptied(file, range(3, 12))
    if crowds:
        content = json.loads(file.read_text())
        box = {"category_id": 0, "bbox": [4, 2, 20, 30], "iscrowd": 1}
        content["annotations"] += [{**box, "image_id": i} for i in range(3, 12)]
        file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"^detection_folder: there must be objects in at least 3 images.* Received: 2 of 12$"):
        build(tmp_path / "own")


@pytest.mark.parametrize(("part", "named"), [("train", "train"), ("val", "validation"), ("test", "test")])
def test_a_given_split_without_an_object_is_refused_before_it_is_decoded(tmp_path, part, named):
    for i, own in enumerate(("train", "val", "test")):
        coco(tmp_path / "own" / own / "_annotations.coco.json", 6, 6 * i)
    emptied(tmp_path / "own" / part / "_annotations.coco.json", range(18))
    with pytest.raises(
        DataError, match=rf"^detection_folder: {named} must have an object, .* none in 6 images, such as {part}/"
    ):
        build(tmp_path / "own")


def labeled(root: Path, form: str) -> Path:
    """Write eight images with an object each, in the form of VOC, YOLO or KITTI; return the label file of the fourth."""
    folders = {"voc": ("JPEGImages", "Annotations"), "yolo": ("images", "labels"), "kitti": ("image_2", "label_2")}[form]
    text = {
        "voc": "<a><object><name>car</name><bndbox>"
        "<xmin>2</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></a>",
        "yolo": "0 0.5 0.5 0.4 0.4\n",
        "kitti": "Car 0 0 0 2 2 30 40 0 0 0 0 0 0 0\n",
    }[form]
    ending = ".xml" if form == "voc" else ".txt"
    (root / folders[1]).mkdir(parents=True)
    for i in range(8):
        picture(root / folders[0] / f"{i}.png")
        (root / folders[1] / f"{i}{ending}").write_text(text)
    (root / "data.yaml").write_text("names: [car]\ntrain: images\n")
    return root / folders[1] / f"3{ending}"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("voc", "3.xml, line 1: is not XML: "),
        ("yolo", "labels/3.txt cannot be read: 'utf-8' codec can't decode"),
        ("kitti", "3.txt cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_one_damaged_label_file_of_many_may_be_left_out(tmp_path, form, message, capsys):
    """With its image, which would be one without objects."""
    labeled(tmp_path / "own", form).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError) as error:
        build(tmp_path / "own")
    assert str(error.value).startswith(f"detection_folder: {message}")
    assert str(error.value).endswith("Leave such ones out: data.on_error=skip")
    dataset = build(tmp_path / "own", on_error="skip")
    kept = [Path(name).stem for own in names(dataset).values() for name in own]
    assert sorted(kept) == ["0", "1", "2", "4", "5", "6", "7"]
    assert "detection_folder: skipped 1: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>2<", "<xmin>nan<", "a bndbox with finite numbers xmin, ymin, xmax, ymax. Received: nan, 2, 30, 40."),
        ("<ymax>40</ymax>", "", "a bndbox with finite numbers xmin, ymin, xmax, ymax. Received: 2, 2, 30, none."),
        ("bndbox", "box", "a bndbox with finite numbers xmin, ymin, xmax, ymax. Received: no bndbox."),
        ("<name>car</name>", "", "a name. Received: none."),
    ],
)
def test_what_an_object_of_voc_lacks_is_named(tmp_path, old, new, message):
    file = labeled(tmp_path / "own", "voc")
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError) as error:
        build(tmp_path / "own")
    assert str(error.value).startswith(f"detection_folder: 3.xml, line 1: an object must have {message}")


def test_an_object_that_is_annotated_twice_is_said(tmp_path, capsys):
    coco(tmp_path / "own" / "a.json", 12)
    content = json.loads((tmp_path / "own" / "a.json").read_text())
    content["annotations"].append({**content["annotations"][2], "id": 77})
    (tmp_path / "own" / "a.json").write_text(json.dumps(content))
    build(tmp_path / "own")
    assert "objects of the class and the box of another one count, 1: a.json, annotation 77" in capsys.readouterr().err


# --- leaks that are planted


def test_a_place_in_two_given_splits_is_refused(tmp_path):
    for i, part in enumerate(("train", "val", "test")):
        coco(tmp_path / "own" / part / "_annotations.coco.json", 6, 6 * i)
    for part, i in (("train", 1), ("test", 13)):
        file = tmp_path / "own" / part / "_annotations.coco.json"
        content = json.loads(file.read_text())
        picture(file.with_name(f"town7_{i}.png"))
        content["images"][1]["file_name"] = f"town7_{i}.png"
        file.write_text(json.dumps(content))
    rule = "^data.group: a group must be in one split. Received: 'town7' in "
    with pytest.raises(DataError, match=rf"{rule}(train and test|test and train) \("):
        build(tmp_path / "own", group=r"(town7|\d+\.png)")


def test_an_image_of_yolo_in_two_lists_is_refused(tmp_path):
    root = tmp_path / "own"
    labeled(root, "yolo")
    (root / "data.yaml").write_text("names: [car]\ntrain: train.txt\nval: val.txt\n")
    (root / "train.txt").write_text("".join(f"images/{i}.png\n" for i in range(6)))
    (root / "val.txt").write_text("".join(f"./images/{i}.png\n" for i in (5, 6, 7)))
    with pytest.raises(DataError, match=r"^detection_folder: images/5.png is in two splits, train and validation$"):
        build(root)


def test_an_image_of_voc_in_two_lists_is_refused(tmp_path):
    root = tmp_path / "own"
    labeled(root, "voc")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("4\n3\n")
    with pytest.raises(
        DataError, match=r"^detection_folder: (train|test)\.txt, line \d: '3' is in two splits, (train|test) too$"
    ):
        build(root)


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["no text", "a folder"])
def test_a_list_of_voc_that_cannot_be_read(tmp_path, content):
    labeled(tmp_path / "own", "voc")
    file = tmp_path / "own" / "ImageSets" / "Main" / "train.txt"
    file.parent.mkdir(parents=True)
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=r"^detection_folder: train.txt cannot be read: "):
        build(tmp_path / "own")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train", "", ""), "detection_folder: each image must be in a split, as some are. Received: none for "),
        (("val", "test"), "detection_folder: there must be a split to train on. Received: "),
    ],
)
def test_splits_that_are_not_given_for_all(tmp_path, parts, message):
    root = tmp_path / "own"
    file = labeled(root, "voc")
    for i, part in enumerate(parts):
        (root / "Annotations" / part).mkdir(exist_ok=True)
        file.with_name(f"{i}.xml").rename(root / "Annotations" / part / f"{i}.xml")
    for i in range(len(parts), 8):
        (file.with_name(f"{i}.xml")).rename(root / "Annotations" / parts[i % len(parts)] / f"{i}.xml")
    with pytest.raises(DataError) as error:
        build(root)
    assert str(error.value).startswith(message)
