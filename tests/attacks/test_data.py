"""Data of a stranger: images, tables, archives and caches that lead elsewhere, never end, or unpack to more than there is."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.attacks.conftest import BOMB, SECRET, shown

from dlframe.data import image_sets
from dlframe.data.image_folder import image_folder
from dlframe.data.image_sets import cifar10, mnist
from dlframe.data.stocks import sp500
from dlframe.readers.tables import files
from dlframe.storage import fetch
from dlframe.storage.fetch import Package, member
from dlframe.types import DataError


def photos(folder: Path) -> Path:
    """Two classes of five images."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / label / f"{number}.png")
    return folder


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int = 8, height: int = 8, data: bytes = b"", *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def gif(width: int, height: int, frame: tuple[int, int, int, int]) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x44\x01\x00;"


def exif(depth: int) -> bytes:
    """A JPEG whose EXIF has folders in folders."""
    entries = b"".join(
        struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8 + 18 * (level + 1)) + bytes(4) for level in range(depth)
    )
    block = b"Exif\0\0II*\0\x08\0\0\0" + entries
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "JPEG")
    return picture.getvalue()[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + picture.getvalue()[2:]


IMAGES = {
    "bomb.png": (png(65535, 65535), "has more than 89,478,485 pixels"),
    "bomb_of_2_to_31.png": (png(2**31 - 1, 2**31 - 1), "has more than 89,478,485 pixels"),
    "short.png": (png(8000, 8000, b"x"), "is broken: "),
    "text_bomb.png": (png(8, 8, bytes(72), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))), "is broken: "),
    "profile_bomb.png": (png(8, 8, b"", chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(10**8)))), "is broken: "),
    "frame.gif": (gif(8, 8, (0, 0, 65535, 65535)), "has more than 89,478,485 pixels"),
    "screen.gif": (gif(65535, 65535, (0, 0, 1, 1)), "has more than 89,478,485 pixels"),
    "bomb.bmp": (
        b"BM" + bytes(8) + struct.pack("<IIiiHHIIiiII", 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "has more than",
    ),
    "bomb.ppm": (b"P6 99999 99999 255 x", "has more than 89,478,485 pixels"),
    "digits.ppm": (b"P6 " + b"9" * 5000 + b" 1 255 x", "is broken: "),
    "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file\n", "is not an image"),
    "pdf.png": (b"%PDF-1.4\n1 0 obj <</OpenAction <</S /Launch /F (touch ran)>>>>\n", "is not an image"),
    "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "is not an image"),
    "wmf.png": (b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(100), "is not an image"),
    "pickle.png": (BOMB, "is not an image"),
    "html.jpg": (b"<html>", "is not an image"),
    "empty.png": (b"", "is not an image"),
    "zip.png": (b"PK\x03\x04" + bytes(100), "is not an image"),
    "\x1b]0;owned\x07.png": (b"", "is not an image"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image(name: str, refused: Callable[..., str], victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, fault = IMAGES[name]
    (photos(victim / "photos") / "a" / name).write_bytes(content)
    said = refused("data=image_folder", "data.path=photos")
    printable = name.replace("\x1b", "\\x1b").replace("\x07", "\\x07")
    assert said.startswith(f"image_folder: a/{printable} {fault}")
    assert len(image_folder(path="photos", on_error="skip").train) == 6
    assert f"skipped 1 of 11 files: a/{printable} {fault}" in shown(capsys.readouterr().err)


def test_folders_in_folders_of_exif(guarded: Callable[..., Any], victim: Path) -> None:
    """They are no fault of the picture: what counts is that reading it ends."""
    (photos(victim / "photos") / "a" / "x.jpg").write_bytes(exif(3000))
    with guarded():
        assert len(image_folder(path="photos").train) + 5 == 12


def links(folder: Path, outside: Path) -> dict[str, Callable[[], Any]]:
    """What may lie where an image is expected."""
    place = folder / "a" / "x.png"
    return {
        "a link to a file outside": lambda: place.symlink_to(outside / "secret.png"),
        "a link by dots": lambda: place.symlink_to("../../../outside/secret.png"),
        "a link to a link": lambda: ((folder / ".hop").symlink_to(outside), place.symlink_to(folder / ".hop" / "secret.png")),
        "a link to nothing": lambda: place.symlink_to("gone.png"),
        "a link to nothing outside": lambda: place.symlink_to("/nonexistent/x.png"),
        "a link to itself": lambda: place.symlink_to("x.png"),
        "a pipe": lambda: os.mkfifo(place),
        "a link to a device": lambda: place.symlink_to("/dev/zero"),
        "a socket": lambda: socket.socket(socket.AF_UNIX).bind("photos/a/x.png"),
    }


FAULTS = {
    "a link to nothing": "is a broken link",
    "a link to itself": "is broken: Symlink loop from ",
    "a pipe": "is not a file",
    "a socket": "is not a file",
}


@pytest.mark.filterwarnings("ignore:unclosed <socket")
@pytest.mark.parametrize("kind", links(Path(), Path()))
def test_what_is_no_file_of_the_folder(
    kind: str, refused: Callable[..., str], victim: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = photos(victim / "photos")
    links(folder, tmp_path / "outside")[kind]()
    fault = FAULTS.get(kind, "is a link out of the folder")
    assert refused("data=image_folder", "data.path=photos").startswith(f"image_folder: a/x.png {fault}")
    assert len(image_folder(path="photos", on_error="skip").train) == 6
    assert f"skipped 1 of 11 files: a/x.png {fault}" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["../../outside/class", "/", "../../outside"])
@pytest.mark.parametrize("place", ["c", "train", "train/c"])
def test_a_class_that_leads_out(place: str, target: str, refused: Callable[..., str], victim: Path) -> None:
    folder = photos(victim / "photos")
    if place == "train/c":
        photos(folder / "train")
    (folder / place).symlink_to(os.path.abspath(folder / target))
    assert refused("data=image_folder", "data.path=photos").startswith(f"data.path: photos/{place} is a link out of photos.")


def test_a_root_that_is_a_link_is_the_users_choice(guarded: Callable[..., Any], victim: Path) -> None:
    photos(victim / "elsewhere")
    (victim / "photos").symlink_to("elsewhere")
    with guarded():
        assert len(image_folder(path="photos").train) == 6


@pytest.mark.parametrize("data", ["image_folder", "mnist", "sp500"])
@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "x" * 300, "a/" * 3000, "/dev/zero", "/proc/self/environ", ""])
def test_a_path(data: str, path: str, refused: Callable[..., str]) -> None:
    assert refused(
        f"data={data}", f"data.path='{path}'", "task=" + ("forecasting" if data == "sp500" else "image_classification")
    )


# --- tables

ROWS = b"".join(b"20%02d-%02d-%02d,1.5\n" % (y, m, d) for y in range(4) for m in range(1, 13) for d in range(1, 28))
TABLES = {
    "huge_line.csv": (b"Date,Close\n" + b"9" * 200_000, "line 2: has 1 field under 2 names"),
    "huge_head.csv": (b"x" * 200_000, "data.target must name a column. Received: 'close'."),
    "open_quote.csv": (b'Date,Close\n"' + ROWS * 20, "line 2: must be quoted as in RFC 4180."),
    "nul.csv": (b"Date,Close\n2000-01-01,\0\n", "line 2: holds a NUL byte"),
    "latin.csv": (b"Date,Close\n\xff,1\n", "line 2: must be UTF-8. Received: '\\\\xff,1'."),
    "utf_16.csv": ("Date,Close\n".encode("utf-16"), "is empty: it has a header and no rows"),
    "empty.csv": (b"", "is empty: it has no header and no rows"),
    "formula.csv": (b"Date,Close\n=cmd|'/c calc',1\n", "'Date' must hold times in one format."),
    "infinite.csv": (b"Date,Close\n2000-01-01,inf\n", "'Close' must be a number. Received: 'inf'"),
    "overflow.csv": (b"Date,Close\n2000-01-01,1e308\n", "'Close' must be a number. Received: '1e308'"),
    "digits.csv": (b"Date,Close\n2000-01-01," + b"9" * 5000 + b"\n", "'Close' must be a number."),
    "paint.csv": (b"Date,Close\n\x1b]0;owned\x07,1\n", "'Date' must hold times in one format."),
    "paint_a_value.csv": (b"Date,Close\n2000-01-01,\x1b]0;owned\x07\n", "Received: '\\x1b]0;owned\\x07'"),
    "paint_a_name.csv": (b"Date,\x1b]0;owned\x07\n2000-01-01,1\n", "Choose from: Date, \\x1b]0;owned\\x07."),
    "short_row.csv": (b"Date,Close\n2000-01-01\n", "line 2: has 1 field under 2 names"),
    "bomb.csv.gz": (gzip.compress(bytes(1_100_000)), "unpacks to more than 1 MB"),
    "no_gzip.csv.gz": (b"Date,Close\n", "is not a gz file"),
    "cut.csv.gz": (gzip.compress(b"Date,Close\n" + ROWS)[:-20], "Compressed file ended"),
    "damaged.csv.gz": (gzip.compress(ROWS)[:10] + b"\xff" * 50, "Error -3 while decompressing data"),
    "pickle.csv": (BOMB, ""),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table(name: str, guarded: Callable[..., Any], victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = TABLES[name]
    monkeypatch.setattr(files, "ALWAYS", 10**6)
    Path(name).write_bytes(content)
    with guarded(), pytest.raises(DataError) as caught:
        sp500(path=name)
    assert str(caught.value).startswith(name)
    assert message in shown(str(caught.value))


# --- the readers of binary sets

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(shape: tuple[int, ...], content: bytes, magic: int | None = None) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape) if magic is None else magic, *shape) + content


LABELS = idx((40,), bytes(range(10)) * 4)
PICTURES = idx((40, 2, 2), bytes(range(160)))
FIRST_FILES = {
    "empty": b"",
    "head_only": PICTURES[:16],
    "pickle": BOMB,
    "magic": idx((40, 2, 2), bytes(160), 0x0D03),
    "shape_that_overflows": idx((2**32 - 1,) * 3, bytes(160)),
    "shape_that_wraps": idx((2**31, 2**31, 4), b""),
    "shape_of_nothing": idx((40, 0, 0), b""),
    "no_pictures": idx((0, 2, 2), b""),
    "too_few": idx((10, 2, 2), bytes(40)),
    "another_shape": idx((40, 1, 4), bytes(160)),
    "more_than_there_is": idx((41, 2, 2), bytes(160)),
    "bomb": gzip.compress(idx((40, 2, 2), bytes(1_200_000))),
    "damaged": gzip.compress(PICTURES)[:10] + b"\xff" * 50,
    "cut": gzip.compress(PICTURES)[:-9],
}


@pytest.mark.parametrize("kind", FIRST_FILES)
def test_a_binary_set(kind: str, guarded: Callable[..., Any], victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "LARGEST", 10**6)
    suffix = ".gz" if kind in ("bomb", "damaged", "cut") else ""
    first, *others = (FIRST_FILES[kind], LABELS, PICTURES, LABELS)
    for name, content in zip(IDX, [first, *(gzip.compress(other) if suffix else other for other in others)], strict=True):
        Path(name + suffix).write_bytes(content)
    with guarded(), pytest.raises(DataError):
        mnist(path=".")


def tar(members: list[tuple[str, bytes, bytes, str]], mode: str = "w:gz") -> bytes:
    """An archive of (name, type, content, target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, kind, content, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), target
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def record(label: int) -> bytes:
    return bytes([label]) + bytes(3072)


BATCHES = [
    (f"cifar-10-batches-bin/data_batch_{i}.bin", tarfile.REGTYPE, b"".join(map(record, range(10))), "") for i in range(1, 6)
]
CIFARS = {
    "pickle": BOMB,
    "pickles_in_it": tar([(f"data_batch_{i}", tarfile.REGTYPE, BOMB, "") for i in range(1, 6)]),
    "no_test_batch": tar(BATCHES),
    "test_batch_that_links_out": tar([*BATCHES, ("test_batch.bin", tarfile.SYMTYPE, b"", "../../outside/secret.txt")]),
    "test_batch_hard_linked": tar([*BATCHES, ("test_batch.bin", tarfile.LNKTYPE, b"", "/etc/passwd")]),
    "test_batch_of_a_device": tar([*BATCHES, ("test_batch.bin", tarfile.CHRTYPE, b"", "")]),
    "test_batch_of_text": tar([*BATCHES, ("test_batch.bin", tarfile.REGTYPE, b"x" * 100, "")]),
    "label_out_of_range": tar([*BATCHES, ("test_batch.bin", tarfile.REGTYPE, record(200), "")]),
    "bomb": tar([*BATCHES, ("test_batch.bin", tarfile.REGTYPE, bytes(1_200_000), "")]),
    "cut": tar([*BATCHES, ("test_batch.bin", tarfile.REGTYPE, record(1), "")])[:-30],
    "of_bz2": bz2.compress(tar(BATCHES, "w"))[:-30],
    "of_xz": tar(BATCHES, "w:xz")[:-30],
    "of_bad_xz": b"\xfd7zXZ\0" + bytes(100),
}


@pytest.mark.parametrize("kind", CIFARS)
def test_an_archive_of_a_set(kind: str, guarded: Callable[..., Any], victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "LARGEST", 10**6)
    Path("cifar-10-binary.tar.gz").write_bytes(CIFARS[kind])
    with guarded(), pytest.raises(DataError):
        cifar10(path=".")


# --- the cache of what was decoded


def no_npy(descr: str, shape: str, content: bytes = b"") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head.encode() + b"\n" + content


def rewrite(folder: Path, **changes: Any) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    for key, value in changes.items():
        (facts["facts"] if key in facts["facts"] else facts)[key] = value
    (folder / "facts.json").write_text(json.dumps(facts))


def array(name: str, content: bytes | np.ndarray) -> Callable[[Path, Path], None]:
    def change(folder: Path, outside: Path) -> None:
        if isinstance(content, bytes):
            (folder / f"{name}.npy").write_bytes(content)
        else:
            np.save(folder / f"{name}.npy", content)

    return change


def link(folder: Path, outside: Path) -> None:
    np.save(outside / "test-ids.npy", np.array([SECRET] * 2))
    (folder / "test-ids.npy").unlink()
    (folder / "test-ids.npy").symlink_to(outside / "test-ids.npy")


def names_outside(folder: Path, outside: Path) -> None:
    np.save(outside / "x.npy", np.zeros(3))
    rewrite(folder, arrays=["../../../../outside/x"])


CACHES: dict[str, Callable[[Path, Path], Any]] = {
    "names_that_lead_out": names_outside,
    "absolute_names": lambda f, _: rewrite(f, arrays=["/etc/passwd"]),
    "names_of_no_text": lambda f, _: rewrite(f, arrays=[[1], {}]),
    "names_missing": lambda f, _: rewrite(f, arrays=[]),
    "names_that_are_a_number": lambda f, _: rewrite(f, arrays=3),
    "an_array_that_is_a_link": link,
    "facts_a_list": lambda f, _: (f / "facts.json").write_text("[]"),
    "facts_deep": lambda f, _: (f / "facts.json").write_text("[" * 100_000),
    "facts_of_no_text": lambda f, _: (f / "facts.json").write_bytes(b"\xff"),
    "facts_of_a_huge_number": lambda f, _: (f / "facts.json").write_text('{"key": ' + "9" * 5000 + "}"),
    "classes_too_few": lambda f, _: rewrite(f, classes=["a"]),
    "classes_null": lambda f, _: rewrite(f, classes=None),
    "mean_of_text": lambda f, _: rewrite(f, mean=["a", "b", "c"]),
    "mean_of_another_length": lambda f, _: rewrite(f, mean=[0.1]),
    "skipped_a_number": lambda f, _: rewrite(f, skipped=3),
    "pickle": array("train-inputs", BOMB),
    "pickle_in_npy": array("train-ids", no_npy("'|O'", "(6,)", BOMB)),
    "pickle_in_npz": array("train-ids", b"PK\x03\x04" + BOMB),
    "code_in_npy": array("train-ids", no_npy("__import__('os').system('touch ran')", "(6,)")),
    "huge_npy": array("train-inputs", no_npy("'|u1'", "(6, 3, 100000000000, 1)")),
    "overflowing_npy": array("train-inputs", no_npy("'|u1'", "(6, 4611686018427387904, 4, 4)")),
    "negative_npy": array("train-inputs", no_npy("'|u1'", "(-6, 3, 64, 64)")),
    "deep_npy": array("train-ids", no_npy("[" * 5000, "(6,)")),
    "empty_npy": array("train-ids", b""),
    "another_type": array("train-inputs", np.zeros((6, 3, 64, 64))),
    "another_shape": array("train-inputs", np.zeros((6, 3, 64), np.uint8)),
    "labels_out_of_range": array("train-targets", np.full(6, 9)),
    "labels_of_text": array("train-targets", np.array(["a"] * 6)),
}


@pytest.mark.parametrize("kind", CACHES)
def test_the_cache(kind: str, guarded: Callable[..., Any], victim: Path, tmp_path: Path, capsys: Any) -> None:
    """Whatever lies in it, the images are decoded anew."""
    photos(victim / "photos")
    fingerprint = image_folder(path="photos").fingerprint
    (folder,) = (path for path in (victim / "cache" / "decoded").iterdir() if path.is_dir())
    CACHES[kind](folder, tmp_path / "outside")
    capsys.readouterr()
    with guarded():
        again = image_folder(path="photos")
    assert again.fingerprint == fingerprint
    assert shown(capsys.readouterr().err).startswith("Decoding 10 images")


# --- archives of packages


def client(folder: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A program on the PATH that stands for npm and brings `archive`; and the package, whose hash is right."""
    (folder / "archive").write_bytes(archive)
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\ncp '{folder / 'archive'}' toy.tgz\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Package("npm", "toy", "1.0", hashlib.sha256(archive).hexdigest(), 1, "MIT")


def zipped(members: list[tuple[str, bytes]], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def deb(size: bytes) -> bytes:
    return (
        b"!<arch>\n"
        + b"debian-binary".ljust(16)
        + b"0".ljust(12)
        + b"0".ljust(6) * 2
        + b"644".ljust(8)
        + size.ljust(10)
        + b"`\n"
    )


FILE = tarfile.REGTYPE
REFUSED = {
    "zip_bomb": zipped([("x/data.bin", bytes(1_200_000))]),
    "tar_bomb": tar([("x/data.bin", FILE, bytes(1_200_000), "")]),
    "twice_in_a_zip": zipped([("a/data.bin", b"1"), ("b/data.bin", b"2")]),
    "twice_in_a_tar": tar([("data.bin", FILE, b"1", ""), ("data.bin", FILE, b"2", "")]),
    "nested": zipped([("x/inner.zip", zipped([("data.bin", b"1")]))]),
    "symbolic_link": tar([("data.bin", tarfile.SYMTYPE, b"", "../../outside/secret.txt")]),
    "hard_link": tar([("data.bin", tarfile.LNKTYPE, b"", "/etc/passwd")]),
    "device": tar([("data.bin", tarfile.CHRTYPE, b"", "")]),
    "pipe": tar([("data.bin", tarfile.FIFOTYPE, b"", "")]),
    "folder": tar([("data.bin", tarfile.DIRTYPE, b"", "")]),
    "no_archive": b"x" * 1000,
    "empty": b"",
    "pickle": BOMB,
    "cut_tar": tar([("data.bin", FILE, os.urandom(5000), "")])[:-3000],
    "head_of_gzip": b"\x1f\x8b\x08",
    "cut_zip": zipped([("data.bin", os.urandom(5000))])[:-30],
    "bad_zip": zipped([("data.bin", os.urandom(5000))]).replace(b"data.bin", b"data.bin" + b"\xff" * 8, 1),
    "deb_of_no_size": deb(b"x"),
    "deb_that_goes_back": deb(b"-60") * 2,
    "deb_of_nothing": deb(b"0"),
}
TAKEN = {
    "slip_in_a_zip": zipped([("../../outside/data.bin", b"1")]),
    "slip_in_a_tar": tar([("../../outside/data.bin", FILE, b"1", "")]),
    "absolute_in_a_zip": zipped([("/tmp/data.bin", b"1")]),
    "absolute_in_a_tar": tar([("/etc/data.bin", FILE, b"1", "")]),
    "backslashes": zipped([("..\\..\\x/data.bin", b"1")]),
    "link_before_the_file": tar([("x", tarfile.SYMTYPE, b"", "/etc"), ("x/data.bin", FILE, b"1", "")]),
    "link_in_a_zip": zipped([("data.bin", b"1")], mode=0o120777),
    "set_uid": zipped([("data.bin", b"1")], mode=0o4777),
}


@pytest.mark.parametrize("kind", [*REFUSED, *TAKEN])
def test_an_archive(kind: str, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken goes to one name in the cache, whatever name and mode it has in the archive."""
    monkeypatch.setattr(fetch, "LARGEST", 10**6)
    package = client(tmp_path, {**REFUSED, **TAKEN}[kind], monkeypatch)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(victim)}
    if kind in REFUSED:
        with pytest.raises(DataError) as caught:
            member(package, "data.bin")
        assert shown(str(caught.value)).startswith("toy.tgz: ")
        assert [path.name for path in victim.rglob("*.bin")] == []
    else:
        path = member(package, "data.bin")
        assert path.read_bytes() == b"1"
        assert path.parent.parent == victim / "cache" / "packages"
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o7111 == 0
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(victim)} == before
