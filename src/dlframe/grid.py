"""Every combination of several values, in one process: imports are paid once, and one failure does not stop the rest."""

from __future__ import annotations

import shlex
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe import report
from dlframe.config import expand, load
from dlframe.types import DlframeError, Result

if TYPE_CHECKING:
    from dlframe.tracking import Tracker


def run_grid(overrides: Sequence[str]) -> int:
    """Run all cells, print a table of them, and give 1 if any failed.

    A cell that wants several devices runs in a process of its own, because the processes that Lightning starts repeat
    the command line of the one that starts them.

    Raises:
        ConfigError: The overrides cannot be read. A cell whose config is wrong counts as failed.
    """
    cells = expand(overrides)
    varied = [i for i in range(len(cells[0])) if len({cell[i] for cell in cells}) > 1]
    rows = []
    pending: list[Tracker] = []
    for number, cell in enumerate(cells, 1):
        title = " ".join(cell[i] for i in varied) or "-"
        print(f"[{number}/{len(cells)}] {title}", flush=True)
        outcome = _cell(cell, pending)
        rows.append((title, outcome))
        if isinstance(outcome, str):
            print(f"failed: {outcome}", file=sys.stderr, flush=True)
    for tracker in pending:
        if late := tracker.wait():
            print(late, file=sys.stderr)
    print(table(rows))
    return int(any(isinstance(outcome, str) for _, outcome in rows))


def table(rows: Sequence[tuple[str, Result | str]]) -> str:
    """The summary of a grid: each cell with its metric, interval, baseline and seconds, or with why it failed."""
    width = max(len(title) for title, _ in rows)
    lines = ["", f"{'cell':<{width}}  result"]
    for title, outcome in rows:
        if isinstance(outcome, Result):
            metric, interval = outcome.headline, outcome.interval
            name, baseline = outcome.baseline
            text = (
                f"{metric} {report.number(metric, interval.value)} "
                f"({report.number(metric, interval.low)} to {report.number(metric, interval.high)}), "
                f"{name} {report.number(metric, baseline[metric])}, {outcome.seconds:.1f} s, {outcome.folder}"
            )
        else:
            text = f"FAILED {outcome}"
        lines.append(f"{title:<{width}}  {text}")
    return "\n".join(lines)


def _cell(cell: list[str], pending: list[Tracker]) -> Result | str:
    from dlframe.train import run

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
    from dlframe.run_folder import read_result

    done = subprocess.run([sys.executable, "-m", "dlframe", *cell], capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    folders = [line.removeprefix("run").strip() for line in done.stdout.splitlines() if line.startswith("run  ")]
    if done.returncode or not folders:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].removeprefix("error: ")
    return read_result(Path(shlex.split(folders[-1])[0]))
