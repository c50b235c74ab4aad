"""Models on several random splits of one data set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from dlframe.analysis.comparison import Comparison, Pair, Row
from dlframe.analysis.predictions import declared
from dlframe.analysis.runs import SPLIT, Model, Run
from dlframe.statistics.comparison.differences import Scores, holm
from dlframe.statistics.comparison.others import mean_over_splits, over_splits
from dlframe.types import ConfigError


def are_splits(runs: Sequence[Run]) -> bool:
    """Return whether runs are on splits of one data set that an option draws: data.split_seed."""
    drawn = {(run.fingerprint, run.options.get(SPLIT)) for run in runs}
    seeds = [seed for _, seed in drawn]
    return len(drawn) > 1 and None not in seeds and len(set(seeds)) == len(drawn)


def compare_splits(by_split: Sequence[Sequence[Model]], metrics: Sequence[str] = ()) -> Comparison:
    """Compare models over splits: the corrected resampled t-test of Nadeau and Bengio, on the mean over seeds on each.

    Args:
        by_split: The models on each split.
        metrics: The first is tested, the others are shown; none for the headline of the runs.

    Raises:
        ConfigError: A model is missing on a split, or a run lacks a metric.
    """
    first = by_split[0][0].runs[0]
    metrics = [*metrics] or [first.result.headline]
    read = {metric: declared(first, metric) for metric in metrics}
    labels = [model.label for model in by_split[0]]
    for models in by_split:
        if {model.label for model in models} != set(labels):
            missing = {*labels, *(model.label for other in by_split for model in other)} - {model.label for model in models}
            raise ConfigError(f"compare: splits must have the same models. {models[0].runs[0].folder} lacks {min(missing)}")
    runs = {name: [next(m.runs for m in models if m.label == name) for models in by_split] for name in labels}
    sizes = {"train": first.train or 1, "test": first.result.samples}

    def values(name: str, metric: str) -> np.ndarray:
        try:
            return np.array([np.mean([run.result.metrics[metric] for run in same]) for same in runs[name]])
        except KeyError:
            raise ConfigError(f"compare: a run of {name} has no metric '{metric}'") from None

    rows = []
    for name in labels:
        scores = {metric: Scores(v := values(name, metric), np.zeros((len(v), 2))) for metric in metrics}
        means = {metric: mean_over_splits(scores[metric].values, **sizes) for metric in metrics}
        rows.append(Row(name, scores, means, {}, tuple(run for same in runs[name] for run in same)))
    metric = metrics[0]
    sign = 1.0 if read[metric].better == "max" else -1.0
    rows.sort(key=lambda row: -sign * row.means[metric].value)
    found = [
        (a.label, b.label, over_splits(sign * a.scores[metric].values, sign * b.scores[metric].values, **sizes))
        for a, b in combinations(rows, 2)
    ]
    adjusted = holm([difference.p_value for _, _, difference in found])
    return Comparison(
        data=first.data,
        metric=metric,
        metrics=read,
        rows=tuple(rows),
        baseline=None,
        pairs=tuple(Pair(a, b, d, float(p)) for (a, b, d), p in zip(found, adjusted, strict=True)),
        over_baseline={},
        diebold_mariano={},
        over="splits",
        samples=first.result.samples,
        groups=len(by_split),
        unit="",
    )
