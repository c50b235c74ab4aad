"""Journal of a run: metrics and events as JSON lines."""

from __future__ import annotations

import json
import math
import os
import stat
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlframe.types import NO_ROOM, ConfigError, DataError, opened, say, written
from dlframe.types.files import NO_LINK

try:
    import fcntl
except ImportError:  # Windows: running and killed runs are indistinguishable
    fcntl = None

FILE = "journal.jsonl"
LARGEST, LONGEST = 2**31, 2**22
"""Bytes of a journal, and of a line, that are read."""
LOCK_SECONDS = 1.0
"""Time that a new journal waits for the lock, which `being_written` holds briefly."""


def _plain(value: Any) -> Any:
    """Return a NumPy or torch scalar as a number, other objects as text."""
    return value.item() if hasattr(value, "item") else str(value)


ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain)


class Journal:
    """Writer of the journal in a run directory; a line takes a few microseconds.

    A line is one `write` in append mode: a kill leaves whole lines and at most one truncated last line, which `read` skips
    and the next `Journal` ends. While the disk is full, lines wait in memory.

    Raises:
        ConfigError: Another process is writing this journal.
        DataError: It cannot be written, or is no file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE
        with written(self.path):
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINK, 0o644)
            if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
                os.close(self.descriptor)
                raise OSError("must be a file")
        self._release = weakref.finalize(self, os.close, self.descriptor)
        self._waiting = bytearray()
        self._warned = False
        if not _lock(self.descriptor):
            self._let_go()
            raise ConfigError(f"{folder}: another process is writing this run. Wait for it, or stop it.")
        OPEN.add(self)
        self.found = size = self.size
        """Bytes that were there."""
        os.lseek(self.descriptor, max(0, size - 1), os.SEEK_SET)
        if size and os.read(self.descriptor, 1) != b"\n":
            self._append(b"\n")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return os.fstat(self.descriptor).st_size

    def write(self, kind: str, **fields: Any) -> None:
        """Append a record: its kind, its time (ms since the epoch) and its fields.

        NaN and infinities, which JSON lacks, become the strings "nan", "inf" and "-inf"; paths become text.
        """
        record = {"kind": kind, "time": time.time_ns() // 1_000_000, **fields}
        try:
            text = ENCODER.encode(record)
        except ValueError:
            text = ENCODER.encode(_finite(record))
        self._append(text.encode("utf-8", "surrogatepass") + b"\n")

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append the values of metrics at an optimizer step."""
        self.write("metrics", step=step, values=values)

    def sync(self) -> bool:
        """Sync all records to disk; return whether all are written."""
        self._append(b"")
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            if error.errno in NO_ROOM:
                return False
        return not self._waiting

    def close(self) -> str:
        """Write waiting lines and release the lock; a second call does nothing.

        Returns:
            Empty, or a message about lost records.
        """
        if not self._release.alive:
            return ""
        self._append(b"")
        self._let_go()
        lost = self._waiting.count(b"\n")
        records = "1 record is" if lost == 1 else f"{lost} records are"
        return f"{self.path}: the disk is full: the last {records} lost" if lost else ""

    def _let_go(self) -> None:
        OPEN.discard(self)
        self._release()
        self.descriptor = -1  # a write could reach another file with this number

    def _append(self, line: bytes) -> None:
        if not self._waiting:
            line = line[self._written(line) :]
        self._waiting += line
        while self._waiting and (written := self._written(self._waiting)):
            del self._waiting[:written]

    def _written(self, data: bytes | bytearray) -> int:
        """Write data and return the number of written bytes."""
        try:
            return os.write(self.descriptor, data)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if not self._warned:
                self._warned = True
                room = "the journal continues in memory until there is space"
                say(f"warning: {self.path}: {error.strerror}; {room}", error=True)
            return 0


OPEN: weakref.WeakSet[Journal] = weakref.WeakSet()


def _let_go_of_all() -> None:
    """Release locks in a forked process, which would outlive its parent's."""
    for journal in list(OPEN):
        journal._let_go()


if fcntl:
    os.register_at_fork(after_in_child=_let_go_of_all)


def _lock(descriptor: int) -> bool:
    """Take the lock; return False if another process holds it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while fcntl:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        except OSError:
            break
        else:
            break
    return True


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all complete records of a journal; empty without a journal."""
    return [record for record, _ in follow(folder)]


def history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return each metric's (step, value) in the order of steps, each step once.

    A resumed run repeats the steps after its last checkpoint: the last value counts.
    """
    curves: dict[str, dict[int, float]] = {}
    for record in read(folder):
        if record["kind"] == "metrics":
            for name, value in record["values"].items():
                curves.setdefault(name, {})[record["step"]] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def ended(folder: Path) -> str:
    """Return the status FINISHED, FAILED or KILLED; empty without an end."""
    status = ""
    for record in read(folder):
        if record["kind"] in ("start", "end"):
            status = str(record.get("status", "")) if record["kind"] == "end" else ""
    return status


def follow(folder: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield complete records from `offset` on, with that of the next one. A line that is too long ends the journal.

    Raises:
        DataError: The journal is a link, a pipe, a device, or too large, or cannot be read.
    """
    path = Path(folder) / FILE
    try:
        file = opened(path, inside=Path(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    with file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise DataError(f"{path}: must have at most {LARGEST:,} bytes.")
        file.seek(offset)
        while (line := file.readline(LONGEST)).endswith(b"\n"):
            offset += len(line)
            if record := _record(line):
                yield record, offset


def being_written(folder: Path) -> bool:
    """Return whether another process is writing the journal."""
    if not fcntl:
        return False
    try:
        with opened(Path(folder) / FILE, inside=Path(folder)) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if truncated, damaged or invalid."""
    try:
        record = json.loads(line)
        if not isinstance(record["kind"], str) or not _is_whole(record["time"]):
            return None
        if record["kind"] == "metrics":
            record["values"] = {name: float(value) for name, value in record["values"].items()}
            return record if _is_whole(record["step"]) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return record


def _is_whole(value: Any) -> bool:
    """Return whether a value is a 64-bit integer, as a tracking store requires."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
