"""Which stores a run folder may name. It may be a stranger's, and a store is told where to write and what to send."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from dlframe.types import TrackingError


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def in_runs(folder: Path, uri: str) -> bool:
    """Whether a store is an SQLite file beside a run folder, plainly named."""
    database = sqlite_file(uri)
    if database is None or "?" in uri or not database.is_absolute():
        return False
    try:
        return database.resolve().is_relative_to(folder.resolve().parent)
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL
        return False


def remember(folder: Path, uri: str) -> None:
    """Note that a run of this user has used a store, if it is not beside the run folder."""
    if in_runs(folder, uri) or is_known(uri):
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home that can be written: `sync` asks for uri= then
        _noted().parent.mkdir(parents=True, exist_ok=True)
        with _noted().open("a", encoding="utf-8") as file:
            file.write(f"{uri}\n")


def is_known(uri: str, *, allowed: str = "") -> bool:
    """Whether this user has tracked a run in a store, or allows it now."""
    try:
        return uri == allowed or uri in _noted().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, RuntimeError):
        return False


def check_store(folder: Path, uri: str, *, allowed: str = "") -> None:
    """Refuse a store that is neither known nor beside the run folder.

    Raises:
        TrackingError: It is neither.
    """
    if not in_runs(folder, uri) and not is_known(uri, allowed=allowed):
        command = f"python -m dlframe sync {shlex.quote(str(folder))} uri={shlex.quote(uri)}"
        raise TrackingError(f"{folder}: names the store {uri}, which no run of yours has used. If you trust it: {command}")


def _noted() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(state, "dlframe", "stores.txt")
