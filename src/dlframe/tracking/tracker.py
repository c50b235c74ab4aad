"""Starts the writer process of a run and waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from dlframe.runs import journal
from dlframe.tracking.position import beginning, outstanding, owes
from dlframe.tracking.store import QUIET
from dlframe.tracking.trust import check_store, is_known, remember
from dlframe.types import TrackingError


class Tracker:
    """The writer process of a run. It outlives this one, if need be, to deliver what is left and to close the run."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    @classmethod
    def start(cls, folder: Path) -> Tracker:
        """Start the writer of a run folder: best before torch is imported, with the journal's "start" written."""
        if start := beginning(folder):
            remember(folder, start["uri"])
        with (folder / "tracking.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dlframe.tracking", str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **QUIET},
            )
        return cls(folder, process)

    def wait(self, timeout_seconds: float = 30) -> str:
        """Tell the writer that the run has ended and wait until everything is delivered.

        Returns:
            Nothing, or one sentence about what MLflow has not got. The writer may still be trying then.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            if self._finish(deadline) < 0:
                Tracker.start(self.folder)._finish(deadline)  # somebody killed the writer: another goes on
        except subprocess.TimeoutExpired:
            pass
        try:
            return outstanding(self.folder)
        except TrackingError as error:
            return str(error)

    def _finish(self, deadline: float) -> int:
        if self.process.stdin:
            self.process.stdin.close()
        return self.process.wait(max(0, deadline - time.monotonic()))


def lock(folder: Path) -> FileLock:
    """Held by the one process that delivers a run."""
    return FileLock(folder / ".tracking.lock")


def deliver(folder: Path, *, uri: str = "") -> str:
    """Send what MLflow has not got of a run, and close it as KILLED if it died.

    Args:
        folder: The run folder, perhaps a stranger's.
        uri: A store that may be written to wherever it is.

    Returns:
        Nothing, or one sentence about what MLflow still has not got.

    Raises:
        TrackingError: There is no run in the folder, its `tracking.json` is damaged, or it names a store of a stranger.
    """
    if not (folder / journal.FILE).exists():
        raise TrackingError(f"{folder} holds no run: there is no {journal.FILE} in it")
    start = beginning(folder)
    if not start or not owes(folder):
        return outstanding(folder)
    check_store(folder, start["uri"], allowed=uri)
    os.environ.update(QUIET)
    from dlframe.tracking.delivery import Delivery

    try:
        with lock(folder).acquire(timeout=0):
            delivery = Delivery(folder, confined=not is_known(start["uri"], allowed=uri))
            delivery.attempt(close=not journal.being_written(folder))
    except Timeout:
        return f"{folder}: another process is delivering this run"
    return outstanding(folder, delivery.position)
