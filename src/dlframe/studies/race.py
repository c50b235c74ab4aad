"""Races over seeds: the trials of a search that may still be the best are trained with further seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dlframe.statistics.racing import Race, race
from dlframe.types import TrialRecord

if TYPE_CHECKING:
    from dlframe.studies.study import Study

FIRST_CLAIM = 1_000_000
"""Number of the claim on the second seed of trial 0, beyond those of trials."""


def claim_of(number: int, seed: int) -> int:
    """Return the number of the claim on a further seed of a trial."""
    return FIRST_CLAIM + 100 * number + seed


def key_of(number: int, seed: int) -> str:
    """Return the key of the value of a further seed in the study's attributes."""
    return f"trial {number} seed {seed}"


def values_of(study: Study, record: TrialRecord) -> list[float]:
    """Return the values of a complete trial by seed, as far as they are there without a gap."""
    known = study.optuna.user_attrs
    values = [record.values[0]]
    while len(values) < study.manifest.seeds and (key := key_of(record.number, len(values))) in known:
        values.append(float(known[key]) if known[key] is not None else math.nan)
    return values


def state(study: Study, complete: Sequence[TrialRecord]) -> tuple[Race, list[list[float]]]:
    """Return the state of the race, and the values of each complete trial by seed."""
    values = [values_of(study, record) for record in complete]
    return race(values, seeds=study.manifest.seeds, better=study.objectives[0].better), values


def wanted(study: Study, complete: Sequence[TrialRecord]) -> list[tuple[int, int]]:
    """Return the trials and seeds that the race needs before it can go on; none at its end."""
    found, values = state(study, complete)
    rows = zip(complete, values, found.wanted, found.alive, strict=True)
    return [(record.number, seed) for record, own, count, alive in rows if alive for seed in range(len(own), count)]


def raced(study: Study, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials with their means over seeds; those that have left the race as pruned."""
    complete = [record for record in records if record.state == "complete" and record.values]
    if not complete or any(record.state == "running" for record in records):
        return [*records]
    found, values = state(study, complete)
    changed = {}
    for record, own in zip(complete, values, strict=True):
        changed[record.number] = replace(record, values=(sum(own) / len(own),))
    for left in found.eliminations:
        number = complete[left.candidate].number
        if left.by is None:
            why = f"undefined with seed {left.seeds - 1}"
        else:
            than = f"trial {complete[left.by].number} is better by {left.difference:.4g} (p = {left.p_value:.2g})"
            why = f"left the race after {left.seeds} seeds: {than}"
        changed[number] = replace(changed[number], state="pruned", failure=why)
    return [changed.get(record.number, record) for record in records]
