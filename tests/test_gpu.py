"""What only a GPU shows. Left out where there is none."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dlframe.config import load
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.registry import GROUPS
from dlframe.runs.journal import history
from dlframe.runs.recorder import states
from dlframe.storage import checkpoint
from dlframe.tasks.classification import Classification
from dlframe.types import TrainingError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def overrides(tmp_path: Path, *more: str) -> list[str]:
    return ["model=cnn", "trainer=gpu", "tracking=none", "trainer.deterministic=true", f"runs={tmp_path}", *more]


def train(tmp_path: Path, *more: str):
    return run(load(overrides(tmp_path, *more)))


@pytest.fixture(autouse=True)
def reproducible(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def rewind(folder: Path, step: int) -> None:
    """As if the run had been killed after a state."""
    for state in states(folder):
        if state.stem > f"state-{step:09d}":
            state.unlink()
    journal = folder / "journal.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(keepends=True) if '"kind": "end"' not in line))
    (folder / "result.json").unlink()


def last_state(folder: Path) -> dict:
    return checkpoint.load(states(folder)[0])[0]


def differences(left, right, name: str = "") -> list[str]:
    if isinstance(left, torch.Tensor):
        same = left.shape == right.shape and torch.equal(left.nan_to_num(), right.nan_to_num())
        return [] if same else [name]
    if isinstance(left, dict):
        assert left.keys() == right.keys(), name
        return [found for key in left for found in differences(left[key], right[key], f"{name}/{key}")]
    if isinstance(left, (list, tuple)):
        assert len(left) == len(right), name
        return [found for i, pair in enumerate(zip(left, right, strict=True)) for found in differences(*pair, f"{name}/{i}")]
    return [] if left == right else [f"{name}: {left} {right}"]


@pytest.mark.parametrize(
    "more",
    [
        ["model=cnn", "augmentation=[crop,mixup]", "callback=[ema,early_stopping]"],
        ["model=gan"],
        ["model=rnn", "accumulate_grad_batches=3", "gradient_clip_val=1", "scheduler=plateau"],
        ["model=resnet", "trainer.precision=16-mixed"],
        ["model=vit", "trainer.precision=bf16-mixed"],
        ["model=cnn", "trainer=fsdp", "trainer.devices=1"],
        ["model=mlp", "compile=true", "trainer.num_workers=2"],
        ["model=lda"],
    ],
    ids=" ".join,
)
def test_a_run_on_a_gpu_goes_on_bit_for_bit(tmp_path, more):
    short = ["epochs=4", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=11", "checkpoint.max_to_keep=100", *more]
    reference = train(tmp_path, *short)
    assert reference.metrics["accuracy"] > 0.5
    curves, state = history(reference.folder), last_state(reference.folder)
    middle = int(states(reference.folder)[len(states(reference.folder)) // 2].stem[6:])
    copy = tmp_path / "again"
    shutil.copytree(reference.folder, copy / reference.folder.name)
    rewind(copy / reference.folder.name, middle)
    again = train(copy, *short, "resume=auto")
    assert again.folder == copy / reference.folder.name
    assert differences(state, last_state(again.folder)) == []
    assert history(again.folder) == curves
    assert again.metrics == reference.metrics
    if "trainer=fsdp" not in more:
        assert evaluate_run(again.folder).metrics == pytest.approx(again.metrics, abs=1e-6)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "radam", "lion", "adafactor"])
@pytest.mark.parametrize("model", ["mlp", "gan"])
def test_precision_clipping_accumulation_and_skipping_go_together(tmp_path, precision, optimizer, model):
    options = [f"model={model}", f"optimizer={optimizer}", f"trainer.precision={precision}", "trainer.limit_batches=4"]
    result = train(tmp_path, *options, "epochs=2", "gradient_clip_val=1", "accumulate_grad_batches=2", "on_nan=skip")
    assert all(tensor.isfinite().all() for tensor in last_state(result.folder)["task"].values())


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true"])
def test_averages_are_single_precision(tmp_path, precision):
    result = train(tmp_path, "epochs=2", "callback=[ema]", f"trainer.precision={precision}")
    (ema,) = (state for state in last_state(result.folder)["callbacks"].values() if "averages" in state)
    assert {tensor.dtype for tensor in ema["averages"].values() if tensor.is_floating_point()} == {torch.float32}


def test_after_a_kill(tmp_path):
    command = [
        sys.executable,
        "-m",
        "dlframe",
        *overrides(tmp_path, "epochs=20", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("*/checkpoints/state-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "resume=auto"], check=True, stdout=subprocess.DEVNULL)
    reference = train(tmp_path / "reference", "epochs=20")
    (folder,) = tmp_path.glob("cnn-digits-*")
    assert json.loads((folder / "result.json").read_text())["metrics"] == reference.metrics
    assert history(folder) == history(reference.folder)


def test_a_loss_that_is_not_finite_is_found_within_the_chunk(tmp_path, monkeypatch):
    own, count = Classification.loss, iter(range(10**6))
    monkeypatch.setattr(Classification, "loss", lambda *a: own(*a) * (math.nan if next(count) == 21 else 1.0))
    with pytest.raises(TrainingError, match=r"^the loss is nan at step 21 \(epoch 2, learning rate [\d.e-]+\)"):
        train(tmp_path, "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=10", "steps_per_execution=8")
    (folder,) = tmp_path.iterdir()
    assert [state.name for state in states(folder)] == ["state-000000020.safetensors", "state-000000010.safetensors"]
    count = iter(range(10**6))
    result = train(tmp_path / "skip", "on_nan=skip", "epochs=3")
    assert history(result.folder)["train/skipped"] == [(34, 1.0), (51, 1.0)]


def test_a_batch_that_is_too_large_is_told_with_one_that_fits(tmp_path):
    wide = ["model=mlp", "model.width=200000", "model.depth=1", "epochs=1", "batch_size=1024", "trainer.limit_batches=1"]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.6e9 / total)
    try:
        with pytest.raises(TrainingError, match=r"out of memory with batch_size=1024 \(.* MiB more were wanted\)") as error:
            train(tmp_path, *wide)
        command = str(error.value).partition("optimizer step: ")[2].split()
        train(tmp_path, *wide, *command)
        found = train(tmp_path, *wide, "batch_size=auto", "accumulate_grad_batches=16")
        assert f"{found.folder}"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("optimizer", [entry.name for entry in GROUPS["optimizer"]])
def test_every_optimizer_trains(tmp_path, optimizer):
    assert train(tmp_path, "model=mlp", "epochs=1", f"optimizer={optimizer}").metrics["loss"] < 10


def test_several_workers_and_no_gpu_memory_of_a_finished_run_stay(tmp_path):
    train(tmp_path, "epochs=1")
    assert torch.cuda.memory_allocated() < 200e6
    assert os.environ.get("DLFRAME_RUN_FOLDER") is None
