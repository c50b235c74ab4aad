"""Upload process: `python -m dlframe.tracking RUN`, with a pipe as stdin."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from dlframe.runs.environment import leave_current_folder
from dlframe.tracking.store import QUIET
from dlframe.tracking.sync import close_interrupted_runs
from dlframe.tracking.tracker import lock
from dlframe.tracking.upload_state import beginning
from dlframe.types import say

INTERVAL_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 15.0
PATIENCE_SECONDS = 20.0
"""Time for retries after the run has ended."""
SWEEP_SECONDS = 5.0
"""Time for closing other runs after that."""


def follow(folder: Path) -> bool:
    """Upload records every second until the parent process has ended.

    The parent has ended when standard input is closed, which a kill does too, or when this process has another parent: a
    fork of the parent may still hold the pipe.

    Returns:
        Whether everything is uploaded.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()
    ended = threading.Event()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    from dlframe.tracking.uploader import Uploader

    with lock(folder):
        uploader = Uploader(folder, live=True)
        delay, deadline = 0.0, None
        sweeper = threading.Thread(target=sweep, args=(folder,), daemon=True)
        while True:
            last = ended.is_set() or os.getppid() != parent
            if last and deadline is None:
                deadline = time.monotonic() + PATIENCE_SECONDS
            if uploader.try_upload(close=last):
                if not sweeper.ident:
                    sweeper.start()
                if last:
                    sweeper.join(SWEEP_SECONDS)
                    return True
                delay = 0.0
            elif deadline is not None:
                if time.monotonic() > deadline:
                    return False
                time.sleep(INTERVAL_SECONDS)
            else:
                delay = min(2 * delay or INTERVAL_SECONDS, LONGEST_DELAY_SECONDS)
            ended.wait(delay or INTERVAL_SECONDS)


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
