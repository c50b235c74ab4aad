"""Where jobs run: in this process, or in processes of their own. Results are read from run directories."""

from __future__ import annotations

import os
import subprocess
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlframe.config import Config, load
from dlframe.runs.environment import python
from dlframe.runs.journal import ended
from dlframe.runs.run_directory import NOTE_VARIABLE, read_result
from dlframe.types import DlframeError, Result, read_text, say

if TYPE_CHECKING:
    from dlframe.tracking import Tracker


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        overrides: Its command line.
        title: What sets it apart from the other jobs.
        group: The same without the seed: jobs of one group differ in nothing else.
    """

    overrides: tuple[str, ...]
    title: str
    group: str


@dataclass(frozen=True)
class Outcome:
    """What came of a job: its result, or in one sentence why there is none."""

    job: Job
    result: Result | None
    failure: str = ""


class Executor(Protocol):
    """Runs jobs, one after the other as they are submitted."""

    def submit(self, job: Job) -> Outcome:
        """Run a job to its end.

        A job that fails is an outcome. Only what ends the whole study is raised: Ctrl-C and SIGTERM.
        """
        ...

    def close(self) -> list[str]:
        """Wait for what jobs have left behind; a sentence about each that did not arrive where it should."""
        ...


class Inline:
    """In this process: imports are paid once. A job that wants several devices gets a process of its own.

    The processes that Lightning starts for them repeat the command line of the one that starts them, so that must be the
    job's alone.
    """

    def __init__(self) -> None:
        self.pending: list[Tracker] = []
        self.processes = Processes()

    def submit(self, job: Job) -> Outcome:
        try:
            config = load(job.overrides)
            if _several(config):
                return self.processes.submit(job)
            from dlframe.jobs.train import run

            return Outcome(job, run(config, pending=self.pending))
        except DlframeError as error:
            return Outcome(job, None, str(error))
        except Exception as error:
            say(*traceback.format_exc().splitlines(), error=True)
            return Outcome(job, None, f"{type(error).__name__}: {error}")

    def close(self) -> list[str]:
        return [late for tracker in self.pending if (late := tracker.wait())]


class Processes:
    """In a process of its own each, which tells the directory of its run by a file."""

    def submit(self, job: Job) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "run"
            environment = {**os.environ, NOTE_VARIABLE: str(note)}
            command = python("-m", "dlframe", *job.overrides)
            done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
            say(*done.stderr.splitlines(), error=True)
            run = Path(read_text(note, 2**16)) if note.is_file() else None
        try:
            if run and done.returncode == 0 and ended(run) == "FINISHED":
                return Outcome(job, read_result(run))
        except DlframeError as error:
            return Outcome(job, None, str(error))
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Outcome(job, None, said.removeprefix("error: "))

    def close(self) -> list[str]:
        return []


def _several(config: Config) -> bool:
    return config.trainer.devices != 1 or config.trainer.num_nodes > 1
