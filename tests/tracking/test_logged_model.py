"""A logged model in the hands of somebody else: loaded, asked by MLflow's commands and over HTTP, installed elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from tests.conftest import until
from tests.services import free_port, kill_all

from dlframe.cli import main
from dlframe.runs.journal import Journal
from dlframe.storage.known import sqlite_file
from dlframe.tracking import UploadState, upload
from dlframe.tracking.store import quiet
from dlframe.tracking.uploader import use_store

ROOT = Path(__file__).parent.parent.parent
os.environ.update(quiet(os.environ))
IMAGES = np.array([np.full((1, 8, 8), 8), np.full((1, 8, 8), 200)], np.uint8)


@pytest.fixture(scope="module")
def run(default_run: tuple[subprocess.CompletedProcess, Path]) -> UploadState:
    return UploadState.load(default_run[1])


def model_of(run: UploadState) -> Any:
    from mlflow import MlflowClient

    (model,) = MlflowClient(run.uri).search_logged_models([run.experiment_id])
    return model


@pytest.mark.slow
def test_numbers_are_taken_as_people_have_them(run: UploadState, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    use_store(run.uri)
    by_run = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    model = mlflow.pyfunc.load_model(f"models:/{model_of(run).model_id}")
    expected = by_run.predict(IMAGES)["probabilities"]
    table = pandas.DataFrame({"image": IMAGES.tolist()})
    for images in (IMAGES, IMAGES.astype(np.float64), IMAGES.astype(np.int64), IMAGES.tolist(), {"image": IMAGES}, table):
        np.testing.assert_array_equal(model.predict(images)["probabilities"], expected)
    assert model.predict(IMAGES)["prediction"].tolist() == [str(k) for k in expected.argmax(1)]
    assert model.metadata.metadata["outputs"][0]["classes"] == [str(digit) for digit in range(10)]
    for wrong, said in (
        (IMAGES / 255, r"'image' must be uint8. Received: float64. Convert images from 0 to 1"),
        (IMAGES.astype(int) + 200, r"'image' must be from 0 to 255. Received: 208 to 400"),
        (pandas.DataFrame({"image": IMAGES.tolist(), "size": [8, 8]}), r"must be image. Received: image, size"),
    ):
        with pytest.raises(Exception, match=said):
            model.predict(wrong)


@pytest.fixture(scope="module")
def served(run: UploadState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve`, in another folder."""
    port, folder = free_port(), tmp_path_factory.mktemp("elsewhere")
    words = ["models", "serve", "-m", f"models:/{model_of(run).model_id}", "--env-manager", "local", "-p", str(port)]
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            cwd=folder,
            env={**os.environ, "MLFLOW_TRACKING_URI": run.uri, "PATH": paths},
            stdout=log,
            stderr=log,
        )

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    try:
        until(is_up, 120)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        kill_all(process)


def asked(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.slow
def test_mlflow_serves_it(served: str, run: UploadState) -> None:
    import mlflow

    use_store(run.uri)
    expected = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model").predict(IMAGES)
    for body in (
        {"inputs": IMAGES.tolist()},
        {"inputs": {"image": IMAGES.astype(float).tolist()}},
        {"dataframe_split": {"columns": ["image"], "data": [[image] for image in IMAGES.tolist()]}},
    ):
        found = asked(served, body)
        assert found["prediction"] == expected["prediction"].tolist()
        assert np.allclose(found["probabilities"], expected["probabilities"], atol=1e-6)
    with pytest.raises(urllib.error.HTTPError) as error:
        asked(served, {"inputs": (IMAGES / 255).tolist()})
    with error.value as answer:
        assert answer.code == 400
        assert "Convert images from 0 to 1 by (255 * x)" in answer.read().decode()


@pytest.mark.slow
def test_mlflow_predicts_with_it(run: UploadState, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"inputs": IMAGES.tolist()}))
    words = [
        "models",
        "predict",
        "-m",
        f"runs:/{run.run_id}/model",
        "--env-manager",
        "local",
        "-i",
        "in.json",
        "-o",
        "out.json",
    ]
    subprocess.run(
        [sys.executable, "-m", "mlflow", *words, "-o", "out.json"],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": run.uri},
        check=True,
        capture_output=True,
    )
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert [np.argmax(row) for row in found["probabilities"]] == [int(name) for name in found["prediction"]]


@pytest.mark.slow
def test_what_it_needs_can_be_installed(run: UploadState, tmp_path: Path) -> None:
    """As `build-docker` and `--env-manager virtualenv` do, by pip in the folder of the model; it resolves, and stops there."""
    from mlflow.artifacts import download_artifacts

    folder = Path(download_artifacts(f"models:/{model_of(run).model_id}", dst_path=str(tmp_path), tracking_uri=run.uri))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True)
    pip = [str(tmp_path / "fresh" / "bin" / "pip"), "install", "--dry-run", "--quiet", "--report", "report.json"]
    done = subprocess.run(
        [*pip, "-c", str(ROOT / "constraints.txt"), "-r", "requirements.txt"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    named = {item["metadata"]["name"] for item in json.loads((folder / "report.json").read_text())["install"]}
    assert {"dlframe", "torch", "mlflow", "lightning", "hydra-core"} <= named
    shutil.rmtree(tmp_path / "fresh")


def test_a_model_becomes_a_version_of_a_registered_one(run: UploadState, capsys: pytest.CaptureFixture[str]) -> None:
    import mlflow
    from mlflow import MlflowClient

    folder = next(path for path in Path(sqlite_file(run.uri) or "").parent.glob("cnn-digits-*") if path.is_dir())
    words = ["sync", str(folder)]
    for _ in range(2):
        assert main([*words, "register=The digits@champion"]) == 0
        said = capsys.readouterr().out.splitlines()[0]
        assert said == f"{folder}: uploaded, FINISHED; registered as The digits version 1, champion"
    use_store(run.uri)
    (version,) = MlflowClient(run.uri).search_model_versions("name = 'The digits'")
    assert version.run_id == run.run_id
    model = mlflow.pyfunc.load_model("models:/The digits@champion")
    assert model.predict(IMAGES)["prediction"].shape == (2,)
    for wrong in ("a/b", "x@", "x@latest", "x@V3", " ", "@a", "it's"):
        assert main([*words, f"register={wrong}"]) == 2
        assert capsys.readouterr().err.startswith("error: register: ")
    assert main(["sync", "register=x"]) == 2
    assert "register: requires one run directory. Received: 0." in capsys.readouterr().err


def test_a_run_registers_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    few = ["model=mlp", "epochs=1", "trainer.limit_batches=2", "figures=none", "register=small@new"]
    assert main(["-m", *few, "seed=0,1"]) == 2
    assert "Register one of them: python -m dlframe sync RUN register=small@new" in capsys.readouterr().err
    assert main([*few, "tracking=none"]) == 2
    assert "register: requires a tracker" in capsys.readouterr().err
    assert main(few) == 0
    assert "registered as small version 1, new" in capsys.readouterr().err
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (version,) = client.search_model_versions("name = 'small'")
    assert client.get_model_version_by_alias("small", "new").version == version.version


def test_a_run_of_somebody_else_registers_nothing(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "runs" / "gift"
    (folder / "model").mkdir(parents=True)
    side = [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]
    (folder / "model" / "signature.json").write_text(json.dumps({"inputs": side, "outputs": side}))
    book = Journal(folder)
    book.write("start", run_name="gift", experiment="x", parameters={}, tags={}, uri="sqlite")
    book.write("model", path="model", register="digits@champion")
    book.write("end", status="FINISHED", message="")
    book.close()
    assert "type register=digits@champion" in upload(folder)
    assert not MlflowClient(UploadState.load(folder).uri).search_registered_models()
