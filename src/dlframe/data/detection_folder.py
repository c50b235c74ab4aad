"""The user's own annotated images, in the formats of COCO, Pascal VOC, YOLO, KITTI and BDD100K."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.boxes.annotations import Annotations, Faults, Pictured, Thing, checked
from dlframe.readers.boxes.box_sets import box_set, box_split, store
from dlframe.readers.boxes.folder import Choices, read_boxes, root_of
from dlframe.readers.boxes.frames import FRAME, frame_of, placed
from dlframe.readers.decoding import THREADS, allocated, check_room
from dlframe.readers.images import displayed_size, pixel_limit, read_image
from dlframe.readers.listing import Folders, compiled, few, matched, natural, text_of
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import by_hash, overlaps, part_to_score, statistics
from dlframe.registry import Count, data
from dlframe.storage.decoded import cache_key, contents, decoded
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, DataSpec, say

MOST_REPEATED = 0.5
"""Fraction of a given split that may be in an earlier one, equal or alike."""

VERSION = 2
"""Of the decoder and the split, part of the cache key."""

ABOUT = ("area", "crowd", "ignored", "truncation", "occlusion")
"""What is known about each object; area is in square pixels of the original image."""

UNKNOWN = -1.0
"""Truncation or occlusion that is not given."""


@data.register("detection_folder", inputs=("image",), targets=("box", "class", "value", "number"), files=("path",))
def detection_folder(
    *,
    path: str,
    format: Literal["auto", "coco", "voc", "yolo", "kitti", "bdd"] = "auto",  # noqa: A002  # the name of the option
    image_size: tuple[Count, Count] = (256, 256),
    fit: Literal["pad", "squash"] = "pad",
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    background: Literal["white", "black", "mean"] = "mean",
    images: str | None = None,
    boxes: Literal["sizes", "corners"] = "sizes",
    first_pixel: Literal["auto", "0", "1"] = "auto",
    classes: tuple[str, ...] | None = None,
    group: str | None = None,
    max_pixels: Count = 89_478_485,
    on_error: Literal["raise", "skip"] = "raise",
    spec: DataSpec | None = None,
) -> Dataset:
    """Images with boxes: COCO, Pascal VOC, YOLO, KITTI or BDD100K, by one command.

    Images without objects are data. Annotation files or folders named like train, val and test are the split; without them, a
    hash of each image's path draws it, 60/20/20, and without one of them a tenth of train. Every image is decoded once, into
    `image_size` with its boxes, and cached in a memory map until a file changes; predictions are in pixels of the original.

    Args:
        path: Folder of images and annotations; or the JSON file or data.yaml of one.
        format: Format of the annotations; auto recognizes it.
        image_size: Height and width in pixels of the images that the model receives.
        fit: Way to that size: pad adds margins in the color of `background` (a letterbox), squash changes the aspect ratio.
        color_mode: Three channels (rgb) or one (grayscale).
        background: Color of margins, and behind transparent pixels; mean is the mean of the image's visible pixels.
        images: Folder of the images of a JSON file, below `path`; null for the usual places.
        boxes: What COCO's bbox holds: left, top, width, height (sizes), or two corners.
        first_pixel: Number of the first pixel in VOC's files; auto is 1, unless a box starts at 0.
        classes: Names of the classes to detect, in this order; null for all. Objects of others are left out.
        group: Regular expression for the group (a video, a place) in an image's path: its first parentheses, or the whole
            match. Each group stays in one split and is resampled as a whole.
        max_pixels: Largest image in pixels; a larger one is refused.
        on_error: Action on a faulty object or image: raise, or leave it out and count it.
        spec: Specification of a run whose model is scored on these images: their test split, or all of them, is the test set.
    """
    folder = expanded(path)
    choices = Choices(
        form=format, images=Path(images) if images else None, boxes=boxes, first_pixel=first_pixel, classes=classes
    )
    decoding = Decoding(fit=fit, background=background)
    source = root_of(folder)
    model = spec.targets["label"].names if spec else None
    options = (image_size, color_mode, decoding, on_error, group, max_pixels, choices, model, VERSION)
    files = Folders(source).below(source) if folder.exists() else []
    key = cache_key([file.as_posix() for file in files], contents(source, files), *options)
    name = f"detection_folder-{cache_key(folder.resolve(), *options)}"
    build = partial(_decode, folder, choices, image_size, color_mode, decoding, group, model, skip=on_error == "skip")
    with pixel_limit(max_pixels):
        dataset, notes = decoded(name, key, build, partial(_stored, spec))
    for line in notes:
        say(f"detection_folder: {text_of(line)}", error=True)
    return dataset


def _stored(spec: DataSpec | None, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> tuple[Dataset, list[str]]:
    """Return the data set of cached arrays, and what was noted."""
    if spec is None:
        dataset = box_set("detection_folder", arrays, facts, ABOUT)
    else:
        test = box_split(arrays, "test")
        dataset = Dataset(spec, test, test, test, str(facts["source"]), str(facts["splits"]))
    return dataset, list(map(str, facts["notes"]))


@dataclass(frozen=True)
class Row:
    """Annotated image with its size as displayed, and its path as text."""

    image: Pictured
    size: tuple[int, int]
    name: str


def _decode(
    path: Path,
    choices: Choices,
    image_size: tuple[int, int],
    color_mode: str,
    decoding: Decoding,
    group: str | None,
    model: tuple[str, ...] | None,
    folder: Path,
    *,
    skip: bool,
) -> dict[str, Any]:
    """Decode all images into the cached arrays of their splits; of a model with classes, those that it is scored on."""
    from PIL import Image

    faults = Faults(skip=skip)
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        root, form, found, rows = read_annotated(path, choices, faults, pool, model)
        say(f"Decoding {len(rows):,} images of {text_of(path)} (once)", error=True)
        pattern = compiled(group, "group")
        groups = {row.name: matched(pattern, Path(row.name), "group") if pattern else row.name for row in rows}
        if model is None:
            parts, splits = _split(rows, groups)
        else:
            parts, splits = {"test": rows}, "all as test"
            _check_objects("test", rows)
        channels = 3 if color_mode == "rgb" else 1
        check_room(folder, [row.image.file for row in rows], (channels, *image_size), smaller="[256,256]")
        source = f"{text_of(path)} ({form})"
        splits += ", by groups" * bool(pattern)
        facts: dict[str, Any] = {"classes": found.classes, "source": source, "splits": splits}
        pixels: dict[str, np.ndarray] = {}
        notes: Counter[str] = Counter()
        read = partial(read_image, size=image_size, color_mode=color_mode, root=root, decoding=decoding)
        for part, own in parts.items():
            shape = (len(own), channels, *image_size)
            array = allocated(folder / f"{part}-image.npy", shape)
            good = []
            for row, picture in zip(own, pool.map(lambda row: read(row.image.file), own), strict=True):
                if picture.pixels is None:
                    faults(f"{row.name} {text_of(picture.fault)}.")
                    continue
                array[len(good)] = picture.pixels
                good.append(row)
                notes.update(picture.notes)
            array.flush()
            if len(good) < len(own):
                kept = np.array(array[: len(good)])
                np.save(folder / f"{part}-image.npy", kept, allow_pickle=False)
                array = kept  # type: ignore[assignment]  # an array in memory
            pixels[part] = array
            frames = np.array([frame_of(row.size, image_size, decoding.fit) for row in good]).reshape(-1, len(FRAME))
            objects = [_objects(row, frame, found.classes) for row, frame in zip(good, frames, strict=True)]
            store(
                folder,
                part,
                boxes=[boxes for boxes, _, _ in objects],
                labels=[labels for _, labels, _ in objects],
                about=[about for _, _, about in objects],
                known=ABOUT,
                ids=[row.name for row in good],
                groups=[groups[row.name] for row in good] if pattern else None,
                frames=frames,
            )
            if part == "train":
                facts["mean"], facts["std"] = statistics(array)
    facts["decoding"] = decoding.kept()
    repeated = overlaps(pixels)
    facts["notes"] = [
        *found.notes,
        *faults.notes(),
        *(f"{count:,} images {note}" for note, count in notes.items()),
        *_missing(found.classes, parts),
        *(f"{overlap}: not unseen" for overlap in repeated),
    ]
    leaks = [overlap for overlap in repeated if splits.startswith("as given") and overlap.fraction > MOST_REPEATED]
    facts["refusal"] = "".join(
        f"detection_folder: {overlap}: a score on them says little. Remove them, or keep images of one place in one split: "
        f"data.group=PATTERN"
        for overlap in leaks[:1]
    )
    return facts


def read_annotated(
    path: Path, choices: Choices, faults: Faults, pool: ThreadPoolExecutor, model: Sequence[str] | None = None
) -> tuple[Path, str, Annotations, list[Row]]:
    """Return the folder, the format, and the images with checked boxes and their sizes; see `checked` for `model`."""
    known: dict[Path, tuple[int, int]] = {}

    def sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
        """Return the sizes of images; of an unreadable one, none, which reading tells."""
        new = [file for file in files if file not in known]
        top = root_of(path)
        known.update(zip(new, (size or (0, 0) for size in pool.map(lambda file: displayed_size(file, top), new)), strict=True))
        return [known[file] for file in files]

    root, form, found = read_boxes(path, choices, faults, sizes)
    if model is not None:
        _keep_scored(found)
    kept = []
    for image, size in zip(found.images, sizes([image.file for image in found.images]), strict=True):
        if size == (0, 0):
            picture = read_image(image.file, (1, 1), "grayscale", root)
            faults(f"{text_of(image.file.name)} {text_of(picture.fault or 'is not readable')}.")
        else:
            kept.append(image)
    found.images = kept
    found = checked(found, sizes([image.file for image in kept]), faults, classes=choices.classes, model=model)
    parts = {image.part for image in found.images}
    if model is None and parts and not parts & {"", "train"}:
        raise DataError(f"detection_folder: there must be a split to train on. Received: {few(sorted(parts))}")
    if not found.classes:
        raise DataError("detection_folder: there must be an object to train on. Received: none in all images")
    names = [text_of(image.file.relative_to(root).as_posix()) for image in found.images]
    rows = [Row(*row) for row in zip(found.images, sizes([i.file for i in found.images]), names, strict=True)]
    return root, form, found, sorted(rows, key=lambda row: natural(row.name))


def _keep_scored(found: Annotations) -> None:
    """Keep the images that a trained model is scored on: those of one split."""
    counts = Counter(image.part for image in found.images)
    part = part_to_score(counts)
    found.images = [image for image in found.images if image.part == part]
    found.notes += [
        f"left out {other or 'images of no split'} ({counts[other]:,} images): {part} is scored"
        for other in counts
        if other != part
    ]


def _split(rows: list[Row], groups: Mapping[str, str]) -> tuple[dict[str, list[Row]], str]:
    """Return the images by split, and a description of the split."""
    given: dict[str, list[Row]] = {}
    for row in rows:
        given.setdefault(row.image.part, []).append(row)
    if unknown := given.get("") if len(given) > 1 else None:
        raise DataError(
            f"detection_folder: each image must be in a split, as some are. Received: none for {len(unknown):,}, such as "
            f"{unknown[0].name}"
        )
    homes: dict[str, str] = {}
    for part, own in given.items():
        for row in own:
            if homes.setdefault(groups[row.name], part) != part:
                both = f"{homes[groups[row.name]]} and {part}"
                raise DataError(
                    f"data.group: a group must be in one split. Received: '{groups[row.name]}' in {both} ({row.name})"
                )
    for part, own in given.items():
        if part:
            _check_objects(part, own, ", or leave the split out" * (part != "train"))
    if given.keys() == set(PARTS):
        return {part: given[part] for part in PARTS}, "as given"
    if "" in given or given.keys() == {"train"}:
        (part, own), *_ = given.items()
        return _cut(own, groups, (0.6, 0.2, 0.2)), "60/20/20 by hash" + " of train" * bool(part)
    other = next(part for part in given if part != "train")
    said = "test as given" if other == "test" else "val as given is the test set"
    return {**_cut(given["train"], groups, (0.9, 0.1)), "test": given[other]}, f"{said}, validation 10 % of train by hash"


def _check_objects(part: str, rows: Sequence[Row], way_out: str = "") -> None:
    """Raise if no object of a split counts in metrics."""
    if not any(map(_counts, rows)):
        raise DataError(
            f"detection_folder: {part} must have an object, without which it has no metric. Received: none in {len(rows):,} "
            f"images, such as {rows[0].name}. Annotate some{way_out}"
        )


def _cut(rows: list[Row], groups: Mapping[str, str], fractions: Sequence[float]) -> dict[str, list[Row]]:
    names = [groups[row.name] for row in rows]
    if len(set(names)) < len(fractions):
        raise DataError(
            f"detection_folder: there must be at least {len(fractions)} images to split. Received: {len(set(names))}"
        )
    with_objects = [groups[row.name] for row in rows if _counts(row)]
    if len(set(with_objects)) < len(fractions):
        raise DataError(
            f"detection_folder: there must be objects in at least {len(fractions)} images, one for each split, which has no "
            f"metric without. Received: {len(set(with_objects))} of {len(set(names))}"
        )
    # Any number of classes in an image: only that no part is without images or objects is seen to.
    labels = ["images"] * len(names) + ["objects"] * len(with_objects)
    parts = by_hash(labels, [*names, *with_objects], fractions)
    return {part: [rows[i] for i in index if i < len(rows)] for part, index in zip(PARTS, parts, strict=False)}


def _counts(row: Row) -> bool:
    """Return whether an image has an object that counts in metrics."""
    return any(not (thing.crowd or thing.ignored) for thing in row.image.things)


def _objects(row: Row, frame: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (objects, 4) in pixels of the decoded image, labels and what is known of an image's objects."""
    things = [(thing, label) for thing in row.image.things for label in _labels(thing, classes)]
    corners = np.array([thing.box for thing, _ in things], np.float64).reshape(-1, 4)
    about = np.array([_about(thing) for thing, _ in things], np.float64).reshape(-1, len(ABOUT))
    return placed(corners, frame.astype(np.float64)), np.array([label for _, label in things], np.int64), about


def _labels(thing: Thing, classes: Sequence[str]) -> list[int]:
    """Return the class of an object; of a region in which objects of any class may be, all classes."""
    if not thing.label:
        return [*range(len(classes))]
    if thing.label not in classes:
        raise DataError(
            f"detection_folder: {thing.where}: class '{thing.label}' must have an object in the train split. Leave it out: "
            f"data.classes=[{','.join(classes[:3])}{',...' * (len(classes) > 3)}]"
        )
    return [classes.index(thing.label)]


def _about(thing: Thing) -> list[float]:
    left, top, right, bottom = thing.box
    area = (right - left) * (bottom - top) if thing.area is None else thing.area
    unknown = [UNKNOWN if math.isnan(value) else value for value in (thing.truncation, thing.occlusion)]
    return [area, float(thing.crowd), float(thing.ignored), *unknown]


def _missing(classes: Sequence[str], parts: Mapping[str, list[Row]]) -> Iterator[str]:
    """Yield a line on images without objects, and one per split that lacks classes."""
    for part, rows in parts.items():
        if empty := sum(not row.image.things for row in rows):
            yield f"{part}: {empty:,} of {len(rows):,} images have no object"
        have = {thing.label for row in rows for thing in row.image.things}
        if absent := [name for name in classes if name not in have]:
            yield f"{part} has no object of {len(absent)} of {len(classes)} classes: {few(absent)}"
