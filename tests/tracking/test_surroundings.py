"""MLflow's variables of the environment choose store and experiment where no option does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlframe.config import load
from dlframe.jobs.train import tracking_uri_of
from dlframe.storage.known import is_known
from dlframe.tracking.store import quiet
from dlframe.types import ConfigError, TrackingError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "RUN_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    return tmp_path.resolve()


def test_a_variable_names_the_store_and_an_option_beats_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"sqlite:///{here}/runs/mlflow.db"
    assert tracking_uri_of(load(["model=mlp"])) == own
    theirs = f"sqlite:///{here}/theirs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", theirs)
    assert tracking_uri_of(load(["model=mlp"])) == theirs
    assert is_known(store=theirs), "the run could not be synced later"
    assert tracking_uri_of(load(["model=mlp", "tracking.uri=sqlite"])) == own
    assert tracking_uri_of(load(["model=mlp", f"tracking.uri=sqlite:///{here}/typed.db"])) == f"sqlite:///{here}/typed.db"
    assert tracking_uri_of(load(["model=mlp", "tracking=none"])) == ""


def test_a_variable_names_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(["model=mlp"]).experiment == "classification"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert load(["model=mlp"]).experiment == "team"
    assert load(["model=mlp", "experiment_name=mine"]).experiment == "mine"


def test_a_variable_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI: must hold no user name, password or token"):
        tracking_uri_of(load(["model=mlp"]))


def test_a_variable_that_names_no_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(
        TrackingError, match=r"MLFLOW_TRACKING_URI names it; for a file in the folder of runs: tracking.uri=sqlite$"
    ):
        tracking_uri_of(load(["model=mlp"]))


def test_the_users_settings_beat_ours_but_for_redirects() -> None:
    theirs = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300", "MLFLOW_ALLOW_HTTP_REDIRECTS": "true", "MLFLOW_TRACKING_TOKEN": "key"}
    assert quiet(theirs) | {"MLFLOW_ALLOW_HTTP_REDIRECTS": "true"} == {**quiet({}), **theirs}
    assert quiet(theirs)["MLFLOW_ALLOW_HTTP_REDIRECTS"] == "false"
