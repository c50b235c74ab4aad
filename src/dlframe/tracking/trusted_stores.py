"""Trusted stores: an untrusted run must not choose where data are sent."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from dlframe.types import TrackingError


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for other stores."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def in_runs(folder: Path, uri: str) -> bool:
    """Return whether a store is an SQLite file in the directory of the runs."""
    database = sqlite_file(uri)
    if database is None or "?" in uri or not database.is_absolute():
        return False
    try:
        return database.resolve().is_relative_to(folder.resolve().parent)
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL
        return False


def remember(folder: Path, uri: str) -> None:
    """Record a store as trusted, unless it is in the directory of the runs."""
    if in_runs(folder, uri) or is_trusted(uri):
        return
    with contextlib.suppress(OSError, RuntimeError):  # the home is not writable: `sync` then needs uri=
        _noted().parent.mkdir(parents=True, exist_ok=True)
        with _noted().open("a", encoding="utf-8") as file:
            file.write(f"{uri}\n")


def is_trusted(uri: str, *, allowed: str = "") -> bool:
    """Return whether this user has tracked a run in a store, or allows it now."""
    try:
        return uri == allowed or uri in _noted().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, RuntimeError):
        return False


def check_store(folder: Path, uri: str, *, allowed: str = "") -> None:
    """Raise unless a store is trusted or in the directory of the runs.

    Raises:
        TrackingError: The store is neither.
    """
    if not in_runs(folder, uri) and not is_trusted(uri, allowed=allowed):
        command = f"python -m dlframe sync {shlex.quote(str(folder))} uri={shlex.quote(uri)}"
        raise TrackingError(f"{folder}: tracking store {uri} is not trusted. If you trust it: {command}")


def _noted() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(state, "dlframe", "stores.txt")
