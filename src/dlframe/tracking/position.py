"""How far the delivery of a run's journal has come."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from dlframe.runs import journal
from dlframe.types import TrackingError

FILE = "tracking.json"


@dataclass
class Position:
    """What is kept in `tracking.json` of a run folder.

    Attributes:
        uri: The store that the rest is about.
        key: Tag that finds the run again where a writer died between making it and noting its `run_id`.
        experiment_id: MLflow's.
        run_id: MLflow's.
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED; empty before the run exists.
        offset: Bytes of the journal that are delivered.
        time: When the last delivered record was written, in ms since the epoch.
        refused: Records that MLflow will never take; `reason` is the last one's.
        error: Why the last attempt failed; empty once one succeeds.
    """

    uri: str = ""
    key: str = ""
    experiment_id: str = ""
    run_id: str = ""
    status: str = ""
    offset: int = 0
    time: int = 0
    refused: int = 0
    reason: str = ""
    error: str = ""

    @classmethod
    def load(cls, folder: Path) -> Position:
        """The position of a run folder, at the journal's start where nothing is delivered yet.

        Raises:
            TrackingError: The file is damaged.
        """
        path = folder / FILE
        try:
            position = cls(**json.loads(path.read_text(encoding="utf-8")))
            if position.is_sound():
                return position
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError, RecursionError):
            pass
        raise TrackingError(f"{path} is damaged. Remove it to deliver the whole run again, as a new one")

    def is_sound(self) -> bool:
        """Whether every value is of its kind. The key becomes part of a query."""
        kinds = all(type(value) is type(default) for value, default in zip(astuple(self), astuple(Position()), strict=True))
        return kinds and 0 <= self.offset < 2**63 and re.fullmatch("[0-9a-f]*", self.key) is not None

    def save(self, folder: Path) -> None:
        """Replace the file in one step."""
        path = folder / FILE
        temporary = path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def beginning(folder: Path) -> dict[str, Any] | None:
    """The journal's last "start" that names a store; None for a run that is not tracked."""
    starts = [record for record, _ in journal.follow(folder) if record["kind"] == "start" and store_of(record)]
    return starts[-1] if starts else None


def store_of(start: dict[str, Any]) -> str:
    """The store that a "start" names; empty for none."""
    uri = start.get("uri")
    return uri if isinstance(uri, str) else ""


def owes(folder: Path) -> bool:
    """Whether MLflow has not got everything of a run, its end included. Of a run that is delivered, no journal is read."""
    position = Position.load(folder)
    open_end = position.status in ("", "RUNNING") or bool(position.error)
    if not open_end and position.offset == (folder / journal.FILE).stat().st_size:
        return False
    first = next(journal.follow(folder), None)
    if not position.uri and not (first and store_of(first[0])):
        return False
    return open_end or next(journal.follow(folder, position.offset), None) is not None


def outstanding(folder: Path, position: Position | None = None) -> str:
    """One sentence about what MLflow has not got of a run; empty if it has everything.

    Args:
        folder: The run folder.
        position: How far delivery has come, where that could not be noted in the folder.
    """
    position = position or Position.load(folder)
    if not beginning(folder):
        return ""
    waiting = sum(1 for _ in journal.follow(folder, position.offset))
    why = f" ({position.error})" if position.error else ""
    if waiting or position.error:
        records = "1 record waits" if waiting == 1 else f"{waiting} records wait"
        command = f"python -m dlframe sync {shlex.quote(str(folder))}"
        return f"MLflow did not take everything yet: {records} in {folder / journal.FILE}{why}. Deliver: {command}"
    if position.refused:
        records = "1 record" if position.refused == 1 else f"{position.refused} records"
        return f"MLflow refused {records} of {folder / journal.FILE}: {position.reason}"
    return ""
