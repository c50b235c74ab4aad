"""Versions and git state of a run, asked for once while they are the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dlframe.runs import environment
from dlframe.storage import stamps


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stamps, "FRESH_SECONDS", 0)
    monkeypatch.setattr(environment, "_last", None)
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    (tmp_path / "below").mkdir()
    for name in ("a.txt", "below/b.txt"):
        (tmp_path / name).write_text("one\n")
    git("add", ".")
    git("commit", "-qm", "x")
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The diffs that git was asked for."""
    seen: list[str] = []
    original = environment.changes

    def counted() -> str | None:
        seen.append("diff")
        return original()

    monkeypatch.setattr(environment, "changes", counted)
    return seen


def commit() -> None:
    git("commit", "-q", "--allow-empty", "-m", "y")


def edit() -> None:
    Path("a.txt").write_text("changed\n")


def edit_below() -> None:
    Path("below/b.txt").write_text("changed\n")


def remove() -> None:
    Path("a.txt").unlink()


def switch() -> None:
    git("switch", "-q", "-c", "other")


def stage() -> None:
    Path("new.txt").write_text("new\n")
    git("add", "new.txt")


def make_executable() -> None:
    Path("a.txt").chmod(0o755)


def ignore_modes() -> None:
    Path("a.txt").chmod(0o755)
    assert environment.git_state().changes
    git("config", "core.fileMode", "false")


def pack() -> None:
    git("pack-refs", "--all")
    environment.git_state()
    commit()


@pytest.mark.parametrize(
    "change", [commit, edit, edit_below, remove, switch, stage, make_executable, ignore_modes, pack], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("place", [".", "below"])
def test_every_change_is_seen(repository, change, place, monkeypatch):
    monkeypatch.chdir(place)
    before = environment.git_state()
    monkeypatch.chdir(repository)
    change()
    monkeypatch.chdir(place)
    after = environment.git_state()
    monkeypatch.setattr(environment, "_last", None)
    assert after == environment.git_state()
    assert after != before or change is ignore_modes


def test_git_is_asked_once(repository, asked):
    edit()
    first = environment.git_state()
    assert first.changes is not None
    assert "+changed" in first.changes
    Path("runs").mkdir()
    Path("runs/untracked.txt").write_text("")
    assert [environment.git_state() for _ in range(3)] == [first] * 3
    assert len(asked) == 1


def test_a_fresh_change_is_asked_for_again(repository, asked, monkeypatch):
    monkeypatch.setattr(stamps, "FRESH_SECONDS", 60)
    environment.git_state()
    environment.git_state()
    assert len(asked) == 2


def test_a_repository_that_appears_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "FRESH_SECONDS", 0)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert environment.git_state() == environment.GitState({}, "")
    git("init", "-q")
    commit()
    assert environment.git_state().described["commit"]


def test_versions_are_those_that_were_imported(monkeypatch):
    before = environment.versions()
    before["torch"] = "0"
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: "9")
    assert environment.versions()["torch"] not in ("0", "9")


LAUNCHERS = ("WORLD_SIZE", "MASTER_ADDR", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, "0"),
        ({"RANK": "1"}, "0"),  # left over from another program
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, "0"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, "1"),
        ({"MASTER_ADDR": "a", "NODE_RANK": "2"}, "2"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, "3"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, "0"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "MASTER_ADDR": "a"}, "3"),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "0"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "bash"}, "0"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "WORLD_SIZE": "4", "RANK": "0"}, "0"),  # torchrun below srun
    ],
)
def test_each_process_of_a_launcher_knows_its_rank(variables, rank, monkeypatch):
    for name in (*LAUNCHERS, *(name for name in os.environ if name.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (environment.rank(), environment.is_main()) == (rank, rank == "0")
