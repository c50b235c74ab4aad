"""Upload of a run's journal to MLflow, each record once, in two lanes: numbers and status never wait for files."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import http.client
import json
import math
import os
import posixpath
import re
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils import rest_utils
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import verify_rest_response

from dlframe.config import check_registered
from dlframe.config.run_config import STORE_VARIABLE
from dlframe.runs import journal
from dlframe.runs.run_directory import MODEL, REPORT, artifact_folder
from dlframe.storage.known import is_known, runs_of, sqlite_file
from dlframe.tracking.content.artifacts import RejectedRecord, artifact_location, destination, opened, put
from dlframe.tracking.content.descriptions import DESCRIBED_TAG, NOTE_TAG, chosen, data_of, digest, note
from dlframe.tracking.content.models import log_model, register
from dlframe.tracking.content.system_metrics import SystemMetrics
from dlframe.tracking.database import prepared
from dlframe.tracking.upload_state import TRIES, UploadState, beginning, model_of, runs_of_study, seeds_of, study_of
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
RUN_VARIABLE = "MLFLOW_RUN_ID"
"""MLflow's environment variable of a run that a platform has made for a training."""
PARENT_TAG = "mlflow.parentRunId"
REGISTER = "register="
"""Beginning of the name by which a registration waits with the files."""
PARAMETERS = "parameters.json"
"""File of all parameters, where a value is longer than the store takes."""
EXPERIMENTS = 100
"""Deleted experiments of a name that are passed over."""
SHORTER = {"params": (500, 250), "tags": (5000, 500)}
"""Lengths that older and other servers take, of a value that they have refused."""
LARGEST_ANSWER = 2**26
"""Bytes of a server's answer."""
FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
"""MLflow's error codes that a retry does not change."""
PASSING = {408, 425, 429}
"""HTTP's statuses of a client's error that a retry may change."""


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
        self.names = Names()
        self.notes: list[str] = []
        self.changing = threading.RLock()
        self.sending = False
        self.sent = 0
        self.system: SystemMetrics | None = None
        self.registered = ""

    def try_upload(self, *, close: bool) -> bool:
        """Upload all pending records; with `close`, end an interrupted run as KILLED.

        Returns:
            Whether the upload succeeded. The state holds the reason of a failure.
        """
        try:
            self._advance()
            if close and self.state.status == "RUNNING" and self.client:
                self._end(self.client, {"status": "KILLED", "time": self.state.time}, 0)
                with self.changing:
                    self.state.save(self.folder)
        except Exception as error:
            if (why := reason(error)) != self.state.error:
                self._log(traceback.format_exc())
                with contextlib.suppress(DataError), self.changing:  # a full disk
                    self.state.error = why
                    self.state.save(self.folder)
            self.client = None  # the next attempt checks first whether the store and the run still exist
            return False
        if self.state.error:
            self._log("uploads again")
            with self.changing:
                self.state.error = ""
                self.state.save(self.folder)
        return True

    def try_files(self, *, again: bool = False) -> bool:
        """Upload the files that wait, each once, if the numbers arrive; may run in another thread than `try_upload`.

        Args:
            again: Try those that are set aside too.

        Returns:
            Whether none waits any longer.
        """
        state = self.state
        for path, file in [*state.files.items()]:
            client = self.client
            if not client or not state.run_id or state.error or state is not self.state:
                break
            if again:
                file.update(tries=0, is_final=False)
            if not file["is_final"] and file["tries"] < TRIES:
                self._try_file(client, state, path, file)
        return not state.waiting()

    def register(self, name: str) -> None:
        """Have the model of the run registered, as the user has asked now."""
        self.registered = name
        with self.changing:
            self._add_file(f"{REGISTER}{name}", {"kind": "register"}, self.state.offset)

    def is_waiting(self) -> bool:
        """Return whether files wait for their upload; that the last one does not is on disk then."""
        with self.changing:
            return bool(self.state.waiting())

    def retry_files(self) -> None:
        """Give the files once more a try that were set aside for what may have passed."""
        with self.changing:
            for file in self.state.files.values():
                file["tries"] = min(file["tries"], TRIES - 1)

    def _try_file(self, client: MlflowClient, state: UploadState, path: str, file: Record) -> None:
        self.sending = True
        try:
            self._file(client, path, file)
            failure = None
        except Exception as error:
            failure = error
        finally:
            self.sending = False
        with self.changing:
            if state is not self.state or state.files.get(path) is not file:
                return  # the run was deleted, or the file written again
            if failure is None or isinstance(failure, RejectedRecord):
                del state.files[path]
                self.sent += 1
            if isinstance(failure, RejectedRecord):
                self._refuse(file, failure)
            elif failure:
                file.update(tries=file["tries"] + 1, is_final=is_final(failure), why=reason(failure))
                self._log(f"{path}: {file['why']}")
            with contextlib.suppress(DataError):  # a full disk
                state.save(self.folder)

    def _file(self, client: MlflowClient, path: str, file: Record) -> None:
        run_id = self.state.run_id
        if file["kind"] == "model":
            log_model(client, self.folder, run_id=run_id, record=file["end"], place_of=self._place)
            return
        if file["kind"] == "register":
            self._register(client, path.removeprefix(REGISTER))
            return
        place = self._place(client.get_run(run_id).info.artifact_uri)
        if path == PARAMETERS:
            put(place, path, json.dumps((beginning(self.folder) or {})["parameters"], indent=1).encode())
            return
        check_artifact(self.folder, path)
        with opened(self.folder, path) as content:
            put(place, path, content)

    def _register(self, client: MlflowClient, name: str) -> None:
        """Register the model under a name that the user has typed, now or for a run of this user."""
        try:
            check_registered(name)
        except DlframeError as error:
            raise RejectedRecord(str(error)) from None
        if name != self.registered and not is_known(run=self.folder):
            raise RejectedRecord(f"register: the run is not one of yours. To register its model, type register={name}")
        self._note(register(client, run_id=self.state.run_id, name=name))

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
        self._measured(client)
        self._nest(client)

    def _measured(self, client: MlflowClient) -> None:
        """Send what was measured of the machine."""
        if not self.system:
            return
        waiting = self.system.take()
        try:
            for i in range(0, len(waiting), METRICS_PER_CALL):
                self._log_batch(client, "metrics", waiting[i : i + METRICS_PER_CALL])
        except Exception:
            self.system.put_back(waiting)  # what is sent twice is stored once
            raise

    def _nest(self, client: MlflowClient) -> None:
        """Tag the run as one of its study's, or of its model's in a comparison, once both are in the store.

        Nobody waits: a run that is there before its study is tagged by the study at its end.
        """
        if self.study and self.state.run_id and not self.state.parent:
            with contextlib.suppress(TrackingError):
                study = UploadState.load(model_of(self.folder, self.study) or self.study)
                if study.run_id and (study.uri, study.experiment_id) == (self.state.uri, self.state.experiment_id):
                    client.set_tag(self.state.run_id, PARENT_TAG, study.run_id)
                    with self.changing:
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
        use_store(start["uri"])
        with prepared(database) if database else contextlib.nullcontext("") as note, self.changing:
            client = MlflowClient(start["uri"])
            if self.state.uri != start["uri"] or self._removed(client):
                self.state = UploadState(uri=start["uri"], key=uuid.uuid4().hex)
            elif not self._on_record() or self._lost(client):
                self.state.offset = self.state.refused = 0  # what is uploaded twice is stored once
            self._note(note)
            if not self.state.run_id and (run := self._run_of_the_platform(client)):
                client.set_tag(run.info.run_id, KEY_TAG, self.state.key)
                self.state.run_id, self.state.experiment_id = run.info.run_id, run.info.experiment_id
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

    def _run_of_the_platform(self, client: MlflowClient) -> Run | None:
        """Return the run that MLFLOW_RUN_ID names where this process was started, unless it is that of another training."""
        identifier = os.environ.get(RUN_VARIABLE)
        if not identifier or not self.live:
            return None
        run = None
        try:
            run = client.get_run(identifier)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        if not run or run.info.lifecycle_stage == "deleted":
            self._note(f"{RUN_VARIABLE}: the store has no run {identifier!r}, so that a new one is made")
            return None
        return run if run.data.tags.get(KEY_TAG, self.state.key) == self.state.key else None

    def _on_record(self) -> bool:
        """Return whether the state matches the journal."""
        delivered = (self.state.offset, self.state.time)
        return delivered == (0, 0) or any((end, r["time"]) == delivered for r, end in journal.follow(self.folder))

    def _lost(self, client: MlflowClient) -> bool:
        """Return whether an SQLite store lacks the last values that were uploaded, as after a crash of its disk."""
        if not sqlite_file(self.state.uri):
            return False  # a server keeps what it has taken
        uploaded: dict[str, tuple[int, set[float]]] = {}
        names = Names()
        for record, end in journal.follow(self.folder):
            if end > self.state.offset:
                break
            own = record["values"] if record["kind"] == "metrics" else {}
            names.add(own)
            for name, value in own.items():
                step, values = uploaded.get(names[name], (-1, set()))
                if record["step"] >= step:
                    uploaded[names[name]] = (record["step"], {value} if record["step"] > step else {value, *values})
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
        """Return the experiment of the run; beside a deleted one, whose runs would come back with it, one with a number."""
        wanted = str(start["experiment"])
        for number in range(1, EXPERIMENTS):
            name = f"{wanted}-{number}" if number > 1 else wanted
            found = client.get_experiment_by_name(name)
            if not found:
                try:
                    found_id = client.create_experiment(name, artifact_location(self.state.uri, self.runs, name))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = client.get_experiment_by_name(name)  # another process has created it
                    assert found
                else:
                    break
            if found.lifecycle_stage != "deleted":
                found_id = found.experiment_id
                break
        else:
            raise TrackingError(f"experiment_name: {EXPERIMENTS} experiments of the name {wanted!r} are deleted in MLflow")
        if name != wanted:
            self._note(f"experiment {wanted!r} is deleted in MLflow: the run is in {name!r}")
        return found_id

    def _note(self, note: str) -> None:
        self.notes += [note] if note and note not in self.notes else []
        self.state.note = "; ".join(self.notes)

    def _before_resume(self) -> dict[tuple[str, int], float]:
        """Return the values uploaded before the last resume, by name and step.

        A resumed run repeats the steps after its last checkpoint with equal values, which need no upload.
        """
        values: dict[tuple[str, int], float] = {}
        found: dict[tuple[str, int], float] = {}
        self.names = Names()
        for record, end in journal.follow(self.folder):
            if end > self.state.offset:
                break
            if record["kind"] == "start":
                found = dict(values)
            elif record["kind"] == "metrics":
                self.names.add(record["values"])
                values.update(((name, record["step"]), value) for name, value in record["values"].items())
        return found

    def _metrics(self, client: MlflowClient, batch: list[tuple[Record, int]]) -> None:
        for record, _ in batch:
            self.names.add(record["values"])
        metrics = [
            Metric(self.names[name], value, record["time"], record["step"])
            for record, _ in batch
            for name, value in record["values"].items()
            if not same(self.earlier.get((name, record["step"])), value)
        ]
        for i in range(0, len(metrics), METRICS_PER_CALL):
            self._log_batch(client, "metrics", metrics[i : i + METRICS_PER_CALL])
        self._done(*batch[-1])

    def _log_batch(self, client: MlflowClient, kind: str, rows: list[Any]) -> bool:
        """Log rows together; where the server refuses them, by halves, so that those are left out alone which it refuses.

        Returns:
            Whether all are logged as they are: values of parameters and tags are cut where the server takes shorter ones.
        """
        if not rows:
            return True
        try:
            metrics, params, tags = (rows if kind == own else () for own in ("metrics", "params", "tags"))
            client.log_batch(self.state.run_id, metrics, params, tags)
        except MlflowException as error:
            if not self._is_final(client, error):
                raise
            if len(rows) > 1:
                half = len(rows) // 2
                parts = [self._log_batch(client, kind, part) for part in (rows[:half], rows[half:])]
                return all(parts)
            row = rows[0]
            if length := next((length for length in SHORTER.get(kind, ()) if len(row.value) > length), 0):
                self._log_batch(client, kind, [type(row)(row.key, row.value[:length])])
            else:
                self._refuse({"kind": f"{kind}: {row.key}"}, error)
            return False
        return True

    def _event(self, client: MlflowClient, record: Record, end: int) -> None:
        actions = {
            "start": self._start,
            "artifact": self._wait,
            "model": self._wait,
            "description": self._describe,
            "end": self._end,
        }
        if action := actions.get(record["kind"]):
            try:
                action(client, record, end)
            except RejectedRecord as error:
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
        self._log_data(client, record)
        if self.live and record.get("system_metrics") is True and not self.system:
            self.system = SystemMetrics(state.run_id, record["time"])
        parameters, names = chosen(record["parameters"]), Names()
        names.add(parameters)
        texts = {names[name]: str(value) for name, value in parameters.items()}
        new = [Param(name, text[:PARAMETER_LENGTH]) for name, text in texts.items() if name not in run.data.params]
        parts = [new[i : i + PARAMETERS_PER_CALL] for i in range(0, len(new), PARAMETERS_PER_CALL)]
        are_whole = [self._log_batch(client, "params", part) for part in parts]
        if not all(are_whole) or any(len(text) > PARAMETER_LENGTH for text in texts.values()):
            self._add_file(PARAMETERS, record, end)
        state.offset = end
        self.earlier = self._before_resume()

    def _log_data(self, client: MlflowClient, record: Record) -> None:
        """Log the data of the run; a server that knows no data sets has the fingerprint in a tag."""
        try:
            if found := data_of(record):
                client.log_inputs(self.state.run_id, [found])
        except RejectedRecord as error:
            self._refuse(record, error)
        except MlflowException as error:
            if not (self._is_final(client, error) or is_final(error)):
                raise
            self._refuse({"kind": "data"}, error)

    def _describe(self, client: MlflowClient, record: Record, end: int) -> None:
        """Describe the run, unless the user has."""
        text = note(record, self.folder, self.state.run_id)
        tags = client.get_run(self.state.run_id).data.tags
        there = tags.get(NOTE_TAG)
        if not there or digest(there) == tags.get(DESCRIBED_TAG):
            self._tags(client, {NOTE_TAG: text, DESCRIBED_TAG: digest(text)})

    def _tags(self, client: MlflowClient, tags: dict[str, Any]) -> None:
        names = Names()
        names.add(tags)
        rows = [RunTag(names[name], str(value)[:TAG_LENGTH]) for name, value in tags.items() if value is not None]
        for i in range(0, len(rows), TAGS_PER_CALL):
            self._log_batch(client, "tags", rows[i : i + TAGS_PER_CALL])

    def _wait(self, client: MlflowClient, record: Record, end: int) -> None:
        """Let a file wait for its upload."""
        path: Any = record.get("path")
        if record["kind"] == "model":
            if path != MODEL:
                raise RejectedRecord(f"a run exports its model to {self.folder / MODEL}, a folder. Received: {path!r}")
        elif (target := record.get("to")) != check_artifact(self.folder, path):
            raise RejectedRecord(f"{path!r} has its place in a store. Received: {target!r}")
        self._add_file(path, record, end)
        if record["kind"] == "model" and (name := record.get("register")):
            self._add_file(f"{REGISTER}{name}", {"kind": "register"}, end)

    def _add_file(self, path: str, record: Record, end: int) -> None:
        with self.changing:
            self.state.files[path] = {"kind": record["kind"], "end": end, "tries": 0, "is_final": False, "why": ""}

    def _end(self, client: MlflowClient, record: Record, end: int) -> None:
        if message := record.get("message"):
            self._tags(client, {MESSAGE_TAG: message})
        if state := record.get("state"):
            self._tags(client, {STATE_TAG: state})
        if self.system:
            self.system.finish()
            self._measured(client)
            self.system = None
        self._nest_runs(client)
        client.set_terminated(self.state.run_id, record["status"], record["time"])
        self.state.status = record["status"]

    def _is_final(self, client: MlflowClient, error: MlflowException) -> bool:
        """Return whether a retry cannot change the error."""
        of_a_proxy = error.error_code == "BAD_REQUEST" and not isinstance(error, RestException)
        is_refused = (error.error_code in FINAL and not of_a_proxy) or status_of(
            error
        ) == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        # MLflow rejects every request for a deleted run.
        return is_refused and not self._removed(client)

    def _place(self, location: str | None) -> str | Path:
        return destination(location, self.state.uri, self.runs)

    def _refuse(self, record: Record, error: Exception) -> None:
        with self.changing:
            self.state.refused += 1
            self.state.reason = str(error)[:300] if isinstance(error, RejectedRecord) else reason(error)
        self._log(f"rejected {record['kind']}: {error}")

    def _done(self, record: Record, end: int) -> None:
        with self.changing:
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

    MLflow's server never sends an empty response; a truncated one looks empty. An error has the HTTP status.
    """
    if response.status_code == 200 and not response.content:
        raise MlflowException(f"{endpoint}: empty response")
    try:
        return verify_rest_response(response, endpoint, expected_status)
    except MlflowException as error:
        vars(error)["http_status"] = response.status_code
        raise


rest_utils.verify_rest_response = verify_not_empty
ask = rest_utils._get_http_response_with_retries
rest_utils._get_http_response_with_retries = whole_answer


def use_store(uri: str) -> None:
    """Make a store MLflow's own in this process, but not in its environment, where the user's next run would find it."""
    before = os.environ.get(STORE_VARIABLE)
    mlflow.set_tracking_uri(uri)
    os.environ.pop(STORE_VARIABLE, None)
    os.environ.update({STORE_VARIABLE: before} if before else {})


def call(uri: str, what: str, request: Record) -> Record:
    """Call a server's REST API by MLflow's client."""
    endpoint = f"/api/2.0/mlflow/{what}"
    answer = rest_utils.http_request(get_default_host_creds(uri), endpoint, "POST", json=request)
    return verify_not_empty(answer, endpoint).json()


def is_answered(uri: str) -> bool:
    """Return whether a server answers as MLflow's does, and takes the user."""
    try:
        return isinstance(call(uri, "experiments/search", {"max_results": 1}), dict)
    except Exception:
        return False


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a server's answer; 0 for none."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    return getattr(error, "http_status", 0)


def is_final(error: BaseException) -> bool:
    """Return whether a retry in some seconds cannot change that a file is not uploaded."""
    status = status_of(error)
    return (400 <= status < 500 and status not in PASSING) or status == http.HTTPStatus.NOT_IMPLEMENTED


def check_artifact(folder: Path, path: Any) -> str:
    """Return the folder of the store for a file of a run.

    Raises:
        RejectedRecord: A run writes no such file.
    """
    try:
        target = artifact_folder(path)
    except ValueError as error:
        raise RejectedRecord(str(error)) from None
    if path == REPORT and not is_known(study=folder.resolve()):
        raise RejectedRecord(f"a page is that of a study of this user. Received: {path!r}")
    return target


class Names(dict[str, str]):
    """Names as MLflow holds them, one for each of ours: "precision@10" as "precision_10"."""

    def add(self, names: Mapping[str, Any]) -> None:
        """Add names; those that MLflow takes as they are come first."""
        for name in sorted(names, key=lambda name: (clean(name) != name, name)):
            if name not in self:
                found = clean(name)
                if found in self.values():  # of another name
                    found = f"{found[:240]}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
                self[name] = found


def clean(name: str) -> str:
    """Return a name that MLflow accepts: of its characters, of at most 250 of them, and no path that leads elsewhere."""
    name = re.sub(r"[^\w.\- :/]", "_", name)[:250]
    is_plain = posixpath.normpath(name) == name and not re.match(r"/|\.\.|\.$", name)
    return name if is_plain else re.sub(r"^\.*$|^\.+|/", "_", name)


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
    retried = re.search(r"too many (\d{3}) error responses", str(error))  # urllib3's words
    if (status := int(retried[1]) if retried else status_of(error)) and not isinstance(error, RestException):
        return f"the server answers {status} {http.client.responses.get(status, '')}".strip()
    while cause:
        for item in (cause, *cause.args):  # urllib3 passes some causes as an argument
            if isinstance(item, OSError) and item.strerror:
                return f"{item.strerror}: {item.filename}" if item.filename else item.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
