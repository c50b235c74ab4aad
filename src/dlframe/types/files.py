"""The door to files that may be somebody else's: those of a run directory are opened, and written, through no link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from dlframe.types.errors import DataError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
"""Errors of a disk after which a retry may succeed."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
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
    return _regular(descriptor, path, "rb")


def _regular(descriptor: int, path: str | Path, mode: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path}: must be a file.")
    return cast(BinaryIO, os.fdopen(descriptor, mode))


def _below(folder: Path, path: Path) -> int:
    """Open a file folder by folder, through no link: what is checked is what is opened."""
    *above, last = path.relative_to(folder).parts
    place = _folder(folder, above)
    try:
        return _step(place, last, FLAGS, path)
    finally:
        os.close(place)


def _folder(folder: Path, names: Iterable[str], *, create: bool = False) -> int:
    """Open a folder below another one through no link; the caller closes it."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        try:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=place)
            deeper = _step(place, name, FLAGS | os.O_DIRECTORY, folder / name)
        finally:
            os.close(place)
        place = deeper
    return place


def _step(place: int, name: str, flags: int, path: Path) -> int:
    """Open what a folder holds, which may be no link."""
    try:
        return os.open(name, flags | NO_LINK, 0o666, dir_fd=place)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(error.errno, "must be a file. Received: a link.", str(path)) from None
        raise type(error)(error.errno, error.strerror, str(path)) from None


@contextmanager
def replacing(path: Path, inside: Path) -> Iterator[Path]:
    """Yield the place for new content of a file, which takes its name at the end; missing folders are created.

    Args:
        path: The file.
        inside: Folder of the file, such as that of a run, below which nothing is written through a link.

    Raises:
        DataError: It cannot be written.
    """
    *above, name = path.relative_to(inside).parts
    unfinished = f".{name}.part"
    with written(path):
        place = _folder(inside, above, create=True)
        try:
            with suppress(FileNotFoundError):
                os.unlink(unfinished, dir_fd=place)  # of a process that was killed, or a link
            os.close(_step(place, unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, path))
            try:
                yield path.with_name(unfinished)
                os.replace(unfinished, name, src_dir_fd=place, dst_dir_fd=place)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished, dir_fd=place)
                raise
        finally:
            os.close(place)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Tell of an error of the system as one of a file that cannot be written; of a full disk `no_room` still knows."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def appended(path: Path, inside: Path) -> BinaryIO:
    """Open a file of a run directory to write at its end, through no link.

    Raises:
        DataError: It cannot be written, or is no file.
    """
    *above, name = path.relative_to(inside).parts
    with written(path):
        place = _folder(inside, above)
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
            descriptor = _step(place, name, flags, path)
        finally:
            os.close(place)
        return _regular(descriptor, path, "ab")


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
