"""What a run ends with, and how its numbers are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is read; a registration states it as a dictionary of these.

    Attributes:
        better: Whether larger ("max") or smaller ("min") values are better.
        low: Smallest possible value.
        high: Largest possible value.
        unit: "fraction" for a part of one, shown in percent; any other text is shown behind the value.
    """

    better: Literal["min", "max"]
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""

    def text(self, value: float) -> str:
        """The value as it is shown; an undefined one as such."""
        if math.isnan(value):
            return "undefined"
        if self.unit == "fraction":
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip() if self.unit != "%" else f"{value:.3f} %"

    def with_interval(self, estimate: Estimate) -> str:
        """The value and its interval, the unit once: "98.89 % (97.17 to 99.57 %)"."""
        if math.isnan(estimate.low) or math.isnan(estimate.high):
            return self.text(estimate.value)
        low, high = self.text(estimate.low), self.text(estimate.high)
        unit = high.partition(" ")[2]
        return f"{self.text(estimate.value)} ({low.removesuffix(unit).rstrip()} to {high})"

    def clipped(self, estimate: Estimate) -> Estimate:
        """The estimate with its interval inside the range of the metric."""
        low, high = (min(max(bound, self.low), self.high) for bound in (estimate.low, estimate.high))
        return Estimate(estimate.value, low, high)


UNDECLARED = Metric(better="min")
"""How a metric that no task declares, such as one of a run by another version, is shown."""


@dataclass
class Estimate:
    """A number with its 95 % interval; NaN bounds where nothing can be said."""

    value: float
    low: float
    high: float


@dataclass
class Result:
    """What a run ends with.

    Attributes:
        folder: The run directory; None in a process that writes none.
        headline: Name of the metric that heads the table.
        metrics: Every metric of the test split.
        interval: The headline metric with its interval.
        baseline: Name of the trivial baseline, and its metrics on the test split.
        samples: Samples that were scored.
        declared: How each metric is read.
        seconds: Wall time of the run.
        overrides: The command line that gave the run.
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

    def metric(self, name: str) -> Metric:
        """How the metric of that name is read."""
        return self.declared.get(name, UNDECLARED)


def declared(metadata: dict[str, dict[str, Any]]) -> dict[str, Metric]:
    """Metrics by name from the dictionaries of a registration.

    Raises:
        TypeError: A dictionary has an unknown key, or no direction.
        ValueError: A direction is neither "min" nor "max".
    """
    metrics = {name: Metric(**values) for name, values in metadata.items()}
    for name, metric in metrics.items():
        if metric.better not in ("min", "max"):
            raise ValueError(f"metric '{name}': better must be 'min' or 'max'. Received: {metric.better!r}")
    return metrics
