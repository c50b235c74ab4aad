"""Delivers a run: `python -m dlframe.tracking RUN_FOLDER`. The writer process is this with --follow."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from dlframe.tracking.tracker import QUIET, deliver, lock
from dlframe.types import TrackingError

INTERVAL_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 15.0
PATIENCE_SECONDS = 20.0
"""How long the writer goes on trying after its run has ended."""


def follow(folder: Path) -> bool:
    """Deliver what the parent process writes, about once a second, until it is gone and has everything delivered.

    The parent is gone when it closes our standard input, which a kill does too, or when we have another parent, which a
    process that was forked from it and still holds the pipe cannot hide.
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
    from dlframe.tracking.delivery import Delivery

    with lock(folder):
        delivery = Delivery(folder, live=True)
        delay, deadline = 0.0, None
        while True:
            last = ended.is_set() or os.getppid() != parent
            if delivery.attempt(close=last):
                if last:
                    return True
                delay = 0.0
            elif last:
                deadline = deadline or time.monotonic() + PATIENCE_SECONDS
                if time.monotonic() > deadline:
                    return False
                time.sleep(INTERVAL_SECONDS)
            else:
                delay = min(2 * delay or INTERVAL_SECONDS, LONGEST_DELAY_SECONDS)
            ended.wait(delay or INTERVAL_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser("python -m dlframe.tracking", description="Deliver a run to MLflow.")
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--follow", action="store_true", help="go on until standard input ends")
    arguments = parser.parse_args()
    os.environ.update(QUIET)
    if arguments.follow:
        status = 0 if follow(arguments.folder) else 1
        os._exit(status)  # the run waits, and freeing all that MLflow has imported takes longer than delivering
    try:
        message = deliver(arguments.folder)
    except TrackingError as error:
        print(error, file=sys.stderr)
        return 2
    if message:
        print(message)
    return 1 if message else 0


if __name__ == "__main__":
    sys.exit(main())
