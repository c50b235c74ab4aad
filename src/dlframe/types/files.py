"""Reading of files that may be somebody else's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
"""Errors of a disk after which a retry may succeed."""
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def opened(path: str | Path, inside: Path | None = None) -> BinaryIO:
    """Open a regular file; a pipe, which would block, and a device are refused.

    Args:
        path: The file.
        inside: Folder of the file, such as that of a run, below which links are refused too: they could lead out of it.

    Raises:
        OSError: There is no such file.
    """
    descriptor = _below(Path(inside), Path(path)) if inside else os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path}: must be a file.")
    return os.fdopen(descriptor, "rb")


def _below(folder: Path, path: Path) -> int:
    """Open a file folder by folder, through no link: what is checked is what is opened."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    *above, last = path.relative_to(folder).parts
    for part in (*above, last):
        kind = 0 if part is last else os.O_DIRECTORY
        try:
            deeper = os.open(part, FLAGS | os.O_NOFOLLOW | kind, dir_fd=place)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise OSError(error.errno, "must be a file. Received: a link.", str(path)) from None
            raise type(error)(error.errno, error.strerror, str(path)) from None
        finally:
            os.close(place)
        place = deeper
    return place


def read_bytes(path: str | Path, limit: int, inside: Path | None = None) -> bytes:
    """Read a file of at most `limit` bytes, see `opened`.

    Raises:
        OSError: There is no such file, or it is larger.
    """
    with opened(path, inside) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path}: must have at most {limit:,} bytes.")
    return content


def read_text(path: str | Path, limit: int, inside: Path | None = None, errors: str = "strict") -> str:
    """Read a file in UTF-8, see `read_bytes`.

    Raises:
        OSError: There is no such file, or it is larger.
        UnicodeDecodeError: It is not UTF-8, and `errors` is "strict".
    """
    return read_bytes(path, limit, inside).decode("utf-8", errors)


def no_room(error: BaseException | None) -> str:
    """Return what the system says where a full disk is an error, or what led to it; else nothing."""
    while error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return os.strerror(error.errno)
        error = error.__cause__ or error.__context__
    return ""
