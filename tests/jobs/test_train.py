"""The main job, end to end, on real data."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from tests.conftest import dlframe

from dlframe.config import load
from dlframe.data.digits import digits
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.runs.exported_model import Predictor
from dlframe.runs.run_directory import BEST
from dlframe.storage import checkpoint
from dlframe.types import DataError

pytestmark = pytest.mark.usefixtures("no_figures")


def train(tmp_path: Path, *overrides: str):
    """A short run of the small model without a tracker."""
    return run(load(["model=mlp", "epochs=2", "tracking=none", f"runs={tmp_path}", *overrides]))


def weights(result) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in checkpoint.load(result.folder / BEST)[0].items()}


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_the_first_command_reaches_98_percent(default_run):
    done, folder = default_run
    first, second, *last = done.stdout.splitlines()
    assert second == "151,306 parameters; 510 steps, 17 in an epoch"
    assert first.startswith(
        "cnn on digits: 1,078 + 360 + 359 samples to train, validate, test; image 1x8x8, "
        "10 classes (0, 1, 2, 3, 4, 5 and 4 more); "
        "split stratified 60/20/20; scikit-learn, offline; data 5ed0c0c6320d; on cpu; in runs/cnn-digits-"
    )
    result = json.loads((folder / "result.json").read_text())
    assert result["metrics"]["accuracy"] >= 0.98
    shown = re.search(r"test accuracy ([\d.]+) % \(95 % interval ([\d.]+) to ([\d.]+) %, 359 samples\)", last[0])
    assert shown
    assert float(shown[1]) == pytest.approx(100 * result["metrics"]["accuracy"], abs=0.005)
    assert float(shown[2]) < float(shown[1]) < float(shown[3])
    assert "majority class 10.31 %" in last[0]
    assert [line.split()[0] for line in last[-4:-2]] == ["run", "next"]
    assert last[-1].strip() == "python -m dlframe ui"
    assert done.stderr == ""


def test_the_run_folder_holds_everything(default_run):
    _, folder = default_run
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml",
        "data.json",
        "environment.json",
        "journal.jsonl",
        "classes.csv",
        "predictions.parquet",
        "result.json",
        "checkpoints/best.safetensors",
        "figures/confusion_matrix.png",
        "figures/learning_curve.png",
        "figures/reliability.png",
        "figures/samples.png",
    }
    assert json.loads((folder / "environment.json").read_text())["packages"].keys() >= {"torch", "lightning", "mlflow"}


def test_predictions_give_the_accuracy(default_run):
    _, folder = default_run
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    assert list(table) == ["id", "target", "prediction", "score", "probabilities", "baseline"]
    data = digits()
    assert sorted(table["id"]) == sorted(data.test.ids.tolist())
    right = [t == p for t, p in zip(table["target"], table["prediction"], strict=True)]
    assert np.mean(right) == json.loads((folder / "result.json").read_text())["metrics"]["accuracy"]


def test_the_metrics_of_each_class_are_written(default_run):
    _, folder = default_run
    with (folder / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [*map(str, range(10))]
    assert sum(int(row["samples"]) for row in rows) == len(digits().test)
    mean = np.mean([float(row["f1"]) for row in rows])
    assert mean == pytest.approx(json.loads((folder / "result.json").read_text())["metrics"]["f1"], abs=1e-6)


def test_a_finished_run_is_scored_again_to_the_bit(default_run):
    """In a fresh process, as a user does: how torch shares its work among threads may differ after other work."""
    _, folder = default_run
    code = "import json, sys; from pathlib import Path; from dlframe.jobs.evaluate import evaluate_run; "
    code += "print(json.dumps(evaluate_run(Path(sys.argv[1])).metrics))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads((folder / "result.json").read_text())["metrics"]


def test_a_run_is_scored_again_without_the_weights_that_it_began_with(tmp_path):
    import timm
    from safetensors.torch import save_file

    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    backbone = ["model=backbone", "model.architecture=test_resnet", f"model.weights={file}", "model.image_size=32"]
    result = train(tmp_path, *backbone, "epochs=1")
    file.unlink()
    assert evaluate_run(result.folder).metrics == result.metrics
    outputs = Predictor(result.folder / "model").predict(digits().test["image"][:3])
    assert outputs["probabilities"].shape == (3, 10)


def test_the_tracker_has_it_all(default_run):
    import mlflow

    _, folder = default_run
    home = folder.parent.resolve()
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["model.width"] == str(load([]).values["model"]["width"])
    result = json.loads((folder / "result.json").read_text())
    assert tracked.data.metrics["test/accuracy"] == result["metrics"]["accuracy"]
    curve = client.get_metric_history(tracked.info.run_id, "val/accuracy")
    assert len(curve) == load([]).run.epochs
    artifacts = {item.path for item in client.list_artifacts(tracked.info.run_id)}
    assert artifacts >= {"config.yaml", "environment.json", "figures", "predictions.parquet", "classes.csv"}


def test_the_tracked_model_predicts_what_the_run_predicted(default_run, monkeypatch):
    import mlflow

    _, folder = default_run
    home = folder.parent.resolve()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which MLflow sets, and later tests would read
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    (path,) = (home / "artifacts").glob("*/models/*/artifacts")
    model = mlflow.pyfunc.load_model(str(path))
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    test = digits().test
    order = np.argsort(test.ids)
    predicted = model.predict(test["image"][order])
    rows = np.argsort(table["id"])
    known = np.array(table["probabilities"], dtype=np.float32)[rows]
    np.testing.assert_allclose(predicted["probabilities"], known, atol=1e-6)
    assert predicted["prediction"].tolist() == np.array(table["prediction"])[rows].tolist()
    for given in (test["image"][order].astype(np.float64), test["image"][order].tolist()):
        np.testing.assert_array_equal(model.predict(given)["probabilities"], predicted["probabilities"])
    with pytest.raises(DataError, match="Convert images from 0 to 1 by"):
        model.predict(test["image"][order] / 16)
    signature = model.metadata.signature
    described = model.metadata.metadata
    assert described["inputs"] == [{"name": "image", "dtype": "uint8", "shape": [-1, 1, 8, 8]}]
    assert described["outputs"][1]["classes"] == [str(digit) for digit in range(10)]
    assert [(output.name, str(output.type), output.shape) for output in signature.outputs.inputs] == [
        ("prediction", "<U0", (-1,)),
        ("probabilities", "float32", (-1, 10)),
    ]


@pytest.mark.parametrize("chunk", ["7", "0"])
def test_the_chunk_changes_nothing(tmp_path, chunk):
    options = ["augmentation=[affine,mixup]", "log_every_n_steps=3"]
    one = train(tmp_path, "steps_per_execution=1", *options)
    other = train(tmp_path, f"steps_per_execution={chunk}", *options)
    assert same(weights(one), weights(other))
    assert one.metrics == other.metrics


def test_the_seed_decides(tmp_path):
    one, again, other = (train(tmp_path, f"seed={seed}") for seed in (3, 3, 4))
    assert same(weights(one), weights(again))
    assert not same(weights(one), weights(other))


def test_accumulated_batches_make_the_large_batch(tmp_path):
    options = ["optimizer=sgd", "scheduler=constant", "model.dropout=0", "augmentation=[]", "trainer.limit_batches=8"]
    large = train(tmp_path, "batch_size=64", *options)
    small = train(tmp_path, "batch_size=32", "accumulate_grad_batches=2", "trainer.limit_batches=16", *options[:-1])
    for name, tensor in weights(large).items():
        np.testing.assert_allclose(tensor, weights(small)[name], atol=2e-5)


def test_clipping_bounds_the_step(tmp_path):
    options = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=1", "scheduler=constant", "trainer.limit_batches=1"]
    still = train(tmp_path, "gradient_clip_val=1e-6", "epochs=1", *options)
    moved = train(tmp_path, "epochs=1", *options)
    distance = sum(float(np.square(a - weights(moved)[n]).sum()) for n, a in weights(still).items()) ** 0.5
    assert distance > 1e-2


def test_hidden_labels_are_not_trained_on(tmp_path):
    result = train(tmp_path, "labels_per_class=4", "batch_size=16", "log_every_n_steps=1", "epochs=1")
    steps = [json.loads(line) for line in (result.folder / "journal.jsonl").read_text().splitlines()]
    assert sum("train/loss" in record.get("values", {}) for record in steps) == 40 // 16 + 1


@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_reach_the_accuracy_of_one(tmp_path, launcher):
    module = ["torch.distributed.run", "--nproc-per-node=2", "-m"] if launcher == "torchrun" else []
    options = ["model=mlp", "epochs=8", "tracking=none"]
    done = dlframe(*options, "trainer=ddp", cwd=tmp_path, module=module)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    one = run(load([*options, f"runs={tmp_path / 'one'}"]))
    assert one.interval.low <= result["metrics"]["accuracy"] <= one.interval.high
    ids = pyarrow.parquet.read_table(folder / "predictions.parquet")["id"].to_pylist()
    assert sorted(ids) == sorted(digits().test.ids.tolist())
    assert done.stdout.count("\nrun  ") == 1


def test_a_grid_goes_on_after_a_failure(tmp_path, forking):
    options = ["model=mlp", "optimizer=sgd", "epochs=1", "tracking=none"]
    training = forking.start(["-m", *options, "optimizer.lr=0.1,1e30", "seed=range(2)"], tmp_path)
    assert training.status() == 1
    said = training.said()
    head, *rows, baseline, runs, note, last = said[said.index("\njob ") :].strip().splitlines()
    assert head.split(maxsplit=1)[1] == "accuracy (95 % interval)     time  run"
    assert baseline.startswith("baseline: majority class 10.31 %")
    assert re.fullmatch(r"runs: runs/mlp-\S+-NNNN", runs)
    assert note.startswith("95 % intervals: ")
    assert last.startswith("figures are drawn on request: python -m dlframe figures runs/mlp-")
    mean = rows[-1].split()[1]
    assert [row.split()[:3] for row in rows] == [
        ["optimizer.lr=0.1", "seed=0", rows[0].split()[2]],
        ["optimizer.lr=0.1", "seed=1", rows[1].split()[2]],
        ["optimizer.lr=1e+30", "seed=0", "FAILED"],
        ["optimizer.lr=1e+30", "seed=1", "FAILED"],
        ["optimizer.lr=0.1", mean, "%"],
    ]
    assert float(mean) == pytest.approx(np.mean([float(row.split()[2]) for row in rows[:2]]), abs=0.011)
    assert [row.split()[-1] for row in rows[:2]] == ["0000", "0001"]
    assert rows[-1].endswith(" 2 seeds")


def test_paths_may_hold_anything(tmp_path, forking):
    name = "a=b 'c' \"d\" é,[x]"
    training = forking.start(["model=mlp", "epochs=1", "tracking=none", f"runs={name}"], tmp_path)
    assert training.status() == 0, training.said()
    (folder,) = (tmp_path / name).iterdir()
    test = forking.start(["test", str(folder), f"checkpoint={folder / BEST}"], tmp_path)
    assert test.status() == 0, test.said()
    first, again = re.findall(r"test accuracy .*? %\)?,", test.said())
    assert first == again


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=bf16-true"],
        ["trainer.precision=64-true"],
        ["trainer.deterministic=true"],
        ["trainer.channels_last=false", "model=cnn", "model.width=4"],
        ["scheduler=plateau", "callback=[ema,early_stopping]"],
        ["trainer=debug"],
        ["monitor=val/loss"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_options_of_the_trainer_run(tmp_path, overrides):
    assert train(tmp_path, "epochs=1", *overrides).metrics["accuracy"] > 0.1


def test_a_model_learns_a_batch_by_heart(tmp_path, capsys):
    result = train(tmp_path, "trainer.overfit_batches=1", "batch_size=32", "epochs=100", "model.dropout=0", "model.width=64")
    assert (result.metrics["accuracy"], result.samples) == (1.0, 32)
    assert result.limited.startswith("trainer.overfit_batches=1, 32 of 32")
    assert "32 + 32 + 32 samples" in capsys.readouterr().out
    assert evaluate_run(result.folder).metrics == result.metrics


def test_a_terminal_shows_a_bar(tmp_path):
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (40, 120))
    command = [sys.executable, "-m", "dlframe", "model=mlp", "epochs=2", "tracking=none"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=child)
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux tells that the other end is closed
        while piece := os.read(parent, 4096):
            shown += piece
    os.close(parent)
    assert process.wait() == 0
    assert b"epoch 1/2   0%|" in shown
    assert b"|  0/34 steps, ? left, accuracy -      best -" in shown
    assert re.search(rb"accuracy 0\.\d+ +best 0\.\d+", shown)
