"""Annotated images as all formats give them, and the check of their boxes, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dlframe.readers.listing import few, text_of
from dlframe.types import DataError, nearest

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, at the edges of pixels of the image as displayed."""

SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .png .bmp .webp .gif .tif .tiff .avif .jp2 .pgm .ppm .pnm .tga .ico .pcx .qoi .sgi".split()  # noqa: SIM905
)
"""Endings of image files, in lower case."""

LARGEST = 2**29
"""Bytes of a file of annotations."""

ROUNDING = 0.01
"""Pixels by which a box may be over the edge of its image without a word; beside them, two millionths of the side, the last
digit of a fraction of six."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Annotated object.

    Attributes:
        label: Name of its class; empty for a region in which objects of any class may be.
        box: Its box, as the file says.
        where: File and place in it, for messages.
        crowd: Whether it is a region of many objects.
        ignored: Whether it counts neither as missed nor as found: a difficult object.
        area: Area of its outline in square pixels; None for that of the box.
        truncation: Fraction that is outside the image; NaN if unknown.
        occlusion: Level from 0 (visible) to 3 (unknown), as in KITTI; NaN if not given.
    """

    label: str
    box: tuple[float, ...]
    where: str
    crowd: bool = False
    ignored: bool = False
    area: float | None = None
    truncation: float = math.nan
    occlusion: float = math.nan


@dataclass(kw_only=True)
class Pictured:
    """Image with its objects.

    Attributes:
        file: The image.
        where: File and place that name it, for messages.
        things: Its objects.
        size: Width and height that the annotations state; None if they do not.
        part: "train", "validation", "test", or empty.
    """

    file: Path
    where: str
    things: list[Thing] = field(default_factory=list)
    size: tuple[float, float] | None = None
    part: str = ""


@dataclass(kw_only=True)
class Annotations:
    """Images with objects.

    Attributes:
        images: The images.
        classes: Names of the classes, if the annotations list them; else empty.
        notes: What is left out or was assumed, a line each.
    """

    images: list[Pictured] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


class Faults:
    """What is done with a faulty object or image: an error, or one more that is left out.

    Args:
        skip: Leave it out.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.skipped: list[str] = []

    def __call__(self, message: str) -> None:
        """Raise, or count.

        Raises:
            DataError: Faults are not skipped.
        """
        if not self.skip:
            raise DataError(f"detection_folder: {message} Leave such ones out: data.on_error=skip")
        self.skipped.append(message)

    def notes(self) -> list[str]:
        """Return a line about what was left out, if anything was."""
        return [f"skipped {len(self.skipped):,}: {few([text.rstrip('.') for text in self.skipped], 3)}"] if self.skipped else []


def fault(where: str, rule: str, received: object) -> str:
    """Return a message: place, rule and received value."""
    return f"{where}: {rule}. Received: {text_of(str(received)[:200])}."


def as_numbers(values: object, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers; None for anything else."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return None
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    try:
        numbers = tuple(map(float, values))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def parsed(text: str) -> float | None:
    """Return a number of plain digits, as "1", "0.5", "-1e-3"; None for anything else."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def inside(root: Path, name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of a name below the first folder that has it, which must be below `root`; None without one."""
    relative = name.replace("\\", "/").removeprefix("./")
    for folder in folders:
        file = folder / relative
        try:
            if file.is_file() and file.resolve().is_relative_to(root):
                return file
        except (OSError, ValueError):  # a name that is too long, or has a null character
            return None
    return None


def checked(
    annotations: Annotations,
    sizes: Sequence[tuple[int, int]],
    faults: Faults,
    *,
    classes: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
) -> Annotations:
    """Return the images with boxes that are inside them, of the classes that are wanted.

    What rounding leaves beyond the edge is cut off; what is really beyond, too, with a note. An object that is annotated twice
    stays twice, of which a detector finds one at most, with a note too.

    Args:
        annotations: Images as read.
        sizes: Width and height of each image file, as displayed.
        faults: What is done with a box that is not finite, has no area or is outside its image.
        classes: Names of the classes to keep, in this order; None for all.
        model: Classes of the trained model that is scored on the images, of which some may have no object; None for none.

    Raises:
        DataError: A class is unknown or one that the model lacks, a size differs from that of the annotations, or there is a
            fault.
    """
    known = known_classes(annotations) if model is None else tuple(model)
    if classes is not None:
        for name in classes:
            if name not in known:
                whose = "the annotations" if model is None else "the run"
                raise DataError(f"data.classes: must be classes of {whose}. Received: '{name}'.{nearest(name, known)}")
    cut: list[str] = []
    again: list[str] = []
    images = []
    for image, (width, height) in zip(annotations.images, sizes, strict=True):
        if image.size is not None and image.size != (width, height):
            stated = f"{image.size[0]:g} x {image.size[1]:g}"
            faults(
                f"{image.where}: {text_of(image.file.name)} must have the size of its annotations, {stated} pixels. "
                f"Received: {width} x {height}: its boxes are of another image, or of one that was resized."
            )
            continue
        things = []
        seen: set[tuple[str, Box]] = set()
        for thing in image.things:
            if classes is not None and thing.label and thing.label not in classes:
                continue
            if model is not None and thing.label and thing.label not in model:
                raise DataError(
                    f"detection_folder: {thing.where}: class '{thing.label}' is not one of the run: {few(model)}."
                    f"{nearest(thing.label, model)} Leave such objects out: data.classes=[{','.join(model)}]"
                )
            if message := faulty(thing, width, height):
                faults(message)
                continue
            box = (max(thing.box[0], 0.0), max(thing.box[1], 0.0), min(thing.box[2], width), min(thing.box[3], height))
            over = max(abs(a - b) for a, b in zip(box, thing.box, strict=True))
            if over > ROUNDING + 2e-6 * max(width, height):
                cut.append(thing.where)
            if thing.label and (thing.label, box) in seen:
                again.append(thing.where)
            seen.add((thing.label, box))
            things.append(replace(thing, box=box))
        images.append(replace(image, things=things))
    notes = list(annotations.notes)
    if cut:
        notes.append(f"boxes that reach over the edge of their image are cut, {len(cut):,}: {few(cut, 3)}")
    if again:
        notes.append(f"objects of the class and the box of another one count, {len(again):,}: {few(again, 3)}")
    return Annotations(images=images, classes=tuple(known if classes is None or model is not None else classes), notes=notes)


def known_classes(annotations: Annotations) -> tuple[str, ...]:
    """Return the classes that are listed, or else those of the objects to train on, by name."""
    if annotations.classes:
        return annotations.classes
    trained = [image for image in annotations.images if image.part in ("", "train")]
    return tuple(sorted({thing.label for image in trained for thing in image.things} - {""}))


def faulty(thing: Thing, width: float, height: float) -> str:
    """Return what is wrong with a box; empty for nothing."""
    if len(thing.box) != 4 or not all(map(math.isfinite, thing.box)):
        return fault(thing.where, "a box must have four finite numbers", list(thing.box))
    left, top, right, bottom = thing.box
    if right <= left or bottom <= top:
        return fault(thing.where, "a box must have a width and a height above 0", f"{right - left:g} x {bottom - top:g}")
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return fault(
            thing.where, f"a box must be in its image of {width:g} x {height:g} pixels", [round(v, 2) for v in thing.box]
        )
    return ""


def images_of(files: Iterable[Path]) -> list[Path]:
    """Return the files that have the ending of an image."""
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def by_stem(files: Iterable[Path], told: Callable[[str], None]) -> dict[str, Path]:
    """Return files by their name without ending; two of one name are told, and the first is used."""
    found: dict[str, Path] = {}
    for file in files:
        if found.setdefault(file.stem, file) is not file:
            told(f"{text_of(found[file.stem].name)} and {text_of(file.name)} have one name, of which the first is used")
    return found
