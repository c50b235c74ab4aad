"""Upload pending records of runs and close interrupted ones."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlframe.config import check_registered, load_options
from dlframe.registry import Place
from dlframe.runs import journal
from dlframe.storage.known import STUDIES, is_known, runs_of, store_uri
from dlframe.storage.private import is_own
from dlframe.tracking.store import check_store, reachable
from dlframe.tracking.tracker import upload
from dlframe.tracking.upload_state import UploadState, beginning, has_pending
from dlframe.types import ConfigError, DlframeError, TrackingError, say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `sync`.

    Args:
        runs: Folder of the runs, all of which are uploaded where none is named.
        uri: A store outside of that folder to which runs may be uploaded; without it a run may name no such SQLite file.
        register: Registered model of which the model of the one RUN becomes a new version; NAME@ALIAS gives it the alias too.
    """

    runs: Place = "runs"
    uri: str = ""
    register: str = ""


def main(arguments: Sequence[str]) -> int:
    """Upload pending records of these runs, or of all, to MLflow, and close runs that were interrupted.

    Each RUN is a run directory. Nothing is uploaded twice. Exit status 1 tells that records still wait.

    Raises:
        DlframeError: There is no such run, or an option is wrong.
    """
    folders = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    options = load_options("sync", Options, [argument for argument in arguments if argument not in folders])
    uri = options.uri and store_uri(options.uri, options.runs)
    check_registered(options.register)
    if options.register and len(folders) != 1:
        raise ConfigError(f"register: requires one run directory. Received: {len(folders)}.", "register")
    return sync([Path(folder) for folder in folders], runs=Path(options.runs), uri=uri, register=options.register)


def sync(folders: Sequence[Path], *, runs: Path, uri: str = "", register: str = "") -> int:
    """Upload the pending records of runs and print a line for each.

    Args:
        folders: Run directories; empty for all in `runs`.
        runs: Directory of the runs.
        uri: Trusted store.
        register: See `upload`.

    Returns:
        Exit status: 0 if everything is uploaded, 1 if records are pending.

    Raises:
        ConfigError: A folder is not a run directory.
    """
    if not folders and not runs.is_dir():
        raise ConfigError(f"runs: must be a directory of runs. Received: {str(runs)!r}.")
    for folder in folders:
        if not (folder / journal.FILE).is_file():
            raise ConfigError(f"sync: '{folder}' is not a run directory (no {journal.FILE}). Runs are in {runs}.")
    checked: dict[str, str] = {}
    uploaded = pending = 0
    for folder in folders or _run_folders(runs):
        try:
            if register and not beginning(folder):
                raise TrackingError(f"{folder}: the run was not tracked, so that it has no model to register")
            if not register and not has_pending(folder):
                continue
            _check(folder, uri, checked, named=bool(folders))
            said = upload(folder, uri=uri, register=register)
            owed = has_pending(folder)
        except (DlframeError, OSError) as error:
            said, owed = str(error), True
        uploaded, pending = uploaded + (not owed), pending + owed
        say(_line(folder, said))
    say(f"uploaded: {_count(uploaded)}" + (f"; pending: {_count(pending)}" if pending else ""))
    return int(pending > 0)


def close_interrupted_runs(folder: Path, uri: str) -> Iterator[str]:
    """Upload and close interrupted runs of this user; yield a message for each."""
    for other in _run_folders(runs_of(folder)):
        try:
            if other == folder or not has_pending(other, aside=False) or not is_known(run=other, store=uri):
                continue
            if journal.being_written(other) or _elsewhere(other):
                continue
            if (start := beginning(other)) and start["uri"] == uri:
                yield _line(other, upload(other))
        except (DlframeError, OSError) as error:
            yield _line(other, str(error))
        except Exception as error:
            yield f"{other}: {type(error).__name__}: {error}"


def _check(folder: Path, uri: str, checked: dict[str, str], *, named: bool) -> None:
    """Raise if a run cannot be uploaded; `checked` caches errors of stores."""
    if journal.being_written(folder):
        raise TrackingError(f"{folder}: another process is writing and uploading this run")
    if not named and not is_own(folder) and not is_known(run=folder):
        raise TrackingError(f"{folder}: belongs to another user. To upload it from here, name the run")
    if not named and (host := _elsewhere(folder)):
        raise TrackingError(f"{folder}: runs or was interrupted on host {host}. To upload it from here, name the run")
    store = (beginning(folder) or {}).get("uri", "")
    check_store(folder, store, allowed=uri)
    if store not in checked:
        try:
            reachable(store)
            checked[store] = ""
        except TrackingError as error:
            checked[store] = str(error)
    if checked[store]:
        raise TrackingError(f"{folder}: {checked[store]}")


def _elsewhere(folder: Path) -> str:
    """Return the host of a possibly running run; empty for this host."""
    host = (beginning(folder) or {}).get("host")
    return str(host) if host and host != platform.node() and not journal.ended(folder) else ""


def _run_folders(runs: Path) -> list[Path]:
    """Return the folders of the studies, of which runs name theirs, and of the runs."""
    return [path.parent for pattern in (f"{STUDIES}/*/", "*/") for path in sorted(runs.glob(f"{pattern}{journal.FILE}"))]


def _line(folder: Path, said: str) -> str:
    """Return the outcome of a run in one line."""
    if said:
        return said if str(folder) in said else f"{folder}: {said}"
    state = UploadState.load(folder)
    return f"{folder}: uploaded, {state.status}" + (f"; {state.note}" if state.note else "")


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"
