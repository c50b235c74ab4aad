"""Files of a run that are none, or too large: each is refused in one line, at once."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dlframe.cli import main
from dlframe.runs import journal
from dlframe.runs.exported_model import Predictor
from dlframe.runs.run_directory import read_file, read_result
from dlframe.types import DataError, opened, read_bytes, read_text

SOURCE = Path(sys.modules["dlframe"].__file__ or "").parent


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    """To the very same content."""
    path.symlink_to(path.with_name("kept").absolute())


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def huge(path: Path) -> None:
    """10 GB, none of them on the disk."""
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


def folder(path: Path) -> None:
    path.mkdir()


KINDS = [pipe, link, link_to_a_device, link_to_nothing, link_to_itself, huge, folder]
kinds = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


def replace(path: Path, make: Callable[[Path], None]) -> None:
    path.rename(path.with_name("kept"))
    make(path)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """What blocks has not been refused."""

    def late(*_: object) -> None:
        raise AssertionError("not refused in time")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    options = ["model=mlp", "model.width=8", "epochs=1", "tracking=none", "batch_size=64", "trainer.num_threads=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(options) == 0
    (found,) = (home / "runs").glob("mlp-*")
    return found


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "runs" / trained.name
    shutil.copytree(trained, copy)
    monkeypatch.chdir(tmp_path)
    np.save("digit.npy", np.zeros((1, 1, 8, 8), np.uint8))
    return copy.relative_to(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@kinds
@pytest.mark.parametrize("name", ["config.yaml", "overrides.txt", "data.json", "checkpoints/best.safetensors"])
def test_a_run_is_not_scored(name: str, make: Callable[[Path], None], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(run / name, make)
    refused(capsys, "test", str(run))


@kinds
@pytest.mark.parametrize("name", ["config.yaml", "spec.json", "weights.safetensors"])
def test_a_model_does_not_predict(
    name: str, make: Callable[[Path], None], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(run / "model" / name, make)
    refused(capsys, "predict", str(run), "digit.npy")


@pytest.mark.parametrize("name", ["model", "checkpoints"])
def test_a_linked_folder_of_a_run(name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    command = ["predict", str(run), "digit.npy"] if name == "model" else ["test", str(run)]
    assert "must be a file. Received: a link" in refused(capsys, *command)


@kinds
@pytest.mark.parametrize("name", ["result.json"])
def test_a_result(name: str, make: Callable[[Path], None], run: Path) -> None:
    replace(run / name, make)
    with pytest.raises(DataError, match="no result of a run"):
        read_result(run)
    with pytest.raises(DataError):
        Predictor(run / "nothing")


@kinds
@pytest.mark.parametrize("name", ["journal.jsonl"])
def test_a_journal(name: str, make: Callable[[Path], None], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is neither resumed from nor delivered nor written."""
    replace(run / name, make)
    before = (run / "kept").read_bytes()
    refused(capsys, "model=mlp", "model.width=8", "epochs=1", "tracking=none", "batch_size=64", f"resume={run}")
    with pytest.raises(DataError, match="link" if make is link_to_nothing else "journal"):
        list(journal.follow(run))
    assert not journal.being_written(run)
    assert (run / "kept").read_bytes() == before


@kinds
@pytest.mark.parametrize("name", ["journal.jsonl", "tracking.json"])
def test_a_run_is_not_delivered(
    name: str, make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others of the folder are."""
    for other in ("a", "b"):
        place = tmp_path / "runs" / other
        place.mkdir(parents=True)
        (place / "journal.jsonl").write_text(json.dumps({"kind": "start", "time": 1, "uri": "http://127.0.0.1:1"}) + "\n")
        (place / "tracking.json").write_text("{}")
    replace(tmp_path / "runs" / "a" / name, make)
    assert main(["sync", f"runs={tmp_path / 'runs'}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("uploaded: 0 runs; pending: ")
    assert any("runs/b" in line for line in lines)


@kinds
def test_any_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    assert read_text(tmp_path / "file.txt", 4, inside=tmp_path) == "text"
    with pytest.raises(OSError, match="at most 3 bytes"):
        read_bytes(tmp_path / "file.txt", 3)
    replace(tmp_path / "file.txt", make)
    with pytest.raises(OSError, match=r"."):
        read_file(tmp_path, "file.txt")
    if make is link:
        assert read_text(tmp_path / "file.txt", 4) == "text"  # what the user names may be a link
    elif make is not huge:
        with pytest.raises(OSError, match=r"."):
            opened(tmp_path / "file.txt").close()


@kinds
def test_a_config_and_a_plugin(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if make is link:
        pytest.skip("the user's own files may be links")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "plugins").mkdir()
    make(tmp_path / "conf" / "experiment" / "x.yaml")
    make(tmp_path / "plugins" / "y.py")
    assert main(["list"]) == 0
    assert main(["experiment=x", "model=mlp"]) == 2
    assert main(["show", "experiment=x"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_lines_of_a_journal(tmp_path: Path) -> None:
    """A line that never ends is not read into memory; what was before counts."""
    record = b'{"kind": "note", "time": 1}\n'
    (tmp_path / "journal.jsonl").write_bytes(record + b"[" * (journal.LONGEST + 1) + b"\n" + record)
    assert [end for _, end in journal.follow(tmp_path)] == [len(record)]


# --- there is no other way

FOLDERS = ("runs", "jobs", "config", "inspection", "serving", "registry", "reports", "cli")


def reads(tree: ast.AST) -> Iterator[str]:
    """Where a file is opened for reading by other means than `opened`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith((".read_text", ".read_bytes")):
                yield f"line {node.lineno}: {called}"
            of_path = called.endswith(".open") and called not in ("os.open", "webbrowser.open", "build_opener(Stay).open")
            if of_path or called in ("open", "io.open", "gzip.open", "os.open"):
                mode = ast.unparse(node.args[0 if of_path else 1]) if len(node.args) > (0 if of_path else 1) else ""
                if not any(word in mode for word in ("w", "a", "x", "O_APPEND")):
                    yield f"line {node.lineno}: {called}"


FILES = [file for file in sorted(SOURCE.rglob("*.py")) if file.relative_to(SOURCE).parts[0] in (*FOLDERS, "tracking")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_files_are_opened_by_one_function(file: Path) -> None:
    assert list(reads(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("code", ["p.read_text()", "p.open()", "open(p, 'rb')", "p.read_bytes()", "os.open(p, os.O_RDONLY)"])
def test_a_read_is_found(code: str) -> None:
    assert list(reads(ast.parse(code))) != []
