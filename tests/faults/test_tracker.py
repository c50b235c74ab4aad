"""A real MLflow server behind a proxy that misbehaves: everything arrives, once, in order, and training never waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import dlframe, until
from tests.faults.proxy import Mode, Proxy
from tests.services import MlflowServer

from dlframe.runs import journal
from dlframe.runs.journal import Journal
from dlframe.tracking import Tracker, UploadState, upload
from dlframe.tracking.store import quiet

os.environ.update(quiet(os.environ))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))  # where it is noted which stores this user has used
        server = MlflowServer(folder)
        yield server.wait().port
        server.kill()


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


class Trainer:
    """What a training process does, as far as tracking is concerned: it writes its journal and starts the writer process."""

    def __init__(self, folder: Path, uri: str, **fields: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.journal = Journal(folder)
        start = {"run_name": folder.name, "experiment": folder.parent.name, "parameters": {"model": "cnn"}, "tags": {}}
        self.journal.write("start", **start, uri=uri, **fields)
        self.tracker = Tracker.start(folder)

    def train(self, first: int, last: int) -> None:
        """Steps from `first` to `last`, without `last`, and a figure."""
        for step in range(first, last):
            self.journal.metrics(step, {"train/loss": step / 3, "val/loss": -float(step)})
        (self.folder / "figures").mkdir(exist_ok=True)
        (self.folder / "figures" / f"{first}.png").write_bytes(b"png")
        self.journal.write("artifact", path=f"figures/{first}.png", to="figures")

    def end(self) -> None:
        self.journal.write("end", status="FINISHED", message="")
        self.journal.close()

    def kill_writer(self) -> None:
        with self.tracker.process as process:  # which closes the pipe
            process.kill()


def check_delivered(folder: Path, server: int, status: str = "FINISHED") -> str:
    """Everything in the journal is on the server once and in order, in one run; its identifier."""
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{server}")
    position = UploadState.load(folder)
    runs = client.search_runs([position.experiment_id])
    names = [(run, run.info.run_name, Path(run.data.tags.get("run.folder", "")).name) for run in runs]
    (run,) = (run for run, *names in names if folder.name in names)
    assert run.info.run_id == position.run_id
    assert run.info.status == status
    curves = journal.history(folder)
    assert set(curves) == set(run.data.metrics)
    for name, curve in curves.items():
        points = client.get_metric_history(position.run_id, name)
        assert [(point.step, point.value) for point in points] == curve
    artifacts = {record["path"] for record in journal.read(folder) if record["kind"] == "artifact" and record["to"]}
    assert {f"figures/{Path(path).name}" for path in artifacts} == {
        file.path for file in client.list_artifacts(position.run_id, "figures")
    }
    return position.run_id


MODES = [
    Mode("refuse"),
    Mode("500"),
    Mode("503"),
    Mode("400", requests=5),
    Mode("slow", seconds=1.0),
    Mode("hang"),
    Mode("drop request", after=20),
    Mode("drop request", after=700),
    Mode("drop answer", after=0),
    Mode("drop answer", after=100),
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.name} {mode.after or ''}".strip())
def test_a_server_in_trouble_gets_everything_once_it_is_well(mode: Mode, proxy: Proxy, server: int, tmp_path: Path) -> None:
    run = Trainer(tmp_path / "run", proxy.uri)
    run.train(0, 300)
    until(lambda: UploadState.load(run.folder).offset)
    proxy.switch(mode.name, after=mode.after, seconds=mode.seconds)
    run.train(300, 600)
    until(lambda: UploadState.load(run.folder).error if mode.name == "refuse" else proxy.requests[mode.name] >= mode.requests)
    run.train(600, 900)
    proxy.switch("pass")
    run.train(900, 1000)
    run.end()
    assert run.tracker.wait(60) == ""
    check_delivered(run.folder, server)


def test_training_does_not_wait_for_a_server_that_hangs(proxy: Proxy, server: int, tmp_path: Path) -> None:
    run = Trainer(tmp_path / "run", proxy.uri)
    run.train(0, 10)
    until(lambda: UploadState.load(run.folder).offset)
    proxy.switch("hang")
    run.train(10, 20)
    until(lambda: proxy.requests["hang"])
    run.train(20, 10_000)
    assert proxy.requests["hang"] == 1, "the writer still waits for the first answer"
    assert len(journal.history(run.folder)["train/loss"]) == 10_000
    proxy.switch("pass")
    run.end()
    assert run.tracker.wait(60) == ""
    check_delivered(run.folder, server)


def test_what_is_measured_of_the_machine_waits_for_the_server(
    proxy: Proxy, server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    run = Trainer(tmp_path / "run", proxy.uri, system_metrics=True)
    identifier = until(lambda: UploadState.load(run.folder).run_id)
    proxy.switch("refuse")
    began = time.time()
    until(lambda: UploadState.load(run.folder).error)
    time.sleep(1)
    ended = time.time()
    proxy.switch("pass")
    run.end()
    assert run.tracker.wait(60) == ""
    points = MlflowClient(f"http://127.0.0.1:{server}").get_metric_history(identifier, "system/cpu_utilization_percentage")
    assert [point for point in points if began < point.timestamp / 1000 < ended]


@pytest.mark.parametrize("after", [0, 100])
def test_an_answer_that_is_lost_doubles_nothing(after: int, proxy: Proxy, server: int, tmp_path: Path) -> None:
    """The server has taken each kind of request once, and the writer does not know it.

    Where an answer breaks off in its head, after 100 bytes, MLflow would take it for one that says that all is well.
    """
    from mlflow import MlflowClient

    run = Trainer(tmp_path / "run", proxy.uri)
    run.kill_writer()  # the test delivers in its place, without a pause after each failure
    run.train(0, 1500)
    model = run.folder / "model"
    model.mkdir()
    side = [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]
    (model / "signature.json").write_text(json.dumps({"inputs": side, "outputs": side}))
    run.journal.write("model", path="model")
    run.end()
    proxy.switch("drop first answers", after=after)
    failures = 0
    while upload(run.folder):
        failures += 1
        assert failures < 50
    assert failures >= 8, "files fail beside each other, numbers one after the other"
    identifier = check_delivered(run.folder, server)
    outputs = MlflowClient(f"http://127.0.0.1:{server}").get_run(identifier).outputs
    assert outputs
    assert len(outputs.model_outputs) == 1


def test_a_run_resumed_after_an_outage_is_the_same_run(proxy: Proxy, server: int, tmp_path: Path) -> None:
    run = Trainer(tmp_path / "run", proxy.uri)
    run.train(0, 100)
    identifier = until(lambda: UploadState.load(run.folder).run_id)
    proxy.switch("refuse")
    run.train(100, 200)
    run.journal.close()
    run.kill_writer()
    again = Trainer(run.folder, proxy.uri)
    again.train(150, 250)
    until(lambda: UploadState.load(run.folder).error)
    proxy.switch("pass")
    again.train(250, 300)
    again.end()
    assert again.tracker.wait(60) == ""
    assert check_delivered(run.folder, server) == identifier


def test_a_run_deleted_on_the_server_while_it_trains_is_delivered_whole(proxy: Proxy, server: int, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run = Trainer(tmp_path / "run", proxy.uri)
    run.train(0, 100)
    deleted = until(lambda: UploadState.load(run.folder).run_id)
    until(lambda: UploadState.load(run.folder).offset == (run.folder / journal.FILE).stat().st_size)
    MlflowClient(f"http://127.0.0.1:{server}").delete_run(deleted)
    run.train(100, 200)
    run.end()
    assert run.tracker.wait(60) == ""
    assert check_delivered(run.folder, server) != deleted
    assert "refused" not in (run.folder / "tracking.log").read_text()


def test_a_real_run_ends_without_its_server_and_is_delivered_later(proxy: Proxy, server: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dlframe", "model=mlp", "epochs=20", f"tracking.uri={proxy.uri}", "log_every_n_steps=1"]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        (folder,) = until(lambda: [path.parent for path in tmp_path.glob("runs/*/tracking.json")])
        until(lambda: UploadState.load(folder).run_id)
        proxy.switch("refuse")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "test accuracy" in out
    name = folder.relative_to(tmp_path)
    assert f"(Connection refused). Upload: python -m dlframe sync {name}" in err

    writers = subprocess.run(["pgrep", "-f", f"dlframe.tracking {name}$"], capture_output=True, text=True, check=False)
    assert writers.stdout == "", "the writer has given up"
    refused = dlframe("sync", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stdout.splitlines() == [
        f"{name}: tracking.uri: no MLflow server at {proxy.uri} (Connection refused). Start one: "
        f"mlflow server --port {proxy.port} --backend-store-uri sqlite:///mlflow.db",
        "uploaded: 0 runs; pending: 1 run",
    ]
    proxy.switch("pass")
    done = dlframe("sync", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{name}: uploaded, FINISHED\nuploaded: 1 run\n"), done.stderr
    check_delivered(folder, server)
    again = dlframe("sync", str(name), cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "uploaded: 0 runs\n")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["503", "hang"])
def test_the_patience_of_a_writer_ends(mode: str, proxy: Proxy, server: int, tmp_path: Path) -> None:
    run = Trainer(tmp_path / "run", proxy.uri)
    run.train(0, 100)
    until(lambda: UploadState.load(run.folder).offset)
    proxy.switch(mode)
    run.train(100, 200)
    run.end()
    said = run.tracker.wait(5)
    assert f"Upload: python -m dlframe sync {run.folder}" in said
    assert run.tracker.process.wait(90) == 1
    proxy.switch("pass")
    assert upload(run.folder) == ""
    check_delivered(run.folder, server)
