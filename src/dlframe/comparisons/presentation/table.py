"""Tables of comparisons: for the terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dlframe.analysis.comparison import Comparison
from dlframe.comparisons.presentation.words import LEVEL, columns, footnotes, heading, sentences, shown, standing
from dlframe.types import printable

NUMBERS = ("seeds", "parameters", "seconds")
"""Columns that are aligned to the right."""


def terminal(found: Comparison, detect: float = 0.0) -> str:
    """Return the table as aligned text, with what it says below it."""
    head, rows = columns(found)
    widths = [max(len(str(cell)) for cell in column) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (f"{c:>{w}}" if name in NUMBERS else f"{c:<{w}}" for c, w, name in zip(cells, widths, head, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(map(printable, [line(head), *map(line, rows), "", *sentences(found, detect), *footnotes(found)]))


def overview(found: Sequence[Comparison], failed: Mapping[str, str]) -> list[str]:
    """Return a line for each table: its best model beside the baseline; and for those that failed, why."""
    lines = [["table", "best model", "metric", "mean", "level with it", "baseline"]]
    for one in found:
        best, baseline, read = one.rows[0], one.baseline, one.metrics[one.metric]
        level = [row.label for row in one.rows[1:] if standing(one, row) == LEVEL]
        told = f"{baseline.label} {read.text(baseline.means[one.metric].value)}" if baseline else ""
        lines.append([one.title, best.label, one.metric, shown(read, best, one.metric), ", ".join(level) or "none", told])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [*map(printable, told), *(printable(f"failed: {title}: {reason}") for title, reason in failed.items())]


def markdown(found: Comparison, detect: float = 0.0) -> str:
    """Return the table in Markdown; the best model and those level with it are bold."""
    head, rows = columns(found)
    lines = [*([f"### {found.title.capitalize()}", "", f"{heading(replace(found, title=''))}.", ""] if found.title else [])]
    lines += [_row(head), _row(["---:" if name in NUMBERS else "---" for name in head])]
    place = head.index("beside the best")
    for cells in rows:
        escaped = [cell.replace("|", r"\|") for cell in map(printable, cells)]
        if cells[place] in ("best", LEVEL):
            escaped[:2] = [f"**{cell}**" for cell in escaped[:2]]
        lines.append(_row(escaped))
    said = [f"- {printable(text)}" for text in (*sentences(found, detect), *footnotes(found))]
    return "\n".join([*lines, "", *said, ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}"}


def latex(found: Comparison, detect: float = 0.0) -> str:
    """Return the table in LaTeX, for the package booktabs."""
    head, rows = columns(found)
    place = head.index("beside the best")
    lines = [
        rf"\begin{{tabular}}{{{''.join('r' if name in NUMBERS else 'l' for name in head)}}}",
        r"\toprule",
        _latex_row([*map(_escaped, head)]),
        r"\midrule",
    ]
    for cells in rows:
        escaped = [*map(_escaped, cells)]
        if cells[place] in ("best", LEVEL):
            escaped[:2] = [rf"\textbf{{{cell}}}" for cell in escaped[:2]]
        lines.append(_latex_row(escaped))
    said = [f"% {printable(text)}" for text in (*sentences(found, detect), *footnotes(found))]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *said, ""])


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in printable(text))


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def comma_separated(found: Comparison, detect: float = 0.0) -> str:
    """Return the numbers of the table as CSV: one row for each model and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "model", "metric", "mean", "low", "high", "low_over_seeds", "high_over_seeds", "seeds",
                     "test_examples", "parameters", "seconds", "difference_to_best", "difference_low", "difference_high",
                     "p_value_holm"])  # fmt: skip
    best = found.rows[0]
    for row in (*found.rows, *([found.baseline] if found.baseline else [])):
        for metric in found.metrics:
            mean, alone = row.means[metric], row.alone.get(metric)
            cells = [found.data, row.label, metric, mean.value, mean.low, mean.high]
            cells += [alone.low, alone.high] if alone else ["", ""]
            cells += [len(row.runs) or "", found.samples, row.parameters or "", row.seconds if row.runs else ""]
            if row.runs and row is not best and metric == found.metric:
                pair = found.pair(best.label, row.label)
                cells += [pair.difference.value, pair.difference.low, pair.difference.high, pair.adjusted]
            else:
                cells += [""] * 4
            writer.writerow(["" if cell != cell else printable(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


FORMATS: dict[str, Callable[[Comparison, float], str]] = {
    ".txt": terminal,
    ".md": markdown,
    ".tex": latex,
    ".csv": comma_separated,
}
"""Ending of a file -> what is written to it."""
