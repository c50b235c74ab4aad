"""Start and stop of a run's upload process."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from dlframe.runs import journal
from dlframe.runs.environment import python
from dlframe.storage.known import remember, runs_of
from dlframe.tracking.store import check_store, quiet
from dlframe.tracking.upload_state import LOCK, LOG, UploadState, beginning, has_pending, pending_message
from dlframe.types import TrackingError, appended, command_line, say

LONGEST = 512
"""Bytes of a folder's name that is written to a pipe at once, by POSIX's rule."""


class Tracker:
    """Upload process of a run, and of further ones of this process; may outlive them to close them.

    Args:
        folder: Run directory.
        process: Its upload process.
        store: URI of its store.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], store: str = "") -> None:
        self.folders = [folder]
        self.process = process
        self.store = store

    @classmethod
    def start(cls, folder: Path, *, running: Sequence[Tracker] = ()) -> Tracker:
        """Start the upload process, after writing the journal's "start".

        Args:
            folder: Run directory.
            running: Trackers of earlier runs of this process. The last one takes this run too, if it still can: a process
                takes seconds and some hundred megabytes for MLflow alone.
        """
        store = ""
        if start := beginning(folder):
            store = start["uri"]
            remember(run=folder, store=store)
            remember(runs=runs_of(folder.resolve()))
        if running and running[-1]._takes(folder, store):
            return running[-1]
        with appended(folder / LOG, folder) as log:
            process = subprocess.Popen(
                python("-m", "dlframe.tracking", str(folder)),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=quiet(os.environ),
            )
        return cls(folder, process, store)

    def _takes(self, folder: Path, store: str) -> bool:
        """Name a further run to the upload process; return whether it will be uploaded."""
        line = os.fsencode(folder) + b"\n"
        if store != self.store or line.count(b"\n") > 1 or len(line) > LONGEST or not self.process.stdin:
            return False
        try:
            if self.process.poll() is not None or os.write(self.process.stdin.fileno(), line) < len(line):
                return False
        except (OSError, ValueError):  # it has been killed, or has been told to end
            return False
        self.folders.append(folder)
        return True

    def wait(self, timeout_seconds: float = 30) -> str:
        """Signal the end of the runs and wait until everything is uploaded.

        Returns:
            Empty, or a message about pending records; the upload process may then still retry.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            if self._finish(deadline) < 0:  # the upload process was killed: another one continues
                again = Tracker.start(self.folders[0])
                for folder in self.folders[1:]:
                    again._takes(folder, again.store)
                again._finish(deadline)
        except subprocess.TimeoutExpired:
            pass
        say(*sorted({note for folder in self.folders if (note := _state(folder).note)}), error=True)
        told = [message for folder in self.folders if (message := _pending(folder))]
        if len(told) < 2:
            return "".join(told)
        runs = runs_of(self.folders[0])
        command = command_line("sync", *([f"runs={runs}"] if str(runs) != "runs" else []))
        return f"{len(told)} runs in {runs} not uploaded to MLflow yet. Upload: {command}"

    def _finish(self, deadline: float) -> int:
        if self.process.stdin:
            self.process.stdin.close()
        return self.process.wait(max(0, deadline - time.monotonic()))


def _state(folder: Path) -> UploadState:
    try:
        return UploadState.load(folder)
    except (TrackingError, OSError):  # `_pending` tells it
        return UploadState()


def _pending(folder: Path) -> str:
    try:
        return pending_message(folder)
    except TrackingError as error:
        return str(error)


def lock(folder: Path) -> FileLock:
    """Return the lock of the process that uploads a run."""
    return FileLock(folder / LOCK)


def upload(folder: Path, *, uri: str = "", register: str = "") -> str:
    """Upload the pending records of a run; close an interrupted run as KILLED.

    Args:
        folder: Run directory; may be untrusted.
        uri: Trusted store.
        register: Registered model of which the run's model becomes a version: NAME, or NAME@ALIAS.

    Returns:
        Empty, or a message about pending records.

    Raises:
        TrackingError: The folder holds no run, its `tracking.json` is damaged, its store is not trusted, or a file of the
            folder cannot be opened.
    """
    if not (folder / journal.FILE).exists():
        raise TrackingError(f"'{folder}' is not a run directory (no {journal.FILE})")
    start = beginning(folder)
    if not start or not (register or has_pending(folder)):
        return pending_message(folder)
    check_store(folder, start["uri"], allowed=uri)
    os.environ.update(quiet(os.environ))
    from dlframe.tracking.uploader import Uploader

    try:
        with lock(folder).acquire(timeout=0):
            uploader = Uploader(folder)
            uploader.try_upload(close=not journal.being_written(folder))
            if register:
                uploader.register(register)
            uploader.try_files(again=True)
    except Timeout:
        return f"{folder}: another process is uploading this run"
    except OSError as error:
        raise TrackingError(f"{folder}: cannot be uploaded: {error.strerror or error}: {error.filename}") from None
    return pending_message(folder, uploader.state)
