"""A run's exported model as a logged model of MLflow: its files are data, and what MLflow will run is dlframe's own loader."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from dlframe import __version__
from dlframe.registry.plugins import PACKAGE, PACKAGED_CONF
from dlframe.runs import exported_model
from dlframe.runs.run_directory import MODEL
from dlframe.tracking.content.artifacts import RejectedRecord, opened, put
from dlframe.types import printable, read_bytes

RECORD_TAG = "dlframe.record"
MODEL_TAG = "dlframe.model"
"""Tag of a version of a registered model with the identifier of its logged model."""
LARGEST_SIGNATURE = 2**22
LARGEST_SOURCE = 2**24
"""Bytes of signature.json, which has the names of classes."""
MIDNIGHT = (1980, 1, 1, 0, 0, 0)
"""Time of the files in a wheel, so that the same files make the same wheel."""


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
            content = file.read(LARGEST_SIGNATURE)
        signature, described_as = read_signature(content), description(content)
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
    described.signature, described.metadata = signature, described_as
    # pyfunc.save_model does the same, but scans every installed package for seconds.
    environments = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
    pyfunc.add_to_model(described, "dlframe.runs.exported_model", data="data", **environments)
    put(place, "MLmodel", described.to_yaml().encode())
    for name, content in environment().items():
        put(place, name, content)
    for name in names:
        with opened(folder, f"{MODEL}/{name}") as file:
            put(place, f"data/{name}", file)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def register(client: MlflowClient, *, run_id: str, name: str) -> str:
    """Make the model of a run a version of a registered model; a second call changes nothing.

    Args:
        client: Client of the store.
        run_id: MLflow's run.
        name: NAME, or NAME@ALIAS, which gives the version this alias.

    Returns:
        What was done, in a few words.

    Raises:
        MlflowException: The run has no model in the store yet, or there is no registry.
    """
    own, _, alias = name.partition("@")
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    ready = [model for model in logged if model.status == LoggedModelStatus.READY]
    if not ready:
        raise MlflowException("the run has no model in the store yet")
    model = max(ready, key=lambda model: model.creation_timestamp)
    try:
        client.create_registered_model(own)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tag = {MODEL_TAG: model.model_id}
    found = [v for v in client.search_model_versions(f"name = '{own}'") if tag.items() <= v.tags.items()]
    version = (
        found[0]
        if found
        else client.create_model_version(
            own, f"models:/{model.model_id}", run_id, tag, model_id=model.model_id, await_creation_for=0
        )
    )
    if alias:
        client.set_registered_model_alias(own, alias, str(version.version))
    return f"registered as {own} version {version.version}" + (f", {alias}" if alias else "")


@cache
def environment() -> dict[str, bytes]:
    """Return the files that say what a model needs; dlframe itself as a wheel where it was installed from a folder."""
    own, files = f"dlframe=={__version__}", {}
    if not _is_published():
        own = f"wheels/dlframe-{__version__}-py3-none-any.whl"
        files[own] = wheel()
    # A build such as +cpu is not in the usual index.
    others = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in ("mlflow", "torch")]
    python = platform.python_version()
    dependencies = [f"python={python}", "pip", {"pip": ["-r requirements.txt"]}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": dependencies}
    return files | {
        "requirements.txt": "\n".join([own, *others, ""]).encode(),
        "python_env.yaml": yaml.safe_dump({"python": python, "dependencies": ["-r requirements.txt"]}).encode(),
        "conda.yaml": yaml.safe_dump(conda).encode(),
    }


def _is_published() -> bool:
    """Return whether dlframe was installed from an index, where others find it: of other sources pip keeps the address."""
    try:
        files = importlib.metadata.distribution("dlframe").files
        return files is not None and not any(file.name == "direct_url.json" for file in files)
    except importlib.metadata.PackageNotFoundError:
        return False


def wheel() -> bytes:
    """Return a wheel of this installation: what its index does not have, another machine could not install."""
    files = {f"dlframe/{path.relative_to(PACKAGE).as_posix()}": path for path in sorted(PACKAGE.rglob("*"))}
    files |= {f"dlframe/conf/{path.relative_to(PACKAGED_CONF).as_posix()}": path for path in sorted(PACKAGED_CONF.rglob("*"))}
    files = {name: path for name, path in files.items() if path.is_file() and "__pycache__" not in path.parts}
    contents = {name: read_bytes(path, LARGEST_SOURCE) for name, path in files.items()}
    folder = f"dlframe-{__version__}.dist-info"
    contents[f"{folder}/METADATA"] = _metadata().encode()
    contents[f"{folder}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: dlframe\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items())
    contents[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, MIDNIGHT), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _metadata() -> str:
    try:
        found = importlib.metadata.distribution("dlframe").metadata
    except importlib.metadata.PackageNotFoundError:
        found = None
    return str(found) if found else f"Metadata-Version: 2.1\nName: dlframe\nVersion: {__version__}\n"


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


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
    """Read MLflow's signature, of the outputs: inputs are checked by the model.

    By a signature of inputs, MLflow would refuse lists and numbers of another type, and cut floats in JSON to whole numbers.

    {"inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 1, 8, 8]}], "outputs": ...}
    """
    sides = json.loads(content)
    columns = [(c["name"], c["dtype"], tuple(c["shape"])) for c in sides["outputs"]]
    if not columns or not all(re.fullmatch(r"\w+", c["dtype"]) for c in (*sides["inputs"], *sides["outputs"])):
        raise ValueError("must have outputs, and a dtype must be a name")  # NumPy also parses comma-separated dtypes
    return ModelSignature(outputs=Schema([TensorSpec(np.dtype(dtype), shape, name) for name, dtype, shape in columns]))


def description(content: bytes) -> dict[str, list[dict[str, Any]]]:
    """Read what a model takes and gives, for its metadata in MLflow: name, type and shape of each column, and its classes."""
    return {
        side: [
            {
                "name": printable(str(column["name"])),
                "dtype": printable(str(column["dtype"])),
                "shape": [int(length) for length in column["shape"]],
                **({"classes": [printable(str(name)) for name in column["classes"]]} if column.get("classes") else {}),
            }
            for column in columns
        ]
        for side, columns in json.loads(content).items()
        if side in ("inputs", "outputs")
    }
