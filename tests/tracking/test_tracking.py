"""Tracking: what a run writes to its journal is in MLflow, all of it, once, whoever is killed."""

import base64
import contextlib
import json
import math
import os
import platform
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.conftest import until
from tests.services import MlflowServer

from dlframe.cli import main
from dlframe.runs.journal import Journal
from dlframe.storage.known import remember, store_uri
from dlframe.tracking import Tracker, UploadState, reachable, upload
from dlframe.tracking.store import credentials, quiet
from dlframe.tracking.sync import close_interrupted_runs
from dlframe.types import TrackingError

os.environ.update(quiet(os.environ))


def begin(folder: Path, uri: str, **fields: Any) -> Journal:
    """A run folder's journal with its first line."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    start = {"run_name": folder.name, "experiment": "classification", "parameters": {"model": "cnn"}, "tags": {}}
    root = "" if uri.startswith("http") else str(folder.parent / "artifacts")
    journal.write("start", **{**start, "uri": uri, "artifact_root": root, **fields})
    return journal


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store that two runs, started at once, have made."""
    folder = tmp_path_factory.mktemp("störe = 1")
    uri = f"sqlite:///{folder}/mlflow.db"
    runs = [folder / name for name in ("first", "second")]
    trackers = []
    for run in runs:
        journal = begin(run, uri)
        trackers.append(Tracker.start(run))
        journal.metrics(1, {"loss": 0.5})
        journal.write("end", status="FINISHED", message="")
    for run, tracker in zip(runs, trackers, strict=True):
        assert tracker.wait(120) == ""
        assert UploadState.load(run).status == "FINISHED"
    return uri


class Seen:
    """What MLflow has of the run in a folder."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.position = UploadState.load(folder)
        self.client = MlflowClient(self.position.uri)
        self.run = self.client.get_run(self.position.run_id)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of every point, in the order in which they were logged."""
        points = self.client.get_metric_history(self.run.info.run_id, name)
        return [(point.step, point.value) for point in points]

    def runs(self) -> list[str | None]:
        """The names of the experiment's runs."""
        return [run.info.run_name for run in self.client.search_runs([self.run.info.experiment_id])]


def test_everything_arrives(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    run = tmp_path / "über = 'all'"
    long = {"five": "x" * 5000, "seven": "y" * 7000}
    journal = begin(run, store, parameters={"lr": 0.1, **long}, tags={"mlflow.source.git.commit": "a1b2"})
    values = [math.sin(step) for step in range(1500)]
    for step, value in enumerate(values):
        journal.metrics(step, {"train/loss": value})
    journal.metrics(1500, {"nothing": math.nan, "precision@10": 0.25})
    (run / "figures").mkdir()
    (run / "figures" / "curve.png").write_bytes(b"png")
    journal.write("artifact", path="figures/curve.png", to="figures")
    (run / "model").mkdir()
    (run / "model" / "weights.safetensors").write_bytes(b"1234567\0{")
    sides = {
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [-1, 10]}],
    }
    (run / "model" / "signature.json").write_text(json.dumps(sides))
    journal.write("model", path="model")
    journal.write("end", status="FINISHED", message="")
    assert upload(run, uri=store) == ""

    seen = Seen(run)
    assert seen.run.info.status == "FINISHED"
    assert seen.run.info.run_name == run.name
    assert seen.curve("train/loss") == list(enumerate(values))
    assert math.isnan(seen.curve("nothing")[0][1])
    assert seen.curve("precision_10") == [(1500, 0.25)]
    assert seen.run.data.params == {"lr": "0.1", "five": long["five"], "seven": long["seven"][:6000]}
    assert seen.run.data.tags["mlflow.source.git.commit"] == "a1b2"
    artifacts = Path(mlflow.artifacts.download_artifacts(run_id=seen.run.info.run_id, tracking_uri=store))
    assert json.loads((artifacts / "parameters.json").read_text())["seven"] == long["seven"]
    assert (artifacts / "figures" / "curve.png").read_bytes() == b"png"

    stub: Any = ModuleType("dlframe.runs.exported_model")
    stub._load_pyfunc = lambda path: Weights(Path(path))
    monkeypatch.setitem(sys.modules, "dlframe.runs.exported_model", stub)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which MLflow sets, and later tests would read
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(f"runs:/{seen.run.info.run_id}/model")
    assert model.predict(np.zeros((2, 1, 8, 8), np.uint8)).shape == (2, 9)
    assert model.predict([[0.5]]).shape == (1, 9), "MLflow checks inputs which the model checks itself"
    assert model.metadata.metadata == sides


class Weights:
    """A model with as many classes as there are bytes in its file."""

    def __init__(self, folder: Path) -> None:
        self.classes = len((folder / "weights.safetensors").read_bytes())

    def predict(self, inputs: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        return np.zeros((len(inputs), self.classes), np.float32)


def test_a_killed_run_is_closed_as_killed_with_all_its_metrics(store: str, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    begin(run, store)
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from dlframe.runs.journal import Journal
        from dlframe.tracking import Tracker
        journal, tracker = Journal(Path(sys.argv[1])), Tracker.start(Path(sys.argv[1]))
        for step in range(500):
            journal.metrics(step, {"loss": step / 7})
        assert not {"mlflow", "torch"} & set(sys.modules)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", script, str(run)]).returncode == -signal.SIGKILL

    until(lambda: UploadState.load(run).status == "KILLED")
    seen = Seen(run)
    assert seen.run.info.status == "KILLED"
    assert seen.run.info.end_time == UploadState.load(run).time
    assert seen.curve("loss") == [(step, step / 7) for step in range(500)]


def test_another_writer_goes_on_for_a_killed_one(store: str, tmp_path: Path) -> None:
    run = tmp_path / "killed writer"
    journal = begin(run, store)
    tracker = Tracker.start(run)
    journal.metrics(0, {"loss": 0.0})
    until(lambda: UploadState.load(run).status == "RUNNING")
    tracker.process.send_signal(signal.SIGINT)
    tracker.process.send_signal(signal.SIGTERM)
    journal.metrics(1, {"loss": 1.0})
    until(lambda: Seen(run).curve("loss") == [(0, 0.0), (1, 1.0)])
    tracker.process.kill()
    tracker.process.wait()
    for step in range(2, 200):
        journal.metrics(step, {"loss": float(step)})
    journal.write("end", status="FAILED", message="ValueError: no")

    assert tracker.wait(60) == ""
    seen = Seen(run)
    assert seen.run.info.status == "FAILED"
    assert seen.run.data.tags["dlframe.message"] == "ValueError: no"
    assert seen.curve("loss") == [(step, float(step)) for step in range(200)]


def test_what_is_delivered_again_changes_nothing(store: str, tmp_path: Path) -> None:
    """As after a kill between MLflow's answer and the note of it."""
    run = tmp_path / "again"
    journal = begin(run, store)
    for step in range(100):
        journal.metrics(step, {"loss": float(step), "nothing": math.nan})
    (run / "model").mkdir()
    side = [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]
    (run / "model" / "signature.json").write_text(json.dumps({"inputs": side, "outputs": side}))
    journal.write("model", path="model")
    assert upload(run, uri=store) == ""
    assert Seen(run).run.info.status == "RUNNING", "this process still writes"
    journal.write("end", status="FINISHED", message="")
    journal.close()
    assert upload(run, uri=store) == ""

    done = UploadState.load(run)
    UploadState(uri=done.uri, key=done.key).save(run)
    assert upload(run, uri=store) == ""
    assert UploadState.load(run) == done
    seen = Seen(run)
    assert seen.runs().count("again") == 1
    assert seen.curve("loss") == [(step, float(step)) for step in range(100)]
    assert len(seen.curve("nothing")) == 100
    assert seen.run.outputs
    assert len(seen.run.outputs.model_outputs) == 1


def test_what_a_store_has_lost_is_uploaded_again(store: str, tmp_path: Path) -> None:
    """As after a crash of its disk, when the last transactions are gone."""
    run = Path(store.removeprefix("sqlite:///")).parent / tmp_path.name
    journal = begin(run, store)
    for step in range(10):
        journal.metrics(step, {"loss": step / 3})
    assert upload(run) == ""
    identifier = UploadState.load(run).run_id
    with contextlib.closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as database, database:
        database.execute("delete from metrics where run_uuid = ? and step > 4", [identifier])
        database.execute("update latest_metrics set step = 4, value = ? where run_uuid = ?", [4 / 3, identifier])
    journal.metrics(10, {"loss": 10 / 3})
    assert upload(run) == ""
    assert sorted(Seen(run).curve("loss")) == [(step, step / 3) for step in range(11)]
    assert UploadState.load(run).run_id == identifier


def test_a_resumed_run_is_the_same_run(store: str, tmp_path: Path) -> None:
    run = tmp_path / "resumed"
    journal = begin(run, store, parameters={"epochs": 1})
    for step in range(10):
        journal.metrics(step, {"loss": step / 3, "nothing": math.nan})
    journal.close()
    assert upload(run, uri=store) == ""
    assert Seen(run).run.info.status == "KILLED"
    identifier = UploadState.load(run).run_id

    # From the checkpoint at step 5, with one value that has changed, as on a GPU.
    journal = begin(run, store, parameters={"epochs": 2, "new": "yes"})
    time.sleep(0.002)
    for step in range(5, 15):
        journal.metrics(step, {"loss": step / 3 + (step == 9), "nothing": math.nan})
    assert upload(run, uri=store) == ""
    seen = Seen(run)
    assert seen.run.info.run_id == identifier
    assert seen.run.info.status == "RUNNING"
    assert seen.run.data.params == {"epochs": "1", "new": "yes"}
    assert sorted(seen.curve("loss")) == sorted([(step, step / 3) for step in range(15)] + [(9, 4.0)])
    assert len(seen.curve("nothing")) == 15


def test_a_run_that_was_deleted_is_delivered_as_a_new_one(store: str, tmp_path: Path) -> None:
    run = tmp_path / "deleted"
    journal = begin(run, store)
    journal.metrics(1, {"loss": 1.0})
    assert upload(run, uri=store) == ""
    first = Seen(run)
    first.client.delete_run(first.run.info.run_id)
    journal.metrics(2, {"loss": 0.5})
    assert upload(run, uri=store) == ""
    second = Seen(run)
    assert second.run.info.run_id != first.run.info.run_id
    assert second.curve("loss") == [(1, 1.0), (2, 0.5)]

    second.position.run_id = "0" * 32  # of a store that has been made anew
    second.position.save(run)
    journal.metrics(3, {"loss": 0.1})
    assert upload(run, uri=store) == ""
    assert Seen(run).curve("loss") == [(1, 1.0), (2, 0.5), (3, 0.1)]


def test_what_mlflow_will_never_take_is_said_and_the_rest_delivered(store: str, tmp_path: Path) -> None:
    run = tmp_path / "refused"
    journal = begin(run, store)
    journal.write("artifact", path="result.json", to="")
    names = {"loss": 1.0, "/bad//name": 2.0, "_bad__name": 3.0, "p@1": 4.0, "p#1": 5.0, "p_1": 6.0, "..": 7.0, "x" * 300: 8.0}
    journal.metrics(1, names)
    journal.metrics(2, {"loss": 0.5, "p#1": 9.0})
    journal.write("end", status="FINISHED", message="")
    said = upload(run, uri=store)
    assert said.startswith(f"MLflow rejected 1 record of {run / 'journal.jsonl'}: ")
    seen = Seen(run)
    assert seen.curve("loss") == [(1, 1.0), (2, 0.5)]
    assert seen.curve("_bad__name") == [(1, 3.0)]
    assert seen.curve("p_1") == [(1, 6.0)]
    assert sorted(seen.run.data.metrics.values()) == [0.5, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0], "two names are one in MLflow"
    assert seen.run.info.status == "FINISHED"


def test_a_run_without_a_store_owes_nothing(tmp_path: Path) -> None:
    begin(tmp_path, "").metrics(1, {"loss": 1.0})
    assert upload(tmp_path) == ""


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as error:
        upload(tmp_path)
    assert str(error.value) == f"'{tmp_path}' is not a run directory (no journal.jsonl)"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '{"offset": -1}',
        '{"offset": "0"}',
        '{"offset": true}',
        '{"key": "a\' OR 1"}',
        '{"run_id": null}',
        '{"colour": 1}',
        100_000 * "[",
        "\0",
    ],
)
def test_a_damaged_position_is_named(tmp_path: Path, text: str) -> None:
    begin(tmp_path, "sqlite:///nowhere.db")
    (tmp_path / "tracking.json").write_text(text)
    with pytest.raises(TrackingError) as error:
        upload(tmp_path)
    path = tmp_path / "tracking.json"
    assert str(error.value) == f"{path} is damaged. Remove it to upload the run again, as a new one"


def runs_of(store: str, *names: str) -> Path:
    """A folder of runs beside the store, each with one value that is to be delivered."""
    runs = Path(store.removeprefix("sqlite:///")).parent / names[0]
    for name in names[1:]:
        journal = begin(runs / name, store, artifact_root=str(runs / "artifacts"))
        journal.metrics(1, {"loss": 0.5})
        journal.write("end", status="FINISHED", message="")
    return runs


def test_sync_uploads_pending_records(store: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = runs_of(store, "synced", "first", "second")
    begin(runs / "dead", store, artifact_root="").metrics(1, {"loss": 1.0})
    begin(runs / "untracked", "").metrics(1, {"loss": 1.0})
    (runs / "no run").mkdir()
    alive = begin(runs / "alive", store)

    assert main(["sync", f"runs={runs}", f"uri={store}"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{runs}/alive: another process is writing and uploading this run",
        f"{runs}/dead: uploaded, KILLED",
        f"{runs}/first: uploaded, FINISHED",
        f"{runs}/second: uploaded, FINISHED",
        "uploaded: 3 runs; pending: 1 run",
    ]
    assert all(Seen(runs / name).curve("loss") == [(1, 0.5)] for name in ("first", "second"))
    assert Seen(runs / "dead").run.info.status == "KILLED"
    assert not (runs / "alive" / "tracking.json").exists()

    alive.close()
    assert main(["sync", f"{runs}/alive", f"{runs}/first", f"uri={store}"]) == 0
    assert capsys.readouterr().out == f"{runs}/alive: uploaded, KILLED\nuploaded: 1 run\n"
    assert main(["sync", f"runs={runs}"]) == 0
    assert capsys.readouterr().out == "uploaded: 0 runs\n"


def test_sync_says_what_was_refused(store: str, capsys: pytest.CaptureFixture) -> None:
    run = runs_of(store, "refusing", "run") / "run"
    Journal(run).write("artifact", path="result.json", to="")
    assert main(["sync", str(run), f"uri={store}"]) == 0
    said, count = capsys.readouterr().out.splitlines()
    assert said == f"MLflow rejected 1 record of {run / 'journal.jsonl'}: {run / 'result.json'} does not exist"
    assert count == "uploaded: 1 run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nothing", "sync: 'nothing' is not a run directory (no journal.jsonl). Runs are in runs."),
        ("runs=nothing", "runs: must be a directory of runs. Received: 'nothing'."),
        ("prot=1", "prot: no such option. Choose from: register, runs, uri. See: python -m dlframe sync --help"),
    ],
)
def test_sync_of_nothing(arguments: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["sync", *arguments.split()]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_run_of_another_machine_is_left_alone_unless_named(store: str, capsys: pytest.CaptureFixture) -> None:
    runs = runs_of(store, "elsewhere", "ended")
    begin(runs / "gone", store, host="another", artifact_root="")
    assert main(["sync", f"runs={runs}", f"uri={store}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{runs}/gone: runs or was interrupted on host another. To upload it from here, name the run"
    assert main(["sync", f"{runs}/gone", f"uri={store}"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{runs}/gone: uploaded, KILLED"


def test_damage_in_one_run_keeps_no_other_from_being_delivered(store: str, capsys: pytest.CaptureFixture) -> None:
    runs = runs_of(store, "damaged", "damaged", "sound")
    (runs / "damaged" / "tracking.json").write_text("{")
    assert main(["sync", f"runs={runs}", f"uri={store}"]) == 1
    path = runs / "damaged" / "tracking.json"
    assert capsys.readouterr().out.splitlines() == [
        f"{path} is damaged. Remove it to upload the run again, as a new one",
        f"{runs}/sound: uploaded, FINISHED",
        "uploaded: 1 run; pending: 1 run",
    ]


def stranger(folder: Path, uri: str, **fields: Any) -> Path:
    """A run folder that came from somebody else."""
    run = folder / "downloads" / "run"
    begin(run, uri, **fields).write("end", status="FINISHED", message="")
    return run


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///{0}/elsewhere.db",
        "sqlite:///{0}/downloads/../elsewhere.db",
        "sqlite:///{0}/downloads/link.db",
        "sqlite:///file:{0}/elsewhere.db?uri=true",
        "sqlite:///relative.db",
        "sqlite://",
        "file://{0}/elsewhere.db",
        "http://127.0.0.1:9",
        "postgresql://127.0.0.1:9/elsewhere",
    ],
)
def test_a_store_that_a_stranger_names_is_refused(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = uri.format(tmp_path)
    run = stranger(tmp_path, uri)
    (run.parent / "link.db").symlink_to(tmp_path / "elsewhere.db")
    monkeypatch.chdir(run.parent)
    assert main(["sync", str(run)]) == 1
    said = capsys.readouterr().out.splitlines()[0]
    uri = store_uri(uri)
    assert said == (f"{run}: tracking store {uri} is not trusted. If you trust it: python -m dlframe sync {run} uri=ADDRESS")
    assert not (tmp_path / "elsewhere.db").exists()
    assert not (run / "tracking.json").exists()


def test_a_store_that_is_named_by_the_user_too_is_used(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    run = stranger(tmp_path, uri)
    assert main(["sync", str(run), f"uri={uri}"]) == 0
    assert Seen(run).run.info.status == "FINISHED"


def test_a_terminal_is_not_commanded_by_what_a_stranger_wrote(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = stranger(tmp_path, "http://\x1b]0;title\x07\x9b2J")
    assert main(["sync", str(run)]) == 1
    assert not {"\x1b", "\x07", "\x9b"} & set(capsys.readouterr().out)


def test_artifacts_of_a_stranger_stay_in_the_folder_of_runs(tmp_path: Path) -> None:
    """Neither the run's own folder for artifacts nor that of a store that came with it may lie elsewhere."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/downloads/mlflow.db"
    outside = tmp_path / "home"
    run = stranger(tmp_path, uri, artifact_root=str(outside))
    assert upload(run) == ""
    MlflowClient(uri).create_experiment("theirs", outside.as_uri())
    second = stranger(tmp_path / "second", uri, experiment="theirs")
    (second / "result.json").write_text("{}")
    Journal(second).write("artifact", path="result.json", to="")
    said = upload(second, uri=uri)
    assert f": artifacts stay in the run directory: '{outside.as_uri()}/" in said, "also where the user names the store"
    assert not outside.exists()


def test_a_run_that_a_stranger_claims_is_not_written_to(store: str, tmp_path: Path) -> None:
    own = begin(tmp_path / "own", store)
    own.write("end", status="FINISHED", message="")
    assert upload(tmp_path / "own", uri=store) == ""
    mine = UploadState.load(tmp_path / "own")
    run = stranger(tmp_path, store)
    Journal(run).metrics(1, {"loss": 666.0})
    UploadState(uri=store, key="0", experiment_id=mine.experiment_id, run_id=mine.run_id).save(run)
    assert upload(run, uri=store) == ""
    assert UploadState.load(run).run_id != mine.run_id
    assert Seen(tmp_path / "own").run.data.metrics == {}


def test_a_journal_that_lost_its_end_is_delivered_again(store: str, tmp_path: Path) -> None:
    """As after a power failure: what was delivered is longer than what the disk has."""
    run = tmp_path / "power"
    journal = begin(run, store)
    for step in range(100):
        journal.metrics(step, {"loss": step / 3})
    assert upload(run, uri=store) == ""
    journal.close()
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-1000])
    journal = begin(run, store)
    for step in range(80, 300):
        journal.metrics(step, {"loss": step / 3, "later": float(step)})
    assert upload(run, uri=store) == ""
    assert set(Seen(run).curve("loss")) == {(step, step / 3) for step in range(300)}
    assert Seen(run).curve("later") == [(step, float(step)) for step in range(80, 300)]


def test_a_run_whose_processes_are_gone_is_closed_at_the_next_start(store: str, tmp_path: Path) -> None:
    runs = runs_of(store, "next start")
    begin(runs / "killed", store, artifact_root="", host=platform.node()).close()
    script = """if True:
        import os, signal, sys, time
        from pathlib import Path
        from dlframe.runs.journal import Journal
        from dlframe.tracking import UploadState, Tracker
        folder = Path(sys.argv[1])
        journal, tracker = Journal(folder), Tracker.start(folder)
        while UploadState.load(folder).status != "RUNNING":
            time.sleep(0.05)
        for step in range(500):
            journal.metrics(step, {"loss": step / 7})
        tracker.process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", script, str(runs / "killed")]).returncode == -signal.SIGKILL
    assert UploadState.load(runs / "killed").status == "RUNNING"
    begin(runs / "never delivered", store, artifact_root="").metrics(1, {"loss": 1.0})
    for name in ("never delivered", "elsewhere", "alive", "damaged"):
        remember(run=runs / name, store=store)
    begin(runs / "not ours", store).metrics(1, {"loss": 1.0})
    begin(runs / "elsewhere", store, artifact_root="", host="another machine")
    alive = begin(runs / "alive", store, artifact_root="")
    begin(runs / "stranger's", "http://127.0.0.1:9", artifact_root="")
    (runs / "damaged").mkdir()
    begin(runs / "damaged", store)
    (runs / "damaged" / "tracking.json").write_text("{")

    journal = begin(runs / "next", store, artifact_root="")
    tracker = Tracker.start(runs / "next")
    until(lambda: all(UploadState.load(runs / name).status == "KILLED" for name in ("killed", "never delivered")))
    seen = Seen(runs / "killed")
    assert seen.run.info.status == "KILLED"
    assert seen.curve("loss") == [(step, step / 7) for step in range(500)]
    journal.write("end", status="FINISHED", message="")
    assert tracker.wait(60) == ""
    log = (runs / "next" / "tracking.log").read_text()
    assert f"{runs}/killed: uploaded, KILLED" in log
    assert f"{runs}/damaged/tracking.json is damaged" in log
    assert "stranger's" not in log
    assert not any((runs / name / "tracking.json").exists() for name in ("elsewhere", "alive", "stranger's", "not ours"))
    alive.close()


def test_a_thousand_runs_that_are_delivered_cost_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    UploadState(uri="sqlite:///mlflow.db", status="FINISHED", offset=9).save(tmp_path)
    for number in range(1000):
        run = tmp_path / str(number)
        run.mkdir()
        (run / "journal.jsonl").write_text("not read\n")
        (run / "tracking.json").write_bytes((tmp_path / "tracking.json").read_bytes())
    monkeypatch.setattr("dlframe.runs.journal.follow", None)
    assert list(close_interrupted_runs(tmp_path / "new", "sqlite:///mlflow.db")) == []


class Teapot(BaseHTTPRequestHandler):
    """Another server on MLflow's port."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_does_not_answer(closed_port: int) -> None:
    with pytest.raises(TrackingError) as error:
        reachable(f"http://me:secret@127.0.0.1:{closed_port}/")
    assert str(error.value) == (
        f"tracking.uri: no MLflow server at http://127.0.0.1:{closed_port} (Connection refused). "
        f"Start one: mlflow server --port {closed_port} --backend-store-uri sqlite:///mlflow.db"
    )


def test_a_server_that_is_not_mlflow() -> None:
    with HTTPServer(("127.0.0.1", 0), Teapot) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(TrackingError, match=r"^tracking\.uri: no MLflow server at .* \(something else answers there\)"):
            reachable(f"http://127.0.0.1:{server.server_port}")
        thread.join()


class Locked(BaseHTTPRequestHandler):
    """A server that wants a user: me with the password secret, or the token key."""

    status = 401

    def do_GET(self) -> None:
        self._answer(200, b"OK")

    def do_POST(self) -> None:
        own = ("Basic " + base64.b64encode(b"me:secret").decode(), "Bearer key")
        allowed = self.headers.get("Authorization") in own
        self._answer(200, b"{}") if allowed else self._answer(self.status, b"Invalid Host header\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in ("USERNAME", "PASSWORD", "TOKEN", "AUTH"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


USER = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({}, f"requires a user name and a password. Set {USER}. Received: none"),
        (
            {"USERNAME": "me"},
            f"requires a user name and a password. Set {USER}. Received: the user name 'me' without a password",
        ),
        ({"PASSWORD": "secret"}, f"requires a user name and a password. Set {USER}. Received: a password without a user name"),
        ({"USERNAME": "me", "PASSWORD": "hidden"}, f"does not accept the user name 'me' with this password. Check {USER}"),
        (
            {"USERNAME": "you\n", "PASSWORD": "secret"},
            f"does not accept the user name 'you\\n' with this password. Check {USER}",
        ),
        ({"TOKEN": "old"}, "does not accept the token. Check MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_a_server_that_refuses_the_user(user: dict[str, str], said: str, locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in user.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with pytest.raises(TrackingError) as error:
        reachable(locked)
    assert str(error.value) == f"tracking.uri: the MLflow server at {locked} {said}"


@pytest.mark.parametrize("user", [{"USERNAME": "me", "PASSWORD": "secret"}, {"TOKEN": "key"}, {"AUTH": "a plugin of MLflow"}])
def test_a_server_that_knows_the_user(user: dict[str, str], locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in user.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    reachable(locked)


def test_a_user_in_the_file_of_mlflow(locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's client reads it: the environment comes first, each value for itself."""
    from mlflow.utils.credentials import read_mlflow_creds

    path = tmp_path / ".mlflow" / "credentials"
    path.parent.mkdir()
    path.write_text("[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = secret\n")
    reachable(locked)
    assert credentials() == (*read_mlflow_creds(),)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "you")
    assert credentials() == (*read_mlflow_creds(),) == ("you", "secret")
    with pytest.raises(TrackingError, match="user name 'you'"):
        reachable(locked)
    path.write_text("[other]\n")
    assert credentials() == ("you", "")


@pytest.mark.parametrize(
    "content", [b"no sections", b"[mlflow]\n\xff", b"x" * 2**17, b"[mlflow]\nmlflow_tracking_password = %(a)s\n"]
)
def test_a_file_of_mlflow_that_cannot_be_read(content: bytes, locked: str, tmp_path: Path) -> None:
    path = tmp_path / ".mlflow" / "credentials"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(TrackingError) as error:
        reachable(locked)
    assert str(error.value).startswith(f"tracking.uri: {path} cannot be read: ")
    assert "\n" not in str(error.value)


def test_a_server_that_forbids(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Locked, "status", 403)
    with pytest.raises(TrackingError) as error:
        reachable(locked)
    assert (
        str(error.value)
        == f"tracking.uri: the MLflow server at {locked} refuses this request (403 Forbidden: Invalid Host header)"
    )


def test_stores_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database")
    reachable(f"sqlite:///{tmp_path}/new/mlflow.db")
    with pytest.raises(TrackingError) as error:
        reachable(f"sqlite:///{tmp_path}/notes.txt")
    assert str(error.value) == (
        f"tracking.uri: {tmp_path}/notes.txt is not an SQLite database. Received: sqlite:///{tmp_path}/notes.txt"
    )
    with pytest.raises(TrackingError) as error:
        reachable(f"sqlite:///{tmp_path}/notes.txt/mlflow.db")
    assert str(error.value) == (
        f"tracking.uri: {tmp_path}/notes.txt cannot be written. Received: sqlite:///{tmp_path}/notes.txt/mlflow.db"
    )
    with pytest.raises(TrackingError) as error:
        reachable("./mlruns")
    assert str(error.value) == "tracking.uri: must be sqlite:///PATH or http(s)://HOST:PORT. Received: ./mlruns"


@pytest.fixture
def servers(store: str, closed_port: int) -> Iterator[Callable[[], MlflowServer]]:
    """Starts a server; a second call starts it again, at the same address."""
    started: list[MlflowServer] = []

    def start() -> MlflowServer:
        started.append(MlflowServer(Path(store.removeprefix("sqlite:///")).parent, port=closed_port))
        return started[-1].wait()

    yield start
    started[-1].kill()


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_gets_everything(servers: Callable[[], MlflowServer], tmp_path: Path) -> None:
    run = tmp_path / "served"
    server = servers()
    journal = begin(run, server.uri, experiment="served", parameters={f"p{i}": "ü" * 6000 for i in range(30)})
    tracker = Tracker.start(run)
    for step in range(3000):
        journal.metrics(step, {"loss": step / 3, "nothing": math.nan})
        if step == 1000:
            until(lambda: UploadState.load(run).offset > 200_000)
            server.kill()
        if step == 2000:
            until(lambda: UploadState.load(run).error == "Connection refused")
            (run / "figures").mkdir()
            (run / "figures" / "figure.png").write_bytes(b"png")
            journal.write("artifact", path="figures/figure.png", to="figures")
            servers()
    journal.write("end", status="FINISHED", message="")
    assert tracker.wait(60) == ""
    seen = Seen(run)
    assert seen.curve("loss") == [(step, step / 3) for step in range(3000)]
    assert len(seen.curve("nothing")) == 3000
    assert seen.run.data.params["p29"] == "ü" * 6000
    assert [file.path for file in seen.client.list_artifacts(seen.run.info.run_id, "figures")] == ["figures/figure.png"]


@pytest.mark.slow
def test_what_a_server_missed_is_delivered_later(servers: Callable[[], MlflowServer], closed_port: int, tmp_path: Path) -> None:
    run = tmp_path / "late"
    journal = begin(run, f"http://127.0.0.1:{closed_port}", experiment="served")
    tracker = Tracker.start(run)
    journal.metrics(1, {"loss": 1.0})
    journal.write("end", status="FINISHED", message="")
    said = tracker.wait(10)
    assert said == (
        f"3 records in {run / 'journal.jsonl'} not uploaded to MLflow yet (Connection refused). "
        f"Upload: python -m dlframe sync {run}"
    )
    journal.close()
    tracker.process.kill()
    tracker.process.wait()
    servers()
    assert upload(run) == ""
    assert Seen(run).curve("loss") == [(1, 1.0)]
    assert Seen(run).run.info.status == "FINISHED"


def test_runs_of_one_process_share_an_upload_process(tmp_path: Path) -> None:
    """Which lets go of those that have ended, and starts again where it was killed."""
    runs, trackers, folders = tmp_path / "runs", [], []
    for number in range(4):
        folder = runs / f"run-{number}"
        folders.append(folder)
        journal = begin(folder, f"sqlite:///{runs / 'mlflow.db'}")
        tracker = Tracker.start(folder, running=trackers)
        trackers += [tracker] if tracker not in trackers else []
        if number == 0:
            until(lambda: UploadState.load(folders[0]).status == "RUNNING", 120)
        if number == 2:
            trackers[0].process.kill()
            trackers[0].process.wait()
        journal.metrics(1, {"loss": number})
        journal.write("end", status="FINISHED", message="")
        journal.close()
    assert [tracker.folders for tracker in trackers] == [folders[:3], folders[3:]]
    assert [tracker.wait(120) for tracker in trackers] == ["", ""]
    assert [UploadState.load(folder).status for folder in folders] == ["FINISHED"] * 4


def test_runs_that_wait_are_told_in_one_line(tmp_path: Path) -> None:
    folders = [tmp_path / "runs" / name for name in ("a", "b")]
    for folder in folders:
        begin(folder, "http://127.0.0.1:9").close()
    tracker = Tracker.start(folders[0])
    assert Tracker.start(folders[1], running=[tracker]) is tracker
    said = tracker.wait(1)
    runs = tmp_path / "runs"
    assert said == f"2 runs in {runs} not uploaded to MLflow yet. Upload: python -m dlframe sync runs={runs}"
    tracker.process.kill()
    tracker.process.wait()
