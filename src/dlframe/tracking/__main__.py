"""Upload process: `python -m dlframe.tracking RUN`, with a pipe as stdin, which names further runs, one a line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from filelock import Timeout

from dlframe.runs.environment import leave_current_folder
from dlframe.tracking.store import QUIET
from dlframe.tracking.sync import close_interrupted_runs
from dlframe.tracking.tracker import lock
from dlframe.tracking.upload_state import beginning
from dlframe.types import DlframeError, say

if TYPE_CHECKING:
    from dlframe.tracking.uploader import Uploader

INTERVAL_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 15.0
PATIENCE_SECONDS = 20.0
"""Time for retries after the run has ended."""
SWEEP_SECONDS = 5.0
"""Time for closing other runs after that."""


def follow(folder: Path) -> bool:
    """Upload records every second until the parent process has ended, of this run and of those named on standard input.

    The parent has ended when standard input is closed, which a kill does too, or when this process has another parent: a
    fork of the parent may still hold the pipe. A run that has ended is let go of.

    Returns:
        Whether everything is uploaded.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()
    ended = threading.Event()
    named: SimpleQueue[Path] = SimpleQueue()

    def watch() -> None:
        names = b""
        while read := os.read(0, 4096):
            *whole, names = (names + read).split(b"\n")
            for name in whole:
                named.put(Path(os.fsdecode(name)))
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    runs = deque([Followed(folder)])
    delay, deadline = 0.0, None
    sweeper = threading.Thread(target=sweep, args=(folder,), daemon=True)
    while True:
        last = ended.is_set() or os.getppid() != parent
        while not named.empty():  # after `last`, so that none is left when it is true
            runs.append(Followed(named.get()))
        if upload_all(runs, close=last):
            if not sweeper.ident:
                sweeper.start()
            if last:
                sweeper.join(SWEEP_SECONDS)
                return True
            delay, deadline = 0.0, None
        elif last:
            deadline = deadline or time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                return False
            time.sleep(INTERVAL_SECONDS)
        else:
            delay = min(2 * delay or INTERVAL_SECONDS, LONGEST_DELAY_SECONDS)
        ended.wait(delay or INTERVAL_SECONDS)


class Followed:
    """A run of the parent, with its lock and its uploader."""

    def __init__(self, folder: Path) -> None:
        self.lock = lock(folder)
        self.folder = folder
        self.uploader: Uploader | None = None

    def try_upload(self, *, close: bool) -> bool:
        """Upload pending records; return whether that succeeded."""
        if not self.uploader:
            from dlframe.tracking.uploader import Uploader

            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                return False
            self.uploader = Uploader(self.folder, live=True)
        return self.uploader.try_upload(close=close)

    def let_go(self) -> bool:
        """Release a run whose end is uploaded; return whether it is."""
        if not self.uploader or self.uploader.state.status in ("", "RUNNING"):
            return False
        self.lock.release()
        return True


def upload_all(runs: deque[Followed], *, close: bool) -> bool:
    """Upload pending records of runs, and drop those that have ended; return whether that succeeded.

    After the first failure the others wait, as they have the same store; the run that has failed comes last next time.
    """
    for _ in range(len(runs)):
        run = runs.popleft()
        try:
            done = run.try_upload(close=close)
        except DlframeError as error:
            say(str(error), error=True)
            continue
        if not (done and run.let_go()):
            runs.append(run)
        if not done:
            return False
    return True


def sweep(folder: Path) -> None:
    """Close interrupted runs in the same directory, in a thread."""
    if start := beginning(folder):
        for line in close_interrupted_runs(folder, start["uri"]):
            say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", error=True)


def main() -> None:
    os.environ.update(QUIET)
    leave_current_folder()
    status = 0 if follow(Path(sys.argv[1])) else 1
    os._exit(status)  # the run waits, and freeing the modules of MLflow takes longer than uploading


if __name__ == "__main__":
    main()
