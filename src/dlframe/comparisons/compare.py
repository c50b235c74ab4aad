"""Command `compare`: a table that says whether a difference is real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from dlframe.comparisons import table
from dlframe.comparisons.analysis import Comparison, compare
from dlframe.comparisons.runs import Run, models_of, read_run
from dlframe.config import load_options
from dlframe.registry import NonNegative
from dlframe.studies import grid
from dlframe.studies.study import FOLDER, MANIFEST
from dlframe.types import ConfigError, printable, say

__all__ = ["Options", "main"]


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
    write = table.FORMATS.get(Path(options.out).suffix) if options.out else None
    if options.out and not write:
        raise ConfigError(f"out: must end in {', '.join(table.FORMATS)}. Received: {options.out!r}.", "out")
    if places and rest:
        raise ConfigError(f"compare: takes runs, or options of runs to train. Received both: {places[0]} and {rest[0]}")
    if not places and not rest:
        raise ConfigError(
            "compare: requires runs, or options of runs to train. Try: python -m dlframe compare model=cnn,rnn seeds=5"
        )
    if rest:
        if not any(text.startswith("seed=") for text in rest):
            rest.append(f"seed={','.join(map(str, range(options.seeds)))}")
        trained = grid.train(rest, stem="compare")
        if isinstance(trained, int):
            return trained
        study, space = trained
        records = study.records()
        folders = [Path(record.run) for record in records if record.state == "complete"]
        failed = [record for record in records if record.state != "complete"]
        say(*(f"failed: {' '.join(r.overrides)}: {r.failure or 'not finished'}" for r in failed))
        if not folders:
            raise ConfigError(f"compare: no run of {study.name} is complete")
        status = int(len(folders) < len(space.grid))
    else:
        folders, status = [folder for place in places for folder in folders_of(place)], 0
    found = compare_runs([read_run(folder) for folder in folders], options)
    texts = []
    for comparison in found:
        say(heading(comparison), *table.terminal(comparison, options.detect).split("\n"))
        if write:
            texts.append(write(comparison, options.detect))
    if write:
        _write(Path(options.out), texts)
    return status


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


def heading(found: Comparison) -> str:
    """Return the first line of a comparison."""
    models = f"{len(found.rows)} models" if len(found.rows) > 1 else "1 model"
    better = "higher" if found.metrics[found.metric].better == "max" else "lower"
    return f"{models} on {printable(found.data)}, {found.samples:,} test examples; {found.metric}, {better} is better"


def _write(path: Path, texts: Sequence[str]) -> None:
    try:
        path.write_text("\n".join(texts), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"out: {path} cannot be written: {error.strerror or error}.", "out") from None
    say(f"written: {path}")
