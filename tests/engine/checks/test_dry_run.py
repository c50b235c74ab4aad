"""A run that is only tried: what it says, and that nothing is left of it."""

from __future__ import annotations

import re

import pytest

from dlframe.config import load
from dlframe.jobs.train import dry_run, main, run
from dlframe.types import ConfigError, DlframeError

SHORT = ["tracking=none", "figures=none"]


def test_a_dry_run_says_what_the_run_would_cost_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["model=mlp", "model.width=32", "model.depth=1", "epochs=3", "dry_run=true", "batch_size=100"]) == 0
    assert [*tmp_path.rglob("*")] == []
    header, trial = capsys.readouterr().out.splitlines()
    assert header.startswith("mlp on digits: ")
    assert header.endswith("; on cpu")
    weights, biases = 64 * 32 + 32 * 10, 32 + 10
    assert trial.startswith(f"dry run: {weights + biases:,} parameters, {weights + biases:,} of them trained; ")
    assert f"; {weights:,} multiply-adds a sample; about " in trial
    assert re.search(r"about [\d.]+ MiB for a step of 100 samples; 33 steps, 11 in an epoch: about .* steps a second; ", trial)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["model=lda"], "0 parameters, none of them trained by gradients; "),
        (["model=gan", "model.width=4"], "of them trained; .* multiply-adds a sample"),
        (["model=rnn"], r"multiply-adds (not counted|a sample \(those of recurrent layers may be missing\))"),
        (
            ["model=mlp", "accumulate_grad_batches=4", "augmentation=[mixup]"],
            "for a step of 256 samples; 150 steps, 5 in an epoch",
        ),
        (["model=mlp", "batch_size=auto"], "for a step of 64 samples"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_every_kind_of_training_can_be_tried(tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    dry_run(load([*SHORT, "dry_run=true", *options]))
    assert re.search(told, capsys.readouterr().out)
    assert [*tmp_path.rglob("*")] == []


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (["resume=auto"], ConfigError, "dry_run: tries a new run. Received: resume=auto"),
        (["dry_run=maybe"], ConfigError, "dry_run"),
        (["initial_checkpoint=nowhere"], ConfigError, "initial_checkpoint: must be a run directory"),
        (["optimizer=sgd", "optimizer.lr=1e38"], DlframeError, "finite"),
    ],
)
def test_what_a_run_would_end_with_ends_the_trial(tmp_path, monkeypatch, options, error, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=told):
        dry_run(load([*SHORT, "model=mlp", "dry_run=true", *options]))
    assert [*tmp_path.rglob("*")] == []


def test_only_the_command_that_trains_tries(tmp_path, monkeypatch):
    from dlframe.studies.grid import run_grid

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="dry_run: is a choice of the command"):
        run(load([*SHORT, "model=mlp", "dry_run=true"]))
    with pytest.raises(ConfigError, match=r"dry_run: tries one run\. Received: several"):
        run_grid([*SHORT, "model=mlp", "dry_run=true", "seed=0,1"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
