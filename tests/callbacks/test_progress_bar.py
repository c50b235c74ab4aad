"""What a training says of its progress where there is no terminal."""

from __future__ import annotations

import re

import pytest

from dlframe.config import load
from dlframe.jobs.train import run

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "model.width=8", "epochs=2", "tracking=none", "figures=none", "steps_per_execution=17"]


def test_a_log_has_a_line_after_an_epoch_with_the_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dlframe.callbacks.progress_bar.SECONDS", 0)
    run(load([*SHORT, f"runs={tmp_path}"]))
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"0\.\d+", "0.9", line.partition("; about")[0]) for line in lines] == [
        "epoch 1 of 2, step 17 of 34",  # in the first epoch: how long it will take
        "epoch 1 of 2, step 17 of 34, val/accuracy 0.9, best 0.9",
        "epoch 2 of 2, step 34 of 34, val/accuracy 0.9, best 0.9",
    ]
    assert lines[-1].endswith("; about 0 s left")


def test_a_log_has_lines_where_nothing_is_validated_for_long(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dlframe.callbacks.progress_bar.SECONDS", 0)
    monkeypatch.setattr("dlframe.callbacks.progress_bar.LONG", 0)
    run(load([*SHORT, "validate_every=2", f"runs={tmp_path}"]))
    lines = [line.partition("; about")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == ["epoch 1 of 2, step 17 of 34", "epoch 2 of 2, step 34 of 34"]


def test_a_short_training_says_nothing(tmp_path, capsys):
    run(load([*SHORT, f"runs={tmp_path}"]))
    assert capsys.readouterr().err == ""
