"""A sample of `python benchmarks/sweep_kills.py`: studies that are killed at random end as those that are left alone."""

from __future__ import annotations

import random

import pytest
from tests.studies.kills import KINDS, killed, reference

SAMPLE = [kind for kind in KINDS if kind.workers == 1 and kind.name.startswith(("tpe", "race"))]


def tried(server, kind, folder, kills):
    whole = reference(server, kind, folder / "reference")
    outcome = killed(server, kind, whole, folder / "killed", random.Random(kind.name), kills)
    assert outcome.kills
    assert outcome.trouble == "", f"killed: {', '.join(outcome.kills)}"


@pytest.mark.parametrize("kind", SAMPLE, ids=lambda kind: kind.name)
def test_killed_at_random(forking, kind, tmp_path):
    tried(forking, kind, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SAMPLE], ids=lambda kind: kind.name)
def test_killed_at_random_in_every_other_way(forking, kind, tmp_path):
    tried(forking, kind, tmp_path, 2)
