"""Page and figures of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe.analysis.comparison import Comparison
from dlframe.comparisons.presentation import datasets
from dlframe.comparisons.presentation.gallery import Gallery, gallery
from dlframe.comparisons.presentation.words import LEVEL, columns, footnotes, heading, sentences
from dlframe.reports.page import NUMBER, escaped, page, pictures
from dlframe.runs.journal import history
from dlframe.types import read_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = "Examples"
"""Beginning of the title of the examples that one model gets right."""
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
        if all(row.scores[metric].seeds > 1 or not row.scores[metric].is_random for row in found.rows):  # of one it is unknown
            figures["What the uncertainty comes from"] = lambda: plots.variance_split(
                [f"{best.label}, {label}" for label in others],
                [sum(p.difference.parts.seeds) for p in pairs],
                [p.difference.parts.examples for p in pairs],
            )
    if curves := _curves(found):
        logged, points = curves
        figures["Learning curves"] = lambda: plots.seed_curves(points, metric=logged, read=read)
    if (examples := gallery(found)) and (images := examples.images) is not None:
        texts = [
            f"{name}\ntrue: {target}\n{_short(examples.best)}:\n{mine}\n{_short(examples.other)}:\n{theirs}"
            for name, (target, mine, theirs) in zip(examples.ids, examples.rows, strict=True)
        ]
        figures[_of(examples)] = lambda: plots.right_and_wrong(images, texts)
    return _saved(figures, folder, prefix)


def draw_together(found: Sequence[Comparison], folder: Path) -> dict[str, bytes]:
    """Draw the critical-difference diagram of several data sets into a folder; nothing where they do not share models."""
    from dlframe import plots

    if not (joint := datasets.together(found)) or joint.p_values is None:
        return {}
    test = f"{datasets.TEST} over {joint.count} data sets, Holm"
    return _saved(
        {
            "Mean ranks over data sets": lambda: plots.critical_difference(
                joint.labels, joint.ranks.tolist(), joint.alike, test=test
            )
        },
        folder,
    )


def _saved(figures: Mapping[str, Callable[[], Figure]], folder: Path, prefix: str = "") -> dict[str, bytes]:
    from dlframe import plots

    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for title, figure in figures.items():
        name = EXAMPLES if title.startswith(EXAMPLES) else title
        path = folder / f"{prefix}{name.lower().replace(' ', '_')}.png"
        plots.save(figure(), path)
        drawn[title] = read_bytes(path, LARGEST, inside=folder)
    return drawn


def _curves(found: Comparison) -> tuple[str, dict[str, list[list[tuple[int, float]]]]] | None:
    """Return the metric on the validation split over steps, by model and run; None where no run has logged it twice."""
    name = f"val/{found.metric}"
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    for row in found.rows:
        runs = [history(run.folder).get(name, []) for run in row.runs]
        runs = [[(step, value) for step, value in points if math.isfinite(value)] for points in runs]
        if all(len(points) > 1 for points in runs):
            curves[row.label] = runs
    return (name, curves) if curves else None


def _of(examples: Gallery) -> str:
    return f"{EXAMPLES}: {examples.best} gets them right, or less wrong than {examples.other}"


def _short(label: str) -> str:
    return label if len(label) <= 16 else f"{label[:15]}…"


def _table_of(examples: Gallery) -> str:
    """Return examples as a table of HTML."""
    head = ["id", "true", examples.best, examples.other, *(["text"] if any(examples.texts) else [])]
    heads = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    lines = []
    for name, cells, text in zip(examples.ids, examples.rows, examples.texts, strict=True):
        of_text = f'<td class="failure">{escaped(text)}</td>' if any(examples.texts) else ""
        lines.append("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in (name, *cells)) + of_text + "</tr>\n")
    title = f"<h3>{escaped(_of(examples))}</h3>\n"
    table = f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody></table>"
    return f'{title}<div class="card scroll">{table}</div>\n'


def html(
    found: Sequence[Comparison],
    figures: Sequence[dict[str, bytes]],
    title: str,
    command: str = "",
    detect: float = 0.0,
    failed: Mapping[str, str] | None = None,
    joint: Mapping[str, bytes] | None = None,
) -> str:
    """Return comparisons as one page of HTML.

    Args:
        found: Comparisons, one for each data set.
        figures: Figures of each, by title.
        title: Title of the page.
        command: Command that makes it again, as this user has typed it; empty for none.
        detect: Difference that is worth seeing, see `dlframe.comparisons.presentation.words.pair_sentence`.
        failed: Table that could not be made -> reason.
        joint: Figures of all data sets together, by title.
    """
    parts = []
    for comparison, drawn in zip(found, figures, strict=True):
        said = "".join(f"<p>{escaped(text)}</p>" for text in sentences(comparison, detect))
        notes = "".join(f'<p class="soft">{escaped(text)}</p>' for text in footnotes(comparison))
        examples = gallery(comparison)
        told = _table_of(examples) if examples and examples.images is None else ""
        shown = pictures(drawn)
        parts.append(f"<h2>{escaped(heading(comparison))}</h2>\n{_table(comparison)}\n{said}{notes}\n{shown}{told}")
    if told := [*datasets.sentences(found), *(f"failed: {name}: {reason}" for name, reason in (failed or {}).items())]:
        parts.append("<h2>Together</h2>\n" + "".join(f"<p>{escaped(text)}</p>\n" for text in told) + pictures(joint or {}))
    again = f"<h2>Again</h2>\n<pre>{escaped(command)}</pre>\n" if command else ""
    return page(title, "\n".join([*parts, again]))


def _table(found: Comparison) -> str:
    head, rows = columns(found)
    numbers = {"seeds", "parameters", "seconds"}
    heads = "".join(f'<th scope="col"{NUMBER * (name in numbers)}>{escaped(name)}</th>' for name in head)
    place = head.index("beside the best")
    lines = []
    for cells in rows:
        best = ' class="best"' * (cells[place] in ("best", LEVEL))
        lines.append(
            f"<tr{best}>"
            + "".join(f"<td{NUMBER * (name in numbers)}>{escaped(cell)}</td>" for name, cell in zip(head, cells, strict=True))
            + "</tr>\n"
        )
    return f'<div class="card scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{"".join(lines)}</tbody></table></div>'
