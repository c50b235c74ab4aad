"""Every combination of several values, in one process: imports are paid once, and one failure does not stop the rest."""

from __future__ import annotations

import shlex
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe.config import expand, load
from dlframe.statistics.intervals import mean_interval
from dlframe.types import DlframeError, Estimate, Result

if TYPE_CHECKING:
    from dlframe.tracking import Tracker


def run_grid(overrides: Sequence[str]) -> int:
    """Run all cells, print a table of them, and give 1 if any failed.

    A cell that wants several devices runs in a process of its own, because the processes that Lightning starts repeat
    the command line of the one that starts them.

    Raises:
        ConfigError: The overrides cannot be read. A cell whose config is wrong counts as failed.
    """
    commands = expand(overrides)
    varied = [i for i in range(len(commands[0])) if len({command[i] for command in commands}) > 1]
    cells: list[Cell] = []
    pending: list[Tracker] = []
    for number, command in enumerate(commands, 1):
        values = [command[i] for i in varied]
        title = " ".join(values) or "-"
        print(f"[{number}/{len(commands)}] {title}", flush=True)
        family = " ".join(value for value in values if not value.startswith("seed="))
        cells.append(Cell(title, family, _outcome(command, pending)))
        if isinstance(cells[-1].outcome, str):
            print(f"failed: {cells[-1].outcome}", file=sys.stderr, flush=True)
    for tracker in pending:
        if late := tracker.wait():
            print(late, file=sys.stderr)
    print(table(cells))
    return int(any(isinstance(cell.outcome, str) for cell in cells))


@dataclass(frozen=True)
class Cell:
    """One run of a grid: what sets it apart, the same without the seed, and its result or why there is none."""

    title: str
    family: str
    outcome: Result | str


def table(cells: Sequence[Cell]) -> str:
    """The summary of a grid: a line a cell, and where only seeds tell cells apart, their mean.

    The interval of a cell is over the samples of the test set, that of a mean over seeds (Student's t).
    """
    width = max(len(cell.title) for cell in cells)
    lines = ["", f"{'cell':<{width}}  result"]
    families: dict[str, list[Result]] = {}
    for cell in cells:
        text = f"FAILED {cell.outcome}"
        if isinstance(cell.outcome, Result):
            families.setdefault(cell.family, []).append(cell.outcome)
            name, baseline = cell.outcome.baseline
            metric = cell.outcome.headline
            read = cell.outcome.metric(metric)
            text = f"{metric} {read.with_interval(cell.outcome.interval)}, {name} {read.text(baseline[metric])}, "
            text += f"{cell.outcome.seconds:.1f} s, {cell.outcome.folder}"
        lines.append(f"{cell.title:<{width}}  {text}")
    for family, results in families.items():
        if len(results) > 1 and family != "-" and len({result.headline for result in results}) == 1:
            metric = results[0].headline
            mean = Estimate(*mean_interval([result.metrics[metric] for result in results]))
            read = results[0].metric(metric)
            lines.append(f"{family:<{width}}  {metric} {read.with_interval(read.clipped(mean))}, mean of {len(results)} seeds")
    return "\n".join(lines)


def _outcome(cell: list[str], pending: list[Tracker]) -> Result | str:
    from dlframe.jobs.train import run

    try:
        config = load(cell)
        if config.trainer.devices != 1 or config.trainer.num_nodes > 1:
            return _apart(cell)
        return run(config, pending=pending)
    except DlframeError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def _apart(cell: list[str]) -> Result | str:
    from dlframe.runs.run_directory import read_result

    done = subprocess.run([sys.executable, "-m", "dlframe", *cell], capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    folders = [line.removeprefix("run").strip() for line in done.stdout.splitlines() if line.startswith("run  ")]
    if done.returncode or not folders:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].removeprefix("error: ")
    return read_result(Path(shlex.split(folders[-1])[0]))
