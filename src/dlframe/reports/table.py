"""Table at the end of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlframe.analysis.comparison import mean_of_runs
from dlframe.types import Result, command_line, printable


@dataclass(frozen=True)
class Row:
    """Job of a sweep: overrides, seed group, and result or failure; neither of one that was interrupted."""

    title: str
    group: str
    result: Result | None
    failure: str = ""


def table(rows: Sequence[Row], *, best: Path | None = None, monitor: str = "") -> str:
    """Format one line per job, and the mean of each seed group.

    The interval of a job is over test samples, that of a mean over seeds and test samples, as far as the predictions give it:
    a line tells. The last line tells how to draw figures where there are none yet.

    Args:
        rows: The jobs.
        best: Folder of the best one in validation; None for none.
        monitor: Metric by which it is the best.
    """
    width = max(len(row.title) for row in rows)
    lines = ["", f"{'job':<{width}}  result"]
    groups: dict[str, list[Result]] = {}
    for row in rows:
        text = f"FAILED {row.failure}" if row.failure else "not finished"
        if result := row.result:
            if not result.limited:
                groups.setdefault(row.group, []).append(result)
            name, baseline = result.baseline
            read = result.metric(result.headline)
            text = f"{result.headline} {read.with_interval(result.interval)}, {name} {read.text(baseline[result.headline])}, "
            text += f"{result.seconds:.1f} s, {result.folder}" + (f"; limited: {result.limited}" if result.limited else "")
        lines.append(f"{row.title:<{width}}  {text}")
    kinds: set[str] = set()
    for group, results in groups.items():
        if len(results) > 1 and group != "-" and len({result.headline for result in results}) == 1:
            metric, read = results[0].headline, results[0].metric(results[0].headline)
            mean, over = mean_of_runs(results, metric)
            kinds.add(over)
            interval = read.with_interval(read.clipped(mean))
            lines.append(f"{group:<{width}}  {metric} {interval}, mean of {len(results)} seeds")
    if kinds:
        lines.append(f"95 % intervals: of a job over test samples, of a mean over {' or '.join(sorted(kinds, reverse=True))}")
    folders = [row.result.folder for row in rows if row.result and row.result.folder]
    shown, why = (
        (best, f" (the best by {monitor})") if best in folders and len(folders) > 1 else (next(iter(folders), None), "")
    )
    if shown and not (shown / "figures").exists():
        lines.append(f"figures are drawn on request: {command_line('figures', shown)}{why}")
    return "\n".join(map(printable, lines))
