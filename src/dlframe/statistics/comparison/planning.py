"""How many seeds and test examples a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dlframe.statistics.comparison.differences import Parts

MOST_SEEDS, MOST_EXAMPLES = 1000, 1e6
"""Limits of the search: seeds of a model, and times the present number of examples."""


def power(difference: float, parts: Parts, *, level: float = 0.05) -> float:
    """Return the probability that a true difference gives p < `level`, by the noncentral t distribution.

    Args:
        difference: True difference of the means, in the metric's unit.
        parts: Variance of the difference, see `Parts.at` for other numbers of seeds and examples.
        level: Two-sided level.
    """
    from scipy.special import nctdtr, stdtrit

    if parts.variance <= 0:
        return 1.0 if difference else level
    freedom = min(parts.freedom, 1e6)
    threshold = float(stdtrit(freedom, 1 - level / 2))
    shift = abs(difference) / math.sqrt(parts.variance)
    if shift > 30:
        return 1.0
    wrong_side = float(nctdtr(freedom, shift, -threshold)) if shift < 8 else 0.0  # below 1e-20, where SciPy gives NaN
    return 1 - float(nctdtr(freedom, shift, threshold)) + wrong_side


@dataclass(frozen=True)
class Needed:
    """What a comparison needs to show a difference.

    Attributes:
        seeds: Seeds of each model with the present examples; None where examples alone hold it back.
        examples: Times the present examples with the present seeds; None where seeds alone hold it back.
        power: Probability of showing it as things are.
    """

    seeds: int | None
    examples: float | None
    power: float


def needed(difference: float, parts: Parts, *, target: float = 0.8, level: float = 0.05) -> Needed:
    """Return the seeds, and the examples, that show a difference with a probability of `target`.

    Raises:
        ValueError: The difference is 0, or `target` is not between `level` and 1.
    """
    if not difference or not level < target < 1:
        raise ValueError(f"a difference other than 0, and level < target < 1. Received: {difference}, {target}")

    def by_seeds(count: float) -> float:
        return power(difference, parts.at([count] * len(parts.seeds), 1.0), level=level)

    def by_examples(factor: float) -> float:
        return power(difference, parts.at(parts.counts, factor), level=level)

    seeds = None
    if any(parts.seeds) and by_seeds(MOST_SEEDS) >= target:
        low, high = 1, MOST_SEEDS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if by_seeds(middle) >= target else (middle, high)
        seeds = high
    examples = None
    if parts.examples > 0 and by_examples(MOST_EXAMPLES) >= target:
        bottom, top = 1e-6, MOST_EXAMPLES
        for _ in range(60):
            factor = math.sqrt(bottom * top)
            bottom, top = (bottom, factor) if by_examples(factor) >= target else (factor, top)
        examples = top
    return Needed(seeds, examples, power(difference, parts, level=level))


def shown(parts: Parts, *, target: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest true difference that is shown with a probability of `target`."""
    error = math.sqrt(parts.variance)
    low, high = 0.0, 40 * error
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, parts, level=level) >= target else (middle, high)
    return high


def curve(difference: float, parts: Parts, seeds: Sequence[int], factors: Sequence[float]) -> list[list[float]]:
    """Return the power for numbers of seeds (rows) and times the present examples (columns)."""
    return [[power(difference, parts.at([s] * len(parts.seeds), f)) for f in factors] for s in seeds]
