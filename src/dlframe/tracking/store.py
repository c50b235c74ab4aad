"""The MLflow store: address, check and web page."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from dlframe.runs.run_directory import artifact_root
from dlframe.storage.known import is_known, sqlite_file, store_uri
from dlframe.types import TrackingError
from dlframe.types.files import opened

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The upload process retries by itself; MLflow's retries would block a batch for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # A server must not choose who else gets a file, or the user's token.
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
}
"""Environment of processes that import MLflow: no telemetry, no log output, no third parties."""


def check_store(folder: Path, uri: str, *, allowed: str = "") -> None:
    """Raise unless a run may be uploaded to a store: a known one, that of its folder of runs, or the one it was started with.

    Raises:
        TrackingError: The store is none of these, and only the run names it.
    """
    own = uri in (allowed, store_uri("sqlite", folder.resolve().parent))
    if not own and not is_known(store=uri) and not is_known(run=folder, store=uri):
        command = f"python -m dlframe sync {shlex.quote(str(folder))} uri={shlex.quote(uri)}"
        raise TrackingError(f"{folder}: tracking store {uri} is not trusted. If you trust it: {command}")


def address(uri: str) -> str:
    """Return an HTTP address without user name and password."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def artifact_location(uri: str, runs: Path, experiment: str) -> str | None:
    """Return the URI of a new experiment's folder: in the folder of runs; None for a server, which has its own."""
    if uri.startswith(("http://", "https://")):
        return None
    name = re.sub(r"[^\w.-]+", "_", experiment).strip(".") or "experiment"
    return Path(artifact_root(runs), name).as_uri()


def reachable(uri: str, timeout_seconds: float = 3) -> None:
    """Check an HTTP or SQLite store without importing MLflow.

    Raises:
        TrackingError: The server does not answer, or the SQLite file cannot be written.
    """
    if uri.startswith(("http://", "https://")):
        if reason := connection_error(uri, timeout_seconds):
            port = urlsplit(uri).port or 5000
            command = f"mlflow server --port {port} --backend-store-uri sqlite:///mlflow.db"
            raise TrackingError(f"tracking.uri: no MLflow server at {address(uri)} ({reason}). Start one: {command}")
    elif database := sqlite_file(uri):
        existing = next(path for path in (database, *database.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK) or (existing != database and not existing.is_dir()):
            raise TrackingError(f"tracking.uri: {existing} cannot be written. Received: {uri}")
        if database.is_dir() or (database.exists() and not is_sqlite(database)):
            raise TrackingError(f"tracking.uri: {database} is not an SQLite database. Received: {uri}")
    elif "://" not in uri or uri.startswith("file:"):
        raise TrackingError(f"tracking.uri: must be sqlite:///PATH or http(s)://HOST:PORT. Received: {uri}")


def is_sqlite(path: Path) -> bool:
    """Return whether a file is an SQLite database or empty."""
    with opened(path) as file:
        return file.read(15) in (b"", b"SQLite format 3")


def answer_of(url: str, body: bytes | None = None, timeout_seconds: float = 30) -> bytes:
    """Return a server's answer, of at most 64 MiB; a redirect, which would lead to another server, is an error.

    Raises:
        OSError: There is none.
    """
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            """Follow none."""

    request = Request(url, body, {"Content-Type": "application/json"} if body else {})
    with build_opener(Stay).open(request, timeout=timeout_seconds) as answer:
        if len(found := answer.read(2**26 + 1)) > 2**26:
            raise OSError("the answer has more than 64 MiB")
        return found


def connection_error(uri: str, timeout_seconds: float) -> str:
    """Return why no MLflow server answers at `uri`; empty if one does."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    try:
        found = answer_of(f"{address(uri)}/health", timeout_seconds=timeout_seconds)
        return "" if found.strip() == b"OK" else "something else answers there"
    except HTTPError as error:
        # A proxy may want the credentials that MLflow will send.
        return "" if error.code in (401, 403) else f"it answers {error.code} {error.reason}"
    except URLError as error:
        cause = error.reason
        return cause.strerror or str(cause) if isinstance(cause, OSError) else str(cause)
    except (OSError, HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
