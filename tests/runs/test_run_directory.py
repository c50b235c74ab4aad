"""Where the files of runs are, and what a result keeps."""

from __future__ import annotations

import json

import pytest

from dlframe.config import load
from dlframe.runs.journal import Journal
from dlframe.runs.run_directory import new_folder, read_result, write_result
from dlframe.types import Estimate, Metric, Result


def test_a_result_keeps_undefined_resamples_and_notes_and_an_older_one_has_none(tmp_path):
    metric, metrics = Metric(better="max", low=0.0, high=1.0, unit="fraction"), {"f1": 0.5}
    estimate = metric.clipped(Estimate(0.5, -0.1, 0.8, 13, 500))
    assert estimate == Estimate(0.5, 0.0, 0.8, 13, 500)
    result = Result(tmp_path, "f1", metrics, estimate, ("base rate", {"f1": 0.1}), 60, {"f1": metric}, notes=["a note"])
    journal = Journal(tmp_path)
    write_result(result, tmp_path, journal)
    journal.close()
    assert read_result(tmp_path) == Result(**{**vars(result), "overrides": []})
    values = json.loads((tmp_path / "result.json").read_text())
    del values["notes"], values["interval"]["undefined"], values["interval"]["resamples"]
    (tmp_path / "result.json").write_text(json.dumps(values))
    older = read_result(tmp_path)
    assert (older.notes, older.interval) == ([], Estimate(0.5, 0.0, 0.8))


@pytest.mark.parametrize("name", ["my\u3000run", "été", "李" * 100, "a" * 300])
def test_a_run_of_any_name_has_a_folder_and_is_read_again(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = load([f"run_name={name}"])
    folder = new_folder(config)
    assert len(folder.name.encode()) <= 120
    texts = {"overrides": list(config.overrides), "notes": ["a\u3000b", "c\u200bd"]}
    metric, scored = Metric(better="max", low=0.0, high=1.0, unit="fraction"), {"f1": 0.5}
    result = Result(folder, "f1", scored, Estimate(0.5, 0.1, 0.8), ("base rate", scored), 60, {"f1": metric}, **texts)
    write_result(result, folder, Journal(folder))
    again = read_result(folder)
    assert again.overrides == [f"run_name={name}"]
    assert again.notes == ["a\u3000b", "c\\u200bd"]
