"""Two processes train as one does, whatever remains for each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import dlframe

from dlframe.config import load
from dlframe.contracts.building import scored
from dlframe.engine import fit
from dlframe.jobs.train import load_data, run
from dlframe.runs.journal import history
from dlframe.runs.recorder import BEST, states
from dlframe.storage import checkpoint

pytestmark = pytest.mark.usefixtures("no_figures")

PLAIN = ["model=mlp", "model.width=16", "model.dropout=0", "optimizer=sgd", "epochs=2", "log_every_n_steps=1", "tracking=none"]


def two(folder: Path, *options: str) -> Path:
    """The run folder of a training in two processes."""
    done = dlframe(*options, "trainer=ddp", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run_folder,) = (folder / "runs").iterdir()
    return run_folder


def one(folder: Path, options: Sequence[str]) -> Path:
    return run(load([*options, f"runs={folder / 'one'}"])).folder


@pytest.mark.parametrize(
    "size",
    [
        ["batch_size=63"],  # 32 and 31 samples
        ["batch_size=64", "task.class_weight=balanced"],  # parts of unequal weight
        ["batch_size=359", "accumulate_grad_batches=3"],  # of the last batch, one sample and none
    ],
)
def test_unequal_parts_give_the_weights_and_losses_of_one_process(tmp_path, size):
    parted, whole = two(tmp_path, *PLAIN, *size), one(tmp_path, [*PLAIN, *size])
    for name, tensor in checkpoint.load(states(whole)[0])[0]["task"].items():
        torch.testing.assert_close(checkpoint.load(states(parted)[0])[0]["task"][name], tensor, rtol=1e-4, atol=1e-6)
    for name, off in (("train/loss", 0.0), ("val/loss", 0.0), ("train/accuracy", 0.01)):  # a prediction may tip
        ours, theirs = ([value for _, value in history(folder)[name]] for folder in (parted, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=off)


def test_what_is_validated_in_two_processes_is_what_is_kept(tmp_path):
    """Running statistics differ between processes: those of the first are scored by both, and saved."""
    options = ["model=resnet", "model.depth=8", "model.width=8", "epochs=2", "tracking=none"]
    folder = two(tmp_path, *options)
    config = load(options)
    dataset = load_data(config)
    task = fit.build_task(config, dataset, restored=True)
    checkpoint.restore(task, checkpoint.weights(folder / BEST), folder / BEST)
    metrics = task.metrics(scored(task.eval(), dataset.validation, dataset.spec, 256))
    step = checkpoint.load(folder / BEST)[1]["step"]
    for name in ("loss", "accuracy"):
        assert metrics[name] == pytest.approx(dict(history(folder)[f"val/{name}"])[step], abs=1e-6)


def test_one_validation_sample_is_scored_by_two_processes(tmp_path):
    days = [f"2024-01-{day:02d},{100 + day * 7 % 5}" for day in range(1, 17)]
    (tmp_path / "prices.csv").write_text("\n".join(["date,close", *days]) + "\n")
    path = f"data.path={tmp_path / 'prices.csv'}"
    options = ["task=forecasting", "data=sp500", path, "data.window=5", "model=dlinear", "epochs=2", "tracking=none"]
    parted, whole = two(tmp_path, *options, "batch_size=2"), one(tmp_path, [*options, "batch_size=2"])
    assert json.loads((whole / "data.json").read_text())["validation"] == 1
    np.testing.assert_allclose([v for _, v in history(parted)["val/rmse"]], [v for _, v in history(whole)["val/rmse"]])
    metrics, expected = (json.loads((folder / "result.json").read_text())["metrics"] for folder in (parted, whole))
    assert metrics == pytest.approx(expected, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=mlp", "batch_size=1"], "batch_size: must be at least 2, a sample per process. Received: 1."),
        (
            ["task=forecasting", "data=sp500", "data.path=prices.csv", "data.window=5", "model=dlinear"],
            "data: 2 processes need at least 2 training samples. Received: 1.",
        ),
    ],
)
def test_a_process_without_samples_is_refused(tmp_path, options, message):
    days = [f"2024-01-{day:02d},{100 + day * 7 % 5}" for day in range(1, 10)]
    (tmp_path / "prices.csv").write_text("\n".join(["date,close", *days]) + "\n")
    done = dlframe(*options, "tracking=none", "trainer=ddp", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {message}")


@pytest.mark.parametrize(
    "ids", [{}, {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "1"}]
)
def test_one_task_of_slurm_starts_its_processes(tmp_path, monkeypatch, ids):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", **ids}.items():
        monkeypatch.setenv(name, value)
    folder = two(tmp_path, *PLAIN[:-3], "epochs=1", "tracking=none")
    assert (folder / "result.json").is_file()


def test_two_processes_begin_with_the_same_best_run(tmp_path):
    """The first one looks for it and says it; the other has its name from there."""
    short = [*PLAIN, "epochs=1", "figures=none"]
    assert dlframe(*short, cwd=tmp_path).returncode == 0
    (source,) = (tmp_path / "runs").iterdir()
    done = dlframe(*short, "initial_checkpoint=best", "optimizer.lr=1e-30", "trainer=ddp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("initial_checkpoint=best: ") == 1
    (begun,) = set((tmp_path / "runs").iterdir()) - {source}
    for name, tensor in checkpoint.load(source / BEST)[0].items():
        torch.testing.assert_close(checkpoint.load(begun / BEST)[0][name], tensor)
