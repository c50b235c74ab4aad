"""A full disk: the journal keeps what it is given and goes on to the byte when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import dlframe
from tests.faults.conftest import SmallDisk

from dlframe.runs.journal import FILE, Journal, history, read
from dlframe.studies.study import Study, read_manifest
from dlframe.tracking import UploadState, upload


def steps(folder: Path) -> list[int]:
    """The steps in a journal of which every line is whole."""
    lines = (folder / FILE).read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    return [json.loads(line)["step"] for line in lines]


def warning(folder: Path) -> str:
    reason = "No space left on device; the journal continues in memory until there is space"
    return f"warning: {folder / FILE}: {reason}\n"


def test_a_journal_on_a_full_disk_goes_on_when_there_is_room(small_disk: SmallDisk, capsys: pytest.CaptureFixture) -> None:
    journal = Journal(small_disk.path)
    for step in range(100):
        journal.metrics(step, {"loss": step / 3})
    small_disk.fill()
    for step in range(100, 3000):
        journal.metrics(step, {"loss": step / 3})
    on_disk = (small_disk.path / FILE).read_bytes()
    assert not on_disk.endswith(b"\n"), "the disk was full in the middle of a line"
    assert 100 <= len(read(small_disk.path)) < 200
    small_disk.free()
    journal.metrics(3000, {"loss": 1000.0})
    assert steps(small_disk.path) == list(range(3001))
    assert (small_disk.path / FILE).read_bytes().startswith(on_disk)
    assert capsys.readouterr().err == warning(small_disk.path)


def test_the_room_may_come_bit_by_bit(small_disk: SmallDisk) -> None:
    journal = Journal(small_disk.path)
    small_disk.fill()
    for step in range(1000):
        journal.metrics(step, {"loss": step / 3})
        if step % 100 == 99:
            small_disk.fill(leave=4096 if step < 900 else 2**18)
    assert journal.close() == ""
    assert steps(small_disk.path) == list(range(1000))


def test_a_run_that_ends_on_a_full_disk_says_what_is_lost(small_disk: SmallDisk, capsys: pytest.CaptureFixture) -> None:
    journal = Journal(small_disk.path)
    journal.metrics(0, {"loss": 0.0})
    small_disk.fill()
    for step in range(1, 1000):
        journal.metrics(step, {"loss": step / 3})
    kept = len(read(small_disk.path))
    assert journal.close() == f"{small_disk.path / FILE}: the disk is full: the last {1000 - kept} records are lost"
    assert journal.close() == ""
    assert capsys.readouterr().err == warning(small_disk.path)

    small_disk.free()
    Journal(small_disk.path).metrics(kept, {"loss": kept / 3})
    assert history(small_disk.path)["loss"] == [(step, step / 3) for step in range(kept + 1)]


def test_the_last_try_is_when_the_journal_is_closed(small_disk: SmallDisk) -> None:
    journal = Journal(small_disk.path)
    small_disk.fill()
    for step in range(100):
        journal.metrics(step, {"loss": step / 3})
    small_disk.free()
    assert journal.close() == ""
    assert steps(small_disk.path) == list(range(100))


def test_a_journal_can_be_opened_on_a_full_disk(small_disk: SmallDisk) -> None:
    Journal(small_disk.path).metrics(0, {"loss": 0.0})
    with (small_disk.path / FILE).open("ab") as file:
        file.write(b'{"kind": "met'.ljust(4096 - file.tell()))
    small_disk.fill()
    journal = Journal(small_disk.path)
    journal.metrics(1, {"loss": 1.0})
    small_disk.free()
    journal.metrics(2, {"loss": 2.0})
    assert history(small_disk.path) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}


def test_delivery_goes_on_while_its_place_cannot_be_noted(small_disk: SmallDisk, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = small_disk.path / "run"
    run.mkdir()
    journal = Journal(run)
    journal.write(
        "start", run_name="run", experiment="disk", parameters={}, tags={}, uri=uri, artifact_root=str(small_disk.path)
    )
    for step in range(100):
        journal.metrics(step, {"loss": step / 3})
    small_disk.fill()
    assert "No space left on device" in upload(run, uri=uri)
    journal.write("end", status="FINISHED", message="")
    small_disk.free()
    assert journal.close() == ""
    assert upload(run, uri=uri) == ""
    position = UploadState.load(run)
    client = MlflowClient(uri)
    assert [found.info.run_id for found in client.search_runs([position.experiment_id])] == [position.run_id]
    points = client.get_metric_history(position.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, step / 3) for step in range(100)]
    assert client.get_run(position.run_id).info.status == "FINISHED"


def test_a_limit_on_file_sizes_is_a_full_disk_too(tmp_path: Path) -> None:
    """Needs no rights, unlike a disk of our own."""
    script = """if True:
        import resource, sys
        from dlframe.runs.journal import Journal
        journal = Journal(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        for step in range(1000):
            journal.metrics(step, {"loss": step / 3})
        print((journal.path).stat().st_size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(journal.close() or "nothing lost")
    """
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"}, check=True)
    assert done.stdout.split("\n")[:2] == ["10000", "nothing lost"]
    assert done.stderr == warning(tmp_path).replace("No space left on device", "File too large")
    assert steps(tmp_path) == list(range(1000))


def test_a_sweep_on_a_full_disk_loses_no_trial(small_disk: SmallDisk, tmp_path: Path) -> None:
    """Whatever file was cut short: the reason is told, and with room the same command goes on towards its total."""
    runs = small_disk.path / "runs"
    options = ["sweep", "model=mlp", "model.width=8", "epochs=1", "tracking=none", "figures=none", f"runs={runs}"]
    options += ["optimizer.lr=tag(log,interval(1e-3,1e-1))", "trials=3", "name=try", "search.fresh_seeds=0"]
    for room in (2**12, 2**15, 2**17):
        small_disk.fill(leave=room)
        full = dlframe(*options, cwd=tmp_path)
        assert full.returncode in (1, 2), full.stdout
        assert "Traceback" not in full.stderr
        assert "No space left on device" in full.stdout + full.stderr
    small_disk.free()
    done = dlframe(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Study(runs / "sweeps/try", read_manifest(runs / "sweeps/try")).records()
    assert [record.state for record in found] == ["complete"] * 3
    assert all(history(Path(record.run))["val/accuracy"][0][1] == record.values[0] for record in found)
