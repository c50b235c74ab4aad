"""Models on one data set: means with intervals, differences with tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np

from dlframe.analysis.predictions import Paired, Values, declared
from dlframe.analysis.runs import Model, Run, read_run
from dlframe.statistics.comparison import differences as comparison
from dlframe.statistics.comparison.differences import Design, Difference, Mean, Over, Parts, Scores
from dlframe.statistics.comparison.others import diebold_mariano
from dlframe.types import ConfigError, DlframeError, Estimate, Metric, Result


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: Name of the model, or of the baseline.
        scores: Metric -> values and leave-one-group-out values.
        means: Metric -> mean with its interval.
        alone: Metric -> mean with its interval over seeds alone; none with one seed.
        runs: Its runs; none of the baseline.
        losses: (samples,) mean loss of its runs for each forecast of a series; None of other data.
        each: (samples,) mean over its runs of what each sample adds to the tested metric; None of metrics of lists.
    """

    label: str
    scores: Mapping[str, Scores]
    means: Mapping[str, Mean]
    alone: Mapping[str, Mean]
    runs: tuple[Run, ...]
    losses: np.ndarray | None = None
    each: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        """Mean training time of a run."""
        return float(np.mean([run.result.seconds for run in self.runs])) if self.runs else math.nan

    @property
    def parameters(self) -> int:
        """Trained parameters of a run; 0 where unknown."""
        return self.runs[0].parameters if self.runs else 0


@dataclass(frozen=True)
class Pair:
    """Two models, the better one first.

    Attributes:
        better: Label of the model with the better mean.
        worse: Label of the other one.
        difference: Of the means, positive if larger values are better.
        adjusted: p-value after Holm's correction for all pairs of models.
    """

    better: str
    worse: str
    difference: Difference
    adjusted: float

    @property
    def differs(self) -> bool:
        """Whether the difference is shown at 5 %, after the correction."""
        return self.adjusted < 0.05


@dataclass(frozen=True)
class Comparison:
    """Models on one data set.

    Attributes:
        data: Name of the data.
        metric: Metric that is tested.
        metrics: All metrics of the table, with how they are read.
        rows: The models, best first.
        baseline: The trivial baseline; None where its predictions are not known.
        pairs: All pairs of models, for `metric`.
        over_baseline: Label -> difference of a model and the baseline, positive where the model is better.
        diebold_mariano: Label -> p-value of Diebold and Mariano's test of a model and the baseline, for forecasts of a series.
        over: What intervals and tests generalize over: seeds, examples, both; or random splits.
        samples: Number of test samples.
        groups: Number of groups that the jackknife leaves out.
        unit: What the groups are, if not single samples.
        are_random: Whether the groups are of single samples, put together at random.
        ids: (samples,) of the test samples.
        title: Name of the table that it is; empty for a comparison of its own.
        design: Whether the seeds of two models are matched.
    """

    data: str
    metric: str
    metrics: Mapping[str, Metric]
    rows: tuple[Row, ...]
    baseline: Row | None
    pairs: tuple[Pair, ...]
    over_baseline: Mapping[str, Difference]
    diebold_mariano: Mapping[str, float]
    over: Over | Literal["splits"]
    samples: int
    groups: int
    unit: str
    are_random: bool = False
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0))
    title: str = ""
    design: Design = "nested"

    def pair(self, one: str, other: str) -> Pair:
        """Return the pair of two models."""
        return next(pair for pair in self.pairs if {pair.better, pair.worse} == {one, other})


def compare(
    models: Sequence[Model], metrics: Sequence[str] = (), *, over: Over = "both", design: Design | Literal["auto"] = "auto"
) -> Comparison:
    """Compare models by their runs on one data set.

    Args:
        models: Models with at least one run each.
        metrics: The first is tested, the others are shown; none for the headline of the runs.
        over: What intervals and tests generalize over.
        design: "crossed" for seeds that are matched over models; "auto" for it where each seed decides which labels are kept.

    Raises:
        ConfigError: The runs cannot be compared.
        DataError: A run is damaged.
    """
    runs = [run for model in models for run in model.runs]
    first = runs[0]
    headlines = {run.result.headline: run for run in reversed(runs)}
    if not metrics and len(headlines) > 1:
        (one, a), (other, b) = [*headlines.items()][:2]
        raise ConfigError(f"compare: the headline of {a.folder} is {one}, of {b.folder} {other}. Try: metrics=[{one}]")
    metrics = [*metrics] or [first.result.headline]
    paired = Paired(first, metrics)
    read = {metric: declared(first, metric) for metric in metrics}
    chosen = _design(models, design)
    if chosen == "crossed":
        models = [Model(model.label, tuple(sorted(model.runs, key=lambda run: str(run.seed)))) for model in models]
    rows = [_row(model.label, paired, model.runs, read, over) for model in models]
    baseline = _baseline(paired, first, read, over)
    metric = metrics[0]
    sign = 1.0 if read[metric].better == "max" else -1.0
    rows.sort(key=lambda row: -sign * row.means[metric].value)
    found = [(one, other, _difference(one, other, metric, sign, over, chosen)) for one, other in combinations(rows, 2)]
    adjusted = comparison.holm([difference.p_value for _, _, difference in found])
    pairs = [Pair(a.label, b.label, d, float(p)) for (a, b, d), p in zip(found, adjusted, strict=True)]
    beaten = {row.label: _difference(row, baseline, metric, sign, over) for row in rows} if baseline else {}
    return Comparison(
        data=first.data,
        metric=metric,
        metrics=read,
        rows=tuple(rows),
        baseline=baseline,
        pairs=tuple(pairs),
        over_baseline=beaten,
        diebold_mariano=_diebold_mariano(rows, baseline, paired),
        over=over,
        samples=len(paired),
        groups=int(paired.groups.max()) + 1,
        unit=paired.unit,
        are_random=paired.are_random,
        ids=paired.ids,
        design=chosen,
    )


def _design(models: Sequence[Model], asked: Design | Literal["auto"]) -> Design:
    """Return the design of a comparison.

    Raises:
        ConfigError: It must be crossed, and models have other seeds than the first one.
    """
    seeds = {model.label: sorted(str(run.seed) for run in model.runs) for model in models if model.runs[0].result.is_random}
    other = next((label for label, own in seeds.items() if own != next(iter(seeds.values()))), "")
    few = any(len(own) < 2 for own in seeds.values())
    if asked == "auto":
        keeps = all(run.options.get("labels_per_class") not in (None, "null") for model in models for run in model.runs)
        return "crossed" if keeps and len(seeds) > 1 and not other and not few else "nested"
    if asked == "crossed" and (other or few):
        name = other or next(label for label, own in seeds.items() if len(own) < 2)
        told = f"{name} has {', '.join(seeds[name])}, {next(iter(seeds))} {', '.join(next(iter(seeds.values())))}"
        raise ConfigError(f"design: crossed requires the same seeds of each model, two or more. Received: {told}", "design")
    return asked


def _row(label: str, paired: Paired, runs: Sequence[Run], read: Mapping[str, Metric], over: Over) -> Row:
    values = [paired.values(run, [*read]) or {} for run in runs]
    is_random = runs[0].result.is_random
    scores = {metric: _scores([v[metric] for v in values], is_random=is_random) for metric in read}
    row = _with_intervals(label, scores, paired, runs, read, over)
    metric = next(iter(read))
    return replace(row, losses=_mean(values, metric, "losses"), each=_mean(values, metric, "each"))


def _scores(values: Sequence[Values], *, is_random: bool) -> Scores:
    """Return the values of a metric; one that is undefined without some samples is shown without an interval."""
    deleted = np.array([v.deleted for v in values])
    if np.isfinite(deleted).all() and all(math.isfinite(v.value) for v in values):
        return comparison.scores([v.value for v in values], deleted, is_random=is_random)
    return Scores(np.array([v.value for v in values]), np.full_like(deleted, math.nan), is_random)


def _mean(values: Sequence[Mapping[str, Values]], metric: str, name: str) -> np.ndarray | None:
    """Return the mean over runs of an array of each sample; None where there is none."""
    found = [array for v in values if (array := getattr(v[metric], name)) is not None]
    return np.mean(found, axis=0) if found else None


def _baseline(paired: Paired, first: Run, read: Mapping[str, Metric], over: Over) -> Row | None:
    values = paired.values(first, [*read], baseline=True)
    if values is None or next(iter(read)) not in values:
        return None
    scores = {metric: _scores([v], is_random=False) for metric, v in values.items()}
    row = _with_intervals(first.result.baseline[0], scores, paired, (), read, "examples" if over == "examples" else "both")
    return replace(row, losses=_mean([values], next(iter(read)), "losses"))


def _diebold_mariano(rows: Sequence[Row], baseline: Row | None, paired: Paired) -> dict[str, float]:
    """Compare the forecasts of models, averaged over seeds, with those of the baseline."""
    if not baseline or baseline.losses is None:
        return {}
    horizon = paired.target.shape[1] if isinstance(paired.target, np.ndarray) and paired.target.ndim > 1 else 1
    return {row.label: diebold_mariano(row.losses, baseline.losses, horizon) for row in rows if row.losses is not None}


def _with_intervals(
    label: str,
    scores: Mapping[str, Scores],
    paired: Paired,
    runs: Sequence[Run],
    read: Mapping[str, Metric],
    over: Over,
) -> Row:
    def mean(metric: str, over: Over) -> Mean:
        if metric not in scores:  # a baseline has no intervals, say
            return Mean(math.nan, math.nan, math.nan, Parts((), 0.0, (), 2))
        known = read[metric]
        if not np.isfinite(scores[metric].deleted).all():
            return Mean(scores[metric].mean, math.nan, math.nan, Parts((), 0.0, (), scores[metric].groups))
        is_proportion = over != "seeds" and paired.form(paired.first, metric).is_proportion
        return comparison.mean(scores[metric], over=over, low=known.low, high=known.high, is_proportion=is_proportion)

    alone = {metric: mean(metric, "seeds") for metric in scores if scores[metric].seeds > 1}
    return Row(label, scores, {metric: mean(metric, over) for metric in read}, alone, tuple(runs))


def _difference(one: Row, other: Row, metric: str, sign: float, over: Over, design: Design = "nested") -> Difference:
    """Return how much better the first model is, positive for both directions."""
    try:
        found = comparison.difference(one.scores[metric], other.scores[metric], over=over, design=design)
    except ValueError as error:
        raise ConfigError(f"compare: {one.label} and {other.label}: {error}") from None
    if sign > 0:
        return found
    return Difference(-found.value, -found.high, -found.low, found.p_value, found.parts, found.warnings)


def mean_of_runs(results: Sequence[Result], metric: str) -> tuple[Estimate, str]:
    """Return the mean of a metric over runs that differ in the seed, with its interval and what that is over.

    Over seeds and test samples, as in a comparison; over seeds alone where the predictions do not give the metric.
    """
    read = results[0].metric(metric)
    try:
        runs = [read_run(result.folder) for result in results if result.folder]
        if len(runs) == len(results):
            paired = Paired(runs[0], [metric])
            found = _row("", paired, runs, {metric: read}, "both").means[metric]
            return Estimate(found.value, found.low, found.high), "seeds and test samples"
    except (DlframeError, ValueError):
        pass  # of an earlier version, or on other data for each seed
    found = comparison.over_seeds([result.metrics[metric] for result in results], low=read.low, high=read.high)
    return Estimate(found.value, found.low, found.high), "seeds alone"
