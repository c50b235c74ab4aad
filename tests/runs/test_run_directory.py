"""Where the files of runs are."""

from __future__ import annotations

from pathlib import Path

from dlframe.runs.run_directory import store_uri


def test_the_store_is_in_the_folder_of_runs():
    assert store_uri("sqlite", "a b") == f"sqlite:///{Path.cwd() / 'a b' / 'mlflow.db'}"
    assert store_uri("http://host:5000", "runs") == "http://host:5000"
