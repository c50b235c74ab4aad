"""A study as one HTML file, which asks no other address."""

from __future__ import annotations

import hashlib
import math
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from urllib.parse import quote

from dlframe.reports.live import brief_number, duration
from dlframe.statistics.pareto import pareto_front
from dlframe.types import Estimate, Objective, TrialRecord, best_of, printable

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6b7c;
  --line: #dfe4ea; --paper: #fff; --back: #f5f7f9; --blue: #0072b2;
  --orange: #b36b00; --red: #c04a00; --green: #00785a; --best: #fff6e0 }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e9ef; --soft: #9aa7b5; --line: #323b47; --paper: #1b222b; --back: #12171d;
  --blue: #6cb8e8; --orange: #e9b04a; --red: #f08a4b; --green: #4fc9a4; --best: #3a3117 }
  img { filter: invert(.895) hue-rotate(180deg) } }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back) }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem }
p { margin: .35rem 0; max-width: 48rem }
a { color: var(--blue) }
.soft { color: var(--soft) }
.card, figure { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; margin: 0 0 1rem;
  padding: 1rem 1.25rem }
.value { font-size: 2rem; font-weight: 650; margin: 0; line-height: 1.3; font-variant-numeric: tabular-nums }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem }
.tiles .card { margin: 0; min-width: 0 }
.tiles + .card { margin-top: 1rem }
.card h3, figcaption { font-size: .8rem; font-weight: 600; letter-spacing: .04em; color: var(--soft); margin: 0 0 .5rem }
dl { display: grid; grid-template-columns: fit-content(50%) minmax(0, 1fr); gap: .25rem 1.25rem; margin: 0 }
dt { color: var(--soft); overflow-wrap: anywhere }
dd { margin: 0; overflow-wrap: anywhere }
code, pre { font: .88em/1.5 ui-monospace, monospace }
pre { margin: .5rem 0 0; padding: .75rem 1rem; background: var(--back); border-radius: .4rem; white-space: pre-wrap;
  overflow-wrap: anywhere }
figure { overflow-x: auto }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: .3rem }
.scroll { overflow: auto; max-height: 80vh; padding: 0 }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .75rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { position: sticky; top: 0; background: var(--paper); font-weight: 600; z-index: 1 }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer }
th[aria-sort=ascending] button::after { content: " \\2191"; content: " \\2191" / "" }
th[aria-sort=descending] button::after { content: " \\2193"; content: " \\2193" / "" }
.number { text-align: right }
.failure { white-space: normal; min-width: 16rem; overflow-wrap: anywhere }
tr.best td { background: var(--best) }
.complete { color: var(--green) } .pruned { color: var(--soft) } .failed { color: var(--red) } .running { color: var(--orange) }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells]
  heads.forEach((head, column) => {
    const button = document.createElement("button")
    button.append(...head.childNodes)
    head.append(button)
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1
      heads.forEach(other => other.removeAttribute("aria-sort"))
      head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending")
      const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent
      const order = (a, b) => {
        const x = key(a), y = key(b)
        if (x === "" || y === "") return (x === "") - (y === "")
        return up * (x - y || x.localeCompare(y, undefined, { numeric: true }))
      }
      body.append(...[...body.rows].sort(order))
    }
  })
}
"""
"""Sorts a table by the column that is clicked; what is missing stays last."""


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
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    pictures = "".join(
        f'<figure><figcaption>{_text(title)}</figcaption><img src="{_data(title, picture)}" alt="{_text(title)}"></figure>\n'
        for title, picture in figures.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{_text(summary.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{_text(summary.title)}</h1>
<p class="soft">{_text(_counts(summary, records))}</p>
<h2>Best trial</h2>
{_best(summary, records)}
<h2>What is searched</h2>
{_search(summary)}
<h2>Figures</h2>
{pictures or '<p class="soft">None yet.</p>'}
<h2>Trials</h2>
{_table(summary, records)}
{_continuing(summary)}</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _text(text: object) -> str:
    """Return an untrusted text as HTML: control characters and marks of writing direction are escaped too."""
    return escape(printable(str(text)))


def _digest(text: str) -> str:
    """Return how a policy names a script or a style."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(title: str, picture: bytes) -> str:
    """Return a picture as a URL; as one, an SVG runs no script and loads nothing."""
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif picture.lstrip().startswith((b"<?xml", b"<svg")):
        kind = "svg+xml"
    else:
        raise ValueError(f"figure '{title}': must be PNG or SVG. Received: {picture[:8]!r}")
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"


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
    options = "".join(f"<dt>{_text(key)}</dt><dd><code>{_text(value)}</code></dd>" for key, value in best.options.items())
    too_good = f"The best value of {count:,} trials is too good on average: it was chosen for being the best."
    advice = "" if summary.fresh else " Train these options with new seeds to know their value."
    value = _text(objective.read.text(best.values[0]))
    cards = [
        f'<h3>{_text(objective.metric)}, trial {best.number}</h3><p class="value">{value}</p>'
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
    parts = [f"<h3>On {seeds}</h3>", f'<p class="value">{_text(read.text(fresh.value))}</p>']
    if interval:
        parts.append(f"<p>95 % interval {_text(interval)}</p>")
    if math.isfinite(summary.optimism):
        worse = "worse" if summary.optimism > 0 else "better"
        text = (
            read.text(abs(summary.optimism))
            if objective.unit != "fraction"
            else f"{100 * abs(summary.optimism):.2f} percentage points"
        )
        parts.append(f'<p class="soft">That is {_text(text)} {worse} than the best value of the search: its optimism.</p>')
    return "".join(parts)


def _continuing(summary: StudySummary) -> str:
    if not summary.command:
        return ""
    said = "The same command continues the study towards its number of trials:"
    return f"<h2>Continue</h2>\n<p>{said}</p>\n<pre>{_text(summary.command)}</pre>\n"


def _search(summary: StudySummary) -> str:
    rows = [
        (
            "Objective",
            "<br>".join(f"{_text(o.metric)} ({'highest' if o.better == 'max' else 'lowest'})" for o in summary.objectives),
        ),
        ("Space", "<br>".join(f"<code>{_text(line)}</code>" for line in summary.space)),
        ("In every trial", "<br>".join(f"<code>{_text(line)}</code>" for line in summary.fixed)),
        ("Sampler", _text(summary.sampler)),
        ("Pruner", _text(summary.pruner)),
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
    head = "".join(f'<th scope="col"{_NUMBER * number}>{_text(name)}</th>' for name, number in heads)
    rows = "".join(_row(summary, record, keys, failures, record.number in leading) for record in records)
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>'


_NUMBER = ' class="number"'


def _row(summary: StudySummary, record: TrialRecord, keys: Sequence[str], failures: bool, best: bool) -> str:
    cells = [
        _cell(_link(summary, record, str(record.number)) or str(record.number), record.number),
        f'<td class="{_text(record.state)}">{_text(record.state)}</td>',
    ]
    for i, objective in enumerate(summary.objectives):
        has = record.state == "complete" and i < len(record.values)
        value = record.values[i] if has else math.nan
        cells.append(_cell(_text(objective.read.text(value)) if has else "", value))
    for key in keys:
        text = record.options.get(key, "")
        brief = brief_number(text)
        title = f' title="{_text(text)}"' if brief != text else ""
        cells.append(f'<td data-sort="{_text(text)}"{title}>{_text(brief)}</td>')
    epochs = record.reported[-1][0] if record.reported else math.nan
    cells.append(_cell("" if math.isnan(epochs) else _text(epochs), epochs))
    cells.append(_cell(_text(duration(record.seconds)) if record.seconds > 0 else "", record.seconds or math.nan))
    if failures:
        cells.append(f'<td class="failure">{_text(record.failure)}</td>')
    return ('<tr class="best">' if best else "<tr>") + "".join(cells) + "</tr>\n"


def _cell(text: str, value: float) -> str:
    """Return a cell of a number, by which it is sorted; what is not finite is last."""
    return f'<td class="number" data-sort="{repr(value) if math.isfinite(value) else ""}">{text}</td>'


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
    return f'<a href="{escape(address)}">{_text(text)}</a>'
