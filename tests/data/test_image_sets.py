"""The readers on files of the official formats that hold the digits; the real sets where they can be had."""

import gzip
import hashlib
import json
import struct
import tarfile
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from dlframe.data import image_sets
from dlframe.data.digits import digits
from dlframe.data.image_sets import SETS, cifar10, cifar100, fashion_mnist, mnist
from dlframe.storage import fetch
from dlframe.types import DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_unreachable", {})
    return tmp_path / "cache"


def write_idx(folder: Path, *, zipped: bool = True, label: int | None = None) -> Path:
    """The digits in MNIST's format; `label` replaces the label of training sample 3."""
    folder.mkdir()
    dataset = digits()
    labels = dataset.train["label"].astype(np.uint8)
    if label is not None:
        labels[3] = label
    arrays = (dataset.train["image"][:, 0], labels, dataset.test["image"][:, 0], dataset.test["label"].astype(np.uint8))
    for name, array in zip(NAMES, arrays, strict=True):
        content = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
        (folder / f"{name}.gz" if zipped else folder / name).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def colour() -> np.ndarray:
    """(359, 3, 32, 32): digits enlarged, the second channel inverted, the third darker."""
    large = digits().test["image"].repeat(4, axis=2).repeat(4, axis=3)
    return np.concatenate([large, 255 - large, large // 2], axis=1)


def write_cifar(folder: Path, labels: list[np.ndarray], names: list[str]) -> Path:
    folder.mkdir()
    images = colour().reshape(359, -1)
    for name in names:
        (folder / name).write_bytes(np.concatenate([*[label[:, None] for label in labels], images], axis=1).tobytes())
    return folder


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_idx_files_of_the_user(cache, tmp_path, load, zipped):
    folder = write_idx(tmp_path / "a b='ü'", zipped=zipped)
    dataset, truth = load(path=str(folder)), digits()
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [969, 109, 359]
    assert dataset.spec.shape == (1, 8, 8)
    assert (dataset.test["image"] == truth.test["image"]).all()
    assert (dataset.train["image"] == truth.train["image"][dataset.train.ids]).all()
    assert (dataset.train["label"] == truth.train["label"][dataset.train.ids]).all()
    assert sorted([*dataset.train.ids, *dataset.validation.ids]) == list(range(1078))
    np.testing.assert_allclose(dataset.spec.input.mean, (dataset.train["image"] / 255).mean(), rtol=1e-9)
    assert (dataset.source, dataset.splits) == (str(folder), "official test, validation 10 % of train")


def test_fraction_for_validation(cache, tmp_path):
    folder = write_idx(tmp_path / "idx")
    tenth, half = mnist(path=str(folder)), mnist(path=str(folder), validation=0.5)
    assert (len(half.train), len(half.validation), len(half.test)) == (538, 540, 359)
    assert half.splits == "official test, validation 50 % of train"
    assert half.fingerprint != tenth.fingerprint == mnist(path=str(folder)).fingerprint
    for wrong in (0.0, 1.0):
        with pytest.raises(DataError, match=f"data.validation: must be above 0 and below 1. Received: {wrong}"):
            mnist(path=str(folder), validation=wrong)


def test_decoded_once_and_again_when_a_file_changes(cache, tmp_path, monkeypatch):
    folder = write_idx(tmp_path / "idx")
    first = mnist(path=str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(image_sets, "_store", None)
        again = mnist(path=str(folder))
    assert isinstance(again.train["image"], np.memmap)
    assert again.fingerprint == first.fingerprint
    again.train["image"][:] = 0
    assert mnist(path=str(folder)).fingerprint == first.fingerprint
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    write_idx(folder, label=int(digits().train["label"][3] + 1) % 10)
    assert mnist(path=str(folder)).fingerprint != first.fingerprint
    assert len(list(cache.glob("decoded/mnist-*/facts.json"))) == 1


def test_damaged_cache_is_built_anew(cache, tmp_path):
    folder = write_idx(tmp_path / "idx")
    first = mnist(path=str(folder)).fingerprint
    (stored,) = cache.glob("decoded/mnist-*/train-inputs.npy")
    stored.write_bytes(stored.read_bytes()[:-100])
    assert mnist(path=str(folder)).fingerprint == first


def test_label_out_of_range(cache, tmp_path):
    folder = write_idx(tmp_path / "idx", label=10)
    with pytest.raises(DataError) as error:
        fashion_mnist(path=str(folder))
    assert str(error.value) == (
        "data=fashion_mnist: 'label' must hold class indices from 0 to 9. Received: 10 in sample 3 (in the train split)."
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-20], "Compressed file ended before the end-of-stream marker was reached"),
        (lambda b: b"no gzip", "Not a gzipped file (b'no')"),
        (lambda b: gzip.compress(gzip.decompress(b)[:-1]), "cannot reshape array of size 68991 into shape (1078,8,8)"),
        (lambda b: gzip.compress(b"\0" * 100), "its magic number is 0x0000, not 0x0803"),
        (lambda b: gzip.compress(b""), "unpack_from requires a buffer of at least 16 bytes"),
    ],
)
def test_damaged_idx_file(cache, tmp_path, damage, message):
    file = write_idx(tmp_path / "idx") / f"{NAMES[0]}.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError) as error:
        mnist(path=str(file.parent))
    assert str(error.value).startswith(f"{file} is not an IDX file of 3 dimensions: {message}")


def test_folder_without_the_files(cache, tmp_path):
    with pytest.raises(
        DataError, match=r"must have the files of cifar100: cifar-100-binary.tar.gz or train.bin, test.bin. Received: "
    ):
        cifar100(path=str(tmp_path))


def test_binary_cifar10(cache, tmp_path):
    labels = digits().test["label"].astype(np.uint8)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    folder = write_cifar(tmp_path / "bin", [labels], [*names, "test_batch.bin"])
    dataset = cifar10(path=str(folder))
    assert (dataset.test["image"] == colour()).all()
    assert (dataset.test["label"] == labels).all()
    assert len(dataset.train) + len(dataset.validation) == 5 * 359
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-bin")
    assert cifar10(path=str(packed)).fingerprint == dataset.fingerprint
    (folder / names[0]).write_bytes(b"short")
    with pytest.raises(DataError, match=r"bin: not CIFAR's binary version: cannot reshape array"):
        cifar10(path=str(folder))


def test_binary_cifar100_takes_the_fine_label(cache, tmp_path):
    fine = (np.arange(359) % 100).astype(np.uint8)
    folder = write_cifar(tmp_path / "bin", [fine // 5, fine], ["train.bin", "test.bin"])
    dataset = cifar100(path=str(folder))
    assert (dataset.test["label"] == fine).all()
    assert len(set(dataset.spec.classes)) == 100
    assert list(dataset.spec.classes) == sorted(dataset.spec.classes)


def test_sheets_of_the_package(tmp_path):
    labels = digits().test["label"].tolist()
    sheet = Image.fromarray(np.ascontiguousarray(colour().transpose(0, 2, 3, 1).reshape(359, 1024, 3)))
    files = [tmp_path / f"{i}.png" for i in range(6)] + [tmp_path / "train.json", tmp_path / "test.json"]
    for file in files[:6]:
        sheet.save(file)
    files[6].write_text(json.dumps(labels * 5))
    files[7].write_text(json.dumps(labels))
    images, targets, test_images, test_targets = image_sets.read_cifar_png(files)
    assert (images == np.concatenate([colour()] * 5)).all()
    assert (test_images == colour()).all()
    assert targets.tolist() == labels * 5
    assert test_targets.tolist() == labels


def test_official_address(cache, tmp_path, monkeypatch):
    folder = write_idx(tmp_path / "served")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    classes, (official, *others) = SETS["mnist"]
    checksums = {f: f"md5:{hashlib.md5((folder / f).read_bytes()).hexdigest()}" for f in official.files}
    served = replace(official, address=f"http://127.0.0.1:{server.server_port}/", files=checksums)
    monkeypatch.setitem(SETS, "mnist", (classes, (served, *others)))
    try:
        dataset = mnist(source="official")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert dataset.source == "official address"
    assert dataset.fingerprint == mnist(path=str(folder)).fingerprint
    assert mnist().fingerprint == dataset.fingerprint


def test_no_source_answers(cache, monkeypatch):
    classes, sources = SETS["cifar100"]
    dead = tuple(replace(s, address=s.address and "http://127.0.0.1:9/") for s in sources)
    monkeypatch.setitem(SETS, "cifar100", (classes, dead))
    with pytest.raises(DataError) as error:
        cifar100()
    assert str(error.value) == (
        "cifar100: http://127.0.0.1:9/cifar-100-binary.tar.gz: cannot be reached: [Errno 111] Connection refused. "
        "Try: data.path=FOLDER with cifar-100-binary.tar.gz"
    )
    with pytest.raises(DataError, match=r"^cifar100: no package has this set. Try: data.path=FOLDER with cifar-100-bin"):
        cifar100(source="package")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "sizes", "fingerprint"),
    [
        (mnist, [54000, 6000, 10000], "7c502e036fb6"),
        (fashion_mnist, [54000, 6000, 10000], "e8d5689f26eb"),
        (cifar10, [45000, 5000, 10000], "87e8c0c23a62"),
    ],
)
def test_real_sets(load, sizes, fingerprint):
    try:
        dataset = load(source="package")
    except DataError as error:
        pytest.skip(str(error))
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == sizes
    assert dataset.fingerprint == fingerprint
    per_class = np.bincount(dataset.train["label"])
    if load is not mnist:
        assert per_class.tolist() == [sizes[0] // 10] * 10
