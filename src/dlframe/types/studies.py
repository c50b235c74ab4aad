"""What became of the trials of a study: plain values, for tables, figures and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a study compares.

    Attributes:
        metric: Name as it is logged, such as val/accuracy.
        better: Direction, "min" or "max".
        unit: Unit of the value: "%" for a share, "$", "s", or empty.
    """

    metric: str
    better: Literal["min", "max"]
    unit: str = ""


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
