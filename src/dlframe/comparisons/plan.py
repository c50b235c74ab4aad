"""Command `plan`: the seeds, test examples and hours that it takes to see a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from scipy.stats import chi2

from dlframe.analysis.comparison import Comparison, Row, compare
from dlframe.analysis.runs import Run, models_of
from dlframe.comparisons.presentation.words import POWER, about, heading, of_shown, parts_text, size
from dlframe.comparisons.sources import gather, split
from dlframe.registry import Place, Positive
from dlframe.statistics.comparison import planning
from dlframe.statistics.comparison.differences import Parts
from dlframe.types import ConfigError, say

if TYPE_CHECKING:
    from dlframe.studies.study import Study

__all__ = ["Options", "main"]

SEEDS = (2, 3, 5, 8, 12, 20, 30)
FACTORS = (0.5, 1.0, 2.0, 5.0, 20.0)
"""Seeds, and times the present test examples, of the figure."""
WITHIN = 0.8
"""Fraction of pilots between the bounds of what is told."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a plan.

    Args:
        detect: Difference to be seen: in points of accuracy and other fractions, else in the unit of the metric; null for
            the observed one.
        seeds: Seeds of the pilot, where models are trained.
        metrics: Metric that is planned for; none for the headline of the runs.
        out: File for a figure of the chances, ending in .png; empty for none.
    """

    detect: Positive | None = None
    seeds: Annotated[int, Interval(ge=2, le=1000)] = 3
    metrics: tuple[str, ...] = ()
    out: Place = ""


def main(arguments: Sequence[str]) -> int:
    """Tell how many seeds and test examples show a difference, and how long that takes: `plan model=cnn,rnn detect=0.5`.

    The variance between two models is taken apart into that of seeds and that of test examples, by finished runs of both or a
    pilot that is trained first. A pilot of three seeds knows the variance of seeds only roughly: the range is told.

    Raises:
        DlframeError: The runs cannot be compared.
    """
    options, places, rest = split("plan", Options, arguments)
    if options.out and not options.out.endswith(".png"):
        raise ConfigError(f"out: must end in .png. Received: {options.out!r}.", "out")

    def use(runs: list[Run], study: Study | None, trackers: list[Any]) -> None:
        if not all(run.shares_data(runs[0]) for run in runs):
            raise ConfigError("plan: takes runs on one data set")
        found = compare(models_of(runs), options.metrics)
        if len(found.rows) < 2:
            raise ConfigError("plan: requires two models, whose difference is to be seen")
        if any(row.scores[found.metric].seeds < 2 and row.scores[found.metric].is_random for row in found.rows):
            raise ConfigError("plan: requires two seeds of each model, to know their variance. Try three")
        say(heading(found))
        best = found.rows[0]
        for other in found.rows[1:]:
            say(*_plan(found, best, other, options))
        if options.out:
            _draw(found, best, found.rows[1], options)

    return gather("plan", places, rest, options.seeds, use)


def _target(found: Comparison, best: Row, other: Row, options: Options) -> float:
    """Return the difference to be seen, in the metric's own unit."""
    observed = abs(found.pair(best.label, other.label).difference.value)
    if not (target := of_shown(found.metrics[found.metric], options.detect or 0.0) or observed):
        raise ConfigError(
            f"plan: {best.label} and {other.label} are equal: say what difference is to be seen, such as detect=0.5"
        )
    return target


def _plan(found: Comparison, best: Row, other: Row, options: Options) -> list[str]:
    read, parts = found.metrics[found.metric], found.pair(best.label, other.label).difference.parts
    target = _target(found, best, other, options)
    difference = size(read, target)
    if not parts.variance:
        return [f"{best.label} and {other.label}: nothing varies, so any difference is shown"]
    counts = ", ".join(map(str, dict.fromkeys(parts.counts)))
    chance = [100 * planning.power(target, p) for p in (_scaled(parts, True), parts, _scaled(parts, False))]
    often = f"{100 * POWER:.0f} %"
    now = f"{chance[1]:.0f} % ({chance[0]:.0f} to {chance[2]:.0f} by other pilots)"
    told = [
        f"{best.label} and {other.label}: to see {difference} with a chance of {often}",
        f"     as things are: {now}, with {counts} seeds and {found.samples:,} examples",
        f"     seen with a chance of {often}: {size(read, planning.shown(parts))}",
        f"     the variance: {parts_text(parts)}",
    ]
    plans = [planning.needed(target, p) for p in (parts, _scaled(parts, False), _scaled(parts, True))]
    seeds = [plan.seeds for plan in plans]
    if not any(parts.seeds):
        told.append("     seeds: neither model varies with the seed")
    elif seeds[0] is None:
        told.append(f"     seeds alone: no number of seeds, as the {found.samples:,} test examples hold it back")
    else:
        ends = f"{seeds[1] or 'none'} to {about(seeds[2]) if seeds[2] else 'no number'}"
        told.append(f"     seeds alone: {about(seeds[0])} of each ({ends} by other pilots), {_hours(seeds[0], best, other)}")
    examples = [plan.examples for plan in plans]
    if examples[0] is None:
        told.append("     test examples alone: no number of them, as the seeds hold it back")
    else:
        told.append(f"     test examples alone: {about(examples[0] * found.samples)}")
    if seeds[0] is None and examples[0] is None:
        told.append(f"     {_both(found, best, other, target, parts)}")
    return told


def _both(found: Comparison, best: Row, other: Row, target: float, parts: Parts) -> str:
    """Say the fewest seeds that show it with more examples, and how many."""
    for count in range(2, 200):
        plan = planning.needed(target, parts.at([count] * 2, 1.0))
        if plan.examples and plan.examples < 100:
            examples = about(plan.examples * found.samples)
            return f"both: {count} seeds of each and {examples} test examples, {_hours(count, best, other)}"
    return "both: more than 200 seeds of each"


def _scaled(parts: Parts, up: bool) -> Parts:
    """Return the parts with the variance of seeds at the upper or lower end of what the pilot leaves open."""

    def scale(variance: float, count: int) -> float:
        freedom = count - 1
        quantile = (1 - WITHIN) / 2 if up else (1 + WITHIN) / 2
        return variance * freedom / float(chi2.ppf(quantile, freedom)) if freedom > 0 else variance

    seeds = tuple(scale(v, n) for v, n in zip(parts.seeds, parts.counts, strict=True))
    return Parts(seeds, parts.examples, parts.counts, parts.groups)


def _hours(seeds: int, *models: Row) -> str:
    """Say how long so many runs of each model take."""
    seconds = seeds * sum(row.seconds for row in models if not math.isnan(row.seconds))
    if seconds > 5400:
        return f"about {seconds / 3600:.1f} hours"
    return f"about {seconds / 60:.0f} minutes" if seconds >= 90 else "about a minute"


def _draw(found: Comparison, best: Row, other: Row, options: Options) -> None:
    from dlframe import plots

    parts = found.pair(best.label, other.label).difference.parts
    target = _target(found, best, other, options)
    power = planning.curve(target, parts, SEEDS, FACTORS)
    read = found.metrics[found.metric]
    figure = plots.power_curves(SEEDS, FACTORS, power, samples=found.samples, difference=size(read, target))
    try:
        plots.save(figure, Path(options.out))
    except OSError as error:
        raise ConfigError(f"out: {options.out} cannot be written: {error.strerror or error}.", "out") from None
    say(f"written: {options.out}")
