"""Runs that are trained further with other options: more epochs, another learning rate, other batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.jobs.verify_resume import difference
from dlframe.runs import resume
from dlframe.runs.journal import Journal, history, read
from dlframe.runs.recorder import states
from dlframe.runs.run_directory import read_overrides
from dlframe.storage import checkpoint
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "model.width=8", "tracking=none", "figures=none"]
STEPS = len(range(0, 1078, 64))
"""Steps of an epoch."""


def train(runs: Path, *overrides: str) -> Path:
    return run(load([*SHORT, f"runs={runs}", *overrides])).folder


def go_on(folder: Path, *overrides: str) -> Path:
    return run(load([f"resume={folder}", *overrides])).folder


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """Finished runs of one epoch, and of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlframe.plots.save", lambda figure, path: path.write_bytes(b""))
        home = tmp_path_factory.mktemp("originals")
        constant = ["scheduler=constant", "optimizer=sgd"]
        return {
            "constant": train(home / "a", "epochs=1", *constant),
            "constant, 2": train(home / "b", "epochs=2", *constant),
            "cycle": train(home / "c", "epochs=1", "scheduler=one_cycle"),
            "cycle, 2": train(home / "d", "epochs=2", "scheduler=one_cycle"),
        }


@pytest.fixture
def finished(tmp_path, originals, monkeypatch):
    """Copies a run into this test's folder, which is the current one."""
    monkeypatch.chdir(tmp_path)

    def copied(name: str = "constant") -> Path:
        return Path(shutil.copytree(originals[name], tmp_path / "runs" / originals[name].name)).relative_to(tmp_path)

    return copied


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_more_epochs_are_those_of_a_longer_run(finished, originals, capsys):
    folder = finished()
    assert go_on(folder, "epochs=2") == folder
    said = capsys.readouterr().out
    assert f"continues after epoch 1, step {STEPS}, with epochs 1 to 2\n" in said
    one, two = (checkpoint.load(states(each)[0])[0] for each in (originals["constant, 2"], folder))
    assert difference(one, two) is None
    assert result(folder)["metrics"] == result(originals["constant, 2"])["metrics"]
    assert history(folder)["val/loss"] == history(originals["constant, 2"])["val/loss"]


def test_the_schedule_is_entered_where_the_longer_run_is(finished, originals):
    folder = go_on(finished("cycle"), "epochs=2")
    (_, before), (step, rate) = history(folder)["lr"]
    assert before < 1e-6  # the end of a cycle
    assert (step, pytest.approx(rate)) == history(originals["cycle, 2"])["lr"][1]
    at = checkpoint.load(states(folder)[0])[0]["schedulers"][0]
    assert (at["last_epoch"], at["total_steps"]) == (2 * STEPS, 2 * STEPS)


def test_the_folder_says_what_was_changed(finished):
    folder = go_on(finished(), "epochs=2", "optimizer.lr=0.5")
    assert "epochs: 2\n" in (folder / "config.yaml").read_text()
    assert {"epochs=2", "optimizer.lr=0.5", "model.width=8"} < set(read_overrides(folder))
    assert not any(text.startswith("resume=") for text in result(folder)["overrides"])
    *_, start = (record for record in read(folder) if record["kind"] == "start")
    assert start["tags"]["continued.from_step"] == STEPS
    assert start["tags"]["continued.changes"].startswith("epochs 1 to 2, optimizer.lr ")
    assert history(folder)["lr"][-1][1] == 0.5


def test_the_same_command_again_shows_the_result(finished, capsys):
    folder = go_on(finished(), "epochs=2")
    before = (folder / "journal.jsonl").read_bytes()
    go_on(folder, "epochs=2")
    go_on(folder)
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_continuation_that_was_killed_early_goes_on(finished, originals):
    """Before its first state, when the folder has the new config and a state of the old one."""
    folder = finished()
    old = states(folder)[0].read_bytes()
    go_on(folder, "epochs=2")
    for path in states(folder):
        path.unlink()
    (folder / "checkpoints" / f"state-{STEPS:09d}.safetensors").write_bytes(old)
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if '"kind": "start"' in line)
    (folder / "journal.jsonl").write_text("".join(lines[: last + 1]))
    (folder / "result.json").unlink()
    go_on(folder)
    one, two = (checkpoint.load(states(each)[0])[0] for each in (originals["constant, 2"], folder))
    assert difference(one, two) is None


def test_a_continued_run_is_not_that_of_its_first_command(finished, originals):
    config = load([*SHORT, "epochs=1", "scheduler=constant", "optimizer=sgd", "resume=auto"])
    folder = finished()
    assert resume.find(load([*config.overrides[:-1], f"resume={folder}"])) == folder
    go_on(folder, "epochs=2")
    assert resume.find(config) is None
    assert resume.Finished("runs").find(config, json.loads((folder / "data.json").read_text())["fingerprint"]) is None


def test_an_epoch_with_other_batches_begins_again(finished, capsys, monkeypatch):
    folder = finished()
    tree, facts = checkpoint.load(states(folder)[0])
    tree["progress"] |= {"epoch": 0, "position": STEPS, "done": False, "best": None}
    checkpoint.save(states(folder)[0], tree, {**facts, "epoch": 0})
    go_on(folder, "batch_size=128")
    assert "note: epoch 1 begins again, as its batches are others now" in capsys.readouterr().err
    assert checkpoint.load(states(folder)[0])[0]["progress"]["steps"] == STEPS + len(range(0, 1078, 128))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["model.width=16", "epochs=2"], "model.width is 8 in runs/.* and 16 here; a run is continued .*initial_checkpoint="),
        (["model=cnn"], "model.name is 'mlp' in"),
        (["seed=1"], "seed is 0 in"),
        (["task=text_classification"], "is '.*' in"),
        (["augmentation=[affine]"], "augmentation"),
        (["optimizer=adamw"], "optimizer"),
        (["trainer.precision=bf16-mixed"], "trainer.precision"),
        (["epochs=1", "optimizer.lr=0.5"], "epochs: must be more than the 1 that .* Received: 1. Try: epochs=2"),
        (["epochs=0"], "epochs"),
        (["epochs=two"], "epochs"),
    ],
)  # fmt: skip
def test_what_may_not_change_is_refused_by_its_name(finished, options, told):
    folder = finished()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=told):
        go_on(folder, *options)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_without_a_state_cannot_be_changed(finished):
    folder = finished()
    states(folder)[0].unlink()
    with pytest.raises(ConfigError, match="has no checkpoint to continue from, with epochs 1 to 2"):
        go_on(folder, "epochs=2")


@pytest.mark.parametrize("options", [None, "epochs", [1]])
def test_a_state_that_does_not_say_its_options_cannot_be_changed(finished, options):
    folder = finished()
    tree, facts = checkpoint.load(states(folder)[0])
    checkpoint.save(states(folder)[0], tree, {**facts, "options": options})
    with pytest.raises(ConfigError, match="does not say with which options it was trained"):
        go_on(folder, "epochs=2")


def test_a_run_in_use_is_left_alone(finished):
    folder = finished()
    journal = Journal(folder)
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="another process is writing this run"):
        go_on(folder, "epochs=2")
    journal.close()
    assert ((folder / "config.yaml").read_bytes(), (folder / "result.json").is_file()) == (before, True)


def test_a_store_that_only_the_run_names_is_not_contacted(finished):
    folder = finished()
    text = (folder / "config.yaml").read_text().replace("uri: none", "uri: https://example.org")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="of a file must be a store that you know"):
        go_on(folder, "epochs=2")
