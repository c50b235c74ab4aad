"""Every combination of several values. One failure does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence

from dlframe.config import expand
from dlframe.jobs.executors import Executor, Inline, Job, Outcome
from dlframe.registry import plugins
from dlframe.reports import terminal
from dlframe.reports.table import Row, table
from dlframe.types import say


def main(arguments: Sequence[str]) -> int:
    """Train every combination of several values (model=cnn,rnn seed=0,1), one run after the other in one process.

    A job that fails does not stop the others. A table of all jobs ends the grid: every job with its interval and, for
    jobs that differ only in their seed, the mean with its interval.

    Raises:
        ConfigError: The options cannot be read.
    """
    plugins.discover()
    terminal.warn_of_plugins()
    return run_grid(arguments)


def run_grid(overrides: Sequence[str], executor: Executor | None = None) -> int:
    """Run all jobs, print a table of them, and give 1 if any failed.

    Args:
        overrides: Of the command line; those that list several values make the grid.
        executor: Where jobs run; None for this process.

    Raises:
        ConfigError: The overrides cannot be read. A job whose config is wrong counts as failed.
    """
    executor = executor or Inline()
    jobs = jobs_of(overrides)
    outcomes: list[Outcome] = []
    for number, job in enumerate(jobs, 1):
        say(f"[{number}/{len(jobs)}] {job.title}")
        outcomes.append(executor.submit(job))
        if failure := outcomes[-1].failure:
            say(f"failed: {failure}", error=True)
    for late in executor.close():
        say(late, error=True)
    say(*table([Row(o.job.title, o.job.group, o.result, o.failure) for o in outcomes]).split("\n"))
    return int(any(outcome.failure for outcome in outcomes))


def jobs_of(overrides: Sequence[str]) -> list[Job]:
    """The jobs of a grid, each named by the values that vary."""
    commands = expand(overrides)
    varied = [i for i in range(len(commands[0])) if len({command[i] for command in commands}) > 1]
    jobs = []
    for command in commands:
        values = [command[i] for i in varied]
        group = " ".join(value for value in values if not value.startswith("seed="))
        jobs.append(Job(tuple(command), " ".join(values) or "-", group))
    return jobs
