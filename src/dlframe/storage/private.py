"""Folders and files that nobody else can write to."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

from dlframe.types import DataError

DEFAULT = "~/.cache/dlframe"
"""Cache folder of a user."""


def cache() -> Path:
    """Return the cache folder of this user: DLFRAME_DATA where it is the user's own or new, else ~/.cache/dlframe.

    Raises:
        DataError: DLFRAME_DATA is the user's own, but others can write to it.
    """
    given = shared()
    if given and not given.exists():
        return given
    if given and (not hasattr(os, "getuid") or (status := given.stat()).st_uid == os.getuid()):
        if hasattr(os, "getuid") and status.st_mode & 0o022:
            received = f"{given}, mode {stat.S_IMODE(status.st_mode):o}"
            raise DataError(f"DLFRAME_DATA: must be writable by its owner only. Received: {received}. Try: chmod go-w {given}")
        return given
    default = Path(DEFAULT).expanduser()
    return private(default.resolve()) if default.exists() else default


def shared() -> Path | None:
    """Return DLFRAME_DATA, which may be another user's; None if not set."""
    return Path(os.environ["DLFRAME_DATA"]).expanduser() if os.environ.get("DLFRAME_DATA") else None


def made(folder: Path) -> Path:
    """Create a folder and its missing parents, for their owner only."""
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
    return folder


def private(folder: Path) -> Path:
    """Create a folder for its owner only, or withdraw the rights of others.

    Raises:
        DataError: The folder is a link, or another user's.
        OSError: It cannot be created.
    """
    status = made(folder).lstat()
    if not hasattr(os, "getuid"):
        return folder
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        received = f"of user {status.st_uid}" if stat.S_ISDIR(status.st_mode) else "a link or file"
        raise DataError(f"{folder}: must be a folder of your own. Received: {received}. Try: DLFRAME_DATA=FOLDER")
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def is_own(path: Path) -> bool:
    """Whether a file or folder belongs to this user."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def is_safe(path: Path) -> bool:
    """Whether a file or folder exists, is no link, and can be changed by this user and root only."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return False
    return not hasattr(os, "getuid") or (status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022)


def keep_kernels_private() -> None:
    """Have torch and Triton keep compiled code in the cache of this user, unless the user says where.

    To be called before torch is imported. Its own folder, /tmp/torchinductor_USER, belongs to whoever creates it first. Where
    the cache cannot be written or is not the user's own, a new folder takes its place until the process ends.
    """
    missing = {"TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton"}.items()
    for variable, name in [(variable, name) for variable, name in missing if variable not in os.environ]:
        try:
            folder = private(cache() / name).absolute()
        except (OSError, DataError):
            folder = Path(tempfile.mkdtemp(prefix="dlframe-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[variable] = str(folder)
