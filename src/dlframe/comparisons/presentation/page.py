"""Page and figures of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe.comparisons.analysis import Comparison
from dlframe.comparisons.presentation.words import columns, footnotes, heading, sentences
from dlframe.reports.page import NUMBER, escaped, page, pictures
from dlframe.types import read_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 2**26
"""Bytes of a figure."""


def draw(found: Comparison, folder: Path, prefix: str = "") -> dict[str, bytes]:
    """Draw the figures of a comparison into a folder, and return them by title; `prefix` begins the names of files."""
    from dlframe import plots

    read, metric, best = found.metrics[found.metric], found.metric, found.rows[0]
    means = [row.means[metric] for row in found.rows]
    baseline = (found.baseline.label, found.baseline.means[metric].value) if found.baseline else None
    figures: dict[str, Callable[[], Figure]] = {
        "Seeds of each model": lambda: plots.seed_values(
            [row.label for row in found.rows],
            [row.scores[metric].values.tolist() for row in found.rows],
            [(mean.value, mean.low, mean.high) for mean in means],
            metric=metric,
            read=read,
            baseline=baseline,
        )
    }
    if len(found.rows) > 1:
        pairs = [found.pair(best.label, row.label) for row in found.rows[1:]]
        others = [row.label for row in found.rows[1:]]
        figures["Differences to the best"] = lambda: plots.differences(
            others,
            [(p.difference.value, p.difference.low, p.difference.high) for p in pairs],
            [p.differs for p in pairs],
            metric=metric,
            read=read,
            reference=best.label,
        )
        figures["What the uncertainty comes from"] = lambda: plots.variance_split(
            [f"{best.label}, {label}" for label in others],
            [sum(p.difference.parts.seeds) for p in pairs],
            [p.difference.parts.examples for p in pairs],
        )
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for title, figure in figures.items():
        path = folder / f"{prefix}{title.lower().replace(' ', '_')}.png"
        plots.save(figure(), path)
        drawn[title] = read_bytes(path, LARGEST, inside=folder)
    return drawn


def html(
    found: Sequence[Comparison], figures: Sequence[dict[str, bytes]], title: str, command: str = "", detect: float = 0.0
) -> str:
    """Return comparisons as one page of HTML.

    Args:
        found: Comparisons, one for each data set.
        figures: Figures of each, by title.
        title: Title of the page.
        command: Command that makes it again, as this user has typed it; empty for none.
        detect: Difference that is worth seeing, see `dlframe.comparisons.presentation.words.pair_sentence`.
    """
    parts = []
    for comparison, drawn in zip(found, figures, strict=True):
        said = "".join(f"<p>{escaped(text)}</p>" for text in sentences(comparison, detect))
        notes = "".join(f'<p class="soft">{escaped(text)}</p>' for text in footnotes(comparison))
        parts.append(f"<h2>{escaped(heading(comparison))}</h2>\n{_table(comparison)}\n{said}{notes}\n{pictures(drawn)}")
    again = f"<h2>Again</h2>\n<pre>{escaped(command)}</pre>\n" if command else ""
    return page(title, "\n".join([*parts, again]))


def _table(found: Comparison) -> str:
    head, rows = columns(found)
    numbers = {"seeds", "parameters", "seconds"}
    heads = "".join(f'<th scope="col"{NUMBER * (name in numbers)}>{escaped(name)}</th>' for name in head)
    place = head.index("beside the best")
    lines = []
    for cells in rows:
        best = ' class="best"' * (cells[place] in ("best", "level with the best"))
        lines.append(
            f"<tr{best}>"
            + "".join(f"<td{NUMBER * (name in numbers)}>{escaped(cell)}</td>" for name, cell in zip(head, cells, strict=True))
            + "</tr>\n"
        )
    return f'<div class="card scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{"".join(lines)}</tbody></table></div>'
