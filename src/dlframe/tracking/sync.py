"""Delivers what MLflow has missed, and closes what died."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlframe.runs import journal
from dlframe.tracking.position import Position, beginning, owes
from dlframe.tracking.store import reachable
from dlframe.tracking.tracker import deliver
from dlframe.tracking.trust import check_store
from dlframe.types import ConfigError, TrackingError

UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), "?")
"""What a stranger's folder could make a terminal do."""


def sync(folders: Sequence[Path], *, runs: Path, uri: str = "") -> int:
    """Deliver what MLflow has not got of some runs, a line for each that it lacked something of.

    Args:
        folders: Run folders; none for all of them.
        runs: The folder that holds them all.
        uri: A store that may be written to wherever it is.

    Returns:
        An exit status: 0 if MLflow has everything now, 1 if something waits.

    Raises:
        ConfigError: There is no such run.
    """
    if not folders and not runs.is_dir():
        raise ConfigError(f"runs: must be a folder of runs. Received: {str(runs)!r}.")
    for folder in folders:
        if not (folder / journal.FILE).is_file():
            raise ConfigError(f"sync: {folder} is no run: it has no {journal.FILE}. Runs are in {runs}.")
    silent: dict[str, str] = {}
    delivered = waiting = 0
    for folder in folders or _run_folders(runs):
        try:
            if not owes(folder):
                continue
            _check(folder, uri, silent, named=bool(folders))
            said = deliver(folder, uri=uri)
            owed = owes(folder)
        except (TrackingError, OSError) as error:
            said, owed = str(error), True
        delivered, waiting = delivered + (not owed), waiting + owed
        print(_line(folder, said).translate(UNPRINTABLE), flush=True)
    print(f"delivered: {_count(delivered)}" + (f"; still waiting: {_count(waiting)}" if waiting else ""))
    return int(waiting > 0)


def close_dead(folder: Path, uri: str) -> Iterator[str]:
    """Deliver what the dead runs beside a run owe the same store, and close them as KILLED; a sentence for each."""
    for other in _run_folders(folder.parent):
        try:
            if other == folder or not owes(other) or journal.being_written(other) or _elsewhere(other):
                continue
            if (start := beginning(other)) and start["uri"] == uri:
                yield _line(other, deliver(other, uri=uri))
        except Exception as error:
            yield f"{other}: {type(error).__name__}: {error}"


def _check(folder: Path, uri: str, silent: dict[str, str], *, named: bool) -> None:
    """Tell why a run had better be left alone; `silent` holds what is known of its store."""
    if journal.being_written(folder):
        raise TrackingError(f"{folder}: another process is writing this run, and delivers it")
    if not named and (host := _elsewhere(folder)):
        raise TrackingError(f"{folder}: runs on {host}, or died there. To deliver it from here: name it")
    store = (beginning(folder) or {}).get("uri", "")
    check_store(folder, store, allowed=uri)
    if store not in silent:
        try:
            reachable(store)
            silent[store] = ""
        except TrackingError as error:
            silent[store] = str(error)
    if silent[store]:
        raise TrackingError(f"{folder}: {silent[store]}")


def _elsewhere(folder: Path) -> str:
    """The other machine on which a run goes on, for all that can be told from here."""
    host = (beginning(folder) or {}).get("host")
    return str(host) if host and host != platform.node() and not journal.ended(folder) else ""


def _run_folders(runs: Path) -> list[Path]:
    return sorted(path.parent for path in runs.glob(f"*/{journal.FILE}"))


def _line(folder: Path, said: str) -> str:
    """What became of a run, in one line."""
    if said:
        return said if str(folder) in said else f"{folder}: {said}"
    return f"{folder}: delivered, {Position.load(folder).status}"


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"
