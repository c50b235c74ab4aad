"""Upload of a run's files: only what a run writes, only to the folder of runs or to the tracking server itself.

The target is judged as it will be opened, and then opened here. MLflow's client would ask the store for it once more.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.utils import rest_utils
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.file_utils import local_file_uri_to_path

from dlframe.runs.run_directory import LARGEST, artifact_root
from dlframe.storage.known import is_known
from dlframe.types import files, printable

ADDRESS = re.compile(r"(https?)://([\w.-]+|\[[\da-f:.]+\])(?::([1-9]\d{0,4}))?(/[^\\?#\s]*)?", re.ASCII | re.IGNORECASE)
"""An address that every parser reads alike: no user, no query, no backslash."""

NOT_A_FILE = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EACCES, errno.ENAMETOOLONG}


class RejectedRecord(Exception):
    """Record that will never be uploaded, with the reason."""


def destination(location: str | None, store: str, runs: Path) -> str | Path:
    """Return the address or the local folder behind an artifact location of a store.

    Args:
        location: As the store tells it; untrusted.
        store: URI of the store.
        runs: Folder of the runs.

    Raises:
        RejectedRecord: It is neither in the folder of runs nor on the store's server.
    """
    location = location or ""
    scheme = location.partition(":")[0].lower()
    try:
        if location != printable(location) or location != location.strip() or re.search(r"[\n\r\t]", location):
            raise ValueError("no plain address")
        if scheme in ("http", "https", "mlflow-artifacts"):
            served = MlflowArtifactsRepository.resolve_uri(location, store) if scheme == "mlflow-artifacts" else location
            if origin(served) and origin(served) == origin(store):
                return served
        elif location and (scheme == "file" or ":" not in location.split("/")[0]):
            path = Path(local_file_uri_to_path(location)).resolve()
            if any(_holds(place, runs) for place in path.parents):
                return path
    except (MlflowException, OSError, ValueError, RuntimeError):
        pass
    served = "on the tracking server (start it with --serve-artifacts) nor " if origin(store) else ""
    where = f"is neither {served}in" if served else "is not in"
    raise RejectedRecord(f"artifacts stay in the run directory: {location[:100]!r} {where} {artifact_root(runs)}")


def artifact_location(uri: str, runs: Path, experiment: str) -> str | None:
    """Return the URI of a new experiment's folder: in the folder of runs; None for a server, which has its own."""
    if uri.startswith(("http://", "https://")):
        return None
    name = re.sub(r"[^\w.-]+", "_", experiment).strip(".") or "experiment"
    return Path(artifact_root(runs), name).as_uri()


def _holds(place: Path, runs: Path) -> bool:
    """Return whether a folder is that of the artifacts of these runs, or of others that this user has started."""
    return str(place) == artifact_root(runs) or (place.name == "artifacts" and is_known(runs=place.parent))


def origin(address: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an http(s) address; None for any other, and for one that could be read in two ways."""
    if not (found := ADDRESS.fullmatch(address)):
        return None
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    return scheme, host, int(port) if port else {"http": 80, "https": 443}[scheme]


def put(place: str | Path, name: str, content: BinaryIO | bytes) -> None:
    """Write a file below a `destination`."""
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    if isinstance(place, str):
        answer = rest_utils.http_request(get_default_host_creds(place), f"/{quote(name)}", "PUT", data=file)
        rest_utils.augmented_raise_for_status(answer)
        return
    target = place / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent.resolve() != target.parent:
        raise RejectedRecord(f"{target.parent} leads out of the folder of artifacts")
    descriptor, unfinished = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    try:
        with open(descriptor, "wb") as copy:
            shutil.copyfileobj(file, copy, 2**20)
        os.chmod(unfinished, target.parent.stat().st_mode & 0o666)
        os.replace(unfinished, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def opened(folder: Path, name: str) -> BinaryIO:
    """Open a regular file of a run directory, through no link.

    Raises:
        RejectedRecord: There is none, or it is too large.
    """
    try:
        file = files.opened(folder / name, inside=folder)
    except OSError as error:
        if error.errno and error.errno not in NOT_A_FILE:
            raise  # trouble of the disk, which may pass
        what = "does not exist" if error.errno == errno.ENOENT else "is not a file of the run directory"
        raise RejectedRecord(f"{folder / name} {what}") from None
    if os.fstat(file.fileno()).st_size > LARGEST:
        file.close()
        raise RejectedRecord(f"{folder / name} has more than {LARGEST:,} bytes")
    return file
