"""A run's exported model as a logged model of MLflow: its files are data, and what MLflow will run is dlframe's own loader."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from dlframe import __version__
from dlframe.runs import exported_model
from dlframe.runs.run_directory import MODEL
from dlframe.tracking.artifacts import RejectedRecord, opened, put

RECORD_TAG = "dlframe.record"


def log_model(
    client: MlflowClient, folder: Path, *, run_id: str, record: int, place_of: Callable[[str | None], str | Path]
) -> None:
    """Log the model folder of a run as a pyfunc model; a second call changes nothing.

    Args:
        client: Client of the store.
        folder: Run directory; may be untrusted.
        run_id: MLflow's run.
        record: End of the record in the journal, by which the model is found again.
        place_of: Returns where artifacts of a location go.

    Raises:
        RejectedRecord: The folder holds what a run does not export, or the model would go elsewhere.
    """
    names = model_files(folder)
    try:
        with opened(folder, f"{MODEL}/signature.json") as file:
            signature = read_signature(file.read(2**20))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RejectedRecord(f"{folder / MODEL / 'signature.json'}: {error}") from None
    run = client.get_run(run_id)
    place_of(run.info.artifact_uri)
    experiment = run.info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND tags.`{RECORD_TAG}` = '{record}'")
    model = found[0] if found else client.create_logged_model(experiment, "model", run_id, {RECORD_TAG: str(record)})
    if model.status == LoggedModelStatus.READY:
        return
    try:
        place = place_of(model.artifact_location)
    except RejectedRecord:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    described = Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id)
    described.signature = signature
    # pyfunc.save_model does the same, but scans every installed package for seconds.
    pyfunc.add_to_model(described, "dlframe.runs.exported_model", data="data", python_env="python_env.yaml")
    environment = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    put(place, "MLmodel", described.to_yaml().encode())
    put(place, "python_env.yaml", json.dumps(environment).encode())
    put(place, "requirements.txt", f"dlframe=={__version__}\nmlflow=={mlflow.__version__}\n".encode())
    for name in names:
        with opened(folder, f"{MODEL}/{name}") as file:
            put(place, f"data/{name}", file)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def model_files(run: Path) -> list[str]:
    """Return the files of the model folder of a run.

    Raises:
        RejectedRecord: One is none that a run exports.
    """
    folder = run / MODEL
    if folder.is_symlink() or not folder.is_dir():
        raise RejectedRecord(f"{folder} is not a folder of the run directory")
    names = sorted(os.listdir(folder))
    if other := next((name for name in names if name not in exported_model.FILES), None):
        raise RejectedRecord(f"{folder / other} is not a file of an exported model: {', '.join(exported_model.FILES)}")
    if "weights.safetensors" in names:
        with opened(run, f"{MODEL}/weights.safetensors") as file:
            header = file.read(9)
        if header[8:] != b"{":
            raise RejectedRecord(f"{folder / 'weights.safetensors'} is not in the format of safetensors")
    return names


def read_signature(content: bytes) -> ModelSignature:
    """Read MLflow's signature; a single input has no name, to accept arrays.

    {"inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 1, 8, 8]}], "outputs": ...}
    """
    sides = json.loads(content)
    inputs, outputs = sides["inputs"], sides["outputs"]
    if not all(re.fullmatch(r"\w+", column["dtype"]) for column in (*inputs, *outputs)):
        raise ValueError("a dtype must be a name")  # NumPy also parses comma-separated dtypes

    def schema(columns: list[dict[str, Any]], named: bool) -> Schema:
        return Schema([TensorSpec(np.dtype(c["dtype"]), tuple(c["shape"]), c["name"] if named else None) for c in columns])

    return ModelSignature(inputs=schema(inputs, len(inputs) > 1), outputs=schema(outputs, True))
