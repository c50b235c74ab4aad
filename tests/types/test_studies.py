"""The best of the trials of a study."""

from __future__ import annotations

import math

import pytest

from dlframe.types import Objective, TrialRecord, best_of

ACCURACY = Objective(metric="val/accuracy", better="max", unit="fraction")
LOSS = Objective(metric="val/loss", better="min")


def trial(number: int, *values: float, state="complete", reported=()) -> TrialRecord:
    return TrialRecord(number=number, state=state, options={}, values=values, reported=reported)


@pytest.mark.parametrize(("objective", "number"), [(ACCURACY, 3), (LOSS, 1)])
def test_the_best_is_complete_and_finite_and_the_earliest(objective: Objective, number: int) -> None:
    best = max if objective.better == "max" else min
    values = {3: 0.9, 1: 0.2, 7: 0.9, 8: 0.2}
    others = [trial(0, math.inf), trial(2, -math.inf), trial(4, math.nan), trial(5, 2.0, state="pruned"), trial(6)]
    found = best_of([*others, *(trial(n, value) for n, value in values.items())], objective)
    assert found
    assert found.values[0] == best(values.values())
    assert found.number == number
    assert best_of(others, objective) is None


def test_the_best_reported_value() -> None:
    record = trial(0, state="pruned", reported=((1, 0.3), (2, math.nan), (3, 0.5), (4, 0.4)))
    assert (record.best_reported(ACCURACY), record.best_reported(LOSS)) == (0.5, 0.3)
    assert trial(0).best_reported(LOSS) is None


def test_a_value_is_written_as_its_metric() -> None:
    assert ACCURACY.read.text(0.5) == "50.00 %"
    assert Objective(metric="val/mape", better="min", unit="%").read.text(0.5) == "0.500 %"
