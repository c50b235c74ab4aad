"""Stamps of files: what was read from them is kept as long as they are the same."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

FRESH_SECONDS = 2.0
"""Resolution of the times of files, of the coarsest file system (FAT): a file may change twice within one time."""

MOST = 20_000
"""Maximum number of files of which stamps are taken."""

Stamps = tuple[tuple[object, ...], ...]


def stamps(paths: Iterable[str | Path]) -> Stamps | None:
    """Return inode, size and times of files and folders, in the order of `paths`; of a missing one nothing.

    Equal stamps mean equal content.

    Returns:
        None if the stamps would not tell a further change: a file has just changed, or there are too many.
    """
    found: list[tuple[object, ...]] = []
    newest = 0
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            found.append((str(path),))
            continue
        times = status.st_mtime_ns, status.st_ctime_ns
        newest = max(newest, *times)
        found.append((str(path), status.st_dev, status.st_ino, status.st_mode, status.st_size, *times))
        if len(found) > MOST:
            return None
    return None if newest > time.time_ns() - FRESH_SECONDS * 1e9 else tuple(found)


def below(folder: Path) -> Iterator[str | Path]:
    """Yield a file, or a folder and all that it holds, in order; paths are absolute. Links to folders are not followed."""
    folder = folder.absolute()
    yield folder
    if not folder.is_dir():
        return
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted((*folders, *files)))


def extent(path: Path) -> tuple[int, int] | None:
    """Return the number and the bytes of the files below a path, or of one file; None for too many or too deep ones."""
    files = size = 0
    try:
        for count, place in enumerate(below(path)):
            if count > MOST:
                return None
            with suppress(OSError, ValueError):
                status = os.stat(place)
                if stat.S_ISREG(status.st_mode):
                    files, size = files + 1, size + status.st_size
    except RecursionError:  # of os.walk, in folders a thousand deep
        return None
    return files, size
