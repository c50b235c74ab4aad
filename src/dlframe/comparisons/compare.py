"""Command `compare`: a table that says whether a difference is real."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from dlframe.comparisons import page, table
from dlframe.comparisons.analysis import Comparison, compare
from dlframe.comparisons.runs import Run, models_of, read_run
from dlframe.comparisons.words import heading
from dlframe.config import load_options
from dlframe.registry import NonNegative
from dlframe.runs.run_directory import FIGURES, REPORT, check_links
from dlframe.studies import grid
from dlframe.studies.space import Space
from dlframe.studies.study import FOLDER, MANIFEST, Study
from dlframe.types import ConfigError, printable, say

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
        detect: Difference that is worth seeing, for the sentence on what it would take, in the metric's own unit (accuracy:
            0.005 is half a point); 0 for half of the present interval.
        out: File for the table, ending in .md, .tex, .csv or .txt; empty for none.
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
    own = {f.name for f in fields(Options)}
    places = [text for text in arguments if "=" not in text]
    options = load_options("compare", Options, [text for text in arguments if text.partition("=")[0] in own])
    rest = [text for text in arguments if "=" in text and text.partition("=")[0] not in own]
    endings = [*table.FORMATS, HTML]
    if options.out and Path(options.out).suffix not in endings:
        raise ConfigError(f"out: must end in {', '.join(endings)}. Received: {options.out!r}.", "out")
    if places and rest:
        raise ConfigError(f"compare: takes runs, or options of runs to train. Received both: {places[0]} and {rest[0]}")
    if not places and not rest:
        raise ConfigError(
            "compare: requires runs, or options of runs to train. Try: python -m dlframe compare model=cnn,rnn seeds=5"
        )
    if rest:
        return _trained(arguments, rest, options)
    _tell(compare_runs([read_run(folder) for place in places for folder in folders_of(place)], options), options)
    return 0


def _trained(arguments: Sequence[str], rest: Sequence[str], options: Options) -> int:
    """Train what is missing of a grid, and compare its runs; the exit status."""
    seeds = ",".join(map(str, range(options.seeds)))
    status = 0

    def end(study: Study, space: Space) -> None:
        nonlocal status
        records = study.records()
        complete = [record for record in records if record.state == "complete"]
        others = [record for record in records if record.state != "complete"]
        say(*(f"failed: {' '.join(r.overrides)}: {r.failure or 'not finished'}" for r in others))
        if not complete:
            raise ConfigError(f"compare: no run of {study.name} is complete")
        status = int(len(complete) < len(space.grid))
        found = compare_runs([read_run(Path(record.run)) for record in complete], options)
        _tell(found, options)
        _write_page(found, study, f"python -m dlframe compare {shlex.join(arguments)}")

    is_given = any(text.startswith("seed=") for text in rest)
    own = grid.train([*rest, *([] if is_given else [f"seed={seeds}"])], stem="compare", end=end)
    return own if isinstance(own, int) else status


def _tell(found: Sequence[Comparison], options: Options) -> None:
    """Print comparisons, and write the file that is asked for."""
    for comparison in found:
        say(heading(comparison), *table.terminal(comparison, options.detect).split("\n"))
    if not options.out:
        return
    path = Path(options.out)
    try:
        if path.suffix == HTML:
            with tempfile.TemporaryDirectory() as folder:
                figures = [page.draw(comparison, Path(folder)) for comparison in found]
            text = page.html(found, figures, "Comparison")
        else:
            text = "\n".join(table.FORMATS[path.suffix](comparison, options.detect) for comparison in found)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"out: {path} cannot be written: {error.strerror or error}.", "out") from None
    say(f"written: {path}")


def _write_page(found: Sequence[Comparison], study: Study, command: str) -> None:
    """Write the page of a comparison into the folder of its study."""
    check_links(study.folder, "compare")
    figures = []
    for number, comparison in enumerate(found):
        folder = study.folder / FIGURES
        figures.append(page.draw(comparison, folder, f"{number}_" if number else ""))
    path = study.folder / REPORT
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(page.html(found, figures, study.name, command), encoding="utf-8")
    unfinished.replace(path)
    if study.journal:
        for name in sorted(file.name for file in (study.folder / FIGURES).glob("*.png")):
            study.journal.artifact(f"{FIGURES}/{name}", FIGURES)
        study.journal.artifact(REPORT)
    say(f"page {path}")


def folders_of(place: str, runs: str = "runs") -> list[Path]:
    """Return the run directories that an argument names: one, or those of a study.

    Raises:
        ConfigError: There are none.
    """
    path = Path(place)
    study = path if (path / MANIFEST).is_file() else Path(runs) / FOLDER / place
    if not (study / MANIFEST).is_file():
        return [path]
    folders = sorted(study.parent.parent.glob(f"{study.name}-[0-9][0-9][0-9][0-9]*"))
    finished = [folder for folder in folders if (folder / "result.json").is_file()]
    if not finished:
        raise ConfigError(f"compare: '{printable(study.name)}' has no complete run yet")
    return finished


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
