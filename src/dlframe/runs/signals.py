"""Handling of Ctrl-C and SIGTERM, between two steps during training."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_with_parent() -> None:
    """Make the kernel kill this process when its parent ends; Linux only."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


class RunInterrupted(SystemExit):
    """Exit of a run on a signal, with status 130 for Ctrl-C and 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Signals:
    """Context manager that handles the signals of a run.

    While `waiting`, the first signal is only recorded, so that training can save and stop; a second one exits at once.
    Outside the main thread, signals are not handled.
    """

    def __init__(self) -> None:
        self.received = 0
        self._waits = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Record a signal in `received` within the context."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._waits and not self.received:
            self.received = number
        else:
            self.stop(number)

    def stop(self, number: int) -> NoReturn:
        """Exit the run."""
        raise RunInterrupted(number)
