"""What a study asks of an executor, and what an executor gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LOST = -9
"""Status of a worker whose machine or process is gone."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a worker runs: trials of a study, until none is left to begin or it has done as many as it may.

    Attributes:
        number: Place among the workers, from 0.
        workers: Number of workers.
        command: Command line of a process that does it.
        run: The same as a function, of the arguments of the command line, to its status; for a process that is there already.
        arguments: Its arguments.
        environment: Environment variables beside those of the parent.
        folder: Absolute folder to work in; on several machines, on storage that they share.
        log: File for what the worker prints.
        accelerator: Kind of device of a trial, "cpu", "gpu" or "tpu".
        devices: Number of devices of a trial.
    """

    number: int
    workers: int
    command: Sequence[str]
    run: Callable[[Sequence[str]], int]
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    accelerator: str = "cpu"
    devices: int = 1


class Worker(Protocol):
    """A worker that was started."""

    def poll(self) -> int | None:
        """Return the exit status; None while it works, a negative number if it was killed or lost."""
        ...

    def stop(self) -> None:
        """Ask it to save its state and end, and wait until it has."""
        ...


class Executor(Protocol):
    """Starts workers.

    Attributes:
        trials_each: Trials of one worker, after which the study starts another; 0 for no limit.
    """

    trials_each: int

    def start(self, work: Sequence[Work]) -> list[Worker]:
        """Start workers.

        Raises:
            ConfigError: They cannot be started.
        """
        ...

    def close(self) -> None:
        """Let go of what the executor has opened; all workers have ended."""
        ...


def threads(work: Work) -> dict[str, str]:
    """Divide the CPU threads of a machine among its workers, unless the user has."""
    return {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // work.workers))}
