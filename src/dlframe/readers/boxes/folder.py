"""Which format the annotations of a folder have, and which split each image is in: decided once, from all names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlframe.readers.boxes.annotations import Annotations, Faults, images_of
from dlframe.readers.boxes.coco import content_of, is_bdd, is_coco, part_of, read_bdd, read_coco
from dlframe.readers.boxes.kitti import read_kitti
from dlframe.readers.boxes.voc import read_voc, splits_of
from dlframe.readers.boxes.yolo import read_yolo
from dlframe.readers.listing import Folders, few, split_of, text_of
from dlframe.types import DataError, nearest

Format = Literal["auto", "coco", "voc", "yolo", "kitti", "bdd"]

Sizes = Callable[[Sequence[Path]], list[tuple[int, int]]]
"""From image files to the width and height of each, as displayed."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user decides about annotations.

    Attributes:
        form: Format; auto recognizes it.
        images: Folder of the images of a JSON file, below that of the data; None for the usual places.
        boxes: What COCO's bbox holds: a corner and a size, or two corners.
        first_pixel: Number of VOC's first pixel; auto is 1, unless a box starts at 0.
        classes: Names of the classes; None for all.
    """

    form: Format = "auto"
    images: Path | None = None
    boxes: Literal["sizes", "corners"] = "sizes"
    first_pixel: Literal["auto", "0", "1"] = "auto"
    classes: tuple[str, ...] | None = None


def root_of(path: Path) -> Path:
    """Return the resolved folder of all files: a folder itself, or that of a file, above "annotations"."""
    if path.is_dir():
        return path.resolve()
    folder = path.resolve().parent
    return folder.parent if folder.name.casefold() == "annotations" else folder


def read_boxes(path: Path, choices: Choices, faults: Faults, sizes: Sizes) -> tuple[Path, str, Annotations]:
    """Read the annotations of a folder, or those that a file (JSON, data.yaml) names.

    Returns:
        Folder of all files, format, and the annotations, with boxes as the files say.

    Raises:
        DataError: There is no such path, the format is not recognized, or there is a fault.
    """
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"data.path: no such folder or file. Received: {text_of(path)}.{nearest(path.name, beside)}")
    root = root_of(path)
    reader = Folders(root)
    files = reader.below(root) if path.is_dir() else [path.resolve()]
    images = root / choices.images if choices.images else None
    if images and not images.is_dir():
        raise DataError(f"data.images: must be a folder in {text_of(root)}. Received: {text_of(choices.images or '')}")
    form = choices.form if choices.form != "auto" else _recognized(path, files)
    match form:
        case "coco" | "bdd":
            given = _json(path, files, form)
            if form == "coco":
                found = read_coco(root, given, faults, images=images, corners=choices.boxes == "corners")
            else:
                found = read_bdd(root, given, faults, images=images)
        case "yolo":
            described = [
                file for file in files if file.suffix in (".yaml", ".yml") and (not path.is_dir() or file.parent == root)
            ]
            if len(described) > 1:
                told = few([text_of(file.name) for file in described])
                raise DataError(
                    f"data.path: must name one YAML file of the folder. Received: {told}. Try: data.path={described[0]}"
                )
            if not described and not choices.classes:
                raise DataError("data.classes: must name the classes, in their order, as there is no data.yaml. Received: none")
            found = read_yolo(root, described[0] if described else None, faults, sizes=sizes, classes=choices.classes or ())
        case "voc":
            xml = _below(root, [file for file in files if file.suffix.lower() == ".xml"], "annotations")
            parts = splits_of(root, [file.stem for file in xml])
            own = {file: parts.get(file.stem, _part(file, root)) for file in xml if not parts or file.stem in parts}
            found = read_voc(
                root, own, _below(root, images_of(files), "jpegimages", "images"), faults, first_pixel=choices.first_pixel
            )
        case _:
            found = _kitti(root, files, faults)
    if not found.images:
        raise DataError(f"data.path: must have annotated images. Received: none in {text_of(path)} ({form})")
    found.notes += reader.left_out()
    return root, form, found


def _part(file: Path, root: Path) -> str:
    """Return the split that a folder above a file stands for; empty for none."""
    return next((part for name in file.relative_to(root).parts[:-1] if (part := split_of(name))), "")


def _recognized(path: Path, files: list[Path]) -> str:
    """Return the format of files."""
    endings = {file.suffix.lower() for file in files}
    if any(file.parent.name == "label_2" for file in files):
        return "kitti"
    if ".xml" in endings:
        return "voc"
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return "yolo"
    for file in (file for file in files if file.suffix.lower() == ".json"):
        content = content_of(file)
        if is_coco(content):
            return "coco"
        if is_bdd(content):
            return "bdd"
    folders = {part for file in files for part in file.parts[:-1]}
    if ".txt" in endings and ("labels" in folders or endings & {".yaml", ".yml"}):
        return "yolo"
    raise DataError(
        f"data.format: annotations are not recognized in {text_of(path)}: neither COCO's or BDD's JSON, VOC's XML, YOLO's "
        f"labels/ and data.yaml, nor KITTI's label_2/. Give it: data.format=yolo, or data.path=FILE"
    )


def _json(path: Path, files: list[Path], form: str) -> dict[Path, str]:
    """Return the JSON files with their splits.

    Raises:
        DataError: Several files do not say which splits they are.
    """
    fits = is_coco if form == "coco" else is_bdd
    found = {file: "" for file in files if file.suffix.lower() == ".json" and (path.is_file() or fits(content_of(file)))}
    if not found:
        raise DataError(f"data.path: must have a JSON file with annotations ({form}). Received: none in {text_of(path)}")
    if len(found) == 1:
        return found
    parts = {file: part_of(file) for file in found}
    named = [part for part in parts.values() if part]
    if len(set(named)) < len(parts):
        told = few([text_of(file.name) for file in parts])
        raise DataError(
            f"data.path: must name one of several JSON files, as they are not one of train, val and test each. Received: "
            f"{told}. Try: data.path={text_of(next(iter(parts)))}"
        )
    return parts


def _below(root: Path, files: list[Path], *names: str) -> list[Path]:
    """Return the files in a folder of one of the names directly in the root, if there are any; else all."""
    own = [file for file in files if file.is_relative_to(root) and file.relative_to(root).parts[0].casefold() in names]
    return own or files


def _kitti(root: Path, files: list[Path], faults: Faults) -> Annotations:
    files = _below(root, files, "training", "label_2", "image_2")
    labels = {file.stem: file for file in files if file.suffix == ".txt" and file.parent.name == "label_2"}
    folders = {file.parent for file in labels.values()}
    if len(folders) > 1:
        told = few(sorted(text_of(folder) for folder in folders))
        raise DataError(
            f"data.path: must have one folder label_2. Received: {told}. Try: data.path={min(map(str, folders))}/.."
        )
    images = [
        file for file in images_of(files) if file.parent.name == "image_2" and file.parent.parent in {f.parent for f in folders}
    ]
    return read_kitti(images, labels, faults)
