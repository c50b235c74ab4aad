"""Small files do not take gigabytes or hours: what something will need is computed from its header and refused before."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import threading
import time
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.security.conftest import in_little_memory, photos

from dlframe.config import load
from dlframe.data.image_folder import image_folder
from dlframe.data.image_sets import cifar10, mnist
from dlframe.jobs.train import run
from dlframe.models.backbone import read
from dlframe.readers import images
from dlframe.registry import plugins
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, ConfigError, DataError


def kept(folder: Path) -> int:
    """Bytes in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- disk


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"image_size": 3000}, r"more than 1000 times their files"),
        ({"image_size": 3000, "color_mode": "grayscale", "on_error": "skip"}, r"more than 1000 times their files"),
        ({"image_size": 60_000}, r"of which the disk of .* has"),
    ],
)
def test_a_few_pixels_do_not_fill_the_disk(options: dict[str, Any], rule: str, home: Path) -> None:
    photos(home / "photos", per_class=30, side=1)
    hole = Path(shutil.copy(home / "photos" / "a" / "0.png", home / "photos" / "a" / "hole.png"))
    os.truncate(hole, 2**30)  # it says to have a gigabyte
    with pytest.raises(DataError, match=rf"^data.image_size: 61 images of .* GB, {rule}"):
        image_folder(path="photos", **options)
    assert kept(home / ".cache") < 10**6


# --- memory of all threads


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
def test_threads_share_a_budget_of_pixels(kind: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures, and room for two: no third one is decoded meanwhile, and one larger than all of it is decoded alone."""
    budget = images.Budget(2 * 300 * 200)
    monkeypatch.setattr(images, "BUDGET", budget)
    monkeypatch.setattr(images, "GAP", 1000)  # at their full size
    lowest = []
    original = images.oriented

    def slow(image: Any) -> Any:
        lowest.append(budget.left)
        time.sleep(0.01)
        return original(image)

    monkeypatch.setattr(images, "oriented", slow)
    for number in range(8):
        Image.new("RGB", (300, 200) if number else (900, 800)).save(f"{number}.{kind}")
    threads = [threading.Thread(target=images.read_image, args=(Path(f"{n}.{kind}"), (8, 8), "rgb")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(lowest) == 8
    assert min(lowest) == 0
    assert budget.left == budget.amount


# --- sets of images

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(*shape: int, zeros: int) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape) + bytes(zeros))


def tarred(*members: tuple[bytes, int], name: bytes = b"x.bin") -> bytes:
    """A .tar.gz of members (type, bytes), all zeros."""
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", compresslevel=1) as packed:
        for kind, size in members:
            info = tarfile.TarInfo(name.decode())
            info.type, info.size = kind, size
            packed.write(info.tobuf(tarfile.GNU_FORMAT))
            for _ in range(0, size, 2**20):
                packed.write(bytes(2**20))
    return buffer.getvalue()


def sheet(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes((1 + width) * height))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def files_of_mnist(first: bytes, second: bytes) -> dict[str, bytes]:
    small = (idx(10, 2, 2, zeros=40), idx(10, zeros=10))
    return {f"{name}.gz": content for name, content in zip(IDX, (first, second, *small), strict=True)}


def archive_of_cifar(content: bytes) -> dict[str, bytes]:
    return {"cifar-10-binary.tar.gz": content}


SHEETS = [*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png"]
SETS: dict[str, Callable[[], dict[str, bytes]]] = {
    "pictures of half a gigabyte": lambda: files_of_mnist(idx(2**19, 32, 32, zeros=2**29), idx(2**19, zeros=2**19)),
    "more than the header says": lambda: files_of_mnist(idx(10, 2, 2, zeros=2**29), idx(10, zeros=10)),
    "more labels than pictures": lambda: files_of_mnist(idx(10, 2, 2, zeros=40), idx(10**6, zeros=10**6)),
    "a hundred million labels": lambda: files_of_mnist(idx(10**8, 1, 1, zeros=10**8), idx(10**8, zeros=10**8)),
    "pictures of no pixels": lambda: files_of_mnist(idx(2**32 - 1, 0, 0, zeros=0), idx(2**30, zeros=2**20)),
    "a batch of a gigabyte": lambda: archive_of_cifar(tarred((tarfile.REGTYPE, 2**30), name=b"test_batch.bin")),
    "many others": lambda: archive_of_cifar(tarred(*[(tarfile.REGTYPE, 2**29)] * 4)),
    "a name of a gigabyte": lambda: archive_of_cifar(tarred((tarfile.GNUTYPE_LONGNAME, 2**30))),
    "a header of a gigabyte": lambda: archive_of_cifar(tarred((tarfile.XHDTYPE, 2**30))),
    "sheets of 170 megapixels": lambda: {
        **dict.fromkeys(SHEETS, sheet(13_000, 13_000)),
        "train_lables.json": b"[0]",
        "test_lables.json": b"[0]",
    },
    "a sheet of one row": lambda: {
        **dict.fromkeys(SHEETS, sheet(2**24, 1)),
        "train_lables.json": b"[0]",
        "test_lables.json": b"[0]",
    },
    "many labels": lambda: {
        **dict.fromkeys(SHEETS, sheet(1024, 100)),
        "train_lables.json": b"[" + b"[]," * 10**7 + b"[]]",
        "test_lables.json": b"[0]",
    },
}


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells the most memory that a process had")
@pytest.mark.parametrize("kind", SETS)
def test_a_small_archive_does_not_take_gigabytes(kind: str, home: Path) -> None:
    for name, content in SETS[kind]().items():
        (home / name).write_bytes(content)
    name = "mnist" if (home / f"{IDX[0]}.gz").exists() else "cifar10"
    code = f"""
from dlframe.data.image_sets import {name}
from dlframe.types import DataError
try:
    {name}(path=".")
except DataError as error:
    print("refused:", str(error)[:300])
print("peak", *[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""
    told = in_little_memory(code, 6)
    assert told.startswith("refused: ")
    assert int(told.split("peak ")[1].split()[0]) < 1_300_000  # kB, of which 150,000 are Python with NumPy
    assert kept(home / ".cache") < 10**6


# --- links


@pytest.mark.parametrize("link", ["absolute", "relative", "over a link"])
@pytest.mark.parametrize("kind", ["idx", "cifar", "cifar of files"])
def test_a_link_out_of_a_folder_of_a_set(kind: str, link: str, home: Path) -> None:
    names = {
        "idx": IDX,
        "cifar": ("cifar-10-binary.tar.gz",),
        "cifar of files": (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    }[kind]
    folder = home / "set"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    (home / "secret").write_bytes(b"secret")
    last = folder / names[-1]
    last.unlink()
    if link == "over a link":
        (folder / "hop").symlink_to(home)
    last.symlink_to({"absolute": home / "secret", "relative": "../secret", "over a link": "hop/secret"}[link])
    with pytest.raises(DataError, match=rf"^data.path: set/{names[-1]} is a link out of set. Replace the link by the file$"):
        (mnist if kind == "idx" else cifar10)(path="set")


# --- checkpoints


def with_tree(file: Path, tree: Any) -> Path:
    """A checkpoint of one tensor of 2 MB whose tree is changed, with the right checksum."""
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(2**19)}
    text = tree if isinstance(tree, str) else json.dumps(tree)
    metadata = {"format": checkpoint.FORMAT, "facts": "{}", "tree": text}
    metadata["sha256"] = checkpoint._checksum(tensors, metadata)
    save_file(tensors, file, metadata)
    return file


STRIDED = {"~": "tensor", "name": "a", "strides": [1]}
TREES = {
    "a strided tensor 1,500 times": ({str(i): STRIDED for i in range(1500)}, "'a'"),
    "in a tuple": ({"a": {"~": "tuple", "items": [STRIDED] * 1500}}, "'a'"),
    "a tensor and an array": ({"a": STRIDED, "b": {"~": "array", "name": "a"}}, "'a'"),
    "strides with gaps": ({"a": {**STRIDED, "strides": [10_000]}}, "the strides of 'a' need more memory than its elements"),
    "objects in text": ('{"a": [' + "[]," * 6_000_000 + "[]]}", "its tree has more than 16,777,216 characters"),
}


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_takes_each_tensor_once(kind: str, tmp_path: Path) -> None:
    tree, message = TREES[kind]
    with pytest.raises(CheckpointError, match=rf": the checkpoint is damaged: {message}$"):
        checkpoint.load(with_tree(tmp_path / "x.safetensors", tree))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_every_memory_order_survives(order: tuple[int, ...], tmp_path: Path) -> None:
    tensor = torch.arange(24.0).reshape(2, 3, 4).permute(order)
    checkpoint.save(tmp_path / "x", {"a": tensor, "b": [tensor, torch.zeros(0, 3).t()]}, {})
    tree, _ = checkpoint.load(tmp_path / "x")
    assert torch.equal(tree["a"], tensor)
    assert tree["b"][0].stride() == tensor.stride()


# --- models


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by model."""
    home = tmp_path_factory.mktemp("runs")
    options = ["epochs=1", "trainer.limit_batches=2", "tracking=none", f"runs={home}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlframe.plots.save", lambda figure, path: path.touch())
        folders = {model: run(load([f"model={model}", *options])).folder for model in ("mlp", "cnn", "rnn")}
    return {model: folder for model, folder in folders.items() if folder}


@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn"])
def test_the_sizes_of_a_run_are_compared_before_they_are_allocated(
    model: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(trained[model], tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("  width:")]
    (folder / "config.yaml").write_text(text.replace(line, "  width: 60000"))
    said = in_little_memory(f"from dlframe.cli import main; main(['test', {str(folder)!r}])", 12)
    assert "checkpoints/best.safetensors: does not match the model: '" in said.splitlines()[-1]
    assert "0000" in said.splitlines()[-1]


# --- pickles


def operations(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


TWICE = b"))\x86" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
"""A tuple of 2^60 tuples."""


def saved(numbers: int = 4, **changes: tuple[bytes, bytes]) -> bytes:
    """A file of `torch.save` in whose pickle bytes are changed."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(numbers)}, buffer)
    target = io.BytesIO()
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(target, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                for before, after in changes.values():
                    assert before in content
                    content = content.replace(before, after)
            changed.writestr(name, content)
    return target.getvalue()


def zipped(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("x/data.pkl", pickled), ("x/version", b"3\n"), ("x/byteorder", b"little")):
            archive.writestr(name, content)
    return buffer.getvalue()


def old(pickled: bytes) -> bytes:
    """The format of torch before 1.6."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(part, 2) for part in head) + pickled + pickle.dumps([], 2)


BYTEARRAY = operations(b"c__builtin__\nbytearray\n", b"\x8a\x05", (6 * 10**9).to_bytes(5, "little"), b"\x85R")
HASHED = operations(b"}", TWICE, b"K\x01s")
HASHED_IN_ORDER = operations(b"ccollections\nOrderedDict\n", b"]", TWICE, b"K\x01\x86a\x85R")
DEEP = operations(b"K\x01" + b"\x85" * 10_000)
LONG = operations(b"\x8a\xff" + b"\x7f" * 255)
HUGE_LONG = operations(b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20)
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x05%bNtQ"
HUGE_STORAGE = operations(b"}X\x01\x00\x00\x00a", STORAGE % (10**10).to_bytes(5, "little"), b"s")
KEY_OF_TUPLES = operations(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n", TWICE, b"X\x03\x00\x00\x00cpuK\x01NtQ")
PICKLES: dict[str, Callable[[], bytes]] = {
    "six gigabytes of zeros": lambda: zipped(BYTEARRAY),
    "six gigabytes of zeros, old": lambda: old(BYTEARRAY),
    "a key of 2^60 tuples": lambda: zipped(HASHED),
    "a key of 2^60 tuples, old": lambda: old(HASHED),
    "a key of 2^60 tuples in a list": lambda: zipped(HASHED_IN_ORDER),
    "a storage named by 2^60 tuples": lambda: old(KEY_OF_TUPLES),
    "tuples in tuples": lambda: zipped(DEEP),
    "a number of 2040 bits": lambda: zipped(LONG),
    "a number of a megabyte": lambda: zipped(HUGE_LONG),
    "a storage of 40 gigabytes, old": lambda: old(HUGE_STORAGE),
    "a storage longer than its record": lambda: saved(numbers=1000, a=(b"M\xe8\x03", b"J\xff\xff\xff\x7f")),
    "a tensor longer than its storage": lambda: saved(b=(b"QK\x00K\x04\x85", b"QK\x00J\xff\xff\xff\x7f\x85")),
    "a pickle before an archive": lambda: old(HASHED) + saved(),
    "two pickles of one name": lambda: _twice(HASHED),
    "a pickle of 20 MB": lambda: zipped(operations(b"]" + b"0]" * 10**7)),
    "the class of a number": lambda: zipped(operations(b"ctorch\nSize\n", TWICE, b"\x85R")),
}


def _twice(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as archive:
        for content in (pickled, operations(b"}")):
            archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", b"3\n")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_of_weights_is_followed_before_it_is_loaded(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("loaded"))
    (tmp_path / "x.pth").write_bytes(PICKLES[kind]())
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"^.*x.pth: is damaged, or a pickle of other objects than tensors"):
        read(tmp_path / "x.pth")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.arange(3.0), "b": torch.zeros(4, 6).t(), "c": torch.zeros(10)[3:5], "d": torch.tensor(True)},
        {"a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.zeros(0, 3), "c": torch.tensor(3)},
        OrderedDict(a=torch.nn.Parameter(torch.zeros(3)), b=torch.zeros(3, requires_grad=True)),
        torch.nn.BatchNorm2d(3).state_dict(),
        {"epoch": 3, "best": None, "state_dict": {"a": torch.ones(2)}, "optimizer": {"state": {0: {"step": 1.5}}}},
    ],
)
def test_weights_of_every_form_are_loaded(content: dict[str, Any], form: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth", **form)
    tensors = content.get("state_dict", content)
    found = read(tmp_path / "x.pth")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


# --- sources of plugins


def chain(form: str) -> str:
    """Fifty aliases, each of which names the one before twice."""
    aliases = "".join(f"A{n} = {form.format(before=f'A{n - 1}')}\n" for n in range(1, 50))
    function = (
        'def f(*, params, lr: float = 0.1, a: A49 = 1):\n    """F.\n\n    Args:\n        lr: L.\n        a: A.\n    """\n'
    )
    return f"from dlframe.registry import optimizers\nA0 = int\n{aliases}\n\n@optimizers.register('f')\n{function}"


SOURCES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "aliases of |": (lambda file: file.write_text(chain("{before} | {before}")), "it has more than 1,000 parts"),
    "aliases of Union": (lambda file: file.write_text(chain("Union[{before}, {before}]")), "it has more than 1,000 parts"),
    "aliases of tuple": (lambda file: file.write_text(chain("tuple[{before}, {before}]")), "it has more than 1,000 parts"),
    "a device": (lambda file: file.symlink_to("/dev/zero"), "must be a file"),
    "a pipe": (lambda file: os.mkfifo(file), "must be a file"),
    "two megabytes": (lambda file: file.write_text("x = 1\n" * 400_000), "must have at most 1,048,576 bytes"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_that_would_never_end(kind: str, home: Path) -> None:
    write, message = SOURCES[kind]
    (home / "plugins").mkdir()
    write(home / "plugins" / "endless.py")
    started = time.perf_counter()
    plugins.discover()
    assert message in plugins.broken["endless"]
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", ["conf/experiment/x.yaml", "conf/model/x.yaml", "conf/task/x.yaml"])
def test_a_config_of_a_gigabyte(name: str, home: Path) -> None:
    (home / name).parent.mkdir(parents=True)
    with (home / name).open("wb") as file:
        file.truncate(2**30)
    group = name.split("/")[1]
    with pytest.raises(ConfigError, match=r"x.yaml: must have at most 262,144 bytes."):
        load([f"{group}=x"])
