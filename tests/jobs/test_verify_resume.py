"""verify-resume: finds what is not identical, says where, and calls identical what is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from tests.conftest import dlframe

from dlframe.cli import main
from dlframe.config import load
from dlframe.jobs import verify_resume
from dlframe.jobs.train import run
from dlframe.jobs.verify_resume import Comparison, compare, difference
from dlframe.runs.journal import FILE, Journal, history
from dlframe.runs.recorder import BEST
from dlframe.storage import checkpoint
from dlframe.types import DlframeError

STATE = Path("checkpoints", "state-000000017.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two states."""
    options = [
        "model=mlp",
        "model.width=8",
        "epochs=2",
        "checkpoint.every_n_minutes=0",
        "checkpoint.every_n_epochs=1",
        "tracking=none",
    ]
    folder = run(load([*options, f"runs={tmp_path_factory.mktemp('runs')}"])).folder
    assert folder
    return folder


@pytest.fixture
def other(whole: Path, tmp_path: Path) -> Path:
    """Its copy, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "other"))


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> tuple[Any, Any]:
    """Edit the tree of a checkpoint; what `edit` returns is a tensor of it, whose first value is moved by a bit."""
    tree, facts = checkpoint.load(path)
    flat = edit(tree).view(-1)
    before = flat[0].item()
    flat[0] = torch.nextafter(flat[0], torch.tensor(torch.inf))
    checkpoint.save(path, tree, facts)
    return before, flat[0].item()


def test_a_copy_is_identical(whole, other):
    assert compare(whole, other) == Comparison(2, "")


def test_the_first_step_comes_first(whole, other):
    before, after = change(other / STATE, lambda tree: tree["optimizers"][0]["state"][0]["exp_avg"])
    change(other / BEST, lambda tree: tree["model.layers.0.weight"])
    expected = f"step 17, optimizers/0/state/0/exp_avg[0, 0]: {before} without kills, {after}"
    assert compare(whole, other) == Comparison(2, expected)


def test_a_weight_of_the_best_epoch_differs(whole, other):
    name = next(iter(checkpoint.load(other / BEST)[0]))
    before, after = change(other / BEST, lambda tree: tree[name])
    assert compare(whole, other).difference.startswith(f"best weights, {name}[0")
    assert compare(whole, other).difference.endswith(f": {before} without kills, {after}")


@pytest.mark.parametrize(
    ("place", "key", "value", "difference"),
    [
        (("progress",), "position", 3, "progress/position: 0 without kills, 3"),
        (("progress",), "best", -0.0, "progress/best: {} without kills, -0.0"),
        (("progress", "metrics"), "val/new", 1.0, "progress/metrics/val/new: not there without kills, there"),
        (("random",), "python", torch.zeros(1, 2), "random/python: torch.int64 (1, 625) without kills, torch.float32 (1, 2)"),
        (("optimizers",), 0, {}, "optimizers/0/param_groups: there without kills, not there"),
        ((), "schedulers", [], "schedulers: 1 values without kills, 0 values"),
    ],
)
def test_whatever_else_a_state_holds_is_compared(whole, other, place, key, value, difference):
    tree, facts = checkpoint.load(other / STATE)
    node: Any = tree
    for name in place:
        node = node[name]
    before = node[key] if isinstance(node, list) or key in node else None
    node[key] = value
    checkpoint.save(other / STATE, tree, facts)
    assert compare(whole, other).difference == f"step 17, {difference.format(before)}"


NAN = float("nan")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (NAN, NAN, None),
        (0.0, -0.0, ("", 0.0, -0.0)),
        (1, 1.0, ("", 1, 1.0)),
        ((1, [NAN, "a"]), (1, [NAN, "b"]), ("1/1", "a", "b")),
        (torch.tensor([NAN, 0.0]), torch.tensor([NAN, -0.0]), ("[1]", 0.0, -0.0)),
        (torch.tensor(True), torch.tensor(False), ("", True, False)),
        (torch.zeros(0), torch.zeros(0), None),
        (np.zeros(2), np.array([0.0, 1.0]), ("[1]", 0.0, 1.0)),
    ],
)
def test_bits_are_compared(left, right, expected):
    assert difference(left, left) is None
    assert difference(left, right) == expected


def test_a_state_that_is_missing_is_told_unless_states_come_by_the_clock(whole, other):
    (other / STATE).unlink()
    assert compare(whole, other) == Comparison(1, "the state of step 17 is missing")
    assert compare(whole, other, every_state=False) == Comparison(1, "")


def test_a_metric_counts_as_it_was_written_last(whole, other):
    step, value = history(whole)["val/loss"][0]
    with_another = Journal(other)
    with_another.metrics(step, {"val/loss": 2.0})
    expected = f"metrics, val/loss/0/1: {value} without kills, 2.0"
    assert compare(whole, other).difference == expected
    with_another.metrics(step, {"val/loss": value})
    assert compare(whole, other).difference == ""
    text = (other / FILE).read_text(encoding="utf-8")
    (other / FILE).write_text(text.replace('"test/accuracy"', '"test/other"'), encoding="utf-8")
    assert compare(whole, other).difference == "metrics, test/accuracy: there without kills, not there"


def test_a_prediction_differs(whole, other):
    path = other / "predictions.parquet"
    table = pyarrow.parquet.read_table(path)
    scores = table["score"].to_pylist()
    changed = pyarrow.array([*scores[:-1], 2.0], table["score"].type)
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("score"), "score", changed), path)
    expected = f"predictions, score/{len(scores) - 1}: {scores[-1]} without kills, 2.0"
    assert compare(whole, other).difference == expected


def test_the_result_differs_in_more_than_its_seconds(whole, other):
    values = json.loads((other / "result.json").read_text())
    values["seconds"] += 1
    (other / "result.json").write_text(json.dumps(values))
    assert compare(whole, other).difference == ""
    values["samples"] += 1
    (other / "result.json").write_text(json.dumps(values))
    assert compare(whole, other).difference == "result, samples: 359 without kills, 360"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=nope"], "model=nope: no such model."),
        (["kills=0"], "kills: must be int >= 1. Received: 0."),
        (["kill_seed=-1"], "kill_seed: must be int >= 0. Received: -1."),
        (["resume=auto"], "resume: verify-resume sets it itself. Received: resume=auto."),
        (
            ["checkpoint.max_to_keep=3"],
            "checkpoint.max_to_keep: verify-resume sets it itself. Received: checkpoint.max_to_keep=3.",
        ),
        (["labels_per_class=5000"], "labels_per_class: "),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["verify-resume", "model=mlp", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not list(tmp_path.rglob("config.yaml"))


PLUGIN = Path(__file__).parent.parent / "faults" / "entries.py"


def verified(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a verification with the plugin at hand."""
    done = dlframe("verify-resume", "model=mlp", "epochs=80", f"plugin_paths={PLUGIN}", *arguments, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def killed(monkeypatch: pytest.MonkeyPatch, steps: list[int], whole: Path) -> list[float | None]:
    """Have the trainings of verify-resume be killed where they leave these newest states; the moments of the kills."""
    moments: list[float | None] = []

    def train(command: object, runs: Path, *, kill_after: float | None = None) -> Path:
        if runs.name == "reference" or kill_after is None:
            return Path(shutil.copytree(whole, runs / "run"))
        moments.append(kill_after)
        raise TimeoutError

    monkeypatch.setattr(verify_resume, "_train", train)
    monkeypatch.setattr(verify_resume, "_step", lambda runs: ([0, *steps])[min(len(moments), len(steps))])
    return moments


BRIEF = ["model=mlp", "model.width=8", "epochs=2"]


def test_kills_before_the_first_state_count_as_none(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    moments = killed(monkeypatch, [0, 0, 17, 0, 34], whole)
    assert verify_resume.verify(BRIEF, kills=2, seed=0) == 0
    assert len(moments) == 5
    said = capsys.readouterr().out
    assert said.count("before the first state: nothing to continue from") == 3
    assert "identical: 2 kills" in said


def test_a_training_that_was_never_continued_is_not_called_identical(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    moments = killed(monkeypatch, [0], whole)
    with pytest.raises(
        DlframeError, match=r"^verify-resume: every kill came before the first state, so nothing was continued\."
    ):
        verify_resume.verify(BRIEF, kills=2, seed=0)
    assert len(moments) == verify_resume.EARLY * 2
    assert "identical" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["drawn", "told"])
def test_a_plugin_that_hides_nothing_passes(tmp_path, augmentation):
    status, out, error = verified(tmp_path, f"augmentation=[{augmentation}]", "kills=2", "callback=ema")
    assert (status, error) == (0, "")
    assert re.fullmatch(
        r"without kills: .*/reference/mlp-digits-.*\n"
        r"(kill \d: [\d.]+ s after the first line, from step \d+ to \d+\n){2}"
        r"identical: 2 kills, 13 states, weights, metrics, predictions\n"
        r"run  .*/killed/mlp-digits-.*\n",
        out,
    )
    folder = tmp_path / out.splitlines()[-1].removeprefix("run").strip()
    report = json.loads((folder / "verify.json").read_text())
    assert (report["identical"], report["states"], report["difference"]) == (True, 13, "")
    assert len(report["killed_after_seconds"]) == 2
    assert not list(tmp_path.rglob("state-*"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["verify-resume"]


@pytest.mark.slow
def test_a_plugin_with_a_hidden_counter_is_found_out(tmp_path):
    status, out, error = verified(
        tmp_path, "augmentation=[hidden]", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"
    )
    assert (status, error) == (1, "")
    *_, found, advice, kept = out.splitlines()
    number = r"-?[\d.e-]+"
    assert re.fullmatch(rf"different: step \d+, .*: {number} without kills, {number}, with \d kills?", found)
    assert advice.endswith("an entry that counts gives its count by state_dict().")
    folder = tmp_path / kept.removeprefix("kept ")
    (report,) = folder.glob("killed/*/verify.json")
    assert json.loads(report.read_text())["identical"] is False
    assert len(list(folder.glob("*/*/checkpoints/state-*"))) == 2 * 80 * 17 // 20


@pytest.mark.slow
def test_a_training_that_fails_says_so_itself(tmp_path):
    done = dlframe("verify-resume", "model=mlp", "optimizer=sgd", "optimizer.lr=1e30", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: weights or buffers are not finite since step 1, whose loss was finite.")
    assert done.stdout == ""
