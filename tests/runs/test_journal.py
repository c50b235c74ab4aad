"""The journal: whole lines, whatever is written and whenever it is cut."""

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dlframe.runs.journal import FILE, Journal, being_written, ended, follow, history, read
from dlframe.types import ConfigError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("start", run_name="näme\n=", parameters={"lr": 0.1, "limit": math.inf}, folder=tmp_path)
    journal.metrics(3, {"loss": np.float32(0.5), "nan": math.nan, "low": -math.inf})

    start, metrics = read(tmp_path)
    assert start["run_name"] == "näme\n="
    assert start["parameters"] == {"lr": 0.1, "limit": "inf"}
    assert start["folder"] == str(tmp_path)
    assert metrics["kind"] == "metrics"
    assert metrics["step"] == 3
    assert metrics["values"]["loss"] == 0.5
    assert math.isnan(metrics["values"]["nan"])
    assert metrics["values"]["low"] == -math.inf
    assert start["time"] <= metrics["time"]


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metrics(1, {"loss": math.nan})
    journal.write("end", status="FAILED", values=[1.0, (math.inf, np.float64("nan"))])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    lines = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(lines[0], parse_constant=refuse)["values"] == {"loss": "nan"}
    assert json.loads(lines[1], parse_constant=refuse)["values"] == [1.0, ["inf", "nan"]]


def test_a_torn_last_line_is_skipped_and_the_next_journal_goes_on_after_it(tmp_path: Path) -> None:
    Journal(tmp_path).metrics(1, {"loss": 1.0})
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + b'{"kind": "metrics", "time": 1, "st')
    assert [record["step"] for record in read(tmp_path)] == [1]

    Journal(tmp_path).metrics(2, {"loss": 0.5})
    assert [record["step"] for record in read(tmp_path)] == [1, 2]


def test_follow_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metrics(1, {"loss": 1.0})
    ((_, offset),) = follow(tmp_path)
    assert list(follow(tmp_path, offset)) == []
    journal.metrics(2, {"loss": 0.5})
    assert [record["step"] for record, _ in follow(tmp_path, offset)] == [2]


def test_a_folder_without_a_journal_has_no_records(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert not being_written(tmp_path)


def test_who_writes_is_known_until_it_closes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert being_written(tmp_path)
    assert journal.close() == ""
    assert not being_written(tmp_path)
    assert journal.close() == ""
    with (tmp_path / "next").open("w"), pytest.raises(OSError, match="Bad file descriptor"):
        journal.metrics(1, {"loss": 1.0})  # though a file is open under the number that the journal had


def test_a_run_is_written_by_one_process(tmp_path: Path) -> None:
    script = "import sys; from dlframe.runs.journal import Journal; journal = Journal(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(ConfigError) as error:
            Journal(tmp_path)
        assert str(error.value) == f"{tmp_path}: another process is writing this run. Wait for it, or stop it."
        other.kill()
    Journal(tmp_path).metrics(1, {"loss": 1.0})
    assert [record["step"] for record in read(tmp_path)] == [1]


def test_a_look_at_who_writes_keeps_nobody_from_writing(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with (tmp_path / FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `being_written` does for a moment
        assert not being_written(tmp_path), "two may look at once"
        release = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        Journal(tmp_path).metrics(1, {"loss": 1.0})
        release.join()


def test_a_forked_process_does_not_hold_the_run_of_its_parent(tmp_path: Path) -> None:
    script = """if True:
        import os, sys, time
        from dlframe.runs.journal import Journal
        journal = Journal(sys.argv[1])
        if not os.fork():
            os.close(1)
            time.sleep(60)
        os.kill(os.getpid(), 9)
    """
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], start_new_session=True) as process:
        process.wait(30)
        try:
            assert not being_written(tmp_path)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    Journal(tmp_path).metrics(1, {"loss": 1.0})
    assert len(read(tmp_path)) == 1
    assert not being_written(tmp_path)


def test_history_has_each_step_once_as_it_was_written_last(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (10, 20, 30):
        journal.metrics(step, {"train/loss": step / 10})
    journal.metrics(30, {"val/loss": math.nan, "val/accuracy": 0.5})
    journal.write("start", note="goes on from the checkpoint at step 10")
    for step in (20, 30, 40):
        journal.metrics(step, {"train/loss": step / 100})
    journal.metrics(30, {"val/accuracy": 0.75})
    curves = history(tmp_path)
    assert curves["train/loss"] == [(10, 1.0), (20, 0.2), (30, 0.3), (40, 0.4)]
    assert curves["val/accuracy"] == [(30, 0.75)]
    assert math.isnan(dict(curves["val/loss"])[30])


def test_how_a_run_ended(tmp_path: Path) -> None:
    assert ended(tmp_path) == ""
    journal = Journal(tmp_path)
    journal.write("start")
    assert ended(tmp_path) == ""
    journal.write("end", status="KILLED", message="interrupted")
    assert ended(tmp_path) == "KILLED"
    journal.write("start")
    assert ended(tmp_path) == ""
    journal.write("end", status="FINISHED", message="")
    assert ended(tmp_path) == "FINISHED"


def test_nothing_depends_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set back by an hour in mid-run."""
    journal = Journal(tmp_path)
    journal.write("start")
    journal.metrics(1, {"loss": 1.0})
    hour_ago = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago)
    journal.metrics(1, {"loss": 0.5})
    journal.metrics(2, {"loss": 0.25})
    journal.write("end", status="FINISHED", message="")
    assert history(tmp_path) == {"loss": [(1, 0.5), (2, 0.25)]}
    assert ended(tmp_path) == "FINISHED"
    times = [record["time"] for record in read(tmp_path)]
    assert times[2] < times[1]


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        '{"kind": "metrics"}',
        '{"kind": ["metrics"], "time": 1, "step": 1, "values": {}}',
        '{"kind": "metrics", "time": 1, "step": 1, "values": [1]}',
        '{"kind": "metrics", "time": 1, "step": 1, "values": {"loss": "low"}}',
        '{"kind": "metrics", "time": 1, "step": 1, "values": {"loss": null}}',
        '{"kind": "metrics", "time": 1, "step": 1, "values": {"loss": 1' + 400 * "0" + "}}",
        '{"kind": "metrics", "time": 1, "step": "1", "values": {"loss": 1}}',
        '{"kind": "metrics", "time": 1, "step": 9223372036854775808, "values": {"loss": 1}}',
        '{"kind": "metrics", "time": null, "step": 1, "values": {"loss": 1}}',
        '{"kind": "end", "time": ' + 100_000 * "[",
        "\0\0\0\0",
    ],
)
def test_a_line_that_is_no_record_is_skipped(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path)
    journal.metrics(1, {"loss": 1.0})
    with (tmp_path / FILE).open("a") as file:
        file.write(line + "\n")
    journal.metrics(2, {"loss": 0.5})
    assert history(tmp_path) == {"loss": [(1, 1.0), (2, 0.5)]}
