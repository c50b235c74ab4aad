"""Cache of decoded arrays, which later runs map into memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dlframe.storage.fetch import locked, scratch
from dlframe.storage.private import cache, is_safe, private
from dlframe.storage.stamps import FRESH_SECONDS
from dlframe.types import DataError

T = TypeVar("T")

Arrays = dict[str, np.ndarray]
"""Arrays by name."""

Facts = dict[str, Any]
"""Metadata as JSON."""

LENGTH = 32
"""Bytes of a content's hash, SHA-256."""


def decoded(name: str, key: str, build: Callable[[Path], Facts], read: Callable[[Arrays, Facts], T]) -> T:
    """Return `read` of the cached arrays, which `build` writes once per key, for this user only.

    Args:
        name: Folder in the cache.
        key: Cache key; another key rebuilds the arrays.
        build: Function that writes `.npy` files into a folder and returns metadata.
        read: Function from the arrays, mapped copy-on-write, and the metadata. Any exception rebuilds the arrays.

    Raises:
        DataError: The disk is not writable, or `build` raises the error.
    """
    folder = cache() / "decoded" / name
    if (found := _read(folder, key, read)) is not None:
        return found
    with locked(folder):
        for place in (folder, *folder.parent.glob(f"{name}.*/")):
            if not all(map(is_safe, (folder.parent, place, *(place.iterdir() if place.is_dir() else ())))):
                shutil.rmtree(place, ignore_errors=True)  # others could have written there
        private(folder.parent)
        if (found := _read(folder, key, read)) is not None:
            return found
        if _key_of(folder) in ("", key):
            shutil.rmtree(folder, ignore_errors=True)  # damaged: `build` is to use none of it
        try:
            with scratch(folder.with_name(f"{name}.unfinished")) as unfinished:
                facts = build(unfinished)
                content = {"key": key, "facts": facts, "arrays": [f.stem for f in unfinished.glob("*.npy")]}
                (unfinished / "facts.json").write_text(json.dumps(content), encoding="utf-8")
                for file in unfinished.iterdir():
                    file.chmod(0o600)
                shutil.rmtree(folder, ignore_errors=True)
                unfinished.rename(folder)
        except OSError as error:
            raise DataError(f"{name}: cannot decode into {folder.parent}: {error}") from None
        if (found := _read(folder, key, read)) is not None:
            return found
        raise DataError(f"{folder} is damaged. Remove it and run again")


def cache_key(*options: object) -> str:
    """Return a key of options."""
    return hashlib.sha256(repr(options).encode()).hexdigest()[:16]


def _key_of(folder: Path) -> str:
    """Return the key of cached arrays; empty without one."""
    try:
        return str(json.loads((folder / "facts.json").read_text(encoding="utf-8"))["key"])
    except Exception:  # A damaged file can raise any error.
        return ""


def _read(folder: Path, key: str, read: Callable[[Arrays, Facts], T]) -> T | None:
    """Read the folder for `key`; None if missing, damaged, of another key, or writable by others."""
    if not all(map(is_safe, (folder.parent, folder, folder / "facts.json"))):
        return None
    try:
        stored = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        # Use the names in the folder: names in the metadata could lead out of it.
        files = {file.stem: file for file in folder.glob("*.npy") if is_safe(file)}
        # Copy-on-write: torch warns about read-only arrays; the file stays unchanged.
        arrays: Arrays = {name: np.lib.format.open_memmap(files[name], mode="c") for name in stored["arrays"]}
        return read(arrays, stored["facts"])
    except Exception:  # A damaged file can raise any error.
        return None


def contents(root: Path, files: Sequence[Path]) -> list[bytes]:
    """Return the hash of each file's content; a file is read again only when its stamp has changed.

    Stamps hold the time of the last change of the file itself (ctime), which a program cannot set back as it can that of the
    content (mtime). They are kept in the cache, for this user only.

    Args:
        root: Resolved folder of the files. A link out of it, a folder and a pipe are not read: the hash says what they are.
        files: The files.
    """
    kept = cache() / "contents" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.npy"
    known = _known(kept)
    marks = [_mark(file, root) for file in files]
    missing = [i for i, (mark, _) in enumerate(marks) if mark not in known]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda i: _hash(files[i], *marks[i]), missing)
        known |= {marks[i][0]: value for i, value in zip(missing, hashes, strict=True)}
    found = [known[mark] for mark, _ in marks]
    settled = time.time_ns() - FRESH_SECONDS * 1e9
    keep = {mark: value for (mark, newest), value in zip(marks, found, strict=True) if 0 < newest < settled}
    if missing and keep:
        rows = np.frombuffer(b"".join(mark + value for mark, value in keep.items()), np.uint8).reshape(len(keep), -1)
        with suppress(OSError, DataError):  # without it, the files are read again
            private(kept.parent)
            unfinished = kept.with_name(f".{kept.name}.{os.getpid()}")
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                np.save(file, rows, allow_pickle=False)
            unfinished.replace(kept)
    return found


def _known(kept: Path) -> dict[bytes, bytes]:
    """Return the hashes that were kept, by the marks of files; none if others could have written them."""
    if not (is_safe(kept.parent) and is_safe(kept)):
        return {}
    try:
        rows = np.load(kept, allow_pickle=False)
        content, size = rows.tobytes(), 2 * LENGTH
        if rows.dtype != np.uint8 or rows.shape != (len(content) // size, size):
            return {}
    except Exception:  # A damaged file can raise any error in NumPy.
        return {}
    return {content[i : i + LENGTH]: content[i + LENGTH : i + size] for i in range(0, len(content), size)}


def _mark(file: Path, root: Path) -> tuple[bytes, int]:
    """Return a hash of a file's path and stamp, and its newest time; 0 for what is not to be read."""
    path = os.fspath(file)
    newest = 0
    try:
        status = os.lstat(path)
        inside = True
        if stat.S_ISLNK(status.st_mode):
            inside = Path(path).resolve().is_relative_to(root)
            status = os.stat(path)
        times = status.st_mtime_ns, status.st_ctime_ns
        if inside and stat.S_ISREG(status.st_mode):
            newest = max(times)
        said = f"{inside} {status.st_dev} {status.st_ino} {status.st_mode} {status.st_size} {times}"
    except (OSError, RuntimeError, ValueError) as error:
        said = type(error).__name__
    return hashlib.sha256(os.fsencode(path) + b"\0" + said.encode()).digest(), newest


def _hash(file: Path, mark: bytes, newest: int) -> bytes:
    """Return the hash of a content; of what is not read its mark."""
    if not newest:
        return mark
    digest = hashlib.sha256()
    try:
        # A buffer for each, as `hashlib.file_digest` has, would cost more than a small file.
        with open(file, "rb", buffering=0) as opened:
            while piece := opened.read(2**17):
                digest.update(piece)
    except OSError:
        return mark
    return digest.digest()
