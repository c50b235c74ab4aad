"""Every combination of several values. One failure does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe.registry import plugins
from dlframe.reports import terminal
from dlframe.reports.table import Row, table
from dlframe.runs.run_directory import read_result
from dlframe.studies import driver, options
from dlframe.studies.space import Space, space_of
from dlframe.studies.study import Study
from dlframe.types import ConfigError, DlframeError, command_line, say

if TYPE_CHECKING:
    from dlframe.tracking import Tracker

REFUSED = ("trials", "sampler", "pruner", "search")
"""Options of a sweep that a grid does not have."""


def main(arguments: Sequence[str]) -> int:
    """Train every combination of several values: model=cnn,rnn seed=0,1.

    The same command continues a grid that was stopped or killed, and started a second time it helps the first. A job that
    fails does not stop the others. A table of all jobs ends the grid: every job with its interval and, for jobs that differ
    only in their seed, the mean with its interval. `sweep status NAME` shows the jobs of a grid.

    Raises:
        ConfigError: The options cannot be read, or a value is outside its range.
    """
    plugins.discover()
    terminal.warn_of_plugins()
    for text in arguments:
        key = text.partition("=")[0]
        if key.partition(".")[0] in REFUSED and key not in ("search.objectives", "search.timeout", "search.max_failures"):
            raise ConfigError(f"{key}: a grid has no such option. Try: {command_line('sweep', '...', text)}", key)
    return run_grid(arguments)


def run_grid(arguments: Sequence[str], running: Sequence[Tracker] = ()) -> int:
    """Run all jobs, print a table of them, and return 1 if any failed.

    Args:
        arguments: Of the command line; those that list several values make the grid.
        running: Trackers of this process, which take the grid too.

    Raises:
        ConfigError: They cannot be read.
    """
    found = train(arguments, running)
    return found if isinstance(found, int) else _tell(*found)


def _tell(study: Study, space: Space) -> int:
    """Print a table of the jobs that have begun; 1 if one failed, or is left."""
    rows = []
    varied = [key for key in space.order if len({point.get(key) for point in space.grid}) > 1]
    for record in study.records():
        values = [f"{key}={record.options[key]}" for key in varied if key in record.options]
        group = " ".join(text for text in values if not text.startswith("seed="))
        result, failure = None, record.failure
        if record.state == "complete":
            try:
                result = read_result(Path(record.run))
            except DlframeError as error:
                failure = str(error)
        rows.append(Row(" ".join(values) or "-", group, result, failure))
    if rows:
        best = study.best()
        folder = Path(best.run) if best else None
        say(*table(rows, best=folder, monitor=study.objectives[0].metric).split("\n"))
    return int(len(rows) < len(space.grid) or any(row.result is None for row in rows))


def train(
    arguments: Sequence[str],
    running: Sequence[Tracker] = (),
    stem: str = "grid",
    end: Callable[[Study, Space, list[Tracker]], None] = lambda study, space, trackers: None,
) -> tuple[Study, Space] | int:
    """Run all jobs, and return their study and its space; the exit status of a process that a study has started.

    Args:
        arguments: Of the command line; those that list several values make the grid.
        running: Trackers of this process, which take the grid too.
        stem: Beginning of the name where components vary.
        end: What is done at the end, while the study can still upload.

    Raises:
        ConfigError: They cannot be read.
    """
    chosen = options.read("-m", [*arguments, "sampler=grid"])
    for text in chosen.overrides:
        if text.startswith("resume=") and text not in ("resume=auto", "resume=none"):
            raise ConfigError(f"resume: a grid is continued by the same command. Received: {text}.", "resume")
    overrides = [text for text in chosen.overrides if not text.startswith("resume=")]
    space = space_of(overrides, default=False).listed()
    study = driver.begin(space, chosen, trials=len(space.grid), stem=stem)
    if driver.is_worker():
        return driver.work_as_worker(study, space, chosen)
    done = sum(record.state != "running" for record in study.records())
    before = f", {done} done before" if done else ""
    say(f"{stem} {study.name}: {len(space.grid)} jobs{before}; in {study.folder}")
    with driver.tracked(study, next(iter(space.configs.values())), running) as trackers:
        try:
            driver.run(study, space, chosen, "-m", main, trackers)
        except (KeyboardInterrupt, SystemExit):
            _tell(study, space)
            raise
        end(study, space, trackers)
    return study, space
