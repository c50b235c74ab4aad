"""Where the time of a training step goes: shares of its parts, the most expensive operations, and a trace of some steps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

TIMED, TRACED, FIRST = 20, 10, 3
"""Steps whose parts are timed; that are traced after them; that pay for what is made once, before both."""
OPERATIONS = 8
"""Rows of the table."""
PARTS = ("data", "forward", "backward", "optimizer")


class StepProfile:
    """Times the parts of some steps of a training, and then traces some, which takes longer.

    Args:
        path: Of the trace, in Chrome's format, compressed.
        steps: Says how many steps the training has from here on.
    """

    def __init__(self, path: Path, steps: Callable[[], int]) -> None:
        self.path = path
        self.seconds: dict[str, float] = defaultdict(float)
        """By part, and of "step": of the timed steps."""
        self.steps = steps
        self.done = 0
        self.rows: list[tuple[str, float, int]] = []
        """Operation, milliseconds a step, calls a step; the most expensive first."""
        self._profiler: profile | None = None
        self._traced = 0
        self._limits: tuple[int, int, int] | None = None

    def part(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are a part of a step."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.measured(name):
                return function(*args, **kwargs)

        return timed

    def items(self, iterate: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """Return a function whose items are the data of a step."""

        @wraps(iterate)
        def timed(*args: Any) -> Iterator[Any]:
            items, end = iter(iterate(*args)), object()
            while True:
                with self.measured("data", whole=True):
                    item = next(items, end)
                if item is end:
                    return
                yield item

        return timed

    def step(self, function: Callable[..., Any], is_last: Callable[[], bool]) -> Callable[..., Any]:
        """Return a function that takes a step; `is_last` says whether it was an epoch's, which a validation may follow."""

        @wraps(function)
        def timed(*args: Any) -> Any:
            self._begin()
            with self.measured("step"):
                result = function(*args)
            self.done += 1
            self._end(is_last())
            return result

        return timed

    @contextmanager
    def measured(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """Time a part; `whole` for one that the step's own time does not hold."""
        if self._profiler:
            with record_function(name):
                yield
            return
        first, timed, _ = self._limits or (FIRST, TIMED, TRACED)
        if not first <= self.done < first + timed:
            yield
            return
        _wait()
        started = time.perf_counter()
        yield
        _wait()
        taken = time.perf_counter() - started
        self.seconds[name] += taken
        if whole:
            self.seconds["step"] += taken

    def _begin(self) -> None:
        if not self._limits:
            third = max(1, self.steps() // 3)
            self._limits = min(FIRST, third), min(TIMED, third), min(TRACED, third)
        first, timed, _ = self._limits
        if self.done == first + timed:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profiler = profile(activities=kinds, acc_events=True)
            self._profiler.start()

    def _end(self, is_last: bool) -> None:
        if not self._profiler:
            return
        self._traced += 1
        assert self._limits
        if is_last or self._traced == self._limits[2]:
            self.close()

    def close(self) -> None:
        """Write the trace, where one has begun."""
        profiler, self._profiler = self._profiler, None
        if not profiler:
            return
        profiler.stop()
        profiler.export_chrome_trace(str(self.path))
        rows = []
        for event in profiler.key_averages():
            own = event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total
            if event.key not in (*PARTS, "step"):
                rows.append((event.key, own / 1000 / self._traced, round(event.count / self._traced)))
        self.rows = sorted(rows, key=lambda row: -row[1])[:OPERATIONS]

    def lines(self) -> list[str]:
        """The report, a line each."""
        whole, timed = self.seconds["step"], (self._limits or (0, 0, 0))[1]
        if not whole or not self.rows:
            return [f"profile: at least 3 optimizer steps are needed. Received: {self.done}"]
        parts = {name: self.seconds[name] for name in PARTS}
        parts["rest"] = whole - sum(parts.values())
        shares = ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in parts.items())
        width = max(len(name[:48]) for name, *_ in self.rows)
        return [
            f"profile: {1000 * whole / timed:.3g} ms a step, of {timed} steps: {shares}",
            f"{'operation':{width}}  ms a step  calls a step",
            *(f"{name[:48]:{width}}  {own:9.3f}  {calls:12}" for name, own, calls in self.rows),
            f"trace {self.path} ({self._traced} steps; for chrome://tracing or ui.perfetto.dev)",
        ]


def _wait() -> None:
    """Wait for what a GPU has still to do: its time belongs to the part that asked for it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
