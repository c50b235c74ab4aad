"""Servers as companies have them: on another machine, behind TLS, a login or a prefix, with files in an object store."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import dlframe, until
from tests.services import MlflowServer, can_hide, free_port, hiding, kill_all
from tests.tracking.fronts import Front, certificate

from dlframe.runs.journal import Journal
from dlframe.tracking import reachable, upload
from dlframe.tracking.store import quiet
from dlframe.tracking.ui import serve
from dlframe.types import TrackingError

os.environ.update(quiet(os.environ))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    yield server.wait()
    server.kill()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    if not shutil.which("openssl"):
        pytest.skip("no openssl: apt-get install openssl")
    return certificate(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests has logins and certificates of their own."""
    for name in ("TOKEN", "USERNAME", "PASSWORD", "SERVER_CERT_PATH", "INSECURE_TLS"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def check_uploaded(uri: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is uploaded to a server, numbers and files, and `ui` prints a link there."""
    from mlflow import MlflowClient

    reachable(uri)
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "curve.png").write_bytes(b"png")
    journal = Journal(folder)
    journal.write("start", run_name=folder.name, experiment="fronts", parameters={"seed": 0}, tags={}, uri=uri)
    journal.metrics(1, {"loss": 0.5})
    journal.write("artifact", path="figures/curve.png", to="figures")
    journal.write("end", status="FINISHED", message="")
    journal.close()
    assert upload(folder, uri=uri) == ""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fronts")
    assert experiment
    run = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/curve.png"]
    capsys.readouterr()
    serve(uri, "")
    assert f"{uri}/#/experiments/{experiment.experiment_id}/runs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_of_a_company(
    name: str,
    server: MlflowServer,
    authority: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority_file, *own = authority
    with contextlib.closing(Front(server.port, certificate=(own[0], own[1]))) as front:
        with pytest.raises(TrackingError, match=rf"^tracking.uri: no MLflow server at {front.uri} \(.*certificate.*\)"):
            reachable(front.uri)
        monkeypatch.setenv(name, str(authority_file))
        check_uploaded(front.uri, tmp_path / "run", capsys)


@pytest.mark.parametrize(("kind", "prefix"), [("token", "/teams/vision/mlflow"), ("password", "")])
def test_a_login_and_a_prefix(
    kind: str,
    prefix: str,
    server: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    password = base64.b64encode(b"me:right").decode()
    login = "Bearer key" if kind == "token" else f"Basic {password}"
    given = {"TOKEN": "key"} if kind == "token" else {"USERNAME": "me", "PASSWORD": "right"}
    with contextlib.closing(Front(server.port, login=login, prefix=prefix)) as front:
        for ask in (lambda: reachable(front.uri), lambda: serve(front.uri, "")):
            with pytest.raises(TrackingError, match=rf"^tracking\.uri: the MLflow server at {front.uri} [^\n]+$"):
                ask()
        for key, value in given.items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{key}", value)
        check_uploaded(front.uri, tmp_path / "run", capsys)


# --- Another machine: its server cannot see the files of the training, and a third one reads them back.

READER = """
import json, sys
import mlflow, numpy, pandas
uri, experiment = sys.argv[1:]
mlflow.set_tracking_uri(uri)
(row,) = mlflow.search_runs(experiment_names=[experiment], output_format="list")
client, run = mlflow.MlflowClient(), row.info.run_id
there = lambda path: mlflow.artifacts.download_artifacts(f"runs:/{run}/{path}")
images = numpy.zeros((3, 1, 8, 8), numpy.uint8)
model, = client.search_logged_models([row.info.experiment_id])
print(json.dumps({
    "status": row.info.status,
    "figure": open(there("figures/learning_curve.png"), "rb").read(4).hex(),
    "table": len(pandas.read_parquet(there("predictions.parquet"))),
    "accuracy": row.data.metrics["test/accuracy"],
    "predictions": [len(mlflow.pyfunc.load_model(place).predict(images)["prediction"])
                    for place in (f"models:/{model.model_id}", f"runs:/{run}/model")],
}))
"""


def read_back(uri: str, experiment: str, folder: Path, *hidden: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What a client in a third folder gets from a server."""
    folder.mkdir()
    done = subprocess.run(
        [*(hiding(*hidden) if can_hide() else []), sys.executable, "-c", READER, uri, experiment],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_read_back(found: dict[str, Any], run: Path) -> None:
    assert found == {
        "status": "FINISHED",
        "figure": "89504e47",
        "table": 359,
        "accuracy": pytest.approx(json.loads((run / "result.json").read_text())["metrics"]["accuracy"]),
        "predictions": [3, 3],
    }


@pytest.mark.slow
def test_a_server_of_another_machine_keeps_the_files_itself(tmp_path: Path) -> None:
    laptop, desk = tmp_path / "laptop", tmp_path / "desk"
    laptop.mkdir()
    folder = tmp_path / "server"
    server = MlflowServer(folder, "--artifacts-destination", str(folder / "kept"), hidden=laptop if can_hide() else None)
    try:
        server.wait()
        done = dlframe("model=mlp", "epochs=1", "experiment_name=away", f"tracking.uri={server.uri}", cwd=laptop)
        assert (done.returncode, done.stderr) == (0, "")
        (run,) = laptop.glob("runs/mlp-*")
        found = read_back(server.uri, "away", desk, laptop, folder, environment={"HOME": str(desk)})
        check_read_back(found, run)
        assert not (laptop / "runs" / "artifacts").exists()
        assert [*(folder / "kept").rglob("weights.safetensors")]
    finally:
        server.kill()


@pytest.mark.slow
def test_a_login_and_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server alone has the key of the bucket; who trains and who reads have a login there."""
    if missing := [name for name in ("boto3", "flask_wtf", "moto") if not importlib.util.find_spec(name)]:
        pytest.skip(f"no {', '.join(missing)}: pip install -c constraints.txt -e '.[stack]'")
    import boto3

    port = free_port()
    with (tmp_path / "moto.log").open("wb") as log:
        store = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log, cwd=tmp_path
        )
    keys = {"AWS_ACCESS_KEY_ID": "server", "AWS_SECRET_ACCESS_KEY": "of the server", "AWS_DEFAULT_REGION": "us-east-1"}
    keys |= {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    laptop, desk, folder = tmp_path / "laptop", tmp_path / "desk", tmp_path / "server"
    laptop.mkdir()
    folder.mkdir()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\nadmin_username = me\n"
        "admin_password = a long password\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    own = keys | {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret"}
    options = ["--app-name", "basic-auth", "--artifacts-destination", "s3://models/team"]
    server = MlflowServer(folder, *options, hidden=laptop if can_hide() else None, environment=own)
    login = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "a long password"}
    s3 = boto3.client(
        "s3",
        endpoint_url=keys["MLFLOW_S3_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="server",
        aws_secret_access_key="of the server",
    )

    def made() -> bool:
        with contextlib.suppress(Exception):
            s3.create_bucket(Bucket="models")
            return True
        return False

    try:
        until(made)
        server.wait()
        arguments = ["model=mlp", "epochs=1", "experiment_name=away", f"tracking.uri={server.uri}"]
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        refused = dlframe(*arguments, cwd=laptop)
        assert refused.returncode == 2
        assert "does not accept the user name 'me' with this password" in refused.stderr
        assert not (laptop / "runs").exists()
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", login["MLFLOW_TRACKING_PASSWORD"])
        done = dlframe(*arguments, cwd=laptop)
        assert (done.returncode, done.stderr) == (0, "")
        (run,) = laptop.glob("runs/mlp-*")
        check_read_back(read_back(server.uri, "away", desk, laptop, folder, environment=login | {"HOME": str(desk)}), run)
        keys_there = [item["Key"] for item in s3.list_objects_v2(Bucket="models")["Contents"]]
        assert {key.rpartition("/")[2] for key in keys_there} >= {"learning_curve.png", "predictions.parquet", "MLmodel"}
        assert not [*folder.rglob("*.png")]
        link = dlframe("ui", f"uri={server.uri}", cwd=laptop)
        assert link.stdout.startswith(f"MLflow: {server.uri}/#/experiments/"), link.stderr
    finally:
        s3.close()
        server.kill()
        kill_all(store)
