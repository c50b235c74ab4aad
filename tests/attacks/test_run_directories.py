"""A run directory with each of its files in turn as what it is not: read, continued, uploaded and started beside."""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.attacks.conftest import shown

from dlframe.cli import main
from dlframe.storage.known import remember
from dlframe.tracking.sync import close_interrupted_runs

pytestmark = pytest.mark.usefixtures("no_figures")

OPTIONS = ["model=mlp", "epochs=1", "trainer.num_threads=1"]
"""Of the run, so that the same command continues it."""
MEMORY = 4 * 2**30
"""Bytes that a command may take beyond what the process has."""

FILES = (
    *("config.yaml", "overrides.txt", "environment.json", "data.json", "changes.diff", "result.json", "predictions.parquet"),
    *("journal.jsonl", "tracking.json", ".tracking.json.part", "tracking.log", ".tracking.lock", "trial.json"),
    *(".predictions.parquet.part", ".result.json.part", "checkpoints/best.safetensors", "checkpoints/STATE"),
    *("figures/learning_curve.png", "figures/.learning_curve.png.part"),
    *("model/config.yaml", "model/spec.json", "model/signature.json", "model/weights.safetensors"),
    *("checkpoints", "figures", "model"),
)
"""What a run writes; STATE stands for its newest checkpoint."""


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside if "." not in path.name else outside / "secret.txt")


def dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "new")


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def terabyte(path: Path, outside: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def unreadable(path: Path, outside: Path) -> None:
    path.write_text("{}")


KINDS = (link, dangling, pipe, device, terabyte, folder, unreadable)


@contextmanager
def in_little_memory() -> Iterator[None]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files that may not be opened, which holds for root too."""
    names: set[str] = set()

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def open_(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.path.basename(os.fsdecode(path)) in names:
                raise PermissionError(13, "Permission denied", os.fsdecode(path))
            return call(path, *arguments, **options)

        return open_

    for module, name in ((os, "open"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    return names


def unfinished(run: Path) -> None:
    """As a kill leaves it, not uploaded yet."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    lines[0]["uri"] = f"sqlite:///{run.parent.resolve() / 'mlflow.db'}"
    kept = [line for line in lines if line["kind"] != "end"]
    (run / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    for name in ("result.json", "tracking.json"):
        (run / name).unlink()


def continued(run: Path) -> int:
    return main([*OPTIONS, "tracking=none", "resume=auto"])


def named(run: Path) -> int:
    return main([*OPTIONS, "tracking=none", f"resume={run}"])


def beside(run: Path) -> int:
    """What the upload process of another run does with it, and a start with it there."""
    told = [*close_interrupted_runs(run.parent / "own", f"sqlite:///{run.parent.resolve() / 'mlflow.db'}")]
    assert not [line for line in told if re.search(r": \w*Error: ", line)]
    return main([*OPTIONS, "tracking=none", f"run_name={run.name}"])


COMMANDS: dict[str, Callable[[Path], int]] = {
    "test": lambda run: main(["test", str(run)]),
    "test_last": lambda run: main(["test", str(run), "checkpoint=last"]),
    "predict": lambda run: main(["predict", str(run), "x.npy"]),
    "figures": lambda run: main(["figures", str(run)]),
    "compare": lambda run: main(["compare", str(run)]),
    "reproduce": lambda run: main(["reproduce", str(run), "runs=again"]),
    "continued": continued,
    "named": named,
    "sync": lambda run: main(["sync", str(run)]),
    "beside": beside,
}


@pytest.fixture
def attacked(
    strangers_run: Path, victim: Path, guarded: Any, locked: set[str], capsys: pytest.CaptureFixture
) -> Callable[[str, Callable[[Path, Path], None], str], str]:
    """Replace a file of a run, and type a command: what is wrong with what happens then; empty where nothing is."""
    np.save("x.npy", np.zeros((3, 1, 8, 8), np.uint8))
    run, outside = victim / "runs" / strangers_run.name, victim.parent / "outside"

    def attack(command: str, kind: Callable[[Path, Path], None], name: str) -> str:
        for leftover in (victim / "again", *(victim / "runs").glob("mlp-*")):  # not the store, which this process has open
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(strangers_run, run)
        if command in ("continued", "named", "sync", "beside"):
            unfinished(run)
        if command in ("continued", "beside"):
            remember(run=run, store=f"sqlite:///{run.parent.resolve() / 'mlflow.db'}")
            remember(run=run)
        (state, *_) = sorted((run / "checkpoints").glob("state-*"))
        path = run / name.replace("STATE", state.name)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        kind(path, outside)
        locked.update({path.name} if kind is unreadable else ())
        try:
            with guarded(), in_little_memory():
                status = COMMANDS[command](run.relative_to(victim))
            out, error = capsys.readouterr()
            shown(out + error)
            assert (
                status == 0
                or (status == 1 and command in ("sync", "reproduce"))
                or error.splitlines()[-1].startswith("error: ")
            )
            assert sorted(path.name for path in outside.iterdir()) == ["class", "secret.txt"]
        except Exception as error:
            shutil.rmtree(outside / "new") if (outside / "new").is_dir() else (outside / "new").unlink(missing_ok=True)
            return f"{command}, {name} as {kind.__name__}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        finally:
            locked.clear()
            capsys.readouterr()
        return ""

    return attack


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_something_else(command: str, attacked: Callable[..., str]) -> None:
    """Each kind of thing in the place of a file; of the files each in some test."""
    first = 7 * [*COMMANDS].index(command)
    tried = [attacked(command, kind, FILES[(first + i) % len(FILES)]) for i, kind in enumerate(KINDS)]
    assert [fault for fault in tried if fault] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_file_that_is_something_else(command: str, kind: Any, attacked: Callable[..., str]) -> None:
    assert [fault for name in FILES if (fault := attacked(command, kind, name))] == []
