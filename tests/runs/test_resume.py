"""Which run a command continues, and what it says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dlframe.config import load
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.runs import resume
from dlframe.runs.journal import Journal, ended, history
from dlframe.runs.recorder import BEST, states
from dlframe.runs.run_directory import identity
from dlframe.storage import checkpoint
from dlframe.studies.grid import run_grid
from dlframe.types import CheckpointError, ConfigError, DataError

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "epochs=2", "tracking=none"]


def train(tmp_path: Path, *overrides: str):
    return run(load([*SHORT, f"runs={tmp_path}", *overrides]))


@pytest.fixture
def finished(tmp_path) -> Path:
    return train(tmp_path).folder


def unfinish(folder: Path) -> None:
    """As a run that was killed after its last epoch looks."""
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(line for line in lines if '"kind": "end"' not in line))
    (folder / "result.json").unlink()


def test_a_finished_run_is_shown_and_not_trained_again(tmp_path, finished, capsys):
    before = (finished / "journal.jsonl").read_bytes()
    result = train(tmp_path, "resume=auto")
    assert result.folder == finished
    assert result.metrics == json.loads((finished / "result.json").read_text())["metrics"]
    assert (finished / "journal.jsonl").read_bytes() == before
    assert f"run  {finished}" in capsys.readouterr().out


def test_another_config_begins_anew(tmp_path, finished):
    assert train(tmp_path, "resume=auto", "seed=1").folder != finished
    assert train(tmp_path).folder != finished


@pytest.mark.parametrize(
    "option",
    ["checkpoint.every_n_steps=3", "checkpoint.max_to_keep=1", "steps_per_execution=2", "tracking=none", "profile=true"],
)
def test_options_that_change_no_number_do_not_make_another_config(option):
    assert identity(load([*SHORT, option]).values) == identity(load(SHORT).values)


@pytest.mark.parametrize(
    "option", ["seed=1", "epochs=3", "model.width=8", "optimizer.lr=0.1", "trainer.num_threads=1", "log_every_n_steps=7"]
)
def test_options_that_may_change_a_number_do(option):
    assert identity(load([*SHORT, option]).values) != identity(load(SHORT).values)


def test_of_several_runs_the_newest_goes_on(tmp_path, finished):
    newest = train(tmp_path).folder
    unfinish(finished)
    assert resume.find(load([*SHORT, f"runs={tmp_path}", "resume=auto"])) == newest
    assert resume.find(load([*SHORT, f"runs={tmp_path}", f"resume={finished}"])) == finished


def test_a_run_killed_in_its_test_is_only_tested_again(tmp_path, finished, capsys):
    expected = {path.name: path.read_bytes() for path in (finished / "checkpoints").iterdir()}
    metrics = json.loads((finished / "result.json").read_text())["metrics"]
    curves = history(finished)
    unfinish(finished)
    capsys.readouterr()
    result = train(tmp_path, "resume=auto")
    assert f"resumes {finished}" in capsys.readouterr().out
    assert (result.folder, result.metrics) == (finished, metrics)
    assert {path.name: path.read_bytes() for path in (finished / "checkpoints").iterdir()} == expected
    assert history(finished) == curves
    assert ended(finished) == "FINISHED"


def test_a_run_without_a_state_begins_again_in_its_folder(tmp_path, finished):
    metrics = json.loads((finished / "result.json").read_text())["metrics"]
    unfinish(finished)
    for state in states(finished):
        state.unlink()
    (finished / "checkpoints" / "best.safetensors").unlink()
    assert train(tmp_path, "resume=auto").metrics == metrics


def test_a_folder_of_another_config_is_refused_with_the_first_difference(tmp_path, finished):
    with pytest.raises(ConfigError) as error:
        train(tmp_path, f"resume={finished}", "model.width=7")
    assert str(error.value) == (
        f"resume: model.width is 256 in {finished} and 7 here; a run is continued with other epochs, learning rate, scheduler, "
        f"batch size, devices or logging only. For a new run with its weights: initial_checkpoint={finished}"
    )


@pytest.mark.parametrize("value", ["aut", "no such folder"])
def test_what_is_no_run_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match=f"^resume: must be auto, none or a run directory. Received: '{value}'"):
        train(tmp_path, f"resume={value}")
    assert list(tmp_path.iterdir()) == []


def test_changed_data_are_refused(tmp_path, finished):
    unfinish(finished)
    (finished / "data.json").write_text('{"fingerprint": "000000000000"}')
    with pytest.raises(DataError, match=r"fingerprint must be 000000000000. Received: 5ed0c0c6320d"):
        train(tmp_path, "resume=auto")


def test_a_run_that_another_process_writes_is_refused(tmp_path, finished):
    unfinish(finished)
    other = Journal(finished)
    try:
        with pytest.raises(ConfigError, match="another process is writing this run"):
            train(tmp_path, "resume=auto")
    finally:
        other.close()


def test_journals_that_are_none_are_passed_over(tmp_path, finished):
    for name, text in (("a", ""), ("b", "nothing\n"), ("c", '{"kind": "start", "time": 1}\n'), ("d", "[]\n")):
        folder = tmp_path / f"mlp-digits-{name}"
        folder.mkdir()
        (folder / "journal.jsonl").write_text(text)
    assert resume.find(load([*SHORT, f"runs={tmp_path}", "resume=auto"])) == finished


def test_the_last_state_can_be_scored_too(tmp_path, finished):
    best = json.loads((finished / "result.json").read_text())["metrics"]
    curves = history(finished)
    assert evaluate_run(finished, "best").metrics == evaluate_run(finished).metrics == best
    last = evaluate_run(finished, "last").metrics
    assert (last == best) == (curves["val/accuracy"][1][1] > curves["val/accuracy"][0][1])
    assert last == evaluate_run(finished, str(states(finished)[0])).metrics
    states(finished)[0].unlink()
    with pytest.raises(CheckpointError, match=r"has no state of its training\. Try: checkpoint=best"):
        evaluate_run(finished, "last")


def test_a_grid_goes_on_too(tmp_path, capsys):
    cells = [*SHORT, f"runs={tmp_path}", "seed=0,1", "resume=auto"]
    assert run_grid(cells) == 0
    folders = sorted(tmp_path.glob("mlp-*"))
    before = [(folder / "journal.jsonl").read_bytes() for folder in folders]
    first = capsys.readouterr().out.splitlines()[-3:]
    assert run_grid(cells) == 0
    again = capsys.readouterr().out.splitlines()[-3:]
    assert sorted(tmp_path.glob("mlp-*")) == folders
    assert [(folder / "journal.jsonl").read_bytes() for folder in folders] == before
    assert [line.split(",")[0] for line in again] == [line.split(",")[0] for line in first]


def test_other_versions_are_told(tmp_path, finished, capsys):
    unfinish(finished)
    file = finished / "environment.json"
    described = json.loads(file.read_text())
    torch = described["packages"]["torch"]
    described["packages"]["torch"] = "1.0"
    file.write_text(json.dumps(described))
    train(tmp_path, "resume=auto")
    said = f"warning: package versions changed; results may differ: torch 1.0 to {torch}\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("monitor", "better"), [("val/accuracy", max), ("val/loss", min)])
def test_the_weights_of_the_best_epochs_are_kept_also_after_a_kill(tmp_path, monitor, better):
    options = [f"monitor={monitor}", "epochs=6", "optimizer.lr=0.02", "checkpoint.top_k=3", "checkpoint.max_to_keep=9"]
    folder = train(tmp_path, *options, "checkpoint.every_n_steps=20", "checkpoint.every_n_minutes=0").folder
    top = {path.name: checkpoint.load(path) for path in (folder / "checkpoints").glob("top-*")}
    values = history(folder)[monitor]
    of_best = sorted(values, key=lambda one: one[1], reverse=better is max)[:3]
    assert sorted(top) == sorted(f"top-{step:09d}.safetensors" for step, _ in of_best)
    (step, value), *_ = of_best
    assert top[f"top-{step:09d}.safetensors"][1][monitor] == value
    assert checkpoint.load(folder / BEST)[0].keys() == top[min(top)][0].keys()
    for later in states(folder)[:3]:
        later.unlink()
    unfinish(folder)
    assert train(tmp_path, *options, "resume=auto").folder == folder
    again = {path.name: checkpoint.load(path) for path in (folder / "checkpoints").glob("top-*")}
    assert again.keys() == top.keys()
    for name, (weights, facts) in top.items():
        assert again[name][1] == facts
        assert all(torch.equal(tensor, again[name][0][key]) for key, tensor in weights.items())


def test_the_weights_of_one_of_the_best_epochs_begin_another_run(tmp_path):
    folder = train(tmp_path, "epochs=3", "checkpoint.top_k=2").folder
    first = min((folder / "checkpoints").glob("top-*"))
    begun = train(tmp_path, f"initial_checkpoint={first}").folder
    assert json.loads((begun / "environment.json").read_text())["initial_checkpoint"]["file"] == str(first)
