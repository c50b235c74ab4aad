"""Models on one data set: means with intervals, differences with tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from dlframe.comparisons.predictions import Paired, Values
from dlframe.comparisons.runs import Model, Run
from dlframe.statistics.comparison import differences as comparison
from dlframe.statistics.comparison.differences import Difference, Mean, Over, Scores
from dlframe.statistics.comparison.others import diebold_mariano
from dlframe.types import ConfigError, Metric


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
    """

    label: str
    scores: Mapping[str, Scores]
    means: Mapping[str, Mean]
    alone: Mapping[str, Mean]
    runs: tuple[Run, ...]
    losses: np.ndarray | None = None

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
        over: What intervals and tests generalize over.
        samples: Number of test samples.
        groups: Number of groups that the jackknife leaves out.
        unit: What the groups are, if not single samples.
    """

    data: str
    metric: str
    metrics: Mapping[str, Metric]
    rows: tuple[Row, ...]
    baseline: Row | None
    pairs: tuple[Pair, ...]
    over_baseline: Mapping[str, Difference]
    diebold_mariano: Mapping[str, float]
    over: Over
    samples: int
    groups: int
    unit: str

    def pair(self, one: str, other: str) -> Pair:
        """Return the pair of two models."""
        return next(pair for pair in self.pairs if {pair.better, pair.worse} == {one, other})


def compare(models: Sequence[Model], metrics: Sequence[str] = (), *, over: Over = "both") -> Comparison:
    """Compare models by their runs on one data set.

    Args:
        models: Models with at least one run each.
        metrics: The first is tested, the others are shown; none for the headline of the runs.
        over: What intervals and tests generalize over.

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
    read = {metric: first.result.metric(metric) for metric in metrics}
    paired = Paired(first)
    rows = [_row(model.label, paired, model.runs, read, over) for model in models]
    baseline = _baseline(paired, first, read, over)
    metric = metrics[0]
    sign = 1.0 if read[metric].better == "max" else -1.0
    rows.sort(key=lambda row: -sign * row.means[metric].value)
    found = [(one, other, _difference(one, other, metric, sign, over)) for one, other in combinations(rows, 2)]
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
    )


def _row(label: str, paired: Paired, runs: Sequence[Run], read: Mapping[str, Metric], over: Over) -> Row:
    values = [paired.values(run, [*read]) or {} for run in runs]
    is_random = runs[0].result.is_random
    scores = {
        metric: comparison.scores([v[metric].value for v in values], [v[metric].deleted for v in values], is_random=is_random)
        for metric in read
    }
    return replace(_with_intervals(label, scores, paired, runs, read, over), losses=_losses(values, next(iter(read))))


def _losses(values: Sequence[Mapping[str, Values]], metric: str) -> np.ndarray | None:
    found = [losses for v in values if (losses := v[metric].losses) is not None]
    return np.mean(found, axis=0) if found else None


def _baseline(paired: Paired, first: Run, read: Mapping[str, Metric], over: Over) -> Row | None:
    values = paired.values(first, [*read], baseline=True)
    if values is None:
        return None
    scores = {metric: comparison.scores([v.value], [v.deleted], is_random=False) for metric, v in values.items()}
    row = _with_intervals(first.result.baseline[0], scores, paired, (), read, "examples" if over == "examples" else "both")
    return replace(row, losses=_losses([values], next(iter(read))))


def _diebold_mariano(rows: Sequence[Row], baseline: Row | None, paired: Paired) -> dict[str, float]:
    """Compare the forecasts of models, averaged over seeds, with those of the baseline."""
    if not baseline or baseline.losses is None:
        return {}
    horizon = paired.target.shape[1] if paired.target.ndim > 1 else 1
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
        known = read[metric]
        is_proportion = over != "seeds" and paired.form(paired.first, metric).is_proportion
        return comparison.mean(scores[metric], over=over, low=known.low, high=known.high, is_proportion=is_proportion)

    alone = {metric: mean(metric, "seeds") for metric in read if scores[metric].seeds > 1}
    return Row(label, scores, {metric: mean(metric, over) for metric in read}, alone, tuple(runs))


def _difference(one: Row, other: Row, metric: str, sign: float, over: Over) -> Difference:
    """Return how much better the first model is, positive for both directions."""
    try:
        found = comparison.difference(one.scores[metric], other.scores[metric], over=over)
    except ValueError as error:
        raise ConfigError(f"compare: {one.label} and {other.label}: {error}") from None
    if sign > 0:
        return found
    return Difference(-found.value, -found.high, -found.low, found.p_value, found.parts, found.warnings)
