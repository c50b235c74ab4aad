"""Decoded once, then mapped: arrays in the cache that a later run opens without reading them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dlframe.storage.fetch import cache, locked, scratch
from dlframe.types import DataError

T = TypeVar("T")

Arrays = dict[str, np.ndarray]
"""Arrays by name."""

Facts = dict[str, Any]
"""What JSON can hold."""


def decoded(name: str, key: str, build: Callable[[Path], Facts], read: Callable[[Arrays, Facts], T]) -> T:
    """What `read` makes of the arrays that `build` once wrote for `key`, mapped into memory copy-on-write.

    Args:
        name: Folder in the cache.
        key: What the arrays depend on; another key has them built anew.
        build: Writes `.npy` files without objects into the folder that it is given, and returns the facts.
        read: Raises any exception where the arrays or the facts are not as `build` leaves them: they are then built anew.

    Raises:
        DataError: The disk cannot be written, or `build` raised it.
    """
    folder = cache() / "decoded" / name
    if (found := _read(folder, key, read)) is not None:
        return found
    with locked(folder):
        if (found := _read(folder, key, read)) is not None:
            return found
        try:
            with scratch(folder.with_name(f"{name}.unfinished")) as unfinished:
                facts = build(unfinished)
                content = {"key": key, "facts": facts, "arrays": [f.stem for f in unfinished.glob("*.npy")]}
                (unfinished / "facts.json").write_text(json.dumps(content), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                unfinished.rename(folder)
        except OSError as error:
            raise DataError(f"{name} could not be decoded into {folder.parent}: {error}") from None
        if (found := _read(folder, key, read)) is not None:
            return found
        raise DataError(f"cannot read back {folder}. Remove it and run again")


def cache_key(files: Iterable[Path], *options: object) -> str:
    """A key that changes with the path, the size or the time of any file, and with the options."""
    digest = hashlib.sha256(repr(options).encode())
    for file in files:
        status = file.stat() if file.exists() else file.lstat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _read(folder: Path, key: str, read: Callable[[Arrays, Facts], T]) -> T | None:
    """What the folder holds for `key`; None where it is absent, damaged or of another key."""
    try:
        stored = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        # By the names in the folder: those in the facts could lead out of it.
        files = {file.stem: file for file in folder.glob("*.npy") if file.is_file() and not file.is_symlink()}
        # Copy-on-write, for torch warns of arrays that cannot be written; the file itself never changes.
        arrays: Arrays = {name: np.lib.format.open_memmap(files[name], mode="c") for name in stored["arrays"]}
        return read(arrays, stored["facts"])
    except Exception:  # Whatever a damaged file makes of the readers.
        return None
