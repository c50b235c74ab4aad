"""Tracking: what a run writes to its journal is in MLflow, all of it, once, whoever is killed."""

import json
import math
import os
import signal
import socket
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

from dlframe.journal import Journal
from dlframe.tracking import Position, Tracker, deliver, reachable
from dlframe.tracking.tracker import QUIET
from dlframe.types import TrackingError

os.environ.update(QUIET)


def begin(folder: Path, uri: str, **fields: Any) -> Journal:
    """A run folder's journal with its first line."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    start = {"run_name": folder.name, "experiment": "classification", "parameters": {"model": "cnn"}, "tags": {}}
    root = "" if uri.startswith("http") else str(folder.parent / "artifacts")
    journal.write("start", **{**start, "uri": uri, "artifact_root": root, **fields})
    return journal


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return result


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
        assert Position.load(run).status == "FINISHED"
    return uri


class Seen:
    """What MLflow has of the run in a folder."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.position = Position.load(folder)
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
    (run / "model" / "weights").write_bytes(b"1234")
    sides = {"inputs": {"dtype": "uint8", "shape": [-1, 1, 8, 8]}, "outputs": {"dtype": "float32", "shape": [-1, 10]}}
    (run / "model" / "signature.json").write_text(json.dumps(sides))
    journal.write("model", path="model")
    journal.write("end", status="FINISHED", message="")
    assert deliver(run) == ""

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

    stub: Any = ModuleType("dlframe.predict")
    stub._load_pyfunc = lambda path: Weights(Path(path))
    monkeypatch.setitem(sys.modules, "dlframe.predict", stub)
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(f"runs:/{seen.run.info.run_id}/model")
    assert model.predict(np.zeros((2, 1, 8, 8), np.uint8)).shape == (2, 4)
    with pytest.raises(mlflow.MlflowException, match="uint8"):
        model.predict(np.zeros((2, 1, 8, 8)))


class Weights:
    """A model with as many classes as there are bytes in its file."""

    def __init__(self, folder: Path) -> None:
        self.classes = len((folder / "weights").read_bytes())

    def predict(self, inputs: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        return np.zeros((len(inputs), self.classes), np.float32)


def test_a_killed_run_is_closed_as_killed_with_all_its_metrics(store: str, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    begin(run, store)
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from dlframe.journal import Journal
        from dlframe.tracking import Tracker
        journal, tracker = Journal(Path(sys.argv[1])), Tracker.start(Path(sys.argv[1]))
        for step in range(500):
            journal.metrics(step, {"loss": step / 7})
        assert not {"mlflow", "torch"} & set(sys.modules)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", script, str(run)]).returncode == -signal.SIGKILL

    until(lambda: Position.load(run).status == "KILLED")
    seen = Seen(run)
    assert seen.run.info.status == "KILLED"
    assert seen.run.info.end_time == Position.load(run).time
    assert seen.curve("loss") == [(step, step / 7) for step in range(500)]


def test_another_writer_goes_on_for_a_killed_one(store: str, tmp_path: Path) -> None:
    run = tmp_path / "killed writer"
    journal = begin(run, store)
    tracker = Tracker.start(run)
    journal.metrics(0, {"loss": 0.0})
    until(lambda: Position.load(run).status == "RUNNING")
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
    side = {"dtype": "float32", "shape": [-1, 3]}
    (run / "model" / "signature.json").write_text(json.dumps({"inputs": side, "outputs": side}))
    journal.write("model", path="model")
    assert deliver(run) == ""
    assert Seen(run).run.info.status == "RUNNING", "this process still writes"
    journal.write("end", status="FINISHED", message="")
    journal.close()
    assert deliver(run) == ""

    done = Position.load(run)
    Position(uri=done.uri, key=done.key).save(run)
    assert deliver(run) == ""
    assert Position.load(run) == done
    seen = Seen(run)
    assert seen.runs().count("again") == 1
    assert seen.curve("loss") == [(step, float(step)) for step in range(100)]
    assert len(seen.curve("nothing")) == 100
    assert seen.run.outputs
    assert len(seen.run.outputs.model_outputs) == 1


def test_a_resumed_run_is_the_same_run(store: str, tmp_path: Path) -> None:
    run = tmp_path / "resumed"
    journal = begin(run, store, parameters={"epochs": 1})
    for step in range(10):
        journal.metrics(step, {"loss": step / 3, "nothing": math.nan})
    journal.close()
    assert deliver(run) == ""
    assert Seen(run).run.info.status == "KILLED"
    identifier = Position.load(run).run_id

    # From the checkpoint at step 5, with one value that has changed, as on a GPU.
    journal = begin(run, store, parameters={"epochs": 2, "new": "yes"})
    time.sleep(0.002)
    for step in range(5, 15):
        journal.metrics(step, {"loss": step / 3 + (step == 9), "nothing": math.nan})
    assert deliver(run) == ""
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
    assert deliver(run) == ""
    first = Seen(run)
    first.client.delete_run(first.run.info.run_id)
    journal.metrics(2, {"loss": 0.5})
    assert deliver(run) == ""
    second = Seen(run)
    assert second.run.info.run_id != first.run.info.run_id
    assert second.curve("loss") == [(1, 1.0), (2, 0.5)]

    second.position.run_id = "0" * 32  # of a store that has been made anew
    second.position.save(run)
    journal.metrics(3, {"loss": 0.1})
    assert deliver(run) == ""
    assert Seen(run).curve("loss") == [(1, 1.0), (2, 0.5), (3, 0.1)]


def test_what_mlflow_will_never_take_is_said_and_the_rest_delivered(store: str, tmp_path: Path) -> None:
    run = tmp_path / "refused"
    journal = begin(run, store)
    journal.write("artifact", path="nothing.png", to="")
    journal.metrics(1, {"loss": 1.0, "/bad//name": 1.0})
    journal.metrics(2, {"loss": 0.5})
    journal.write("end", status="FINISHED", message="")
    said = deliver(run)
    assert said.startswith(f"MLflow refused 2 records of {run / 'journal.jsonl'}: ")
    assert Seen(run).curve("loss") == [(2, 0.5)]
    assert Seen(run).run.info.status == "FINISHED"


def test_a_run_without_a_store_owes_nothing(tmp_path: Path) -> None:
    begin(tmp_path, "").metrics(1, {"loss": 1.0})
    assert deliver(tmp_path) == ""


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dlframe.tracking", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path} holds no run: there is no journal.jsonl in it\n"


def test_a_damaged_position_is_named(tmp_path: Path) -> None:
    begin(tmp_path, "")
    (tmp_path / "tracking.json").write_text("{")
    with pytest.raises(TrackingError) as error:
        deliver(tmp_path)
    path = tmp_path / "tracking.json"
    assert str(error.value) == f"{path} is damaged. Remove it to deliver the whole run again, as a new one"


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


class Server:
    """A real MLflow server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        options = ["--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, "--artifacts-destination", str(folder / "served")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )

    def up(self) -> bool:
        try:
            reachable(self.uri)
        except TrackingError:
            return False
        return True

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def servers(store: str, closed_port: int) -> Iterator[Callable[[], Server]]:
    """Starts a server; a second call starts it again, at the same address."""
    started: list[Server] = []

    def start() -> Server:
        started.append(Server(Path(store.removeprefix("sqlite:///")).parent, closed_port))
        until(started[-1].up)
        return started[-1]

    yield start
    started[-1].kill()


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_gets_everything(servers: Callable[[], Server], tmp_path: Path) -> None:
    run = tmp_path / "served"
    server = servers()
    journal = begin(run, server.uri, experiment="served", parameters={f"p{i}": "ü" * 6000 for i in range(30)})
    tracker = Tracker.start(run)
    for step in range(3000):
        journal.metrics(step, {"loss": step / 3, "nothing": math.nan})
        if step == 1000:
            until(lambda: Position.load(run).offset > 200_000)
            server.kill()
        if step == 2000:
            until(lambda: Position.load(run).error == "Connection refused")
            (run / "figure.png").write_bytes(b"png")
            journal.write("artifact", path="figure.png", to="figures")
            servers()
    journal.write("end", status="FINISHED", message="")
    assert tracker.wait(60) == ""
    seen = Seen(run)
    assert seen.curve("loss") == [(step, step / 3) for step in range(3000)]
    assert len(seen.curve("nothing")) == 3000
    assert seen.run.data.params["p29"] == "ü" * 6000
    assert [file.path for file in seen.client.list_artifacts(seen.run.info.run_id, "figures")] == ["figures/figure.png"]


@pytest.mark.slow
def test_what_a_server_missed_is_delivered_later(servers: Callable[[], Server], closed_port: int, tmp_path: Path) -> None:
    run = tmp_path / "late"
    journal = begin(run, f"http://127.0.0.1:{closed_port}", experiment="served")
    tracker = Tracker.start(run)
    journal.metrics(1, {"loss": 1.0})
    journal.write("end", status="FINISHED", message="")
    said = tracker.wait(10)
    assert said == (
        f"MLflow did not take everything yet: 3 records wait in {run / 'journal.jsonl'} (Connection refused). "
        f"Deliver: python -m dlframe.tracking {run}"
    )
    journal.close()
    tracker.process.kill()
    tracker.process.wait()
    servers()
    assert deliver(run) == ""
    assert Seen(run).curve("loss") == [(1, 1.0)]
    assert Seen(run).run.info.status == "FINISHED"
