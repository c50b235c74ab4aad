"""Command `compare`: a table that says whether a difference is real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from dlframe.analysis.comparison import Comparison, compare
from dlframe.analysis.runs import Run, models_of
from dlframe.analysis.splits import are_splits, compare_splits
from dlframe.comparisons import tables
from dlframe.comparisons.presentation import datasets, files, page, table
from dlframe.comparisons.presentation.words import heading
from dlframe.comparisons.sources import gather, split, train
from dlframe.registry import Place, Positive
from dlframe.runs.run_directory import FIGURES, REPORT, check_links
from dlframe.types import ConfigError, DlframeError, command_line, say

if TYPE_CHECKING:
    from dlframe.studies.study import Study

__all__ = ["Options", "main"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a comparison.

    Args:
        tables: Tables to make, or "all": for each task the models of conf/table/NAME.yaml, on the default data of the task.
        seeds: Seeds of each model, from 0 on, where models are trained.
        metrics: Metrics of the table; the first one is tested. None for the headline of the runs.
        over: What intervals and tests generalize over: seeds and test examples (is the procedure better?), seeds (on this test
            set?), or examples (are these trained networks?).
        design: Whether seeds of two models are different draws ("nested"), or matched ("crossed"): seed 3 of each has the same
            kept labels or pretrained weights. "auto" takes them as matched with `labels_per_class`, which the seed draws.
        detect: Difference that is worth seeing, for the sentence on what it would take: in points of accuracy and other
            fractions, else in the unit of the metric; null for a half of the present interval's half-width.
        out: File for the table, ending in .md, .tex, .csv, .html or .txt; empty for none. In a Markdown file that is there,
            what stands between its lines `<!-- dlframe compare -->` and `<!-- end of dlframe compare -->` is replaced, with the
            command; of several such blocks, the one that is empty or was made by the same command.
    """

    tables: tuple[str, ...] = ()
    seeds: Annotated[int, Interval(ge=1, le=1000)] = 3
    metrics: tuple[str, ...] = ()
    over: Literal["both", "seeds", "examples"] = "both"
    design: Literal["auto", "nested", "crossed"] = "auto"
    detect: Positive | None = None
    out: Place = ""


def main(arguments: Sequence[str]) -> int:
    """Compare models by finished runs, or by runs that are trained first: `compare model=cnn,rnn seeds=5`.

    RUN is a run directory, or the name of a grid or a sweep, of which all complete runs are taken. Runs that differ only in
    the seed are one model. Whatever else is typed as KEY=VALUE,VALUE is trained as a grid, with `seeds` seeds of each
    combination; the same command continues it. `tables=all` makes the table of every task, `tables=forecasting` that of one; a
    table that cannot be made is told with its reason, and the others are made.

    Raises:
        DlframeError: The runs cannot be compared.
    """
    options, places, rest = split("compare", Options, arguments)
    command = command_line("compare", *arguments)
    files.check(options.out, command)
    if options.tables:
        return _tables(options, rest, command)

    def use(runs: list[Run], study: Study | None, trackers: list[Any]) -> None:
        found = compare_runs(runs, options)
        _say(found, options)
        say(*datasets.sentences(found))
        files.write(options.out, found, command, detect=options.detect or 0.0)
        if study:
            _write_page(found, study, command, options.detect or 0.0)
            _tell_seeds(found, study, trackers)

    return gather("compare", places, rest, options.seeds, use)


def _say(found: Sequence[Comparison], options: Options) -> None:
    for comparison in found:
        say(heading(comparison), *table.terminal(comparison, options.detect or 0.0).split("\n"))


def _tables(options: Options, rest: Sequence[str], command: str) -> int:
    """Make tables one after the other; the exit status: 1 if a table or one of its runs failed."""
    asked = tables.chosen(options.tables)
    made: list[Comparison] = []
    failed: dict[str, str] = {}
    status = 0
    for number, one in enumerate(asked, 1):

        def use(runs: list[Run], study: Study | None, trackers: list[Any], one: tables.Table = one) -> None:
            found = [
                replace(c, title=one.title)
                for c in compare_runs(runs, replace(options, metrics=options.metrics or one.metrics))
            ]
            _say(found, options)
            made.extend(found)
            if study:
                _write_page(found, study, command, options.detect or 0.0)
                _tell_seeds(found, study, trackers)

        say(f"table {number} of {len(asked)}: {one.title}")
        try:
            overrides = tables.overrides_of(one, rest)
            tables.check_data(overrides)
            status |= train("compare", overrides, options.seeds, use, stem=one.name)
        except DlframeError as error:
            failed[one.title] = str(error)
            say(f"failed: {one.title}: {error}", error=True)
    if not made:
        raise ConfigError(f"compare: no table could be made. {next(iter(failed.values()))}")
    if len(asked) > 1:
        say(*table.overview(made, failed))
    files.write(options.out, made, command, failed=failed, detect=options.detect or 0.0)
    return int(bool(status or failed))


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
        joint = page.draw_together(found, folder)
        publish(study, page.html(found, figures, study.name, command, detect, joint=joint))
    except OSError as error:
        raise DlframeError(f"{study.folder}: cannot be written: {error.strerror or error}.") from error
    say(f"page {study.folder / REPORT}")


def compare_runs(runs: Sequence[Run], options: Options) -> list[Comparison]:
    """Compare runs, those on each data set with one another.

    Raises:
        DlframeError: The runs cannot be compared.
    """
    by_data: dict[str, list[Run]] = {}
    drawn: list[Comparison] = []
    for run in runs:
        by_data.setdefault(run.fingerprint, []).append(run)
    for name in dict.fromkeys(run.data for run in runs):
        own = [run for run in runs if run.data == name]
        if are_splits(own):
            splits = {run.fingerprint: by_data.pop(run.fingerprint) for run in own if run.fingerprint in by_data}
            drawn.append(compare_splits([models_of(same) for same in splits.values()], options.metrics))
    together: dict[str, list[Run]] = {}
    for same in by_data.values():
        others = together.setdefault(same[0].data, [])
        if others and not same[0].shares_data(others[0]):
            raise ConfigError(
                f"compare: {same[0].folder} and {others[0].folder} have other data or another split, both called "
                f"{same[0].data}: fingerprints {same[0].fingerprint} and {others[0].fingerprint}"
            )
        others += same
    return [
        *drawn,
        *(compare(models_of(same), options.metrics, over=options.over, design=options.design) for same in together.values()),
    ]
