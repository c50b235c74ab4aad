"""The writer process of a run: `python -m dlframe.tracking RUN_FOLDER`, with a pipe from the run as standard input."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from dlframe.tracking.position import beginning
from dlframe.tracking.store import QUIET
from dlframe.tracking.sync import close_dead
from dlframe.tracking.tracker import lock

INTERVAL_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 15.0
PATIENCE_SECONDS = 20.0
"""How long the writer goes on trying after its run has ended."""
SWEEP_SECONDS = 5.0
"""How long it then goes on closing other runs."""


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
        sweeper = threading.Thread(target=sweep, args=(folder,), daemon=True)
        while True:
            last = ended.is_set() or os.getppid() != parent
            if last and deadline is None:
                deadline = time.monotonic() + PATIENCE_SECONDS
            if delivery.attempt(close=last):
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
    """Close the runs beside this one that died, in a thread: this run's delivery does not wait for theirs."""
    if start := beginning(folder):
        for line in close_dead(folder, start["uri"]):
            print(time.strftime("%Y-%m-%d %H:%M:%S"), line, file=sys.stderr, flush=True)


def main() -> None:
    os.environ.update(QUIET)
    status = 0 if follow(Path(sys.argv[1])) else 1
    os._exit(status)  # the run waits, and freeing all that MLflow has imported takes longer than delivering


if __name__ == "__main__":
    main()
