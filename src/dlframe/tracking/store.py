"""The MLflow store: address, check and web page."""

from __future__ import annotations

import base64
import configparser
import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dlframe.runs.environment import python
from dlframe.storage.known import is_known, runs_of, sqlite_file, store_uri
from dlframe.types import TrackingError, command_line, printable, read_text
from dlframe.types.files import opened

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The upload process retries by itself; MLflow's retries would block a batch for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Environment of processes that import MLflow, where the user has set nothing else: no telemetry, no log output."""

ALONE = {
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
}
"""What the user cannot change: a server must not choose who else gets a file, or the user's token."""


def quiet(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that imports MLflow."""
    return {**QUIET, **environment, **ALONE}


OTHER_LOGINS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH")
"""Environment variables by which MLflow's client proves who it is in ways that only it knows."""


def check_store(folder: Path, uri: str, *, allowed: str = "") -> None:
    """Raise unless a run may be uploaded to a store: a known one, that of its folder of runs, or the one it was started with.

    Raises:
        TrackingError: The store is none of these, and only the run names it.
    """
    own = uri in (allowed, store_uri("sqlite", runs_of(folder.resolve())))
    if not own and not is_known(store=uri) and not is_known(run=folder, store=uri):
        command = command_line("sync", folder, "uri=ADDRESS")
        raise TrackingError(f"{folder}: tracking store {uri} is not trusted. If you trust it: {command}")


def address(uri: str) -> str:
    """Return an HTTP address without user name and password."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def reachable(uri: str, timeout_seconds: float = 3) -> None:
    """Check an HTTP or SQLite store; what does not answer as expected is asked by MLflow's own client, which may know how.

    Raises:
        TrackingError: The server does not answer or refuses the user, or the SQLite file cannot be written.
    """
    if uri.startswith(("http://", "https://")):
        reason = connection_error(uri, timeout_seconds)
        if reason and (reason == os.strerror(errno.ECONNREFUSED) or not answers_mlflow(uri)):
            port = urlsplit(uri).port or 5000
            command = f"mlflow server --port {port} --backend-store-uri sqlite:///mlflow.db"
            raise TrackingError(f"tracking.uri: no MLflow server at {address(uri)} ({reason}). Start one: {command}")
        if not reason and (reason := login_error(uri, timeout_seconds)) and not answers_mlflow(uri):
            raise TrackingError(f"tracking.uri: the MLflow server at {address(uri)} {reason}")
    elif database := sqlite_file(uri):
        existing = next(path for path in (database, *database.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK) or (existing != database and not existing.is_dir()):
            raise TrackingError(f"tracking.uri: {existing} cannot be written. Received: {uri}")
        if database.is_dir() or (database.exists() and not is_sqlite(database)):
            raise TrackingError(f"tracking.uri: {database} is not an SQLite database. Received: {uri}")
    elif "://" not in uri or uri.startswith("file:"):
        raise TrackingError(f"tracking.uri: must be sqlite:///PATH or http(s)://HOST:PORT. Received: {uri}")


def answers_mlflow(uri: str) -> bool:
    """Return whether MLflow's own client gets an answer, with all its ways to certificates, proxies and logins.

    It takes seconds to import, so that another process asks unless this one has it already.
    """
    if "mlflow" in sys.modules:
        from dlframe.tracking.uploader import is_answered

        return is_answered(uri)
    code = "import sys; from dlframe.tracking.uploader import is_answered; sys.exit(not is_answered(sys.argv[1]))"
    return subprocess.run(python("-c", code, uri), env=quiet(os.environ), capture_output=True, check=False).returncode == 0


def is_sqlite(path: Path) -> bool:
    """Return whether a file is an SQLite database or empty."""
    with opened(path) as file:
        return file.read(15) in (b"", b"SQLite format 3")


def answer_of(url: str, body: bytes | None = None, timeout_seconds: float = 30) -> bytes:
    """Return a server's answer, of at most 64 MiB; a redirect, which would lead to another server, is an error.

    The request has the user's `credentials`, as those of MLflow have.

    Raises:
        OSError: There is none.
    """
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            """Follow none."""

    request = Request(url, body, {**authorization(), **({"Content-Type": "application/json"} if body else {})})
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
        # `login_error` tells why.
        return "" if error.code in (401, 403) else f"it answers {error.code} {error.reason}"
    except URLError as error:
        cause = error.reason
        return cause.strerror or str(cause) if isinstance(cause, OSError) else str(cause)
    except (OSError, HTTPException, ValueError) as error:
        return str(error) or type(error).__name__


def login_error(uri: str, timeout_seconds: float) -> str:
    """Return why an MLflow server refuses this user, as the end of a sentence; empty if it does not."""
    from http.client import HTTPException
    from urllib.error import HTTPError

    if any(os.environ.get(name) for name in OTHER_LOGINS):
        return ""
    try:
        answer_of(f"{address(uri)}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}', timeout_seconds)
    except HTTPError as error:
        with error:
            said = printable(error.read(200).decode(errors="replace").strip())
        if error.code == 403:
            return f"refuses this request (403 {error.reason}: {said})"
        return _unauthorized() if error.code == 401 else ""
    except (OSError, HTTPException, ValueError):
        pass  # of a server that is in trouble: the upload process tries again
    return ""


def _unauthorized() -> str:
    name, password = credentials()
    both = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if name and password:
        return f"does not accept the user name {name!r} with this password. Check {both}"
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "does not accept the token. Check MLFLOW_TRACKING_TOKEN"
    received = (
        f"the user name {name!r} without a password" if name else "a password without a user name" if password else "none"
    )
    return f"requires a user name and a password. Set {both}. Received: {received}"


def authorization() -> dict[str, str]:
    """Return the header of requests that tells the user, as MLflow's client sends it; empty for no user."""
    name, password = credentials()
    if name and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}


def credentials() -> tuple[str, str]:
    """Return user name and password: from the environment, else from ~/.mlflow/credentials; empty where there are none.

    Raises:
        TrackingError: The file cannot be read.
    """
    path = Path("~/.mlflow/credentials").expanduser()
    stored = configparser.ConfigParser()
    try:
        stored.read_string(read_text(path, 2**16))
        found = [stored.get("mlflow", f"mlflow_tracking_{name}", fallback="") for name in ("username", "password")]
    except FileNotFoundError:
        found = ["", ""]
    except (OSError, ValueError, configparser.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise TrackingError(f"tracking.uri: {path} cannot be read: {reason}") from None
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{key}") or found[i] for i, key in enumerate(("USERNAME", "PASSWORD")))
    return name, password
