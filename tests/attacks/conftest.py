"""What the attacks share: a victim who types a command, a guard that sees what Python does meanwhile, a stranger's run."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401  # makes its cache folder when imported: not while the guard looks
import pytest

from dlframe.cli import main

SECRET = "s3cr3t-0f-the-v1ct1m"
"""In a file beside the victim's folder, and in the environment."""

PATIENCE = 60
"""Seconds that an attack may take."""

RUNS_PROGRAMS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn", "subprocess.Popen"}
CHANGES_FILES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
HARMLESS = ("/sbin/ldconfig", "git", "uname")
"""Programs that torch and dlframe ask about the machine."""


class Bomb:
    """Leaves a file "ran" behind when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return os.system, ("touch ran",)


BOMB = pickle.dumps(Bomb())


class Guard:
    """Python's own report of what a process does: programs that are run, pickles, and files changed outside of `home`."""

    def __init__(self) -> None:
        self.home: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self.look)

    def look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.home is None:
            return
        if event in RUNS_PROGRAMS and not str(arguments[0]).endswith(HARMLESS):
            self.seen.append(f"{event} {arguments[:2]}")
        elif event == "pickle.find_class":
            self.seen.append(f"unpickled {arguments}")
        elif event == "socket.connect":
            self.seen.append(f"called {arguments[1]}")
        elif event in CHANGES_FILES or (event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
            inside = os.path.realpath(path).startswith(f"{self.home}/")
            if path and not inside and not re.search(r"__pycache__|torchinductor|^/dev/null$", path):
                self.seen.append(f"{event} {path}")


GUARD = Guard()


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """An attack that never ends has succeeded."""
    previous = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the victim stands in; beside it lies what no attack may read or change."""
    outside = tmp_path / "outside"
    (outside / "class").mkdir(parents=True)
    (outside / "secret.txt").write_text(SECRET)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in ("SECRET", "PGPASSWORD", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("DLFRAME_DATA", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    return home


@pytest.fixture
def guarded(victim: Path, tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """While it is held, nothing is run, nothing unpickled and nothing changed outside the victim's folder."""

    @contextmanager
    def guarded() -> Iterator[None]:
        tempfile.gettempdir()  # tries by writing, once
        outside = _snapshot(tmp_path / "outside")
        GUARD.home, GUARD.seen = victim, []
        try:
            yield
        finally:
            GUARD.home = None
        assert GUARD.seen == []
        assert _snapshot(tmp_path / "outside") == outside
        assert not list(tmp_path.rglob("ran"))

    return guarded


@pytest.fixture
def refused(guarded: Callable[..., Any], victim: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type a command that must fail with one line and status 2, having shown and kept nothing; the line."""

    def type_in(*arguments: str) -> str:
        capsys.readouterr()
        with guarded():
            assert main(list(arguments)) == 2
        out, error = capsys.readouterr()
        *before, last, end = error.split("\n")
        assert end == ""
        assert last.startswith("error: ")
        assert len(last) < 20_000
        shown(out + error)
        assert all(line.startswith("Decoding ") for line in before)
        assert not (victim / "runs").exists()
        return last.removeprefix("error: ")

    return type_in


def shown(text: str) -> str:
    """What the terminal showed: no secret, nothing that a terminal obeys, no traceback."""
    assert SECRET not in text
    assert "Traceback" not in text
    assert [c for c in text if c != "\n" and unicodedata.category(c) == "Cc"] == []
    return text


@pytest.fixture(scope="session")
def strangers_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as somebody might send it, model and all: tracked, in a repository with changes, in an environment of secrets."""
    home = tmp_path_factory.mktemp("stranger")
    (home / "a.py").write_text("a = 1\n")
    for command in (["init", "-q"], ["add", "a.py"], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], check=True, cwd=home)
    (home / "a.py").write_text("a = 2\n")
    names = ("SECRET", "PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "API_KEY")
    environment = {**os.environ, **dict.fromkeys(names, SECRET)}
    command = [sys.executable, "-m", "dlframe", "model=mlp", "epochs=1", "trainer.num_threads=1"]
    done = subprocess.run(command, cwd=home, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown(done.stdout + done.stderr)
    (folder,) = (home / "runs").glob("mlp-*")
    return folder


@pytest.fixture
def stranger(strangers_run: Path, victim: Path) -> Path:
    """A copy of it in the victim's folder, to be tampered with."""
    return Path(shutil.copytree(strangers_run, victim / "theirs")).relative_to(victim)


def _hangs(*_: Any) -> None:
    raise AssertionError(f"no answer within {PATIENCE} s")


def _snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
