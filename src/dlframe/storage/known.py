"""What this user has typed or started: stores, folders of runs, runs. What a file or a server says is not trusted without it.

known.jsonl has one JSON object a line, such as {"run": "/home/me/runs/cnn-digits-1"}, in a folder of the user's own:

    store         a tracking store that was typed on the command line
    runs          a folder of runs that was typed, or in which a run was started
    run           the folder of a run that was started or, by its name, continued
    run, store    where that run is tracked
    study         the folder of a study that was begun: runs/sweeps/NAME
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from urllib.parse import unquote

STUDIES = "sweeps"
"""Folder of the studies in a folder of runs."""
LARGEST = 2**26
"""Bytes of the list, of some 500,000 runs, that are read."""


def remember(**entry: str | Path) -> str:
    """Add an entry to the list, unless it is there.

    Returns:
        Empty, or why the list cannot be written.
    """
    line = _line(entry)
    try:
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)
        descriptor = _open(os.O_RDWR | os.O_APPEND | os.O_CREAT)
    except (OSError, RuntimeError, ValueError) as error:
        return f"{error}"
    with open(descriptor, "r+b", buffering=0) as file:
        try:
            content = file.read(min(LARGEST, os.fstat(descriptor).st_size))
            if line in content.split(b"\n"):
                return ""
            file.write(b"\n" * (not content.endswith(b"\n") and content != b"") + line + b"\n")
            os.fsync(descriptor)
        except OSError as error:
            return f"{error}"
    return ""


def is_known(**entry: str | Path) -> bool:
    """Return whether an entry is in the list; False where others could have written it."""
    try:
        with open(_open(os.O_RDONLY), "rb") as file:
            return _line(entry) in file.read(min(LARGEST, os.fstat(file.fileno()).st_size)).split(b"\n")
    except (OSError, RuntimeError, ValueError):
        return False


def runs_of(folder: Path) -> Path:
    """Return the folder of the runs in which a run is, or a study of this user, which is one folder deeper."""
    is_study = folder.absolute().parent.name == STUDIES and is_known(study=folder.resolve())
    return folder.parent.parent if is_study else folder.parent


def store_uri(uri: str, runs: str | Path = "runs") -> str:
    """Return the URI that will be opened: "sqlite" is a file in `runs`, and the path of a file has no links and no "..".

    What names no plain path, such as `sqlite:///file:x?uri=true`, stays as it is.
    """
    database = Path(runs, "mlflow.db") if uri in ("", "sqlite") else sqlite_file(uri)
    try:
        return sqlite_uri(database.resolve()) if database else uri
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL
        return uri


def stored_uri(uri: str, runs: Path) -> str:
    """Return a store as a run keeps it: "sqlite" for the file in its folder of runs, which may be renamed or copied."""
    return "sqlite" if uri == store_uri("sqlite", runs) else uri


def sqlite_uri(path: Path) -> str:
    """Return the URI under which SQLAlchemy opens this file: it decodes %XX, and ends a path at a question mark."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def sqlite_file(uri: str) -> Path | None:
    """Return the file that SQLAlchemy opens for a URI; None for other stores, and for addresses that are more than a path."""
    path = unquote(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or "?" in uri or not path or path.startswith((":", "file:")):
        return None
    return Path(path)


def _line(entry: dict[str, str | Path]) -> bytes:
    """Return an entry as it is written: the one form of it, ASCII, so that no character in it ends a line."""
    values = {key: str(Path(value).resolve()) if key in ("run", "runs") else str(value) for key, value in entry.items()}
    return json.dumps(values, sort_keys=True, ensure_ascii=True).encode("ascii")


def _folder() -> Path:
    """Return the folder of the list. A relative XDG_STATE_HOME, which would depend on where one stands, does not count."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "-")
    return (state if state.is_absolute() else Path("~/.local/state").expanduser()) / "dlframe"


def _open(flags: int) -> int:
    """Open the list; OSError if it, or its folder, is of another user or can be written by others."""
    folder = os.open(_folder(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = os.open("known.jsonl", flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
        places = os.fstat(folder), os.fstat(descriptor)
    finally:
        os.close(folder)
    if not stat.S_ISREG(places[1].st_mode) or any(p.st_uid != os.getuid() or p.st_mode & 0o022 for p in places):
        os.close(descriptor)
        raise PermissionError(f"{_folder() / 'known.jsonl'}: must be a file of this user that others cannot write")
    return descriptor
