"""Models on several data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dlframe.comparisons.analysis import Comparison
from dlframe.comparisons.presentation.words import p_text
from dlframe.statistics.comparison.others import mean_ranks, over_datasets

FEWEST = 6
"""Data sets from which on Wilcoxon's signed-rank test can show a difference at 5 %: of five, the smallest p-value is 0.0625."""


def sentences(found: Sequence[Comparison]) -> list[str]:
    """Say what several data sets show together: mean ranks, and Wilcoxon's test over data sets for each pair of models."""
    if len(found) < 2 or len({comparison.metric for comparison in found}) > 1:
        return []
    labels = [row.label for row in found[0].rows if all(row.label in {r.label for r in c.rows} for c in found)]
    if len(labels) < 2:
        return []
    metric = found[0].metric
    values = np.array([[_mean(comparison, label) for label in labels] for comparison in found])
    ranks = mean_ranks(values, is_larger_better=found[0].metrics[metric].better == "max")
    order = np.argsort(ranks, kind="stable")
    told = [f"over {len(found)} data sets, mean rank: {', '.join(f'{labels[i]} {ranks[i]:.2f}' for i in order)}"]
    if len(found) < FEWEST:
        return [*told, f"no test over data sets: fewer than {FEWEST} cannot show a difference at 5 %"]
    p_values = over_datasets(values)
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            p_value = float(p_values[i, j])
            if not math.isnan(p_value):
                verdict = "is better than" if p_value < 0.05 else "is not shown to be better than"
                told.append(f"{labels[i]} {verdict} {labels[j]} over data sets: {p_text(p_value)}")
    return [*told, "Wilcoxon's signed-rank test over data sets; p-values with Holm's correction"]


def _mean(comparison: Comparison, label: str) -> float:
    return next(row.means[comparison.metric].value for row in comparison.rows if row.label == label)
