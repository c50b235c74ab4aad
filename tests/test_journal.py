"""The journal: whole lines, whatever is written and whenever it is cut."""

import json
import math
from pathlib import Path

import numpy as np

from dlframe.journal import FILE, Journal, being_written, follow, read


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
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.close()
    assert being_written(tmp_path)
    second.close()
    assert not being_written(tmp_path)
