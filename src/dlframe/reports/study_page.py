"""A study as one HTML file, which asks no other address."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from urllib.parse import quote

from dlframe.reports.live import brief_number
from dlframe.reports.page import NUMBER, cell, escaped, page, pictures
from dlframe.statistics.pareto import pareto_front
from dlframe.types import Estimate, Objective, TrialRecord, best_of, duration


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """What a page tells of a study besides its trials.

    Attributes:
        title: Name of the study.
        objectives: What is compared.
        total: Number of trials to do.
        space: The options that vary, in words, one an item.
        sampler: How trials are chosen.
        pruner: How trials are ended early.
        command: Command that continues the study; empty if unknown.
        fixed: Overrides of every trial.
        folder: Folder of the page, to which links are relative; from where the runs' paths are.
        fresh: Value of the best options on fresh seeds.
        seeds: Number of these seeds.
        optimism: Best value of the search less the fresh one, positive if the former is better; NaN if unknown.
    """

    title: str
    objectives: tuple[Objective, ...]
    total: int
    space: tuple[str, ...]
    sampler: str
    pruner: str
    command: str
    fixed: tuple[str, ...] = ()
    folder: str = "."
    fresh: Estimate | None = None
    seeds: int = 0
    optimism: float = math.nan


def study_page(summary: StudySummary, records: Sequence[TrialRecord], figures: Mapping[str, bytes]) -> str:
    """Return a page of HTML with everything in it, for a browser with or without scripts.

    Its policy allows its own style and script, and pictures that it holds, and nothing else.

    Args:
        summary: What is searched.
        records: Trials of the study.
        figures: PNG or SVG by title, in order.

    Raises:
        ValueError: There is no objective, or a figure is neither PNG nor SVG.
    """
    if not summary.objectives:
        raise ValueError("objectives: must not be empty.")
    records = sorted(records, key=lambda record: record.number)
    body = f"""<p class="soft">{escaped(_counts(summary, records))}</p>
<h2>Best trial</h2>
{_best(summary, records)}
<h2>What is searched</h2>
{_search(summary)}
<h2>Figures</h2>
{pictures(figures) or '<p class="soft">None yet.</p>'}
<h2>Trials</h2>
{_table(summary, records)}
{_continuing(summary)}"""
    return page(summary.title, body)


def _counts(summary: StudySummary, records: Sequence[TrialRecord]) -> str:
    counts = {state: sum(r.state == state for r in records) for state in ("complete", "pruned", "failed", "running")}
    said = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    begun = f"{len(records):,} of {summary.total:,} trials"
    return f"{begun}: {said}" if said else f"{begun}: none begun"


def _leading(summary: StudySummary, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the best trial; with several objectives, those that no other dominates."""
    if len(summary.objectives) == 1:
        best = best_of(records, summary.objectives[0])
        return [best] if best else []
    count = len(summary.objectives)
    complete = [r for r in records if r.state == "complete" and len(r.values) == count]
    front = pareto_front([r.values for r in complete], [o.better for o in summary.objectives])
    return [record for record, on_front in zip(complete, front, strict=True) if on_front]


def _best(summary: StudySummary, records: Sequence[TrialRecord]) -> str:
    leading = _leading(summary, records)
    if not leading:
        return '<p class="soft">No trial is complete yet.</p>'
    if len(summary.objectives) != 1:
        said = f"{len(leading):,} on the Pareto front"
        return f'<div class="card"><p class="value">{said}</p><p>They are marked in the table of trials.</p></div>'
    best, objective = leading[0], summary.objectives[0]
    count = sum(record.value() is not None for record in records)
    options = "".join(f"<dt>{escaped(key)}</dt><dd><code>{escaped(value)}</code></dd>" for key, value in best.options.items())
    too_good = f"The best value of {count:,} trials is too good on average: it was chosen for being the best."
    advice = "" if summary.fresh else " Train these options with new seeds to know their value."
    value = escaped(objective.read.text(best.values[0]))
    cards = [
        f'<h3>{escaped(objective.metric)}, trial {best.number}</h3><p class="value">{value}</p>'
        + (f'<p class="soft">{too_good}{advice}</p>' if count > 1 else ""),
    ]
    if summary.fresh:
        cards.append(_fresh(summary, summary.fresh, objective))
    tiles = '<div class="tiles">' + "".join(f'<div class="card">{card}</div>' for card in cards) + "</div>"
    return f'{tiles}<div class="card"><h3>Its options</h3><dl>{options}</dl>{_link(summary, best, "Folder of the run")}</div>'


def _fresh(summary: StudySummary, fresh: Estimate, objective: Objective) -> str:
    read = objective.read
    interval = read.with_interval(fresh).removeprefix(read.text(fresh.value)).strip().strip("()")
    seeds = f"{summary.seeds} fresh seeds" if summary.seeds > 1 else "a fresh seed"
    parts = [f"<h3>On {seeds}</h3>", f'<p class="value">{escaped(read.text(fresh.value))}</p>']
    if interval:
        parts.append(f"<p>95 % interval over seeds alone {escaped(interval)}</p>")
    if math.isfinite(summary.optimism):
        worse = "worse" if summary.optimism > 0 else "better"
        text = (
            read.text(abs(summary.optimism))
            if objective.unit != "fraction"
            else f"{100 * abs(summary.optimism):.2f} percentage points"
        )
        parts.append(f'<p class="soft">That is {escaped(text)} {worse} than the best value of the search: its optimism.</p>')
    return "".join(parts)


def _continuing(summary: StudySummary) -> str:
    if not summary.command:
        return ""
    said = "The same command continues the study towards its number of trials:"
    return f"<h2>Continue</h2>\n<p>{said}</p>\n<pre>{escaped(summary.command)}</pre>\n"


def _search(summary: StudySummary) -> str:
    rows = [
        (
            "Objective",
            "<br>".join(f"{escaped(o.metric)} ({'highest' if o.better == 'max' else 'lowest'})" for o in summary.objectives),
        ),
        ("Space", "<br>".join(f"<code>{escaped(line)}</code>" for line in summary.space)),
        ("In every trial", "<br>".join(f"<code>{escaped(line)}</code>" for line in summary.fixed)),
        ("Sampler", escaped(summary.sampler)),
        ("Pruner", escaped(summary.pruner)),
    ]
    return '<div class="card"><dl>' + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows if text) + "</dl></div>"


def _table(summary: StudySummary, records: Sequence[TrialRecord]) -> str:
    if not records:
        return '<p class="soft">None yet.</p>'
    leading = {record.number for record in _leading(summary, records)}
    keys = [*dict.fromkeys(key for record in records for key in record.options)]
    failures = any(record.failure for record in records)
    heads = [
        ("Trial", True),
        ("State", False),
        *((o.metric, True) for o in summary.objectives),
        *((key, False) for key in keys),
    ]
    heads += [("Epochs", True), ("Time", True), *([("Failure", False)] if failures else [])]
    head = "".join(f'<th scope="col"{NUMBER * number}>{escaped(name)}</th>' for name, number in heads)
    rows = "".join(_row(summary, record, keys, failures, record.number in leading) for record in records)
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>'


def _row(summary: StudySummary, record: TrialRecord, keys: Sequence[str], failures: bool, best: bool) -> str:
    cells = [
        cell(_link(summary, record, str(record.number)) or str(record.number), record.number),
        f'<td class="{escaped(record.state)}">{escaped(record.state)}</td>',
    ]
    for i, objective in enumerate(summary.objectives):
        has = record.state == "complete" and i < len(record.values)
        value = record.values[i] if has else math.nan
        cells.append(cell(escaped(objective.read.text(value)) if has else "", value))
    for key in keys:
        text = record.options.get(key, "")
        brief = brief_number(text)
        title = f' title="{escaped(text)}"' if brief != text else ""
        cells.append(f'<td data-sort="{escaped(text)}"{title}>{escaped(brief)}</td>')
    epochs = record.reported[-1][0] if record.reported else math.nan
    cells.append(cell("" if math.isnan(epochs) else escaped(epochs), epochs))
    cells.append(cell(escaped(duration(record.seconds)) if record.seconds > 0 else "", record.seconds or math.nan))
    if failures:
        cells.append(f'<td class="failure">{escaped(record.failure)}</td>')
    return ('<tr class="best">' if best else "<tr>") + "".join(cells) + "</tr>\n"


def _link(summary: StudySummary, record: TrialRecord, text: str) -> str:
    """Return a link to the folder of a run, relative to the page; empty without one."""
    if not record.run:
        return ""
    try:
        path = PurePath(os.path.relpath(record.run, summary.folder)).as_posix()
        # "./" and quoted colons: it can name no scheme and no host.
        address = "./" + quote(os.fsencode(path)) + "/"
    except ValueError:  # on another drive, or not a path
        return ""
    return f'<a href="{escape(address)}">{escaped(text)}</a>'
