"""Table at the end of a sweep."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dlframe.analysis.comparison import mean_of_runs
from dlframe.types import Estimate, Result, command_line, printable

NUMBERED = re.compile(r"(.+)-\d{4,}")
"""Name of the folder of a job."""


@dataclass(frozen=True)
class Row:
    """Job of a sweep: overrides, seed group, and result or failure; neither of one that was interrupted."""

    title: str
    group: str
    result: Result | None
    failure: str = ""


def table(rows: Sequence[Row], *, best: Path | None = None, monitor: str = "") -> str:
    """Format one line per job, and the mean of each seed group; two lines per job where the terminal is narrower.

    The interval of a job is over test samples, that of a mean over seeds and test samples, as far as the predictions give it:
    a line tells. The last line tells how to draw figures where there are none yet.

    Args:
        rows: The jobs.
        best: Folder of the best one in validation; None for none.
        monitor: Metric by which it is the best.
    """
    results = [row.result for row in rows if row.result]
    headlines = {result.headline for result in results}
    abouts = [{_baseline(result) for result in results}, {_limited(result) for result in results}]
    folders = [r.folder for r in results if r.folder]
    stems = {folder.parent / match[1] if (match := NUMBERED.fullmatch(folder.name)) else None for folder in folders}
    stem = stems.pop() if len(stems) == 1 else None

    def value(result: Result, estimate: Estimate) -> str:
        text = result.metric(result.headline).with_interval(estimate)
        return text if len(headlines) == 1 else f"{result.headline} {text}"

    lines: list[Line] = []
    groups: dict[str, list[Result]] = {}
    for row in rows:
        if not (result := row.result):
            lines.append(Line(row.title, f"FAILED {row.failure}" if row.failure else "not finished"))
            continue
        if not result.limited:
            groups.setdefault(row.group, []).append(result)
        run = result.folder.name.rpartition("-")[2] if stem and result.folder else str(result.folder)
        own = [
            text for text, about in zip((_baseline(result), _limited(result)), abouts, strict=True) if text and len(about) > 1
        ]
        run = "; ".join([run, *own])
        lines.append(Line(row.title, value(result, result.interval), f"{result.seconds:.1f} s", run))
    kinds: set[str] = set()
    for group, alike in groups.items():
        if len(alike) > 1 and group != "-" and len({result.headline for result in alike}) == 1:
            mean, over = mean_of_runs(alike, alike[0].headline)
            kinds.add(over)
            clipped = alike[0].metric(alike[0].headline).clipped(mean)
            lines.append(Line(group, value(alike[0], clipped), "", f"{len(alike)} seeds"))
    metric = results[0].headline if len(headlines) == 1 else "result"
    lines.insert(0, Line("job", f"{metric} (95 % interval)", "time", "run") if results else Line("job", metric))
    told = ["", *_laid_out(lines), *(text for about in abouts if len(about) == 1 for text in about if text)]
    if stem:
        told.append(f"runs: {stem}-NNNN")
    if kinds:
        told.append(f"95 % intervals: of a job over test samples, of a mean over {' or '.join(sorted(kinds, reverse=True))}")
    shown, why = (
        (best, f" (the best by {monitor})") if best in folders and len(folders) > 1 else (next(iter(folders), None), "")
    )
    if shown and not (shown / "figures").exists():
        told.append(f"figures are drawn on request: {command_line('figures', shown)}{why}")
    return "\n".join(map(printable, told))


def _baseline(result: Result) -> str:
    name, metrics = result.baseline
    return f"baseline: {name} {result.metric(result.headline).text(metrics[result.headline])}"


def _limited(result: Result) -> str:
    return f"limited: {result.limited}" if result.limited else ""


class Line(NamedTuple):
    """What stands in a line; of a job that has no result, in place of its value."""

    title: str
    value: str
    time: str = ""
    run: str = ""


def _laid_out(lines: Sequence[Line]) -> list[str]:
    """Return the lines in columns, or each in two lines where the terminal is too narrow."""
    whole = [line for line in lines if line.run]
    title = max(len(line.title) for line in lines)
    value, time = (max((len(line[place]) for line in whole), default=0) for place in (1, 2))
    longest = max((title + value + time + 6 + len(line.run) for line in whole), default=0)
    if longest > max(80, shutil.get_terminal_size((120, 24)).columns):
        return [text for line in lines for text in (line.title, "    " + ", ".join(filter(None, line[1:])))]
    return [f"{a:<{title}}  {b:<{value}}  {c:>{time}}  {d}".rstrip() for a, b, c, d in lines]
