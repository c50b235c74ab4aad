"""Studies in trouble: two processes with one command, failures, a call that hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import until

from dlframe.cli import main
from dlframe.runs import journal
from dlframe.studies.study import Study, read_manifest

pytestmark = pytest.mark.usefixtures("no_figures")
SWEEP = ["sweep", "model=mlp", "tracking=none", "search.fresh_seeds=0", "name=try"]
SLOW = ["model.depth=4", "epochs=30", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20", "sampler=random"]
SPACE = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
HANGS = '''"""A model that hangs."""

import threading

from torch import nn

from dlframe.registry import models


@models.register("hangs", inputs=("image",))
class Hangs(nn.Module):
    """It waits for what never comes.

    Args:
        width: Width.
    """

    def __init__(self, spec, *, width: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.width = width

    def forward(self, image):
        if self.training and self.width == 4:
            threading.Event().wait()
        return self.layer(image.flatten(1))
'''


def study(folder: Path) -> Study:
    return Study(folder / "runs/sweeps/try", read_manifest(folder / "runs/sweeps/try"))


def started(*options: str, cwd: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "dlframe", *options]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_same_command_a_second_time_helps(tmp_path, is_killed):
    """Both end when all trials have, and name the same best one; if one is killed, the other takes its trial over."""
    options = [*SWEEP, *SLOW, SPACE, "trials=5"]
    both = [started(*options, cwd=tmp_path)]
    until(lambda: [*tmp_path.glob("runs/try-0000/checkpoints/state-*")], 120)
    both.append(started(*options, cwd=tmp_path))
    until(lambda: [*tmp_path.glob("runs/try-0001/checkpoints/state-*")], 120)
    if is_killed:
        both[0].kill()
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [-9 if is_killed else 0, 0], said
    best = [[line for line in text.splitlines() if line.startswith("best trial")] for text in said]
    assert best[1]
    assert is_killed or best[0] == best[1]
    assert [record.state for record in study(tmp_path).records()] == ["complete"] * 5
    runs = [tmp_path / f"runs/try-{number:04d}" for number in range(5)]
    assert all(len(journal.history(run)["val/accuracy"]) == 30 for run in runs)
    starts = [sum(record["kind"] == "start" for record in journal.read(run)) for run in runs]
    assert sorted(starts) == [1, 1, 1, 1, 1 + is_killed]


def test_a_study_stops_after_too_many_failures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [*SWEEP, "epochs=1", "optimizer=sgd", "optimizer.lr=choice(1e30,1e31,1e32,1e33)", "sampler=grid"]
    assert main([*options, "search.max_failures=1"]) == 1
    assert [record.state for record in study(tmp_path).records()] == ["failed", "failed"]
    said = capsys.readouterr()
    assert (
        "stopped: 2 trials have failed, more than search.max_failures=1; the last: weights or buffers are not finite"
        in said.err
    )
    assert "sweep export" not in said.out
    assert main([*options, "search.max_failures=1"]) == 1
    assert len(study(tmp_path).records()) == 2
    assert main([*options, "search.max_failures=10"]) == 1
    assert [record.state for record in study(tmp_path).records()] == ["failed"] * 4


def test_a_model_that_hangs_is_ended_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "hangs.py").write_text(HANGS)
    options = ["sweep", "model=hangs", "epochs=1", "tracking=none", "search.fresh_seeds=0", "name=try", "sampler=grid"]
    assert main([*options, "model.width=choice(8,4,16)", "search.timeout=15"]) == 1
    found = study(tmp_path).records()
    assert [record.state for record in found] == ["complete", "failed", "complete"]
    assert found[1].failure == "took longer than search.timeout=15 seconds"


def test_export_writes_over_no_file_of_the_user(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SWEEP, "epochs=1", SPACE, "trials=1"]) == 0
    assert main(["sweep", "export", "try"]) == 0
    assert main(["sweep", "export", "try"]) == 0
    file = Path("conf/experiment/try.yaml")
    file.write_text("seed: 7\n")
    capsys.readouterr()
    assert main(["sweep", "export", "try"]) == 2
    assert "conf/experiment/try.yaml is there, and is another one" in capsys.readouterr().err
    assert file.read_text() == "seed: 7\n"
    file.unlink()
    os.symlink(tmp_path / "elsewhere.yaml", file)
    assert main(["sweep", "export", "try"]) == 2
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_a_trial_that_was_killed_before_it_had_chosen_chooses_as_if_it_were_not(tmp_path, monkeypatch):
    """The process ends between the trial's number and its options: they still follow from the trials before."""
    monkeypatch.chdir(tmp_path)
    options = ["sweep", "model=mlp", "epochs=1", "tracking=none", "search.fresh_seeds=0", "sampler.warmup_trials=2", SPACE]
    assert main([*options, "trials=4", "name=whole"]) == 0
    assert main([*options, "trials=3", "name=try"]) == 0
    study(tmp_path).optuna.ask()
    assert main([*options, "trials=4", "name=try"]) == 0
    whole = Study(Path("runs/sweeps/whole"), read_manifest(Path("runs/sweeps/whole"))).records()
    assert [record.options for record in study(tmp_path).records()] == [record.options for record in whole]
