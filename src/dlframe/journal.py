"""The journal of a run: metrics and events, one JSON object a line, on disk before anything is sent anywhere."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: a run that goes on cannot be told from one that was killed
    fcntl = None

FILE = "journal.jsonl"


def _plain(value: Any) -> Any:
    """A NumPy or torch scalar as a number, anything else as its text."""
    return value.item() if hasattr(value, "item") else str(value)


ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain)


class Journal:
    """Appends to the journal of a run folder; costs a few microseconds a line.

    A line is one `write` on a descriptor in append mode, so a kill at any time leaves whole lines, and at worst a torn
    last one, which `read` skips and the next `Journal` ends.

    Raises:
        OSError: The folder is missing, cannot be written or is full.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self.close = weakref.finalize(self, os.close, self.descriptor)
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        size = os.fstat(self.descriptor).st_size
        os.lseek(self.descriptor, max(0, size - 1), os.SEEK_SET)
        if size and os.read(self.descriptor, 1) != b"\n":
            os.write(self.descriptor, b"\n")

    def write(self, kind: str, **fields: Any) -> None:
        """Append a record: its kind, its time (ms since the epoch) and its fields.

        NaN and the infinities, which JSON lacks, become the strings "nan", "inf" and "-inf"; a path its text.
        """
        record = {"kind": kind, "time": time.time_ns() // 1_000_000, **fields}
        try:
            text = ENCODER.encode(record)
        except ValueError:
            text = ENCODER.encode(_finite(record))
        line = text.encode("utf-8", "surrogatepass") + b"\n"
        if os.write(self.descriptor, line) != len(line):
            raise OSError(f"{self.path}: the disk is full")

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append the values that metrics have at an optimizer step."""
        self.write("metrics", step=step, values=values)


def read(folder: Path) -> list[dict[str, Any]]:
    """Every whole record of a run folder's journal, in order; none where there is no journal."""
    return [record for record, _ in follow(folder)]


def follow(folder: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole records from byte `offset` on, each with the offset at which the next one starts."""
    try:
        file = (Path(folder) / FILE).open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "kind" in record:
                if record["kind"] == "metrics":
                    record["values"] = {name: float(value) for name, value in record["values"].items()}
                yield record, offset


def being_written(folder: Path) -> bool:
    """Whether a living process has the folder's journal open for writing."""
    if not fcntl:
        return False
    try:
        with (Path(folder) / FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
