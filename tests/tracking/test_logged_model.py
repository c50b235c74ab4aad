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

from dlframe.tracking import UploadState
from dlframe.tracking.store import quiet

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

    mlflow.set_tracking_uri(run.uri)
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

    mlflow.set_tracking_uri(run.uri)
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
