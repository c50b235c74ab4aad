"""Decoding of many image files into one array, which goes on where it was stopped."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.images import Picture, displayed_size
from dlframe.readers.listing import text_of
from dlframe.storage.private import is_safe, private
from dlframe.types import DataError, duration, say

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Number of decoding threads."""

SAVED_SECONDS = 2.0
"""Time between two saves: what a killed process decodes again."""

TOLD_SECONDS = 10.0
"""Time between two lines of progress."""

SLOT = 4096
"""Bytes per path."""

ALWAYS = 2**28
"""Bytes that decoded images may take in any case."""

GROWTH = 1000
"""Otherwise, their bytes at most, relative to the files."""


@dataclass
class Pictures:
    """Decoded files, in their order.

    Attributes:
        pixels: (files, channels, height, width) uint8, mapped; undefined where there is a fault.
        faults: Number of a file -> why it is not read.
        notes: Number of a file -> what was assumed.
    """

    pixels: np.ndarray
    faults: dict[int, str] = field(default_factory=dict)
    notes: dict[int, tuple[str, ...]] = field(default_factory=dict)


def decode_files(
    files: Sequence[Path],
    contents: Sequence[bytes],
    shape: tuple[int, int, int],
    read: Callable[[Path], Picture],
    folder: Path,
    root: Path,
    fail: Callable[[int, str], Exception] | None = None,
    earlier: Mapping[bytes, Picture] | None = None,
) -> Pictures:
    """Decode files into `folder`, where a later call finds those that this one has decoded.

    Args:
        files: Image files.
        contents: Hash of each file's content; an image is decoded again when it differs.
        shape: Channels, height and width of `read`'s pixels.
        read: Decoder of one file, called in threads.
        folder: Folder for the arrays, private to the user and locked by the caller; other options need another folder.
        root: Folder of the files.
        fail: Returns the error to raise at the first file with a fault, from its number and the fault; None to go on.
        earlier: Images that are decoded already, by the hash of their file.
    """
    work = _Work(folder, contents, shape)
    known = earlier or {}
    for i in np.flatnonzero(~work.done).tolist():
        if picture := known.get(contents[i]):
            work.add(i, picture)
            work.done[i] = True
    todo = np.flatnonzero(~work.done).tolist()
    before = len(files) - len(todo)
    pool = ThreadPoolExecutor(THREADS)
    with warnings.catch_warnings(), Reading(folder.with_suffix(".reading")) as reading:
        _silence()
        if todo:
            # With `fail`, the first file that is no image ends it.
            top = root.resolve()
            images = len(todo) if fail else sum(pool.map(lambda i: displayed_size(files[i], top) is not None, todo))
            done = f"; {before:,} {'is' if before == 1 else 'are'} decoded already" * bool(before)
            say(f"Decoding {images:,} {'image' if images == 1 else 'images'} of {root} (once){done}", error=True)
        try:
            started = told = time.monotonic()
            pictures = pool.map(reading.noted(read), [files[i] for i in todo])
            for count, (i, picture) in enumerate(zip(todo, pictures, strict=True), 1):
                if picture.pixels is None and fail:
                    raise fail(i, picture.fault)
                work.add(i, picture)
                if (now := time.monotonic()) - told > TOLD_SECONDS:
                    told, left = now, (now - started) / count * (len(todo) - count)
                    say(f"decoded {before + count:,} of {len(files):,} files; about {duration(left)} left", error=True)
        finally:
            pool.shutdown(cancel_futures=True)
            work.save()
    return work.pictures


def _silence() -> None:
    """Ignore the warnings of decoders, but for one, which becomes a fault."""
    from PIL import Image

    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def write_hashes(folder: Path, part: str, hashes: Sequence[bytes], notes: Mapping[bytes, Sequence[str]]) -> None:
    """Write, beside the images of a split, the hashes of their files and what was assumed of them, for `earlier_pictures`."""
    rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)
    np.save(folder / f"{part}-hashes.npy", rows, allow_pickle=False)
    said = {value.hex(): [*notes[value]] for value in hashes if value in notes}
    (folder / f"{part}-notes.json").write_text(json.dumps(said), encoding="utf-8")


def earlier_pictures(folder: Path, parts: Iterable[str], shape: tuple[int, int, int]) -> dict[bytes, Picture]:
    """Return the images of an earlier data set by the hashes of their files; none that others could have written."""
    found: dict[bytes, Picture] = {}
    for part in parts:
        files = [folder / f"{part}-{kind}" for kind in ("inputs.npy", "hashes.npy", "notes.json")]
        if not all(map(is_safe, (folder.parent, folder, *files))):
            continue
        try:
            images, hashes = (np.lib.format.open_memmap(file, mode="r") for file in files[:2])
            notes = json.loads(files[2].read_text(encoding="utf-8"))
            if images.shape != (len(hashes), *shape) or images.dtype != np.uint8 or hashes.dtype != np.uint8:
                continue
            for image, value in zip(images, map(np.ndarray.tobytes, hashes), strict=True):
                found[value] = Picture(image, notes=tuple(map(str, notes.get(value.hex(), ()))))
        except Exception:  # A damaged file can raise any error in NumPy.
            continue
    return found


class _Work:
    """Arrays in a folder: pixels, and of each decoded image the hash of its file's content."""

    def __init__(self, folder: Path, contents: Sequence[bytes], shape: tuple[int, int, int]) -> None:
        self.contents = contents
        self.wanted = np.frombuffer(b"".join(contents), np.uint8).reshape(len(contents), -1)
        self.said_file = folder / "said.jsonl"
        files = {folder / "pixels.npy": (len(contents), *shape), folder / "hashes.npy": self.wanted.shape}
        arrays = [_found(file, size) for file, size in files.items()]
        if not is_safe(folder) or any(array is None for array in arrays):
            shutil.rmtree(folder, ignore_errors=True)
            private(folder)
            try:
                arrays = [allocated(file, size) for file, size in files.items()]
            except OSError:  # no room: none is to be taken
                shutil.rmtree(folder, ignore_errors=True)
                raise
        pixels, self.hashes = arrays
        assert pixels is not None
        self.pictures = Pictures(pixels)
        self.done = (self.hashes == self.wanted).all(1)
        for line in _lines(self.said_file):
            i = line["file"]
            if 0 <= i < len(contents) and self.done[i] and line["content"] == contents[i].hex():
                self._note(i, line["fault"], tuple(line["notes"]))
        self.added: list[int] = []
        self.said: list[str] = []
        self.saved = time.monotonic()

    def add(self, i: int, picture: Picture) -> None:
        """Keep the picture of a file, on the disk after some seconds."""
        if picture.pixels is not None:
            self.pictures.pixels[i] = picture.pixels
        if picture.fault or picture.notes:
            self._note(i, picture.fault, picture.notes)
            said = {"file": i, "content": self.contents[i].hex(), "fault": picture.fault, "notes": picture.notes}
            self.said.append("\n" + json.dumps(said))  # after a line that may have been cut
        self.added.append(i)
        if time.monotonic() - self.saved > SAVED_SECONDS:
            self.save()

    def _note(self, i: int, fault: str, notes: tuple[str, ...]) -> None:
        if fault:
            self.pictures.faults[i] = fault
        if notes:
            self.pictures.notes[i] = notes

    def save(self) -> None:
        """Write what was added, and then that it is there: a machine may stop at any time."""
        with open(os.open(self.said_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            file.writelines(self.said)
        self.pictures.pixels.flush()  # type: ignore[attr-defined]  # a memory map
        self.hashes[self.added] = self.wanted[self.added]
        self.hashes.flush()
        self.added, self.said = [], []
        self.saved = time.monotonic()


def _found(file: Path, shape: tuple[int, ...]) -> Any:
    """Map an array that is there, of this user and shape; else None."""
    if not is_safe(file):
        return None
    try:
        array = np.lib.format.open_memmap(file, mode="r+")
    except Exception:  # A damaged file can raise any error in NumPy.
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _lines(file: Path) -> list[dict[str, Any]]:
    """Read the notes of an earlier process, whose last line may be cut."""
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if is_safe(file) else ():
        try:
            read = json.loads(line)
            kinds = (int, str, str, list)
            if all(type(read[key]) is kind for key, kind in zip(("file", "content", "fault", "notes"), kinds, strict=True)):
                found.append(read)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def allocated(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """Map a new array of bytes with allocated space; a full disk would kill the process."""
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    file.chmod(0o600)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return array


def check_room(
    folder: Path, files: Sequence[Path], shape: tuple[int, int, int], *, twice: bool = False, smaller: str = "64"
) -> None:
    """Check that decoded images fit on the disk, and are not far larger than their files: a bomb, or a mistake.

    Args:
        folder: Folder on the disk.
        files: Image files; those that are gone take no room.
        shape: Channels, height and width of the decoded images.
        twice: Whether they are stored twice for a while.
        smaller: Value of data.image_size that the error proposes.

    Raises:
        DataError: They do not fit, or are more than `GROWTH` times as large as their files.
    """
    status = [file.stat() for file in files if file.is_file()]
    stored = sum(min(s.st_size, 512 * getattr(s, "st_blocks", s.st_size)) for s in status)  # a hole takes no block
    size, free = len(files) * math.prod(shape), shutil.disk_usage(folder).free
    told = f"data.image_size: {len(files):,} images of {shape[1]} x {shape[2]} pixels take {size / 1e9:.3g} GB"
    if size * (2 if twice else 1) > free:
        more = "" if size > free else " twice while they are decoded"
        raise DataError(f"{told}{more}, of which the disk of {folder.parent} has {free / 1e9:.3g}. Try: DLFRAME_DATA=FOLDER")
    if size > max(ALWAYS, GROWTH * stored):
        raise DataError(f"{told}, more than {GROWTH} times their files ({stored / 1e6:.3g} MB). Try: data.image_size={smaller}")


class Reading:
    """Memory map of the files being read, to name them after a crash.

    Args:
        path: File of the map. An existing one means that the last process died; its files are printed on stderr.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slot = threading.local()
        self.numbers = itertools.count()

    def __enter__(self) -> Reading:
        if self.path.is_file():
            rows = self.path.read_bytes()[: THREADS * SLOT]
            files = [rows[i : i + SLOT].rstrip(b"\0") for i in range(0, len(rows), SLOT)]
            named = ", ".join(sorted({text_of(os.fsdecode(file)) for file in files if file}))
            say(f"image_folder: the last process was killed while reading {named}", error=True)
        self.map = np.memmap(self.path, np.uint8, "w+", shape=(THREADS, SLOT))
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)

    def noted(self, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        """Return `read` that records its file first."""

        def noting(file: Path) -> Any:
            if not hasattr(self.slot, "number"):
                self.slot.number = next(self.numbers) % THREADS
            self.map[self.slot.number] = np.frombuffer(os.fsencode(file)[:SLOT].ljust(SLOT, b"\0"), np.uint8)
            return read(file)

        return noting
