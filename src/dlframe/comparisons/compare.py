"""Command `compare`: a table that says whether a difference is real."""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from dlframe.comparisons.analysis import Comparison, compare
from dlframe.comparisons.presentation import datasets, page, table
from dlframe.comparisons.presentation.words import heading
from dlframe.comparisons.runs import Run, models_of
from dlframe.comparisons.sources import gather, split
from dlframe.registry import NonNegative
from dlframe.runs.run_directory import FIGURES, REPORT, check_links
from dlframe.types import ConfigError, DlframeError, say

if TYPE_CHECKING:
    from dlframe.studies.study import Study

__all__ = ["Options", "main"]

HTML = ".html"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a comparison.

    Args:
        seeds: Seeds of each model, from 0 on, where models are trained.
        metrics: Metrics of the table; the first one is tested. None for the headline of the runs.
        over: What intervals and tests generalize over: seeds and test examples (is the procedure better?), seeds (on this test
            set?), or examples (are these trained networks?).
        detect: Difference that is worth seeing, for the sentence on what it would take: in points of accuracy and other
            fractions, else in the unit of the metric; 0 for a half of the present interval's half-width.
        out: File for the table, ending in .md, .tex, .csv, .html or .txt; empty for none.
    """

    seeds: Annotated[int, Interval(ge=1, le=1000)] = 3
    metrics: tuple[str, ...] = ()
    over: Literal["both", "seeds", "examples"] = "both"
    detect: NonNegative = 0.0
    out: str = ""


def main(arguments: Sequence[str]) -> int:
    """Compare models by finished runs, or by runs that are trained first: `compare model=cnn,rnn seeds=5`.

    RUN is a run directory, or the name of a grid or a sweep, of which all complete runs are taken. Runs that differ only in
    the seed are one model. Whatever else is typed as KEY=VALUE,VALUE is trained as a grid, with `seeds` seeds of each
    combination; the same command continues it.

    Raises:
        DlframeError: The runs cannot be compared.
    """
    options, places, rest = split("compare", Options, arguments)
    endings = [*table.FORMATS, HTML]
    if options.out and Path(options.out).suffix not in endings:
        raise ConfigError(f"out: must end in {', '.join(endings)}. Received: {options.out!r}.", "out")

    def use(runs: list[Run], study: Study | None, trackers: list[Any]) -> None:
        found = compare_runs(runs, options)
        _tell(found, options)
        if study:
            _write_page(found, study, f"python -m dlframe compare {shlex.join(arguments)}", options.detect)
            _tell_seeds(found, study, trackers)

    return gather("compare", places, rest, options.seeds, use)


def _tell(found: Sequence[Comparison], options: Options) -> None:
    """Print comparisons, and write the file that is asked for."""
    for comparison in found:
        say(heading(comparison), *table.terminal(comparison, options.detect).split("\n"))
    say(*datasets.sentences(found))
    if not options.out:
        return
    path = Path(options.out)
    try:
        if path.suffix == HTML:
            with tempfile.TemporaryDirectory() as folder:
                figures = [page.draw(comparison, Path(folder)) for comparison in found]
            text = page.html(found, figures, "Comparison", detect=options.detect)
        else:
            text = "\n".join(table.FORMATS[path.suffix](comparison, options.detect) for comparison in found)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"out: {path} cannot be written: {error.strerror or error}.", "out") from None
    say(f"written: {path}")


def _tell_seeds(found: Sequence[Comparison], study: Study, trackers: list[Any]) -> None:
    """Have each model uploaded as a run of its own, by whose metrics a tracking server can sort."""
    from dlframe.studies import driver

    rows = sorted(((row.label, comparison.data, row) for comparison in found for row in comparison.rows), key=lambda r: r[:2])
    for place, (label, data, row) in enumerate(rows):
        values = {"seeds": float(len(row.runs))}
        for metric, mean in row.means.items():
            bounds = {"": mean.value, "/low": mean.low, "/high": mean.high}
            values |= {f"mean/{metric}{end}": value for end, value in bounds.items() if math.isfinite(value)}
        label = label if len(found) == 1 else f"{label}, {data}"
        driver.tell_seeds(study, place, label, [run.folder for run in row.runs], values, trackers)


def _write_page(found: Sequence[Comparison], study: Study, command: str, detect: float) -> None:
    """Write the page of a comparison into the folder of its study."""
    from dlframe.studies.report import publish

    check_links(study.folder, "compare")
    try:
        folder = study.folder / FIGURES
        figures = [page.draw(comparison, folder, f"{place}_" if place else "") for place, comparison in enumerate(found)]
        publish(study, page.html(found, figures, study.name, command, detect))
    except OSError as error:
        raise DlframeError(f"{study.folder}: cannot be written: {error.strerror or error}.") from error
    say(f"page {study.folder / REPORT}")


def compare_runs(runs: Sequence[Run], options: Options) -> list[Comparison]:
    """Compare runs, those on each data set with one another.

    Raises:
        DlframeError: The runs cannot be compared.
    """
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        by_data.setdefault(run.fingerprint, []).append(run)
    names: dict[str, Run] = {}
    for same in by_data.values():
        if other := names.get(same[0].data):
            raise ConfigError(
                f"compare: {same[0].folder} and {other.folder} have other data or another split, both called {other.data}: "
                f"fingerprints {same[0].fingerprint} and {other.fingerprint}"
            )
        names[same[0].data] = same[0]
    return [compare(models_of(same), options.metrics, over=options.over) for same in by_data.values()]
