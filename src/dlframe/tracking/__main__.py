"""Delivers a run: `python -m dlframe.tracking RUN_FOLDER`. The writer process is this with --follow."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from dlframe.tracking.tracker import QUIET, deliver, lock

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


def main(arguments: list[str]) -> int:
    folder = Path(arguments[-1])
    os.environ.update(QUIET)
    if "--follow" in arguments:
        return 0 if follow(folder) else 1
    message = deliver(folder)
    if message:
        print(message)
    return 1 if message else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
