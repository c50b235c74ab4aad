"""Decoded once, then mapped: arrays in the cache that a later run opens without reading them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.fetch import cache, locked, scratch
from dlframe.types import DataError

Decoded = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Arrays by name, and facts that JSON can hold."""


def decoded(name: str, key: str, build: Callable[[Path], dict[str, Any]]) -> Decoded:
    """The arrays that `build` once wrote for `key`, mapped into memory copy-on-write.

    Args:
        name: Folder in the cache.
        key: What the arrays depend on; another key has them built anew.
        build: Writes `.npy` files without objects into the folder that it is given, and returns the facts.

    Raises:
        DataError: The disk cannot be written, or `build` raised it.
    """
    folder = cache() / "decoded" / name
    if found := _read(folder, key):
        return found
    with locked(folder):
        if found := _read(folder, key):
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
        if found := _read(folder, key):
            return found
        raise DataError(f"cannot read back {folder}. Remove it and run again")


def stamp(files: Iterable[Path], *options: object) -> str:
    """A key that changes with the path, the size or the time of any file, and with the options."""
    digest = hashlib.sha256(repr(options).encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _read(folder: Path, key: str) -> Decoded | None:
    """What the folder holds for `key`; None where it is absent, damaged or of another key."""
    try:
        stored = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        # Copy-on-write, for torch warns of arrays that cannot be written; the file itself never changes.
        arrays = {array: np.load(folder / f"{array}.npy", mmap_mode="c", allow_pickle=False) for array in stored["arrays"]}
        return arrays, stored["facts"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
