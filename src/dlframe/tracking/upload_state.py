"""Upload state of a run's journal."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from dlframe.runs import journal
from dlframe.storage.known import STUDIES, is_known, runs_of, store_uri, stored_uri
from dlframe.types import TrackingError, command_line, read_text, replacing

FILE = "tracking.json"
LOCK = ".tracking.lock"
LOG = "tracking.log"
TRIES = 5
"""Failed uploads of a file after which it is set aside."""
FILE_FIELDS = {"kind": str, "end": int, "tries": int, "is_final": bool, "why": str}


@dataclass
class UploadState:
    """Content of `tracking.json` in a run directory.

    Attributes:
        uri: Store of the run.
        key: Tag that finds a run whose creation was interrupted before `run_id` was saved.
        experiment_id: MLflow's.
        run_id: MLflow's.
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED; empty before the run exists.
        offset: Bytes of the journal that are uploaded.
        time: Time of the last uploaded record, in ms since the epoch.
        parent: MLflow's run of the study that the run is tagged with; empty for none yet.
        refused: Number of records that MLflow rejected; `reason` is that of the last one.
        error: Reason why the last attempt failed; empty after a success.
        note: What was mended or chosen when the store was opened.
        files: Files and folders of the run that are not uploaded yet: their kind, the end of their record in the journal, the
            number of failed uploads, whether a retry cannot change that, and why.
    """

    uri: str = ""
    key: str = ""
    experiment_id: str = ""
    run_id: str = ""
    status: str = ""
    offset: int = 0
    time: int = 0
    parent: str = ""
    refused: int = 0
    reason: str = ""
    error: str = ""
    note: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> UploadState:
        """Read the state of a run directory; new if nothing is uploaded yet.

        Raises:
            TrackingError: The file is damaged.
        """
        path = folder / FILE
        for name in (FILE, LOCK, LOG):
            if os.path.lexists(own := folder / name) and (own.is_symlink() or not own.is_file()):
                rule = "must not be a link" if own.is_symlink() else "must be a file"
                raise TrackingError(f"{own} {rule}. Remove it")
        try:
            state = cls(**json.loads(read_text(path, 2**20, inside=folder)))
            if state.is_sound():
                return replace(state, uri=store_uri(state.uri, runs_of(folder.resolve()))) if state.uri == "sqlite" else state
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise TrackingError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (ValueError, TypeError, RecursionError):
            pass
        raise TrackingError(f"{path} is damaged. Remove it to upload the run again, as a new one")

    def is_sound(self) -> bool:
        """Return whether every value has its type; the key becomes part of a query."""
        kinds = all(type(value) is type(default) for value, default in zip(astuple(self), astuple(UploadState()), strict=True))
        files = all(
            file.keys() == FILE_FIELDS.keys() and all(type(file[name]) is kind for name, kind in FILE_FIELDS.items())
            for file in self.files.values()
        )
        return kinds and files and 0 <= self.offset < 2**63 and re.fullmatch("[0-9a-f]*", self.key) is not None

    def waiting(self) -> list[str]:
        """Return the files that are still tried; the others are set aside."""
        return [path for path, file in self.files.items() if not file["is_final"] and file["tries"] < TRIES]

    def save(self, folder: Path) -> None:
        """Replace the file atomically."""
        values = {**asdict(self), "uri": stored_uri(self.uri, runs_of(folder.resolve()))}
        with replacing(folder / FILE, folder) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())


def beginning(folder: Path) -> dict[str, Any] | None:
    """Return the journal's last "start" with a store; None for an untracked run."""
    starts = [record for record, _ in journal.follow(folder) if record["kind"] == "start" and store_of(record, folder)]
    return {**starts[-1], "uri": store_of(starts[-1], folder)} if starts else None


def study_of(folder: Path) -> Path | None:
    """Return the folder of the study whose trial a run is, or a study of further seeds; both are of this user; else None."""
    name = (beginning(folder) or {}).get("study")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.=+-]{1,100}", name):
        return None
    study = runs_of(folder.resolve()) / STUDIES / name
    own = is_known(run=folder) or is_known(study=folder.resolve())
    return study if own and is_known(study=study) and study != folder.resolve() else None


def runs_of_study(folder: Path) -> list[Path]:
    """Return the folders that are named like trials of a study of this user, or studies of its further seeds."""
    if not is_known(study=folder.resolve()):
        return []
    runs, name = runs_of(folder), glob.escape(folder.name)
    found = [*runs.glob(f"{name}-*/{FILE}"), *runs.glob(f"{STUDIES}/{name}-*/{FILE}")]
    return sorted(path.parent for path in found)


def seeds_of(folder: Path) -> list[Path]:
    """Return the runs of the model that a folder of a comparison stands for; none of another folder, or of another user's."""
    tags = (beginning(folder) or {}).get("tags")
    names = tags.get("dlframe.seeds") if isinstance(tags, dict) else None
    if not isinstance(names, str) or not is_known(study=folder.resolve()):
        return []
    runs = runs_of(folder.resolve())
    return [runs / name for name in names.split() if re.fullmatch(r"[\w.=+-]{1,200}", name)]


def model_of(run: Path, study: Path) -> Path | None:
    """Return the folder of the model that a run of a comparison is a seed of; None before there is one."""
    groups = sorted(study.parent.glob(f"{glob.escape(study.name)}-seeds-*/{FILE}"))
    return next((path.parent for path in groups if run.resolve() in [seed.resolve() for seed in seeds_of(path.parent)]), None)


def store_of(start: dict[str, Any], folder: Path) -> str:
    """Return the store of a "start" of a run, as it will be opened; empty without one."""
    uri = start.get("uri")
    return store_uri(uri, runs_of(folder.resolve())) if isinstance(uri, str) and uri else ""


def has_pending(folder: Path, *, aside: bool = True) -> bool:
    """Return whether a run has pending records or files; those that are set aside count with `aside`."""
    state = UploadState.load(folder)
    open_end = state.status in ("", "RUNNING") or bool(state.error) or bool(state.files if aside else state.waiting())
    if not open_end and state.offset == (folder / journal.FILE).stat().st_size:
        return False
    first = next(journal.follow(folder), None)
    if not state.uri and not (first and store_of(first[0], folder)):
        return False
    return open_end or next(journal.follow(folder, state.offset), None) is not None


def pending_message(folder: Path, state: UploadState | None = None) -> str:
    """Return a message about pending or rejected records; empty without any.

    Args:
        folder: Run directory.
        state: Upload state, if saving it failed.
    """
    state = state or UploadState.load(folder)
    if not beginning(folder):
        return ""
    waiting = sum(1 for _ in journal.follow(folder, state.offset))
    why = f" ({state.error})" if state.error else ""
    command = command_line("sync", folder)
    if waiting or state.error:
        records = "1 record" if waiting == 1 else f"{waiting} records"
        return f"{records} in {folder / journal.FILE} not uploaded to MLflow yet{why}. Upload: {command}"
    said = []
    if state.files:
        said.append(f"not uploaded to MLflow yet of {folder}: {_named(state.files)}. Upload: {command}")
    if state.refused:
        records = "1 record" if state.refused == 1 else f"{state.refused} records"
        said.append(f"MLflow rejected {records} of {folder / journal.FILE}: {state.reason}")
    return "; ".join(said)


def _named(files: dict[str, dict[str, Any]]) -> str:
    """Return the names of files with the reasons for which they were not uploaded."""
    reasons: dict[str, list[str]] = {}
    for path, file in files.items():
        reasons.setdefault(file["why"], []).append(path)
    return ", ".join(", ".join(sorted(paths)) + f" ({why})" * bool(why) for why, paths in reasons.items())
