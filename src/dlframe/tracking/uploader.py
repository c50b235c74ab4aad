"""Upload of a run's journal to MLflow, each record once."""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import os
import platform
import re
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from filelock import FileLock
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils import rest_utils
from mlflow.utils.rest_utils import verify_rest_response

from dlframe import __version__
from dlframe.runs import exported_model, journal
from dlframe.runs.run_directory import MODEL, REPORT, artifact_folder
from dlframe.storage.known import is_known, runs_of, sqlite_file
from dlframe.tracking.artifacts import RejectedRecord, destination, opened, put
from dlframe.tracking.store import artifact_location
from dlframe.tracking.upload_state import UploadState, beginning, model_of, runs_of_study, seeds_of, study_of
from dlframe.types import DataError, DlframeError, TrackingError, say

Record = dict[str, Any]

METRICS_PER_CALL = 1000
PARAMETERS_PER_CALL = 25  # 25 values of 6,000 characters, each escaped to six bytes, stay below a request's 1 MB
PARAMETER_LENGTH = 6000
TAG_LENGTH = 8000
TAGS_PER_CALL = 100
KEY_TAG = "dlframe.key"
MESSAGE_TAG = "dlframe.message"
STATE_TAG = "dlframe.state"
PARENT_TAG = "mlflow.parentRunId"
RECORD_TAG = "dlframe.record"
LARGEST_ANSWER = 2**26
"""Bytes of a server's answer."""
FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
"""MLflow's error codes that a retry does not change."""


class Uploader:
    """Upload of one run; requires `tracker.lock`.

    Every request is idempotent, since a kill may come between MLflow's answer and saving the state: MLflow drops
    duplicate metrics, runs and models are searched by a tag before they are created, and artifacts are overwritten.

    Args:
        folder: Run directory.
        live: Whether the run continues: set it to RUNNING if an earlier process closed it as KILLED. A run that is not
            live may be untrusted.
    """

    def __init__(self, folder: Path, *, live: bool = False) -> None:
        self.folder = folder
        self.runs = runs_of(folder.resolve())
        self.study: Path | None = None
        self.live = live
        self.state = UploadState.load(folder)
        self.client: MlflowClient | None = None
        self.earlier: dict[tuple[str, int], float] = {}

    def try_upload(self, *, close: bool) -> bool:
        """Upload all pending records; with `close`, end an interrupted run as KILLED.

        Returns:
            Whether the upload succeeded. The state holds the reason of a failure.
        """
        try:
            self._advance()
            if close and self.state.status == "RUNNING" and self.client:
                self._end(self.client, {"status": "KILLED", "time": self.state.time}, 0)
                self.state.save(self.folder)
        except Exception as error:
            if (why := reason(error)) != self.state.error:
                self._log(traceback.format_exc())
                self.state.error = why
                with contextlib.suppress(DataError):  # a full disk
                    self.state.save(self.folder)
            self.client = None  # the next attempt checks first whether the store and the run still exist
            return False
        if self.state.error:
            self._log("uploads again")
            self.state.error = ""
            self.state.save(self.folder)
        return True

    def _advance(self) -> None:
        client = self.client or self._connect()
        if not client:
            return
        batch: list[tuple[Record, int]] = []
        points = 0
        for record, end in journal.follow(self.folder, self.state.offset):
            if record["kind"] == "metrics":
                batch.append((record, end))
                points += len(record["values"])
            if batch and (record["kind"] != "metrics" or points >= METRICS_PER_CALL):
                self._metrics(client, batch)
                batch, points = [], 0
            if record["kind"] != "metrics":
                self._event(client, record, end)
        if batch:
            self._metrics(client, batch)
        self._nest(client)

    def _nest(self, client: MlflowClient) -> None:
        """Tag the run as one of its study's, or of its model's in a comparison, once both are in the store.

        Nobody waits: a run that is there before its study is tagged by the study at its end.
        """
        if self.study and self.state.run_id and not self.state.parent:
            with contextlib.suppress(TrackingError):
                study = UploadState.load(model_of(self.folder, self.study) or self.study)
                if study.run_id and (study.uri, study.experiment_id) == (self.state.uri, self.state.experiment_id):
                    client.set_tag(self.state.run_id, PARENT_TAG, study.run_id)
                    self.state.parent = study.run_id
                    self.state.save(self.folder)

    def _nest_runs(self, client: MlflowClient) -> None:
        """Tag the runs of this study that were in the store before it, or the seeds of this model."""
        place = (self.state.uri, self.state.experiment_id)
        for folder in runs_of_study(self.folder):
            with contextlib.suppress(DlframeError, OSError):
                run = UploadState.load(folder)
                is_there = run.run_id and (run.uri, run.experiment_id) == place
                own = self.folder.resolve()
                if is_there and not run.parent and study_of(folder) == own and not model_of(folder, own):
                    client.set_tag(run.run_id, PARENT_TAG, self.state.run_id)
        for folder in seeds_of(self.folder):  # those of the study, for others belong to one of their own
            with contextlib.suppress(DlframeError, OSError):
                run = UploadState.load(folder)
                is_there = run.run_id and (run.uri, run.experiment_id) == place
                if is_there and study_of(folder) in (self.study, None):
                    client.set_tag(run.run_id, PARENT_TAG, self.state.run_id)

    def _connect(self) -> MlflowClient | None:
        """Return a client of the run's store; None for an untracked run."""
        start = beginning(self.folder)
        if not start:
            return None
        self.study = study_of(self.folder)
        database = sqlite_file(start["uri"])
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(start["uri"])
        # Two processes that create an SQLite store at once break the store.
        with FileLock(f"{database}.lock") if database else contextlib.nullcontext():
            client = MlflowClient(start["uri"])
            if self.state.uri != start["uri"] or self._removed(client):
                self.state = UploadState(uri=start["uri"], key=uuid.uuid4().hex)
            elif not self._on_record() or self._lost(client):
                self.state.offset = self.state.refused = 0  # what is uploaded twice is stored once
            if not self.state.run_id:
                self.state.experiment_id = self._experiment(client, start)
        if self.live and self.state.status == "KILLED":
            client.update_run(self.state.run_id, status="RUNNING")
            self.state.status = "RUNNING"
        self.state.save(self.folder)
        self.earlier = self._before_resume()
        self.client = client
        return client

    def _removed(self, client: MlflowClient) -> bool:
        """Return whether the run was deleted from the store."""
        if not self.state.run_id:
            return False
        try:
            run = client.get_run(self.state.run_id)
            return run.info.lifecycle_stage == "deleted" or run.data.tags.get(KEY_TAG) != self.state.key
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return True

    def _on_record(self) -> bool:
        """Return whether the state matches the journal."""
        delivered = (self.state.offset, self.state.time)
        return delivered == (0, 0) or any((end, r["time"]) == delivered for r, end in journal.follow(self.folder))

    def _lost(self, client: MlflowClient) -> bool:
        """Return whether the store lacks the last values that were uploaded, as after a crash of its disk."""
        uploaded: dict[str, tuple[int, set[float]]] = {}
        for record, end in journal.follow(self.folder):
            if end > self.state.offset:
                break
            for name, value in record["values"].items() if record["kind"] == "metrics" else ():
                step, values = uploaded.get(clean(name), (-1, set()))
                if record["step"] >= step:
                    uploaded[clean(name)] = (record["step"], {value} if record["step"] > step else {value, *values})
        if not self.state.run_id or not uploaded or self.state.refused:
            return False
        there = client.get_run(self.state.run_id).data.metrics
        lost = [
            name for name, (_, values) in uploaded.items() if all(map(math.isfinite, values)) and there.get(name) not in values
        ]
        if lost:
            self._log(f"the store lacks values of {', '.join(sorted(lost)[:5])} that were uploaded: all are uploaded again")
        return bool(lost)

    def _experiment(self, client: MlflowClient, start: Record) -> str:
        name = start["experiment"]
        found = client.get_experiment_by_name(name)
        if not found:
            location = artifact_location(self.state.uri, self.runs, str(name))
            try:
                return client.create_experiment(name, location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(name)  # another process has created it
            assert found
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _before_resume(self) -> dict[tuple[str, int], float]:
        """Return the values uploaded before the last resume, by name and step.

        A resumed run repeats the steps after its last checkpoint with equal values, which need no upload.
        """
        values: dict[tuple[str, int], float] = {}
        found: dict[tuple[str, int], float] = {}
        for record, end in journal.follow(self.folder):
            if end > self.state.offset:
                break
            if record["kind"] == "start":
                found = dict(values)
            elif record["kind"] == "metrics":
                values.update(((name, record["step"]), value) for name, value in record["values"].items())
        return found

    def _metrics(self, client: MlflowClient, batch: list[tuple[Record, int]]) -> None:
        metrics = [
            Metric(clean(name), value, record["time"], record["step"])
            for record, _ in batch
            for name, value in record["values"].items()
            if not same(self.earlier.get((name, record["step"])), value)
        ]
        try:
            for i in range(0, len(metrics), METRICS_PER_CALL):
                client.log_batch(self.state.run_id, metrics=metrics[i : i + METRICS_PER_CALL])
        except MlflowException as error:
            if not self._is_final(client, error):
                raise
            if len(batch) > 1:
                for item in batch:
                    self._metrics(client, [item])
                return
            self._refuse(batch[0][0], error)
        self._done(*batch[-1])

    def _event(self, client: MlflowClient, record: Record, end: int) -> None:
        actions = {"start": self._start, "artifact": self._artifact, "model": self._model, "end": self._end}
        if action := actions.get(record["kind"]):
            try:
                action(client, record, end)
            except RejectedRecord as error:
                self._refuse(record, error)
            except MlflowException as error:
                if record["kind"] == "start" or not self._is_final(client, error):
                    raise
                self._refuse(record, error)
        self._done(record, end)

    def _start(self, client: MlflowClient, record: Record, end: int) -> None:
        """Create the run, or continue it."""
        state = self.state
        kinds = {"time": int, "run_name": str, "tags": dict, "parameters": dict}
        if wrong := [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]:
            raise RejectedRecord(f"the run's start record has an invalid {', '.join(wrong)}")
        tags = {"mlflow.user": user(), "mlflow.source.type": "LOCAL", **record["tags"], KEY_TAG: state.key}
        if state.run_id:
            run = client.get_run(state.run_id)
            client.update_run(state.run_id, status="RUNNING")
            for tag in {MESSAGE_TAG, STATE_TAG} & run.data.tags.keys():
                client.delete_tag(state.run_id, tag)
        else:
            query = f"tags.`{KEY_TAG}` = '{state.key}'"
            found = client.search_runs([state.experiment_id], query, max_results=1)
            first = {name: tags[name] for name in ("mlflow.user", KEY_TAG)}
            run = found[0] if found else client.create_run(state.experiment_id, record["time"], first, record["run_name"])
            state.run_id = run.info.run_id
        state.status = "RUNNING"
        self._tags(client, tags)
        texts = {clean(name): str(value) for name, value in record["parameters"].items()}
        new = [Param(name, text[:PARAMETER_LENGTH]) for name, text in texts.items() if name not in run.data.params]
        for i in range(0, len(new), PARAMETERS_PER_CALL):
            client.log_batch(state.run_id, params=new[i : i + PARAMETERS_PER_CALL])
        if any(len(text) > PARAMETER_LENGTH for text in texts.values()):
            text = json.dumps(record["parameters"], indent=1).encode()
            with self._refusals(record):
                put(self._place(run.info.artifact_uri), "parameters.json", text)
        state.offset = end
        self.earlier = self._before_resume()

    def _tags(self, client: MlflowClient, tags: dict[str, Any]) -> None:
        rows = [RunTag(clean(name), str(value)[:TAG_LENGTH]) for name, value in tags.items() if value is not None]
        for i in range(0, len(rows), TAGS_PER_CALL):
            client.log_batch(self.state.run_id, tags=rows[i : i + TAGS_PER_CALL])

    def _artifact(self, client: MlflowClient, record: Record, end: int) -> None:
        path, target = record.get("path"), record.get("to")
        try:
            if target != artifact_folder(path):
                raise ValueError(f"{path!r} has its place in a store. Received: {target!r}")
            if path == REPORT and not is_known(study=self.folder.resolve()):
                raise ValueError(f"a page is that of a study of this user. Received: {path!r}")
        except ValueError as error:
            raise RejectedRecord(str(error)) from None
        with opened(self.folder, str(path)) as file:
            put(self._place(client.get_run(self.state.run_id).info.artifact_uri), str(path), file)

    def _model(self, client: MlflowClient, record: Record, end: int) -> None:
        """Log the model folder as a pyfunc model.

        What MLflow will run is dlframe's own loader, named here; what comes from the folder are files of data.
        """
        names = self._model_files(record.get("path"))
        try:
            with opened(self.folder, f"{MODEL}/signature.json") as file:
                signature = read_signature(file.read(2**20))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RejectedRecord(f"{self.folder / MODEL / 'signature.json'}: {error}") from None
        run_id = self.state.run_id
        self._place(client.get_run(run_id).info.artifact_uri)
        experiment = self.state.experiment_id
        query = f"source_run_id = '{run_id}' AND tags.`{RECORD_TAG}` = '{end}'"
        found = client.search_logged_models([experiment], query)
        model = found[0] if found else client.create_logged_model(experiment, "model", run_id, {RECORD_TAG: str(end)})
        if model.status == LoggedModelStatus.READY:
            return
        try:
            place = self._place(model.artifact_location)
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
            with opened(self.folder, f"{MODEL}/{name}") as file:
                put(place, f"data/{name}", file)
        outputs = client.get_run(run_id).outputs
        if model.model_id not in [o.model_id for o in (outputs.model_outputs if outputs else [])]:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _end(self, client: MlflowClient, record: Record, end: int) -> None:
        if message := record.get("message"):
            self._tags(client, {MESSAGE_TAG: message})
        if state := record.get("state"):
            self._tags(client, {STATE_TAG: state})
        self._nest_runs(client)
        client.set_terminated(self.state.run_id, record["status"], record["time"])
        self.state.status = record["status"]

    def _is_final(self, client: MlflowClient, error: MlflowException) -> bool:
        """Return whether a retry cannot change the error."""
        of_a_proxy = error.error_code == "BAD_REQUEST" and not isinstance(error, RestException)
        # MLflow rejects every request for a deleted run.
        return error.error_code in FINAL and not of_a_proxy and not self._removed(client)

    def _model_files(self, path: Any) -> list[str]:
        """Return the files of the model folder; `RejectedRecord` where one is none that a run exports."""
        folder = self.folder / MODEL
        if path != MODEL or folder.is_symlink() or not folder.is_dir():
            raise RejectedRecord(f"a run exports its model to {folder}, a folder. Received: {path!r}")
        names = sorted(os.listdir(folder))
        if other := next((name for name in names if name not in exported_model.FILES), None):
            raise RejectedRecord(f"{folder / other} is not a file of an exported model: {', '.join(exported_model.FILES)}")
        if "weights.safetensors" in names:
            with opened(self.folder, f"{MODEL}/weights.safetensors") as file:
                header = file.read(9)
            if header[8:] != b"{":
                raise RejectedRecord(f"{folder / 'weights.safetensors'} is not in the format of safetensors")
        return names

    def _place(self, location: str | None) -> str | Path:
        return destination(location, self.state.uri, self.runs)

    @contextlib.contextmanager
    def _refusals(self, record: Record) -> Iterator[None]:
        """Count a refused upload, and go on."""
        try:
            yield
        except RejectedRecord as error:
            self._refuse(record, error)

    def _refuse(self, record: Record, error: Exception) -> None:
        self.state.refused += 1
        self.state.reason = str(error)[:300] if isinstance(error, RejectedRecord) else reason(error)
        self._log(f"rejected {record['kind']}: {error}")

    def _done(self, record: Record, end: int) -> None:
        self.state.offset = end
        self.state.time = record["time"]
        self.state.save(self.folder)

    def _log(self, text: str) -> None:
        if self.live:
            with contextlib.suppress(OSError):  # a full disk
                say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", error=True)


def whole_answer(method: str, url: str, *arguments: Any, **options: Any) -> Any:
    """Return an answer of MLflow's server, of limited size. A redirect is an error: the user has typed the address."""
    answer = ask(method, url, *arguments, **{**options, "allow_redirects": False, "stream": True})
    if 300 <= answer.status_code < 400:
        answer.close()
        raise MlflowException(f"the server redirects to another address: {answer.headers.get('Location', '')[:200]!r}")
    content = bytearray()
    for part in answer.iter_content(2**16):
        content += part
        if len(content) > LARGEST_ANSWER:
            answer.close()
            raise MlflowException(f"the server's answer has more than {LARGEST_ANSWER:,} bytes")
    answer._content = bytes(content)
    return answer


def verify_not_empty(response: Any, endpoint: str, expected_status: int = 200) -> Any:
    """Verify a response as MLflow does, but reject an empty one.

    MLflow's server never sends an empty response; a truncated one looks empty.
    """
    if response.status_code == 200 and not response.content:
        raise MlflowException(f"{endpoint}: empty response")
    return verify_rest_response(response, endpoint, expected_status)


rest_utils.verify_rest_response = verify_not_empty
ask = rest_utils._get_http_response_with_retries
rest_utils._get_http_response_with_retries = whole_answer


def clean(name: str) -> str:
    """Return a name that MLflow accepts: "precision@10" as "precision_10"."""
    return re.sub(r"[^\w.\- :/]", "_", name)[:250]


def same(first: float | None, second: float) -> bool:
    """Return whether two values are equal; NaN equals NaN."""
    return first == second or (first is not None and first != first and second != second)


def user() -> str:
    """Return the user's name; "unknown" without one, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def reason(error: BaseException) -> str:
    """Return the reason of an error in one line, that of the OS if possible."""
    cause: BaseException | None = error
    while cause:
        for item in (cause, *cause.args):  # urllib3 passes some causes as an argument
            if isinstance(item, OSError) and item.strerror:
                return f"{item.strerror}: {item.filename}" if item.filename else item.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


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
