"""Ctrl-C and SIGTERM: at once where nothing would be lost, between two steps where training goes on."""

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
    """Have the kernel kill this process when its parent is gone: it would wait for ever for one that was killed. Linux only."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


class RunInterrupted(SystemExit):
    """A run that a signal has ended. Its exit status is 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Signals:
    """Takes the signals of a run while it is entered.

    While `waiting`, the first signal is only noted, for whoever trains to save and stop; a second one stops at once.
    Outside the main thread, where Python gives no signals, it takes none.
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
        """Within, a signal is noted in `received`."""
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
        """End the run."""
        raise RunInterrupted(number)
