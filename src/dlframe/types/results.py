"""Result of a run, and metadata of metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Metadata of a metric; a registration gives them as a dictionary.

    Attributes:
        better: Whether larger ("max") or smaller ("min") values are better.
        low: Smallest possible value.
        high: Largest possible value.
        unit: "fraction", shown in percent, or a text shown after the value.
    """

    better: Literal["min", "max"]
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""

    def text(self, value: float) -> str:
        """Format a value; NaN is "undefined"."""
        if math.isnan(value):
            return "undefined"
        if self.unit == "fraction":
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip() if self.unit != "%" else f"{value:.3f} %"

    def with_interval(self, estimate: Estimate) -> str:
        """Format a value and its interval: "98.89 % (97.17 to 99.57 %)".

        Undefined resamples are told, as in "98.89 % (97.17 to 99.57 %, 13 of 500 resamples undefined)".
        """
        if math.isnan(estimate.low) or math.isnan(estimate.high):
            return self.text(estimate.value) + (f" ({estimate.left_out})" if estimate.left_out else "")
        low, high = self.text(estimate.low), self.text(estimate.high)
        unit = high.partition(" ")[2]
        left_out = f", {estimate.left_out}" if estimate.left_out else ""
        return f"{self.text(estimate.value)} ({low.removesuffix(unit).rstrip()} to {high}{left_out})"

    def clipped(self, estimate: Estimate) -> Estimate:
        """Return the estimate with its interval clipped to the range of the metric."""
        low, high = (min(max(bound, self.low), self.high) for bound in (estimate.low, estimate.high))
        return replace(estimate, low=low, high=high)


UNDECLARED = Metric(better="min")
"""Metadata of an undeclared metric, such as one of another version's run."""


@dataclass
class Estimate:
    """Number with its 95 % interval; NaN bounds if undefined.

    Attributes:
        value: The number.
        low: Lower bound.
        high: Upper bound.
        undefined: Number of resamples of a bootstrap without a value, which the interval leaves out.
        resamples: Number of all resamples; 0 without a bootstrap.
    """

    value: float
    low: float
    high: float
    undefined: int = 0
    resamples: int = 0

    @classmethod
    def of(cls, value: float, interval: Any) -> Estimate:
        """Return a number with the interval that `dlframe.statistics.intervals.bootstrap` gives."""
        return cls(value, interval.low, interval.high, interval.undefined, interval.resamples)

    @property
    def left_out(self) -> str:
        """What the interval leaves out: "13 of 500 resamples undefined"; empty for nothing."""
        return f"{self.undefined:,} of {self.resamples:,} resamples undefined" if self.undefined else ""


@dataclass
class Result:
    """Result of a run.

    Attributes:
        folder: Run directory; None in a process that writes none.
        headline: Name of the primary metric.
        metrics: All metrics of the test split.
        interval: Primary metric with its interval.
        baseline: Name of the trivial baseline, and its test metrics.
        samples: Number of scored samples.
        declared: Metadata of each metric.
        seconds: Wall time of the run.
        overrides: Overrides of the command line.
        limited: What limits the run to a part of the data, and the part of the test samples; empty for a whole run. A limited
            run has no place in a comparison.
        notes: Sentences on the metrics, such as what one of them leaves out.
        forms: How metrics follow from the table of predictions, for comparisons.
        blocks: Number of blocks of test samples whose neighbors depend on each other; 0 for independent samples.
        is_random: Whether another seed gives another result.
    """

    folder: Path | None
    headline: str
    metrics: dict[str, float]
    interval: Estimate
    baseline: tuple[str, dict[str, float]]
    samples: int
    declared: dict[str, Metric]
    seconds: float = 0.0
    overrides: tuple[str, ...] = ()
    limited: str = ""
    notes: list[str] = field(default_factory=list)
    forms: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocks: int = 0
    is_random: bool = True

    def metric(self, name: str) -> Metric:
        """Return the metadata of a metric."""
        return self.declared.get(name, UNDECLARED)


def declared(metadata: dict[str, dict[str, Any]]) -> dict[str, Metric]:
    """Return metrics by name from the dictionaries of a registration.

    Raises:
        TypeError: A dictionary has an unknown key, or no direction.
        ValueError: A direction is neither "min" nor "max".
    """
    metrics = {name: Metric(**values) for name, values in metadata.items()}
    for name, metric in metrics.items():
        if metric.better not in ("min", "max"):
            raise ValueError(f"metric '{name}': better must be 'min' or 'max'. Received: {metric.better!r}")
    return metrics
