"""Description of a run or a study in Markdown, for the page of a tracker, and the table of a study as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from dlframe.config import Config
from dlframe.types import Objective, Result, TrialRecord, command_line, printable

ROWS = 40
"""Rows of a table in a description; the file has all."""


def of_run(result: Result, config: Config) -> str:
    """Return what a run is worth, by the test split, and the command that trains it again."""
    read, (name, baseline) = result.metric(result.headline), result.baseline
    lines = [f"**Limited run, not a result:** {result.limited}", ""] if result.limited else []
    lines += [
        f"**{config.values['model']['name']}** on **{config.values['data']['name']}**: test {result.headline} "
        f"**{read.with_interval(result.interval)}**, 95 % interval over {result.samples:,} samples",
        "",
    ]
    rows = [
        (metric, result.metric(metric).text(value), result.metric(metric).text(baseline[metric]) if metric in baseline else "")
        for metric, value in result.metrics.items()
    ]
    lines += table(("test metric", "model", name), rows)
    lines += [*(f"- {_plain(note)}" for note in result.notes), ""] if result.notes else []
    typed = [text for text in result.overrides if not text.startswith("run_name=")]
    return "\n".join([*lines, f"`{_plain(command_line(*typed))}`"])


def of_study(title: str, records: Sequence[TrialRecord], objectives: Sequence[Objective], results: Mapping[int, Result]) -> str:
    """Return the table of a study's trials, the best one first.

    Args:
        title: What the study is, in a few words.
        records: Its trials.
        objectives: What is compared.
        results: Number of a trial -> what its run is worth by the test split.
    """
    first = objectives[0]
    ordered = sorted(records, key=lambda r: (not r.values, -first.sign * r.values[0] if r.values else 0.0, r.number))
    keys = list(dict.fromkeys(key for record in records for key in record.options))
    head = [*keys, *(objective.metric for objective in objectives), "test"]
    rows = []
    for record in ordered[:ROWS]:
        found = results.get(record.number)
        values = [objective.read.text(value) for objective, value in zip(objectives, record.values, strict=False)]
        values += [record.state] * bool(not values) + [""] * (len(objectives) - max(1, len(values)))
        test = f"{found.headline} {found.metric(found.headline).with_interval(found.interval)}" if found else ""
        rows.append([*(record.options.get(key, "") for key in keys), *values, test])
    more = [f"{len(records) - ROWS} more in table.csv"] if len(records) > ROWS else []
    return "\n".join([f"**{_plain(title)}**", "", *table(head, rows), *more])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    body = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(map(_cell, row))} |" for row in body), ""]


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return text without what Markdown or HTML would read."""
    return printable(text).replace("<", "&lt;").replace("`", "'")


def study_csv(records: Sequence[TrialRecord], objectives: Sequence[Objective], results: Mapping[int, Result]) -> str:
    """Return all trials of a study as CSV: options, state, objectives, and the test metrics of finished runs."""
    keys = list(dict.fromkeys(key for record in records for key in record.options))
    metrics = list(dict.fromkeys(metric for result in results.values() for metric in result.metrics))
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    ends = ["test/low", "test/high", "test/samples", "baseline"]
    tests = [f"test/{metric}" for metric in metrics]
    rows.writerow(["trial", "state", *keys, *(o.metric for o in objectives), *tests, *ends, "seconds", "run", "failure"])
    for record in records:
        values: list[object] = [*record.values, *[""] * (len(objectives) - len(record.values))]
        found = results.get(record.number)
        values += [_number(found.metrics.get(metric, math.nan)) if found else "" for metric in metrics]
        if found:
            interval = found.interval
            own = (interval.low, interval.high, found.samples, found.baseline[1].get(found.headline, math.nan))
            values += map(_number, own)
        else:
            values += [""] * len(ends)
        options = [record.options.get(key, "") for key in keys]
        rows.writerow([record.number, record.state, *options, *values, round(record.seconds, 3), record.run, record.failure])
    return written.getvalue()


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else ""
