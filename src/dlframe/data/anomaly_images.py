"""Images with defects and their masks: the user's own, as in MVTec AD, and digits with scratches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.data.handwritten import handwritten
from dlframe.readers.images import original_image, read_image
from dlframe.readers.listing import natural, text_of
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import by_hash, statistics
from dlframe.registry import Count, data
from dlframe.storage.decoded import cache_key, contents, decoded
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, DataSpec, Field, Split, say

SIZE = 64
"""Height and width of images, unless the user or the model says otherwise."""

VERSION = 2
"""Of the decoder, part of the cache key."""

LARGEST = 2**32
"""Bytes that decoded images may take."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

MASKS = ("ground_truth", "groundtruth", "masks")
"""Names of the folder of masks."""


@data.register(
    "anomaly_folder",
    inputs=("image",),
    targets=("class", "mask"),
    files=("path",),
    tasks={"mask": "anomaly_localization", "class": "anomaly_detection"},
)
def anomaly_folder(
    *,
    path: str,
    image_size: Count | None = None,
    color_mode: Literal["rgb", "grayscale"] = "rgb",
    fit: Literal["squash", "crop", "pad"] = "squash",
    masks: Literal["auto", "none"] = "auto",
    spec: DataSpec | None = None,
) -> Dataset:
    """Images in the folders of MVTec AD: train/good, test/good, test/DEFECT, and ground_truth/DEFECT with masks.

    A fifth of train/good, by a hash of the file's name, is for validation. A mask has the name of its image, with or without
    _mask at the end, and is anomalous where it is bright.

    Args:
        path: Folder of one product, such as bottle.
        image_size: Height and width in pixels of the images that the model receives; null is the size that the model expects,
            or 64 for a model that takes any.
        color_mode: Three channels (rgb) or one (grayscale).
        fit: Way to a square: squash changes the aspect ratio, crop covers the square and cuts the rest at the center, pad adds
            margins.
        masks: Read the masks where there is a folder of them (auto), or not (none).
        spec: Specification of a run whose model is scored on these images: those of test/CLASS, or of CLASS where there is no
            folder test. Defects may be others than those of the run.
    """
    root = expanded(path)
    listing = _listed(root) if spec is None else _to_score(root)
    good = listing[0][1] if spec is None else spec.classes[0]
    found = _masks_of(root, listing, good) if masks == "auto" and (spec is None or "mask" in spec.targets) else {}
    if spec is not None and "mask" in spec.targets and not found and any(label != good for _, label, _ in listing):
        raise DataError(f"data.path: {root} must have a folder of masks, {MASKS[0]}, as the data of the run. Received: none")
    files = [file for _, _, file in listing]
    size, decoding = image_size or SIZE, Decoding(fit=fit)
    classes = [*(spec.classes if spec else [good])]
    classes += sorted({label for _, label, _ in listing} - {*classes}, key=natural)
    options = (size, color_mode, fit, masks, classes, VERSION, [(part, label, text_of(file)) for part, label, file in listing])
    key = cache_key(*options, contents(root.resolve(), [*files, *found.values()]))
    dataset, notes = decoded(
        f"anomaly_folder-{cache_key(root.resolve(), size, color_mode, fit, masks, spec is None)}",
        key,
        partial(_decode, root, listing, found, classes, size, color_mode, decoding),
        partial(_stored, str(root), decoding, spec),
    )
    dataset.original = partial(original_image, root, color_mode, decoding)
    if spec is not None and listing[0][2].parent.parent != root and (left := _folders(root / "train")):
        notes = [f"left out train ({sum(len(_images(each)) for each in left):,} files): test is scored", *notes]
    for note in notes:
        say(f"anomaly_folder: {note}", error=True)
    return dataset


Listed = Sequence[tuple[str, str, Path]]
"""Part, class and file of each image."""


def _listed(root: Path) -> Listed:
    """List the images of the folders train and test.

    Raises:
        DataError: A folder is missing or empty, or train has other classes than one.
    """
    if not root.is_dir():
        raise DataError(f"data.path: must be a folder. Received: {root}")
    form = "must have the folders train/good, test/good and test/DEFECT, as in MVTec AD"
    classes = {part: _folders(root / part) for part in ("train", "test")}
    for part, folders in classes.items():
        if not folders:
            have = ", ".join(folder.name for folder in _folders(root)[:6]) or "no folders"
            raise DataError(f"data.path: {form}: {root / part} has no folder with images. {root} has {have}")
    if len(classes["train"]) > 1:
        names = ", ".join(folder.name for folder in classes["train"][:6])
        raise DataError(
            f"data.path: {root / 'train'} must have one folder, of normal images. Received: {names}. Images of several "
            "classes: data=image_folder task.anomalies=[CLASS]"
        )
    good = classes["train"][0].name
    files = _images(classes["train"][0])
    if len(files) < 5:
        raise DataError(f"data.path: {classes['train'][0]} must have 5 images or more. Received: {len(files)}")
    names = [text_of(file.relative_to(root)) for file in files]
    train, _ = by_hash([good] * len(files), names, (0.8, 0.2))
    kept = set(train.tolist())
    listed = [("train" if i in kept else "validation", good, file) for i, file in enumerate(files)]
    return [*listed, *(("test", folder.name, file) for folder in classes["test"] for file in _images(folder))]


def _to_score(root: Path) -> Listed:
    """List the images that a trained model is scored on: those of the classes in the folder test, or in the folder itself.

    Raises:
        DataError: There are none.
    """
    if not root.is_dir():
        raise DataError(f"data.path: must be a folder. Received: {root}")
    above = root / "test" if _folders(root / "test") else root
    classes = [folder for folder in _folders(above) if folder.name not in MASKS]
    if not classes:
        raise DataError(
            f"data.path: {root} must have a folder of images for each class, here or in the folder test. Received: none"
        )
    return [("test", folder.name, file) for folder in classes for file in _images(folder)]


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones, in natural order."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural(p.name))


def _images(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not found:
        raise DataError(f"data.path: {folder} must have images ({', '.join(SUFFIXES)}). Received: none")
    return sorted(found, key=lambda p: natural(p.name))


def _masks_of(root: Path, listing: Listed, good: str) -> dict[Path, Path]:
    """Return the mask of each image of a defect, which is not `good`; none without a folder of masks.

    Raises:
        DataError: An image of a defect has no mask.
    """
    folder = next((root / name for name in MASKS if (root / name).is_dir()), None)
    found: dict[Path, Path] = {}
    for _, label, file in listing if folder else ():
        if label == good:
            continue
        assert folder
        names = [f"{file.stem}{end}{suffix}" for suffix in SUFFIXES for end in ("_mask", "")]
        mask = next((folder / label / name for name in names if (folder / label / name).is_file()), None)
        if mask is None:
            raise DataError(
                f"data.path: {file} has no mask: must be {folder / label / names[0]}. Without masks: data.masks=none"
            )
        found[file] = mask
    return found


def _decode(
    root: Path,
    listing: Listed,
    masks: Mapping[Path, Path],
    classes: Sequence[str],
    size: int,
    color_mode: str,
    decoding: Decoding,
    folder: Path,
) -> dict[str, Any]:
    """Write the arrays of all splits, or of those that have images."""
    channels = 3 if color_mode == "rgb" else 1
    if (needed := len(listing) * (channels + bool(masks)) * size * size) > LARGEST:
        raise DataError(f"data.image_size: {len(listing):,} images take {needed / 1e9:.3g} GB. Try: data.image_size=128")
    top, notes = root.resolve(), []
    of_mask = replace(decoding, background="black")  # margins and what is transparent are no anomaly

    def pixels(file: Path, mode: str, decoding: Decoding = decoding) -> np.ndarray:
        read = read_image(file, (size, size), mode, top, decoding)
        if read.pixels is None:
            raise DataError(f"anomaly_folder: {text_of(file.relative_to(root))} {text_of(read.fault)}. Remove or replace it")
        notes.extend(f"{text_of(file.relative_to(root))} {note}" for note in read.notes)
        return read.pixels

    def both(row: tuple[str, str, Path]) -> tuple[np.ndarray, np.ndarray]:
        mask = masks.get(row[2])
        image = pixels(row[2], color_mode)
        return image, (pixels(mask, "grayscale", of_mask) > 127) if mask else np.zeros((1, size, size), bool)

    with ThreadPoolExecutor(8) as pool:
        read = [*pool.map(both, listing)]
    facts: dict[str, Any] = {"classes": classes, "notes": notes[:6], "masks": bool(masks)}
    for part in dict.fromkeys(part for part, _, _ in listing):
        rows = [i for i, (own, _, _) in enumerate(listing) if own == part]
        arrays = {
            "image": np.stack([read[i][0] for i in rows]),
            "mask": np.stack([read[i][1] for i in rows]).astype(np.uint8),
            "label": np.array([classes.index(listing[i][1]) for i in rows], np.int64),
            "ids": np.array([text_of(listing[i][2].relative_to(root)) for i in rows], np.str_),
        }
        for name, array in arrays.items():
            if name != "mask" or masks:
                np.save(folder / f"{part}-{name}.npy", array, allow_pickle=False)
        if part == "train":
            facts["mean"], facts["std"] = statistics(arrays["image"])
    return facts


def _stored(
    source: str, decoding: Decoding, spec: DataSpec | None, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> tuple[Dataset, list[str]]:
    """Return the data set of stored arrays, and what is to be said."""
    columns = ["image", "label", *(["mask"] if facts["masks"] else [])]

    def split(part: str) -> Split:
        return Split({name: arrays[f"{part}-{name}"] for name in columns}, np.asarray(arrays[f"{part}-ids"]))

    if spec is not None:
        label = replace(spec.targets["label"], names=tuple(map(str, facts["classes"])))
        test = split("test")
        if "mask" in spec.targets and not facts["masks"]:  # all are normal
            images = test["image"]
            test.columns["mask"] = np.zeros((len(images), 1, *images.shape[2:]), np.uint8)
        further = replace(spec, targets={**spec.targets, "label": label})
        return Dataset(further, test, test, test, source, "all as test"), [*map(str, facts["notes"])]
    splits = [split(part) for part in PARTS]
    mean, std = (tuple(map(float, facts[name])) for name in ("mean", "std"))
    dataset = _dataset("anomaly_folder", splits, tuple(map(str, facts["classes"])), (mean, std), decoding, source)
    dataset.splits = "test as given, validation 20 % of train by hash"
    notes = [*map(str, facts["notes"])]
    if not facts["masks"]:
        notes.append("no masks: no metrics by pixel")
    return dataset, notes


def _dataset(
    name: str,
    splits: Sequence[Split],
    classes: tuple[str, ...],
    measured: tuple[tuple[float, ...], tuple[float, ...]],
    decoding: Decoding,
    source: str,
) -> Dataset:
    shape = splits[0]["image"].shape[1:]
    image = Field(kind="image", dtype="uint8", shape=shape, mean=measured[0], std=measured[1])
    targets = {"label": Field(kind="class", dtype="int64", names=classes)}
    if "mask" in splits[0].columns:
        targets["mask"] = Field(kind="mask", dtype="uint8", shape=(1, *shape[1:]))
    spec = DataSpec(name, {"image": image}, targets, {**decoding.kept(), "normal": [classes[0]]})
    return Dataset(spec, splits[0], splits[1], splits[2], source, "60/20/20")


@data.register(
    "scratched_digits", inputs=("image",), targets=("class", "mask"), files=(), tasks={"mask": "anomaly_localization"}
)
def scratched_digits(*, image_size: Count | None = None) -> Dataset:
    """Synthetic: digits of scikit-learn, enlarged; half of those of the test have a scratch or a spot, with its mask.

    Args:
        image_size: Height and width of the images; null is 32.
    """
    side = max(8, image_size or 32)
    random = np.random.default_rng(0)
    splits = []
    for part, split in zip(PARTS, handwritten(), strict=True):
        images = _enlarged(split["image"], side)
        masks = np.zeros_like(images)
        labels = np.zeros(len(images), np.int64)
        if part == "test":
            for i in range(0, len(images), 2):
                labels[i] = 1 + i // 2 % 2
                masks[i, 0] = _scratch(side, random) if labels[i] == 1 else _spot(side, random)
                shade = np.where(images[i] > 127, 0, random.integers(150, 256))
                images[i] = np.where(masks[i] > 0, shade, images[i])
        splits.append(Split({"image": images, "label": labels, "mask": masks}, split.ids))
    measured = statistics(splits[0]["image"])
    dataset = _dataset(
        "scratched_digits", splits, ("good", "scratch", "spot"), measured, Decoding(fit="squash"), "synthetic, offline"
    )
    dataset.splits = "stratified 60/20/20, defects in the test only"
    return dataset


def _enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """Return images (samples, 1, 8, 8) in another size, by the nearest pixel."""
    place = np.arange(side) * images.shape[-1] // side
    return np.ascontiguousarray(images[:, :, place][:, :, :, place])


def _scratch(side: int, random: np.random.Generator) -> np.ndarray:
    """Return the mask of a line across a part of an image."""
    start, end = random.uniform(0.1, 0.9, 2), random.uniform(0.1, 0.9, 2)
    if np.abs(end - start).max() < 0.4:
        end = np.where(start < 0.5, start + 0.4, start - 0.4)
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    along = np.clip(
        ((rows - start[0]) * (end - start)[0] + (columns - start[1]) * (end - start)[1]) / np.sum((end - start) ** 2), 0, 1
    )
    far = np.hypot(rows - start[0] - along * (end - start)[0], columns - start[1] - along * (end - start)[1])
    return (far < 0.035).astype(np.uint8)


def _spot(side: int, random: np.random.Generator) -> np.ndarray:
    """Return the mask of a disk."""
    center, radius = random.uniform(0.2, 0.8, 2), random.uniform(0.06, 0.12)
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    return (np.hypot(rows - center[0], columns - center[1]) < radius).astype(np.uint8)
