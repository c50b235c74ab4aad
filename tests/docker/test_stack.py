"""The stack of compose.yaml, started for real on this machine, see stack.py: it trains, refuses, and resumes after SIGKILL."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import until
from tests.docker.stack import ADDRESSES, Stack
from tests.services import free_port, postgresql

from dlframe.runs import journal

pytestmark = pytest.mark.slow

MISSING = [name for name in ("ray", "psycopg", "boto3", "flask_wtf", "moto") if not importlib.util.find_spec(name)]
if MISSING:
    pytest.skip(f"no {', '.join(MISSING)}: pip install -c constraints.txt -e '.[stack]'", allow_module_level=True)
if not postgresql("initdb"):
    pytest.skip("no PostgreSQL: apt-get install postgresql", allow_module_level=True)

TRAINING = {"model=cnn": "model=mlp"}
MANY = ("epochs=100", "checkpoint.every_n_epochs=1", "run_name=killed")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL, the object store and the MLflow server."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start_postgres()
        stack.start_object_store()
        stack.start("mlflow")
        stack.wait("mlflow")
        yield stack
    finally:
        stack.close()


@pytest.fixture
def client(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "dlframe")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.secret("mlflow_password"))
    return MlflowClient(stack.tracking)


def objects(stack: Stack) -> dict[str, int]:
    """Key -> size, of what is in the bucket."""
    import boto3

    address = f"http://127.0.0.1:{stack.ports['object-store']}"
    keys = {"aws_access_key_id": "mlflow", "aws_secret_access_key": stack.secret("s3_secret_key")}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    with contextlib.closing(client):
        pages = [*client.get_paginator("list_objects_v2").paginate(Bucket="mlflow")]
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


def run_folder(stack: Stack, name: str) -> Path:
    """The only run of this name; a time follows the name."""
    (folder,) = (stack.work / "runs").glob(f"{name}-2*")
    return folder


def check_complete(stack: Stack, client: Any, name: str) -> Any:
    """What is in the run directory is on the server, and its files are in the object store; the run."""
    folder = run_folder(stack, name)
    found = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    (run,) = (run for run in found if Path(run.data.tags["run.folder"]).name == folder.name)
    assert run.info.status == "FINISHED"
    curves = journal.history(folder)
    assert set(curves) == set(run.data.metrics)
    for metric, curve in curves.items():
        points = client.get_metric_history(run.info.run_id, metric)
        assert [(point.step, point.value) for point in points] == curve
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    stored = objects(stack)
    paths = {record["path"] for record in journal.read(folder) if record["kind"] == "artifact"}
    assert "result.json" in paths
    for path in paths:
        (key,) = (key for key in stored if key.endswith(f"{run.info.run_id}/artifacts/{path}"))
        assert stored[key] == (folder / path).stat().st_size
    return run


def test_the_trainer_trains(stack: Stack, client: Any) -> None:
    trainer = stack.start("trainer", "epochs=3", "run_name=trained", replace=TRAINING)
    assert trainer.wait(300) == 0, stack.said("trainer")
    run = check_complete(stack, client, "trained")
    result = json.loads((run_folder(stack, "trained") / "result.json").read_text())
    assert run.data.metrics["test/accuracy"] == result["metrics"]["accuracy"]
    assert run.data.params["model.name"] == "mlp"
    (model,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert model.status == "READY"


def test_a_trainer_that_is_killed_continues(stack: Stack, client: Any) -> None:
    """SIGKILL to the training and to its upload process, as when a container dies; then the same command."""
    trainer = stack.start("trainer", *MANY, replace=TRAINING)

    def saved() -> Path | None:
        assert trainer.poll() is None, stack.said("trainer")
        found = next((stack.work / "runs").glob("killed-2*/checkpoints/*"), None)
        return found and found.parents[1] if len(list((stack.work / "runs").glob("killed-2*/checkpoints/*"))) > 2 else None

    folder = until(saved, 120)
    until(lambda: (folder / "tracking.json").exists() and json.loads((folder / "tracking.json").read_text())["run_id"], 60)
    first = json.loads((folder / "tracking.json").read_text())["run_id"]
    stack.kill("trainer")
    assert not journal.ended(folder)
    assert client.get_run(first).info.status == "RUNNING"
    again = stack.start("trainer", *MANY, replace=TRAINING)
    assert again.wait(300) == 0, stack.said("trainer")
    assert "resumed" in stack.said("trainer").lower()
    run = check_complete(stack, client, "killed")
    assert run.info.run_id == first
    steps = [step for step, _ in journal.history(folder)["val/loss"]]
    assert steps == sorted(set(steps))
    assert len(steps) == 100


# --- who may


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("dlframe", "wrong", "does not accept the user name 'dlframe' with this password"),
        ("nobody", None, "does not accept the user name 'nobody' with this password"),
        ("dlframe", "", "requires a user name and a password"),
        ("", "", "requires a user name and a password"),
    ],
)
def test_a_user_who_may_not_is_told_before_the_run(stack: Stack, user: str, password: str | None, reason: str) -> None:
    before = sorted((stack.work / "runs").iterdir())
    secret = stack.secret("mlflow_password") if password is None else password
    done = stack.run(
        "trainer",
        *(stack.here(word) for word in ("dlframe", "model=mlp", "tracking=server", "tracking.uri=http://mlflow:5000")),
        MLFLOW_TRACKING_USERNAME=user,
        MLFLOW_TRACKING_PASSWORD=secret,
        MLFLOW_TRACKING_PASSWORD_FILE="",
    )
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: tracking.uri: the MLflow server at {stack.tracking} {reason}")
    assert stack.secret("mlflow_password") not in done.stdout + done.stderr
    assert sorted((stack.work / "runs").iterdir()) == before


def test_a_user_without_permission_loses_nothing(stack: Stack, client: Any) -> None:
    """The experiment is another user's: the run is kept, the reason is told, and who may uploads it later."""
    code = f"from mlflow.server import get_app_client as users; users('basic-auth', '{stack.tracking}')"
    added = stack.run("trainer", "python", "-c", code + ".create_user('guest', 'a long password')")
    assert added.returncode == 0, added.stderr
    guest = {"MLFLOW_TRACKING_USERNAME": "guest", "MLFLOW_TRACKING_PASSWORD_FILE": ""}
    words = [*stack.services["trainer"]["command"], "epochs=1", "run_name=guest"]
    done = stack.run("trainer", *(TRAINING.get(w, w) for w in words), **guest, MLFLOW_TRACKING_PASSWORD="a long password")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "not uploaded to MLflow yet" in line)
    assert "Permission denied" in line
    folder = str(run_folder(stack, "guest").relative_to(stack.work))
    wrong = stack.run("trainer", "dlframe", "sync", folder, **guest, MLFLOW_TRACKING_PASSWORD="a wrong password")
    assert wrong.returncode == 1
    assert "does not accept the user name 'guest' with this password" in wrong.stdout + wrong.stderr
    right = stack.run("trainer", "dlframe", "sync", folder)
    assert right.returncode == 0, right.stdout + right.stderr
    check_complete(stack, client, "guest")


def test_a_server_that_is_down_is_told_before_the_run(stack: Stack) -> None:
    done = stack.run("trainer", "dlframe", "model=mlp", "tracking=server", f"tracking.uri=http://127.0.0.1:{free_port()}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no MLflow server at" in line
    assert "(Connection refused)" in line


def test_the_server_asks_everybody_who_they_are(stack: Stack) -> None:
    for path in ("/api/2.0/mlflow/experiments/search?max_results=1", "/api/2.0/mlflow-artifacts/artifacts", "/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(stack.tracking + path, timeout=20)
        with refused.value:
            assert refused.value.code == 401, path


def test_the_pages_of_the_server_are_linked(stack: Stack) -> None:
    said = stack.run("trainer", "dlframe", "ui", f"uri={stack.tracking}")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"MLflow: {stack.tracking}/#/experiments/")


def test_an_account_sees_its_own_database_only(stack: Stack) -> None:
    psql = str(postgresql("psql"))
    host = {"PGHOST": "127.0.0.1", "PGPORT": str(stack.ports["postgres"])}
    create = "--command=CREATE TABLE t (a int); DROP TABLE t"
    own = stack.run("sweep", psql, "--username=dlframe", "--dbname=sweeps", create, **host)
    assert own.returncode == 0, own.stderr
    for database in ("mlflow", "mlflow_auth"):
        other = stack.run("sweep", psql, "--username=dlframe", f"--dbname={database}", "--command=SELECT 1", **host)
        assert "permission denied for database" in other.stderr
    wrong = stack.run("mlflow", psql, "--username=postgres", "--dbname=mlflow", "--command=SELECT 1", **host)
    assert "password authentication failed" in wrong.stderr


# --- Ray


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Iterator[Stack]:
    """The stack with a Ray head and a second node."""
    stack.start("ray-head")
    stack.wait("ray-head")
    stack.start("ray-worker", "--num-cpus=1")
    stack.wait("ray-worker")
    yield stack
    for name in ("ray-worker", "ray-head"):
        stack.kill(name)


TASK = """
import json, os, ray
ray.init(address="{address}", _node_ip_address="{node}", log_to_driver=False)
@ray.remote(num_cpus=1)
def where():
    return ray.util.get_node_ip_address(), os.environ["PGPASSWORD"], os.environ["MLFLOW_TRACKING_PASSWORD"], os.getcwd()
print(json.dumps(ray.get(where.remote(), timeout=60)))
"""


def test_a_task_runs_on_the_worker_with_the_secrets(cluster: Stack) -> None:
    address = cluster.here("ray-head:6379")
    done = cluster.run("ray-worker", "python", "-c", TASK.format(address=address, node=ADDRESSES["ray-worker"]))
    assert done.returncode == 0, done.stderr
    where, database, tracking, _ = json.loads(done.stdout.splitlines()[-1])
    assert where == ADDRESSES["ray-worker"], "the head has no processors"
    assert (database, tracking) == (cluster.secret("sweeps_database_password"), cluster.secret("mlflow_password"))


def test_who_has_no_token_is_not_let_in(cluster: Stack) -> None:
    test = cluster.services["ray-head"]["healthcheck"]["test"][1:]
    done = cluster.run("ray-head", *test, RAY_AUTH_MODE="", RAY_AUTH_TOKEN_PATH="")
    assert done.returncode == 1
    assert "InvalidAuthToken" in done.stderr


def test_the_probe_of_kuberay_asks_what_ray_answers(cluster: Stack) -> None:
    import yaml
    from tests.docker.files import DOCKER

    _, job = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())
    (container,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    command = container["livenessProbe"]["exec"]["command"]
    done = cluster.run("ray-head", *(word.replace("127.0.0.1", ADDRESSES["ray-head"]) for word in command))
    assert done.returncode == 0, done.stderr


def test_a_sweep_on_the_cluster(cluster: Stack, client: Any) -> None:
    """The service `sweep`: trials in PostgreSQL, on the worker's node; the server has them all, with their files."""
    script = cluster.services["sweep"]["command"][2]
    small = script.replace("model=cnn", "model=mlp epochs=2").replace("trials=20", "trials=4 search.fresh_seeds=0 name=stack")
    sweep = cluster.start("sweep", replace={script: small})
    assert sweep.wait(600) == 0, cluster.said("sweep")
    runs = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    names = {Path(run.data.tags["run.folder"]).name: run for run in runs}
    trials = [name for name in names if name.startswith("stack-")]
    assert len(trials) == 4
    assert {names[name].info.status for name in trials} == {"FINISHED"}
    host = {"PGHOST": "127.0.0.1", "PGPORT": str(cluster.ports["postgres"])}
    count = "--command=SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
    done = cluster.run("sweep", str(postgresql("psql")), "--username=dlframe", "--dbname=sweeps", "-At", count, **host)
    assert done.stdout.strip() == "4", done.stderr
