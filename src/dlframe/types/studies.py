"""What became of the trials of a study: plain values, for tables, figures and statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dlframe.types.results import Metric

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a study compares.

    Attributes:
        metric: Name as it is logged, such as val/accuracy.
        better: Direction, "min" or "max".
        unit: Unit of the value, as a metric declares it: "fraction", shown in percent; "%", "$", "s", or empty.
    """

    metric: str
    better: Literal["min", "max"]
    unit: str = ""

    @property
    def sign(self) -> int:
        """1 if larger values are better, else -1."""
        return 1 if self.better == "max" else -1

    @property
    def read(self) -> Metric:
        """How its values are written."""
        return Metric(better=self.better, unit=self.unit)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of a study.

    Attributes:
        number: Place in the study, from 0.
        state: Where it stands.
        options: The options that vary, as one types them, by key; an option that does not apply is absent.
        values: A value for each objective; empty unless it is complete.
        reported: Epochs done and the first objective's value there, in order.
        seconds: Wall time; 0 while it runs.
        run: Folder of its run; empty before there is one.
        failure: Why it failed, in a sentence; empty otherwise.
    """

    number: int
    state: State
    options: dict[str, str]
    values: tuple[float, ...] = ()
    reported: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    run: str = ""
    failure: str = ""

    @property
    def overrides(self) -> list[str]:
        """The options as overrides, key=value."""
        return [f"{key}={text}" for key, text in self.options.items()]

    def value(self, objective: int = 0) -> float | None:
        """Return the value of an objective; None if there is none, or none that is finite."""
        values = self.values if self.state == "complete" else ()
        return values[objective] if objective < len(values) and math.isfinite(values[objective]) else None

    def best_reported(self, objective: Objective) -> float | None:
        """Return the best finite value that it has reported of the first objective; None if there is none."""
        finite = [value for _, value in self.reported if math.isfinite(value)]
        return max(finite, key=lambda value: objective.sign * value, default=None)


def best_of(records: Iterable[TrialRecord], objective: Objective) -> TrialRecord | None:
    """Return the complete trial with the best finite value of the first objective; the earliest of equal ones."""
    found = [(record, value) for record in records if (value := record.value()) is not None]
    return max(found, key=lambda pair: (objective.sign * pair[1], -pair[0].number), default=(None,))[0]
