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
from dlframe.tracking.store import quiet
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
SHORT_SECONDS = 0.05
"""Time between looks at files that are being uploaded when the numbers are."""
SWEEP_SECONDS = 5.0
"""Time for closing other runs after that."""


def follow(folder: Path) -> bool:
    """Upload records every second until the parent process has ended, of this run and of those named on standard input.

    The parent has ended when standard input is closed, which a kill does too, or when this process has another parent: a
    fork of the parent may still hold the pipe. A run that has ended is let go of. Files are uploaded by another thread.

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
    files = FileLane(runs)
    files.start()
    delay, patience = 0.0, Patience()
    sweeper = threading.Thread(target=sweep, args=(folder,), daemon=True)
    while True:
        last = ended.is_set() or os.getppid() != parent
        while not named.empty():  # after `last`, so that none is left when it is true
            runs.append(Followed(named.get()))
        arrived = upload_all(runs, close=last)
        files.look(last=last)
        if arrived and not sweeper.ident:
            sweeper.start()
        if last:
            if arrived and not any(run.has_begun() for run in runs):
                sweeper.join(SWEEP_SECONDS)
                return True
            uploaders = files.uploaders()
            if patience.ends(sent=sum(u.sent for u in uploaders), waits=not any(u.sending for u in uploaders)):
                return False
            time.sleep(INTERVAL_SECONDS if not arrived else SHORT_SECONDS)
        else:
            delay = 0.0 if arrived else min(2 * delay or INTERVAL_SECONDS, LONGEST_DELAY_SECONDS)
            ended.wait(delay or INTERVAL_SECONDS)


class Patience:
    """The time for retries after the runs have ended, from the last file that was uploaded on."""

    def __init__(self) -> None:
        self.sent = 0
        self.deadline: float | None = None

    def ends(self, *, sent: int, waits: bool) -> bool:
        """Return whether it has ended; `sent` is the number of files so far, and while one is sent, nobody `waits`."""
        if sent != self.sent or self.deadline is None:
            self.sent, self.deadline = sent, time.monotonic() + PATIENCE_SECONDS
        return waits and time.monotonic() > self.deadline


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
        """Release a run whose end is uploaded, with its files but those set aside; return whether it is."""
        if not self.uploader or self.uploader.state.status in ("", "RUNNING") or self.uploader.is_waiting():
            return False
        self.lock.release()
        return True

    def has_begun(self) -> bool:
        """Return whether there is a run in the folder, as far as it is known."""
        return not self.uploader or bool(self.uploader.state.status) or self.uploader.is_waiting()


class FileLane(threading.Thread):
    """Uploads the files of runs, for which their numbers do not wait."""

    def __init__(self, runs: deque[Followed]) -> None:
        super().__init__(daemon=True)
        self.runs = runs
        self.wake = threading.Event()
        self.last = threading.Event()

    def uploaders(self) -> list[Uploader]:
        """Return those of the runs that have not been let go of."""
        return [run.uploader for run in tuple(self.runs) if run.uploader]

    def look(self, *, last: bool) -> None:
        """Have it look for files; with `last`, also for those set aside that may be uploaded now."""
        if last and not self.last.is_set():
            for uploader in self.uploaders():
                uploader.retry_files()
            self.last.set()
        self.wake.set()

    def run(self) -> None:
        """Upload files for ever; after a failure, more rarely."""
        delay = 0.0
        while True:
            self.wake.wait()
            self.wake.clear()
            waiting = [uploader for uploader in self.uploaders() if not uploader.try_files()]
            delay = min(2 * delay or INTERVAL_SECONDS, LONGEST_DELAY_SECONDS) if waiting else 0.0
            if self.last.wait(delay) and waiting:
                time.sleep(INTERVAL_SECONDS)


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
    os.environ.update(quiet(os.environ))
    leave_current_folder()
    status = 0 if follow(Path(sys.argv[1])) else 1
    os._exit(status)  # the run waits, and freeing the modules of MLflow takes longer than uploading


if __name__ == "__main__":
    main()
