"""Start and stop of a run's upload process."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from filelock import FileLock, Timeout

from dlframe.runs import journal
from dlframe.runs.environment import python
from dlframe.storage.known import remember
from dlframe.tracking.store import QUIET, check_store
from dlframe.tracking.upload_state import LOCK, LOG, beginning, has_pending, pending_message
from dlframe.types import TrackingError


class Tracker:
    """Upload process of a run; may outlive the run to close it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    @classmethod
    def start(cls, folder: Path) -> Tracker:
        """Start the upload process, after writing the journal's "start"."""
        if start := beginning(folder):
            remember(run=folder, store=start["uri"])
            remember(runs=folder.resolve().parent)
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                python("-m", "dlframe.tracking", str(folder)),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **QUIET},
            )
        return cls(folder, process)

    def wait(self, timeout_seconds: float = 30) -> str:
        """Signal the end of the run and wait until everything is uploaded.

        Returns:
            Empty, or a message about pending records; the upload process may then still retry.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            if self._finish(deadline) < 0:
                Tracker.start(self.folder)._finish(deadline)  # the upload process was killed: another one continues
        except subprocess.TimeoutExpired:
            pass
        try:
            return pending_message(self.folder)
        except TrackingError as error:
            return str(error)

    def _finish(self, deadline: float) -> int:
        if self.process.stdin:
            self.process.stdin.close()
        return self.process.wait(max(0, deadline - time.monotonic()))


def lock(folder: Path) -> FileLock:
    """Return the lock of the process that uploads a run."""
    return FileLock(folder / LOCK)


def upload(folder: Path, *, uri: str = "") -> str:
    """Upload the pending records of a run; close an interrupted run as KILLED.

    Args:
        folder: Run directory; may be untrusted.
        uri: Trusted store.

    Returns:
        Empty, or a message about pending records.

    Raises:
        TrackingError: The folder holds no run, its `tracking.json` is damaged, or its store is not trusted.
    """
    if not (folder / journal.FILE).exists():
        raise TrackingError(f"'{folder}' is not a run directory (no {journal.FILE})")
    start = beginning(folder)
    if not start or not has_pending(folder):
        return pending_message(folder)
    check_store(folder, start["uri"], allowed=uri)
    os.environ.update(QUIET)
    from dlframe.tracking.uploader import Uploader

    try:
        with lock(folder).acquire(timeout=0):
            uploader = Uploader(folder)
            uploader.try_upload(close=not journal.being_written(folder))
    except Timeout:
        return f"{folder}: another process is uploading this run"
    return pending_message(folder, uploader.state)
