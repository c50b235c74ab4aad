"""Report of a study: its figures and a page with them, in its folder; and what is told of its winner."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.plots import Dimension
from dlframe.reports.study_page import StudySummary, study_page
from dlframe.runs.run_directory import FIGURES, REPORT, check_links
from dlframe.statistics.optimism import winner
from dlframe.storage.known import is_known
from dlframe.studies.study import MANIFEST, Study, read_manifest
from dlframe.types import DlframeError, Estimate, Objective, TrialRecord, read_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 2**26
"""Bytes of a figure."""


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """The best options of a study on seeds that the search has not seen.

    Attributes:
        estimate: Mean of the objective, with its interval over seeds.
        seeds: Number of seeds.
        optimism: Best value of the search less the mean, positive if the former is better.
    """

    estimate: Estimate
    seeds: int
    optimism: float

    @property
    def _over(self) -> str:
        """What the interval is over: the objective is of the validation split, whose predictions are not kept."""
        return ", over seeds alone" if self.seeds > 1 else ""

    def text(self, objective: Objective, best: float) -> str:
        """Say it: "search 93.30 %, fresh seeds 92.10 % (90 to 94 %), over seeds alone: the search was 1.20 points too good"."""
        read = objective.read
        size = f"{100 * abs(self.optimism):.2f} points" if objective.unit == "fraction" else read.text(abs(self.optimism))
        what = f"was {size} too good" if self.optimism > 0 else f"was not too good: the fresh seeds are {size} better"
        seeds = f"{self.seeds} fresh seeds" if self.seeds > 1 else "a fresh seed"
        return f"search {read.text(best)}, {seeds} {read.with_interval(self.estimate)}{self._over}: the search {what}"


def fresh_name(study: Study, best: TrialRecord) -> str:
    """Return the name of the grid that trains the best trial with fresh seeds."""
    return f"{study.name}-fresh-{best.number:04d}"


def fresh_of(study: Study, best: TrialRecord | None) -> Fresh | None:
    """Return what the fresh seeds of the best trial say; None without any, and where several objectives are compared."""
    if not best or len(study.objectives) > 1:
        return None
    folder = study.folder.with_name(fresh_name(study, best))
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    if manifest.storage != "journal" and not is_known(study=folder.resolve()):
        return None
    grid = Study(folder, manifest)
    objective = study.objectives[0]
    if grid.objectives != study.objectives:
        return None
    values = [value for record in grid.records() if (value := record.value()) is not None]
    if not values:
        return None
    value, low, high = winner([best.values], better=objective.better, fresh=values).fresh
    if objective.unit == "fraction" and max(values) <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    optimism = objective.sign * (best.values[0] - value)
    return Fresh(estimate=Estimate(value, low, high), seeds=len(values), optimism=optimism)


def write(study: Study, *, command: str = "", draw: bool = True) -> Path:
    """Write the figures and the page of a study, and return the path of the page.

    Args:
        study: The study, which may still run.
        command: Command that continues it, as this user has typed it; empty for none.
        draw: Whether figures are drawn.

    Raises:
        DlframeError: The folder cannot be written, or holds links.
    """
    check_links(study.folder, "sweep report")
    records = study.records()
    fresh = fresh_of(study, study.best(records))
    manifest = study.manifest
    summary = StudySummary(
        title=study.name,
        objectives=tuple(study.objectives),
        total=manifest.trials,
        space=tuple(manifest.space),
        sampler=_component(manifest.sampler),
        pruner="" if manifest.pruner["name"] == "none" else _component(manifest.pruner),
        command=command,
        fixed=tuple(manifest.fixed),
        folder=str(study.folder),
        fresh=fresh.estimate if fresh else None,
        seeds=fresh.seeds if fresh else 0,
        optimism=fresh.optimism if fresh else math.nan,
    )
    try:
        figures = _draw(study, records) if draw else {}
        publish(study, study_page(summary, records, figures))
    except OSError as error:
        raise DlframeError(f"{study.folder}: cannot be written: {error.strerror}.") from None
    if study.journal and fresh:
        study.journal.metrics({f"fresh/{study.objectives[0].metric}": fresh.estimate.value, "optimism": fresh.optimism})
    return study.folder / REPORT


def publish(study: Study, text: str) -> None:
    """Write the page of a study into its folder, and have it uploaded with the figures that are there.

    Raises:
        OSError: The folder cannot be written.
    """
    _write(study.folder / REPORT, lambda path: path.write_text(text, encoding="utf-8"))
    if study.journal:
        for name in sorted(path.name for path in (study.folder / FIGURES).glob("*.png")):
            study.journal.artifact(f"{FIGURES}/{name}", FIGURES)
        study.journal.artifact(REPORT)


def _component(values: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in values.items() if key != "name")
    return f"{values['name']} ({options})" if options else str(values["name"])


def _draw(study: Study, records: Sequence[TrialRecord]) -> dict[str, bytes]:
    """Draw the figures that the trials have something for, and return them by title."""
    from dlframe import plots

    objective, dimensions = study.objectives[0], dimensions_of(study)
    figures: dict[str, Callable[[], Figure]] = {}
    if len(study.objectives) > 1:
        pair = (study.objectives[0], study.objectives[1])
        figures["Pareto front"] = lambda: plots.pareto_front(records, pair)
    if records:
        figures["Optimization history"] = lambda: plots.optimization_history(records, objective)
    if any(len(record.reported) > 1 for record in records):
        figures["Intermediate values"] = lambda: plots.intermediate_values(records, objective)
    if any(record.value() is not None for record in records) and dimensions:
        figures["Parallel coordinates"] = lambda: plots.parallel_coordinates(records, dimensions, objective)
        figures["Slices"] = lambda: plots.slices(records, dimensions, objective)
    try:
        shares = study.importance()
    except DlframeError:  # of too few trials
        shares = {}
    if shares:
        figures["Importance of options (fANOVA)"] = lambda: plots.importance(shares)
    (study.folder / FIGURES).mkdir(exist_ok=True)
    found = {}
    for title, figure in figures.items():
        name = title.partition(" (")[0].lower().replace(" ", "_")
        path = study.folder / FIGURES / f"{name}.png"
        _write(path, lambda unfinished, figure=figure: plots.save(figure(), unfinished))
        found[title] = read_bytes(path, LARGEST, inside=study.folder)
    return found


def dimensions_of(study: Study) -> list[Dimension]:
    """Return the options that the trials have varied, in the order of their first use."""
    found: dict[str, Dimension] = {}
    for trial in study.trials():
        for key, distribution in trial.distributions.items():
            values = tuple(map(str, getattr(distribution, "choices", ())))
            found.setdefault(key, Dimension(key=key, values=values, log=getattr(distribution, "log", False)))
    return [*found.values()]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    write(unfinished)
    unfinished.replace(path)
