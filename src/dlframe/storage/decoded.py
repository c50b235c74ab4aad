"""Cache of decoded arrays, which later runs map into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dlframe.storage.fetch import locked, scratch
from dlframe.storage.private import cache, is_safe, private
from dlframe.types import DataError

T = TypeVar("T")

Arrays = dict[str, np.ndarray]
"""Arrays by name."""

Facts = dict[str, Any]
"""Metadata as JSON."""


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
        private(folder.parent)
        if (found := _read(folder, key, read)) is not None:
            return found
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


def cache_key(files: Iterable[Path], *options: object) -> str:
    """Return a key of path, size and time of each file, and of options."""
    digest = hashlib.sha256(repr(options).encode())
    for file in files:
        status = file.stat() if file.exists() else file.lstat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


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
