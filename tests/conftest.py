"""What several tests share: a folder to stand in, dlframe as a user runs it, and runs that are paid for once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.faults.matrix import Server

# Two workers share two cores; read when torch and NumPy are imported, and by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is printed is as wide as the terminal, wherever the tests are started.
os.environ["COLUMNS"] = "120"

# A shell starts what runs in the background with Ctrl-C ignored, which the processes that tests interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def dlframe(*arguments: str, cwd: Path, timeout: float = 300, module: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """`python -m dlframe ...` in a folder, in a process of its own."""
    command = [sys.executable, "-m", *module, "dlframe", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DLFRAME_RUN", "PYTEST"))}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where it is noted which stores this user has used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Take out what the tests of a file register, so that the next file finds the registries as they were."""
    from dlframe.registry import REGISTRIES, plugins

    names = {group: {*registry.entries} for group, registry in REGISTRIES.items()}
    seen, modules = {*plugins._seen}, {*sys.modules}
    yield
    for group, registry in REGISTRIES.items():
        for name in registry.entries.keys() - names[group]:
            if registry.entries[name].origin != "dlframe":
                del registry.entries[name]
    plugins._seen.intersection_update({*seen, *plugins.PACKAGE.rglob("*.py")})
    for module in {*sys.modules} - modules:
        if module.startswith("dlframe_plugins."):
            del sys.modules[module]


@pytest.fixture(scope="session")
def forking(state_home: None) -> Iterator[Server]:
    """The process that forks trainings: each is a process of its own, and torch is imported once for all of them."""
    from tests.faults.matrix import Server

    with Server() as server:
        yield server


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the numbers of short runs in this process: four fifths of such a run are its figures."""
    monkeypatch.setattr("dlframe.plots.save", lambda figure, path: path.write_bytes(b"\x89PNG\r\n\x1a\n"))


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    """The README's first command in an empty folder, MLflow and all: what it printed, and its run folder."""
    home = tmp_path_factory.mktemp("an empty folder")
    done = dlframe("model=cnn", cwd=home)
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in (home / "runs").glob("cnn-digits-*") if path.is_dir())
    return done, folder
