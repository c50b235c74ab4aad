"""Ways to disturb a training and its upload process, and what must come of each: the same end, and all of it in MLflow."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.matrix import ALWAYS, Reference, Server, Training, the_run, tracked_otherwise

from dlframe.jobs.verify_resume import compare
from dlframe.runs import journal

PLUGIN = Path(__file__).with_name("entries.py")
COMMAND = (
    *("model=mlp", "model.width=16", "epochs=6", f"plugin_paths={PLUGIN}", "callback=[slow_validation]"),
    *("tracking=mlflow", "checkpoint.every_n_steps=10"),
)
"""A training of some seconds, most of them in validation."""
FIRST_SECONDS = 3.0


@dataclass
class Case:
    """A training to be disturbed.

    Attributes:
        server: Forks it.
        whole: The same training, left alone.
        home: Where it trains.
        chance: Draws the moments.
    """

    server: Server
    whole: Reference
    home: Path
    chance: random.Random

    def start(self, *more: str, clock: float = 0) -> Training:
        return self.server.start([*ALWAYS, *COMMAND, "resume=auto", *more], self.home, clock=clock)

    def trackers(self) -> list[int]:
        """The upload processes of this place."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_one = b"dlframe.tracking" in (process / "cmdline").read_bytes()
                if is_one and os.readlink(process / "cwd") == str(self.home.resolve()):
                    found.append(int(process.name))
        return found

    def signal_trackers(self, number: int) -> None:
        for pid in self.trackers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def moment(self, seconds: float = FIRST_SECONDS) -> None:
        time.sleep(self.chance.uniform(0, seconds))

    def finish(self, training: Training | None = None) -> str:
        """Go on to the end; what is wrong with it."""
        training = training or self.start()
        if status := training.status():
            return f"exit status {status}: {training.said()[-2000:]}"
        return compare(self.whole.folder, the_run(self.home)).difference or tracked_otherwise(self.home)


def both_at_once(case: Case) -> str:
    """Killed together, as when a container dies."""
    training = case.start()
    case.moment()
    training.send(signal.SIGKILL)
    case.signal_trackers(signal.SIGKILL)
    training.status()
    return case.finish()


def the_group(case: Case) -> str:
    """The group of the training, as a shell's Ctrl-\\ or a batch system does; its upload process closes the run."""
    training = case.start()
    case.moment()
    training.send(signal.SIGKILL)
    training.status()
    return case.finish()


def the_upload_process(case: Case) -> str:
    """Alone: the training goes on, and another one takes over."""
    training = case.start()
    case.moment()
    case.signal_trackers(signal.SIGKILL)
    return case.finish(training)


def a_halt(case: Case) -> str:
    """Both stopped for a while, as by Ctrl-Z or the lid of a laptop."""
    training = case.start()
    case.moment()
    trackers = case.trackers()
    with contextlib.suppress(ProcessLookupError):
        training.send(signal.SIGSTOP)
    case.signal_trackers(signal.SIGSTOP)
    time.sleep(case.chance.uniform(0.2, 2))
    with contextlib.suppress(ProcessLookupError):
        training.send(signal.SIGCONT)
    for pid in trackers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return case.finish(training)


def a_request_in_validation(case: Case) -> str:
    """SIGTERM in a validation, which is waited for: the run says that it was killed, and goes on."""
    training = case.start()
    epoch = case.chance.randint(1, 5)
    deadline = time.monotonic() + 60
    while training.said().count("validates") < epoch and time.monotonic() < deadline:
        time.sleep(0.005)
    training.send(signal.SIGTERM)
    if (status := training.status()) != 143:
        return f"exit status {status}: {training.said()[-2000:]}"
    if (ended := journal.ended(the_run(case.home))) != "KILLED":
        return f"the run ended as {ended!r}"
    return case.finish()


def a_truncated_log_of_the_store(case: Case) -> str:
    """Both killed, and the end of the store's write-ahead log lost with the disk's cache."""
    store, log = case.home / "runs" / "mlflow.db", case.home / "runs" / "mlflow.db-wal"
    training = case.start()
    deadline = time.monotonic() + 60
    while not _has_run(store) and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.closing(sqlite3.connect(store, timeout=30)) as database:
        database.execute("pragma journal_mode=wal")
        with contextlib.suppress(sqlite3.OperationalError):
            case.moment(1.5)
            training.send(signal.SIGKILL)
            case.signal_trackers(signal.SIGKILL)
        training.status()
        if log.exists():  # while a connection is open, or closing it would empty the log
            size = log.stat().st_size
            content = log.read_bytes()[: case.chance.randint(0, size)] if size else b""
            whole = store.read_bytes()
    if "content" in locals():
        store.write_bytes(whole)
        log.write_bytes(content)
        (case.home / "runs" / "mlflow.db-shm").unlink(missing_ok=True)
    return case.finish()


def _has_run(store: Path) -> bool:
    if not store.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(store, timeout=5)) as database:
            return bool(database.execute("select count(*) from runs").fetchone()[0])
    except sqlite3.Error:
        return False


def a_clock_that_goes_back(case: Case) -> str:
    """By an hour or more, between a kill and the next start."""
    training = case.start()
    case.moment()
    training.send(signal.SIGKILL)
    training.status()
    return case.finish(case.start(clock=-case.chance.uniform(3600, 10**6)))


KINDS: dict[str, Callable[[Case], str]] = {
    "both at once, in the first seconds": both_at_once,
    "the process group": the_group,
    "the upload process alone": the_upload_process,
    "SIGSTOP and SIGCONT": a_halt,
    "SIGTERM in validation": a_request_in_validation,
    "a truncated mlflow.db-wal": a_truncated_log_of_the_store,
    "a clock that goes back": a_clock_that_goes_back,
}


def disturbed(case: Case, kind: str) -> str:
    """Disturb a training; what is wrong with its end, and nothing of it is left running."""
    try:
        return KINDS[kind](case)
    finally:
        deadline = time.monotonic() + 60
        while case.trackers() and time.monotonic() < deadline:
            time.sleep(0.1)
        case.signal_trackers(signal.SIGKILL)
