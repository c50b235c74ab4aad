"""The SQLite file of a store: made whole or not at all, migrated after a copy, and in step with its folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.tracking.test_tracking import Seen, begin

from dlframe.storage.known import sqlite_file, sqlite_uri, store_uri
from dlframe.tracking import UploadState, upload
from dlframe.tracking.store import quiet
from dlframe.types import TrackingError

os.environ.update(quiet(os.environ))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a store and a finished run with a file, in a project whose name SQLAlchemy would read otherwise."""
    run = tmp_path_factory.mktemp("parent") / "My%20Project?" / "runs" / "run"
    journal = begin(run, "sqlite")
    (run / "result.json").write_text("{}")
    journal.write("artifact", path="result.json", to="")
    journal.metrics(1, {"loss": 0.5})
    journal.write("end", status="FINISHED", message="")
    journal.close()
    assert upload(run) == ""
    return run.parent


def rows(database: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(query).fetchall()


def test_the_store_is_in_the_folder_of_its_name(made: Path) -> None:
    assert rows(made / "mlflow.db", "SELECT name FROM runs") == [("run",)]
    assert Seen(made / "run").curve("loss") == [(1, 0.5)]
    assert [path.name for path in made.parent.parent.iterdir()] == ["My%20Project?"]
    assert sorted(path.name for path in made.iterdir()) == ["artifacts", "mlflow.db", "mlflow.db.lock", "run"]


@pytest.mark.parametrize("name", ["a b", "%41", "%2e%2e", "100%", "a?b", "a#b", "a@b:c", "ü", "%252e", "a&b=c;d"])
def test_the_address_of_a_file_is_read_as_sqlalchemy_reads_it(name: str, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    path = tmp_path / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(path)) == path
    assert make_url(sqlite_uri(path)).database == str(path)
    assert store_uri("sqlite", path.parent) == sqlite_uri(path)


@pytest.mark.parametrize("path", ["/runs/%2e%2e/%2e%2e/x.db", "/a%20b.db", "/%2Fa.db", "/a%zz.db", "/%66ile.db"])
def test_what_is_judged_is_what_is_opened(path: str) -> None:
    from sqlalchemy.engine import make_url

    assert str(sqlite_file(f"sqlite:///{path}")) == str(Path(make_url(f"sqlite:///{path}").database or ""))


@pytest.mark.parametrize("uri", ["sqlite:///%3Amemory:", "sqlite:///%66ile:x", "sqlite:///x?uri=true", "sqlite://"])
def test_an_address_that_is_more_than_a_path(uri: str) -> None:
    assert sqlite_file(uri) is None


def test_a_project_that_is_renamed_keeps_its_run_and_its_files(made: Path, tmp_path: Path) -> None:
    before = UploadState.load(made / "run")
    shutil.copytree(made, tmp_path / "copy" / "runs")
    runs = tmp_path / "copy" / "runs"
    journal = begin(runs / "next", "sqlite")
    journal.write("end", status="FINISHED", message="")
    journal.close()
    assert upload(runs / "next") == ""
    note = f"{runs}/mlflow.db: artifacts of {made}/artifacts are now in {runs}/artifacts"
    assert UploadState.load(runs / "next").note == note

    seen = Seen(runs / "run")
    assert seen.run.info.run_id == before.run_id
    assert seen.runs() == ["next", "run"]
    (file,) = Path(seen.run.info.artifact_uri.removeprefix("file://")).glob("result.json")
    assert file.is_relative_to(runs)
    assert Seen(made / "run").run.info.artifact_uri.startswith(made.as_uri()), "the copy changes the original"
    assert upload(runs / "run") == ""
    assert seen.runs().count("run") == 1


@pytest.mark.parametrize("tables", ["", "CREATE TABLE experiments (a)", "CREATE TABLE alembic_version (version_num)"])
def test_a_store_that_was_half_made_is_made_anew(
    tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    """As by a process that was killed in its first seconds."""
    from dlframe.tracking import database

    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(tables + "; CREATE TABLE experiments (b)" * ("alembic" in tables))
    Path(f"{path}-journal").touch()

    class Store:
        """Another store that is made in seconds."""

        def __init__(self, uri: str, root: str) -> None:
            assert uri == sqlite_uri(tmp_path / ".mlflow.db.new")
            shutil.copy(made / "mlflow.db", tmp_path / ".mlflow.db.new")

        def _dispose_engine(self) -> None:
            pass

    monkeypatch.setattr(database, "SqlAlchemyStore", Store)
    unfinished = f"{path} was unfinished and is made anew; the unfinished file is mlflow.db.unfinished"
    with database.prepared(path) as note:
        assert note == (unfinished if tables else "")
    assert rows(path, "SELECT name FROM runs") == [("run",)]
    names = {"mlflow.db", "mlflow.db.lock"} | ({"mlflow.db.unfinished"} if tables else set())
    assert {file.name for file in tmp_path.iterdir()} == names
    with database.prepared(path) as note:
        assert note == ""


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ("CREATE TABLE recipes (a)", "is not a store of MLflow: it has the table 'recipes'"),
        (
            "CREATE TABLE experiments (a); CREATE TABLE runs (a); INSERT INTO runs VALUES (1)",
            "has runs and no version of its schema. Move it away",
        ),
    ],
)
def test_a_file_that_holds_something_is_left_alone(tables: str, said: str, tmp_path: Path) -> None:
    from dlframe.tracking.database import prepared

    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(tables)
    content = path.read_bytes()
    with pytest.raises(TrackingError) as error, prepared(path):
        pass
    assert str(error.value) == f"tracking.uri: {path} {said}"
    assert path.read_bytes() == content


def test_a_store_of_a_newer_mlflow_is_refused(made: Path, tmp_path: Path) -> None:
    import mlflow

    path = tmp_path / "mlflow.db"
    shutil.copy(made / "mlflow.db", path)
    rows(path, "UPDATE alembic_version SET version_num = 'f' || version_num")
    content = path.read_bytes()
    from dlframe.tracking.database import prepared

    said = f"was written by a newer MLflow than {mlflow.__version__}, .* Install that MLflow"
    with pytest.raises(TrackingError, match=said), prepared(path):
        pass
    assert path.read_bytes() == content


def test_a_store_of_an_older_mlflow_is_migrated_after_a_copy(made: Path, tmp_path: Path) -> None:
    from alembic import command
    from mlflow.store.db import utils

    from dlframe.tracking.database import prepared

    path = tmp_path / "mlflow.db"
    shutil.copy(made / "mlflow.db", path)
    (head,) = rows(path, "SELECT version_num FROM alembic_version")[0]
    engine = utils.create_sqlalchemy_engine(sqlite_uri(path))
    scripts = utils.ScriptDirectory.from_config(utils._get_alembic_config(""))
    older = str(scripts.get_revision(head).down_revision)
    rows(path, f"UPDATE alembic_version SET version_num = '{older}'")
    migrated: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, revision: migrated.append(revision))
        with prepared(path) as note:
            assert note.endswith(f"; the store before is in mlflow.db.{older}")
    engine.dispose()
    assert migrated == ["heads"]
    assert rows(tmp_path / f"mlflow.db.{older}", "SELECT name FROM runs") == [("run",)]


def test_the_name_of_a_deleted_experiment_does_not_bring_its_runs_back(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "runs")
    run = tmp_path / "runs" / "run"
    seen = Seen(run)
    seen.client.delete_experiment(seen.run.info.experiment_id)
    for name in ("good", "better"):
        journal = begin(tmp_path / "runs" / name, "sqlite")
        journal.write("end", status="FINISHED", message="")
        journal.close()
        assert upload(tmp_path / "runs" / name) == ""
    assert UploadState.load(tmp_path / "runs" / "better").note == (
        "experiment 'classification' is deleted in MLflow: the run is in 'classification-2'"
    )
    assert Seen(tmp_path / "runs" / "good").runs() == ["better", "good"]
    assert seen.client.get_run(seen.run.info.run_id).info.lifecycle_stage == "deleted"


def test_the_run_of_a_platform_is_used_once_and_by_its_training_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_RUN_ID says which; a run directory that came from elsewhere, or is synced later, does not write into it."""
    from dlframe.tracking.uploader import Uploader

    shutil.copytree(made, tmp_path / "runs")
    client = Seen(tmp_path / "runs" / "run").client
    theirs = client.create_run(client.create_experiment("team"))
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs.info.run_id)
    runs = {name: tmp_path / "runs" / name for name in ("synced", "trained", "second")}
    for folder in runs.values():
        journal = begin(folder, "sqlite")
        journal.write("end", status="FINISHED", message="")
        journal.close()
    assert upload(runs["synced"]) == ""
    for name in ("trained", "second"):
        assert Uploader(runs[name], live=True).try_upload(close=True)
    used = {name: UploadState.load(folder) for name, folder in runs.items()}
    assert [name for name, state in used.items() if state.run_id == theirs.info.run_id] == ["trained"]
    assert used["trained"].experiment_id == theirs.info.experiment_id
    assert client.get_run(theirs.info.run_id).info.status == "FINISHED"
    assert "MLFLOW_TRACKING_URI" not in os.environ, "the store of a run directory is that of the next run"

    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    journal = begin(tmp_path / "runs" / "third", "sqlite")
    journal.close()
    assert Uploader(tmp_path / "runs" / "third", live=True).try_upload(close=True)
    note = f"MLFLOW_RUN_ID: the store has no run '{'0' * 32}', so that a new one is made"
    assert UploadState.load(tmp_path / "runs" / "third").note == note


@pytest.mark.slow
def test_a_store_whose_makers_are_killed_works(tmp_path: Path) -> None:
    """At 30 moments of their first seconds, from the import of MLflow to the first run."""
    code = "import sys; from pathlib import Path; from dlframe.tracking import upload; print(upload(Path(sys.argv[1])))"
    begin(tmp_path / "run", "sqlite").write("end", status="FINISHED", message="")
    begun = time.monotonic()
    shutil.copytree(tmp_path / "run", tmp_path / "whole" / "run")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "whole" / "run")], check=True)
    seconds = time.monotonic() - begun
    for kill in range(30):
        maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")])
        time.sleep(seconds * (0.2 + 0.8 * kill / 30))
        maker.kill()
        maker.wait()
        if (tmp_path / "mlflow.db").exists():
            assert rows(tmp_path / "mlflow.db", "SELECT count(*) FROM alembic_version") == [(1,)]
            for file in tmp_path.glob("*mlflow.db*"):
                file.unlink()
            (tmp_path / "run" / "tracking.json").unlink(missing_ok=True)
    assert upload(tmp_path / "run") == ""
    assert Seen(tmp_path / "run").run.info.status == "FINISHED"
