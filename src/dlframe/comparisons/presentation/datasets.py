"""Models on several data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dlframe.analysis.comparison import Comparison
from dlframe.comparisons.presentation.words import p_text
from dlframe.statistics.comparison.others import mean_ranks, over_datasets

TEST = "Wilcoxon's signed-rank test"
FEWEST = 6
"""Data sets from which on Wilcoxon's signed-rank test can show a difference at 5 %: of five, the smallest p-value is 0.0625."""


@dataclass(frozen=True)
class Together:
    """Models that all data sets have.

    Attributes:
        labels: The models, those with the best mean rank first.
        ranks: Mean rank of each over data sets, 1 for the best.
        p_values: (models, models) of Wilcoxon's signed-rank test over data sets with Holm's correction; None of too few.
        count: Number of data sets.
    """

    labels: list[str]
    ranks: np.ndarray
    p_values: np.ndarray | None
    count: int

    @property
    def alike(self) -> list[tuple[int, int]]:
        """First and last of each longest row of models, in the order of ranks, of which no two are shown to differ."""
        count, found = len(self.labels), []
        for first in range(count):
            last = first
            while last + 1 < count and not any(self._differ(i, last + 1) for i in range(first, last + 1)):
                last += 1
            if last > first and not any(last <= end for _, end in found):
                found.append((first, last))
        return found

    def _differ(self, one: int, other: int) -> bool:
        return self.p_values is not None and bool(self.p_values[one, other] < 0.05)


def together(found: Sequence[Comparison]) -> Together | None:
    """Return what several data sets say together; None of one, of several metrics, and of fewer than two shared models."""
    if len(found) < 2 or len({comparison.metric for comparison in found}) > 1 or any(c.title for c in found):
        return None  # tables are of different tasks
    labels = [row.label for row in found[0].rows if all(row.label in {r.label for r in c.rows} for c in found)]
    if len(labels) < 2:
        return None
    metric = found[0].metric
    values = np.array([[_mean(comparison, label) for label in labels] for comparison in found])
    ranks = mean_ranks(values, is_larger_better=found[0].metrics[metric].better == "max")
    order = np.argsort(ranks, kind="stable")
    p_values = over_datasets(values[:, order]) if len(found) >= FEWEST else None
    return Together([labels[i] for i in order], ranks[order], p_values, len(found))


def sentences(found: Sequence[Comparison]) -> list[str]:
    """Say what several data sets show together: mean ranks, and Wilcoxon's test over data sets for each pair of models."""
    if not (joint := together(found)):
        return []
    ranks = ", ".join(f"{label} {rank:.2f}" for label, rank in zip(joint.labels, joint.ranks, strict=True))
    told = [f"over {joint.count} data sets, mean rank: {ranks}"]
    if joint.p_values is None:
        return [*told, f"no test over data sets: fewer than {FEWEST} cannot show a difference at 5 %"]
    for i, j in combinations(range(len(joint.labels)), 2):
        p_value = float(joint.p_values[i, j])
        if not math.isnan(p_value):
            verdict = "is better than" if p_value < 0.05 else "is not shown to be better than"
            told.append(f"{joint.labels[i]} {verdict} {joint.labels[j]} over data sets: {p_text(p_value)}")
    return [*told, f"{TEST} over data sets; p-values with Holm's correction"]


def _mean(comparison: Comparison, label: str) -> float:
    return next(row.means[comparison.metric].value for row in comparison.rows if row.label == label)
