"""A repository whose configuration names programs: a run asks git for commit and diff, and none of them runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dlframe.runs import environment

AUTHOR = ("-c", "user.name=x", "-c", "user.email=x@y")
CONFIGS: dict[str, dict[str, str]] = {
    "monitor": {"core.fsmonitor": "PROGRAM"},
    "monitor_of_version_1": {"core.fsmonitor": "PROGRAM", "core.fsmonitorHookVersion": "1"},
    "monitor_with_untracked_cache": {"core.fsmonitor": "PROGRAM", "core.untrackedCache": "true"},
    "diff": {"diff.external": "PROGRAM"},
    "diff_by_attribute": {"diff.evil.command": "PROGRAM"},
    "diff_of_submodules": {"diff.submodule": "diff", "diff.external": "PROGRAM"},
    "text": {"diff.evil.textconv": "PROGRAM"},
    "text_cached": {"diff.evil.textconv": "PROGRAM", "diff.evil.cachetextconv": "true"},
    "text_of_binary_files": {"diff.evil.textconv": "PROGRAM", "diff.evil.binary": "true"},
    "filter_clean": {"filter.evil.clean": "PROGRAM"},
    "filter_smudge": {"filter.evil.smudge": "PROGRAM", "filter.evil.required": "true"},
    "filter_process": {"filter.evil.process": "PROGRAM"},
    "filter_required": {"filter.evil.clean": "PROGRAM", "filter.evil.required": "true"},
    "filter_with_a_name_of_others": {"filter.lfs.clean": "PROGRAM", "filter.lfs.process": "PROGRAM"},
    "filter_included": {"include.path": "INCLUDED"},
    "filter_included_if": {"includeIf.gitdir:/.path": "INCLUDED"},
    "filter_of_a_worktree": {"extensions.worktreeConfig": "true"},
    "hooks": {},
    "hooks_elsewhere": {"core.hooksPath": "HOOKS"},
    "hooks_relative": {"core.hooksPath": "hooks"},
    "transport_ext": {"remote.evil.url": "ext::PROGRAM", "protocol.ext.allow": "always"},
    "transport_of_a_folder": {"remote.evil.url": "FOLDER", "remote.evil.uploadpack": "PROGRAM"},
    "transport_ssh": {"remote.evil.url": "ssh://localhost/x", "core.sshCommand": "PROGRAM"},
    "transport_helper": {"remote.evil.vcs": "ext", "remote.evil.url": "PROGRAM", "protocol.allow": "always"},
    "pager": {"core.pager": "PROGRAM", "pager.diff": "PROGRAM", "pager.config": "PROGRAM"},
    "alias": {"alias.diff": "!PROGRAM", "alias.rev-parse": "!PROGRAM", "alias.config": "!PROGRAM"},
    "editor_and_questions": {"core.editor": "PROGRAM", "core.askPass": "PROGRAM", "sequence.editor": "PROGRAM"},
    "credentials": {"credential.helper": "!PROGRAM", "remote.evil.url": "https://127.0.0.1:1/x"},
    "signatures": {"gpg.program": "PROGRAM", "log.showSignature": "true", "diff.algorithm": "histogram"},
    "alternates": {"core.alternateRefsCommand": "PROGRAM", "core.gitProxy": "PROGRAM"},
}


class Repository:
    """A folder as one unpacks it: a commit, a changed file, and attributes that name every driver."""

    def __init__(self, home: Path) -> None:
        self.folder, self.program, self.mark = home / "repository", home / "program", home / "mark"
        self.folder.mkdir()
        self.program.write_text(f"#!/bin/sh\necho \"$0 $@\" >> '{self.mark}'\n")
        self.program.chmod(0o755)
        self.git("init", "-q")
        (self.folder / "a.txt").write_text("one\n")
        (self.folder / ".gitattributes").write_text("* filter=evil diff=evil\nb.txt filter=lfs diff=lfs\n")
        (self.folder / "b.txt").write_text("two\n")
        self.git("add", ".")
        self.git(*AUTHOR, "commit", "-qm", "x")
        for name in ("a.txt", "b.txt"):
            (self.folder / name).write_text("changed\n")

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=cwd or self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def configure(self, settings: dict[str, str]) -> None:
        included = self.program.parent / "included"
        included.write_text(f'[filter "evil"]\nclean = {self.program}\nprocess = {self.program}\n')
        words = {"PROGRAM": self.program, "INCLUDED": included, "HOOKS": self.program.parent / "hooks", "FOLDER": self.folder}
        for key, value in settings.items():
            for word, path in words.items():
                value = value.replace(word, str(path))
            self.git("config", key, value)
        for folder in (self.folder / ".git" / "hooks", self.program.parent / "hooks", self.folder / "hooks"):
            folder.mkdir(exist_ok=True)
            for hook in ("post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-auto-gc", "post-checkout"):
                (folder / hook).unlink(missing_ok=True)
                (folder / hook).symlink_to(self.program)

    def lose_a_commit(self) -> None:
        """Objects that are to be fetched from the remote when needed."""
        for key, value in {
            "core.repositoryFormatVersion": "1",
            "extensions.partialClone": "evil",
            "remote.evil.promisor": "true",
            "remote.evil.partialCloneFilter": "blob:none",
        }.items():
            self.git("config", key, value)
        blob = self.git("rev-parse", "HEAD:a.txt")
        (self.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path)
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "users"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    return made


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_program_of_the_configuration_runs(kind: str, repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")
    if kind.startswith("transport"):
        repository.lose_a_commit()
    repository.configure(CONFIGS[kind])
    if kind == "filter_of_a_worktree":
        repository.git("config", "--worktree", "filter.evil.clean", str(repository.program))
    repository.mark.unlink(missing_ok=True)
    state = environment.git_state()
    changed = state.changes
    assert environment.describe(state.described, {})["git"]["commit"] == commit
    assert not repository.mark.exists(), repository.mark.read_text()
    if kind.startswith("transport"):
        assert changed is None
    else:
        assert changed is not None
        assert changed.count("\n+changed") == 2


@pytest.mark.parametrize("kind", ["monitor", "filter_clean", "transport_ext"])
def test_the_programs_would_run(kind: str, repository: Repository) -> None:
    """By a git that is asked as usual: what is tried here is no empty threat."""
    if kind.startswith("transport"):
        repository.lose_a_commit()
    repository.configure(CONFIGS[kind])
    subprocess.run(["git", "diff", "HEAD"], cwd=repository.folder, check=False, capture_output=True, timeout=30)
    assert repository.mark.exists()


@pytest.mark.parametrize(
    "settings", [{"core.fsmonitor": "PROGRAM"}, {"filter.evil.clean": "PROGRAM"}, {"diff.external": "PROGRAM"}]
)
def test_submodules(settings: dict[str, str], repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    below = Repository(tmp_path / "below")
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(below.folder), "below")
    repository.git(*AUTHOR, "commit", "-qm", "y")
    inner = repository.folder / "below"
    for key, value in settings.items():
        repository.git("config", key, value.replace("PROGRAM", str(repository.program)), cwd=inner)
    (inner / "a.txt").write_text("changed\n")
    repository.mark.unlink(missing_ok=True)
    changed = environment.changes()
    assert not repository.mark.exists()
    assert changed is not None
    assert "below" not in changed


@pytest.mark.parametrize("place", ["home", "root", "relative"])
def test_a_work_tree_elsewhere(place: str, repository: Repository, tmp_path: Path) -> None:
    """Files outside of the repository do not become a diff."""
    (tmp_path / "a.txt").write_text("secret\n")
    repository.git("config", "core.worktree", {"home": str(tmp_path), "root": "/", "relative": "../.."}[place])
    assert "secret" not in str(environment.changes())


@pytest.mark.parametrize("disguise", ["bare", "bare_below", "file"])
def test_a_folder_that_looks_like_a_repository(
    disguise: str, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Such as one that lies among the files of another repository."""
    repository.configure(CONFIGS["filter_clean"] | CONFIGS["monitor"])
    place = tmp_path / "place"
    if disguise == "file":
        place.mkdir()
        (place / ".git").write_text(f"gitdir: {repository.folder / '.git'}\n")
        (place / "a.txt").write_text("changed\n")
    else:
        (repository.folder / ".git").rename(place)
        monkeypatch.chdir(place)
        repository.mark.unlink(missing_ok=True)
    monkeypatch.chdir(place / "hooks" if disguise == "bare_below" else place)
    environment.describe(environment.git_state().described, {})
    assert not repository.mark.exists()


# --- and it is right


def test_outside_of_a_repository_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.changes() == ""
    assert environment.git(False) == {}


def below(repository: Repository) -> Path:
    (repository.folder / "deep" / "er").mkdir(parents=True)
    return repository.folder / "deep" / "er"


def worktree(repository: Repository) -> Path:
    place = repository.folder.parent / "worktree"
    repository.git("worktree", "add", "-q", str(place))
    for name in ("a.txt", "b.txt"):
        (place / name).write_text("changed\n")
    return place


def with_line_ends(repository: Repository) -> Path:
    repository.git("config", "core.autocrlf", "true")
    for name in ("a.txt", "b.txt"):
        (repository.folder / name).write_bytes(b"changed\r\n")
    return repository.folder


def without_modes(repository: Repository) -> Path:
    repository.git("config", "core.fileMode", "false")
    (repository.folder / ".gitattributes").chmod(0o755)
    return repository.folder


def staged(repository: Repository) -> Path:
    repository.git("add", "a.txt")
    return repository.folder


@pytest.mark.parametrize("prepare", [below, worktree, with_line_ends, without_modes, staged])
def test_the_diff_is_that_of_git(
    prepare: Callable[[Repository], Path], repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(prepare(repository))
    expected = repository.git("diff", "HEAD", cwd=Path.cwd())
    assert environment.changes() == expected
    assert expected.count("\n+changed") == 2


def test_filters_of_the_user_count(repository: Repository, tmp_path: Path) -> None:
    """As those of git-lfs do, which are in the user's own configuration."""
    (tmp_path / "users").write_text('[filter "evil"]\nclean = tr a-z A-Z\n')
    assert "+CHANGED" in str(environment.changes())


def test_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q", "--object-format=sha256"], check=True)
    (tmp_path / "a.txt").write_text("one\n")
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", *AUTHOR, "commit", "-qm", "x"], check=True)
    (tmp_path / "a.txt").write_text("changed\n")
    assert "+changed" in str(environment.changes())


def test_a_run_says_that_there_is_no_diff(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    from dlframe.cli import main

    repository.lose_a_commit()
    assert main(["model=mlp", "model.width=8", "epochs=1", "tracking=none", "trainer.limit_batches=1"]) == 0
    note = "note: git cannot tell what is changed in the repository: the run has no changes.diff"
    assert capsys.readouterr().err.splitlines() == [note]
    (folder,) = (repository.folder / "runs").glob("mlp-*")
    assert json.loads((folder / "environment.json").read_text())["git"]["changed"] is None
    assert not (folder / "changes.diff").exists()
