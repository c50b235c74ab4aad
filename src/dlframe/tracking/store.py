"""The MLflow store: address, check and web page."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dlframe.tracking.trusted_stores import sqlite_file
from dlframe.types import TrackingError

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The upload process retries by itself; MLflow's retries would block a batch for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Environment of processes that import MLflow: no telemetry, no log output."""

START_SECONDS = 90
"""Time limit for the first answer of `mlflow server`."""


def address(uri: str) -> str:
    """Return an HTTP address without user name and password."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def artifact_location(root: str | None, experiment: str) -> str | None:
    """Return the URI of an experiment's folder in `root`; None for any."""
    if not root:
        return None
    name = re.sub(r"[^\w.-]+", "_", experiment).strip(".") or "experiment"
    return f"{root.rstrip('/')}/{name}" if "://" in root else (Path(root).absolute() / name).as_uri()


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
    with path.open("rb") as file:
        return file.read(15) in (b"", b"SQLite format 3")


def connection_error(uri: str, timeout_seconds: float) -> str:
    """Return why no MLflow server answers at `uri`; empty if one does."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{address(uri)}/health", timeout=timeout_seconds) as answer:
            return "" if answer.read(100).strip() == b"OK" else "something else answers there"
    except HTTPError as error:
        # A proxy may want the credentials that MLflow will send.
        return "" if error.code in (401, 403) else f"it answers {error.code} {error.reason}"
    except URLError as error:
        cause = error.reason
        return cause.strerror or str(cause) if isinstance(cause, OSError) else str(cause)
    except (OSError, HTTPException, ValueError) as error:
        return str(error) or type(error).__name__


def ui(uri: str, artifact_root: str, host: str = "127.0.0.1", port: int = 5000, open_browser: bool = False) -> None:
    """Serve a store until Ctrl-C and print the link to its latest experiment.

    For a running server, only the link is printed.

    Raises:
        TrackingError: There is no store yet, the port is taken, or the server does not start.
    """
    if uri.startswith(("http://", "https://")):
        reachable(uri)
        show(address(uri), open_browser)
        return
    database = sqlite_file(uri)
    if database and not database.exists():
        raise TrackingError(f"tracking.uri: no store at {database} yet. Create one by a run: python -m dlframe model=cnn")
    if not free(host, port):
        other = next((p for p in range(port + 1, min(port + 100, 65536)) if free(host, p)), "...")
        raise TrackingError(f"port: {port} on {host} is taken. Try: python -m dlframe ui port={other}")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", host, "--port", str(port)]
    command += ["--default-artifact-root", artifact_root] if artifact_root else []
    environment = {**os.environ, **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the server's group
        )
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            here = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
            deadline = time.monotonic() + START_SECONDS
            while connection_error(here, 1):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise TrackingError(f"mlflow server did not start: {last_line(output)}")
                time.sleep(0.1)
            show(here, open_browser, "(Ctrl-C stops the server)")
            if server.wait():
                raise TrackingError(f"mlflow server ended: {last_line(output)}")
        except KeyboardInterrupt:
            pass
        finally:
            end(server)
            signal.signal(signal.SIGTERM, previous)


def free(host: str, port: int) -> bool:
    """Return whether a server can listen on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def end(server: subprocess.Popen[bytes]) -> None:
    """End a server and its child processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(10)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def last_line(output: Any) -> str:
    """Return the last non-empty line."""
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def show(server: str, open_browser: bool, note: str = "") -> None:
    """Print, and optionally open, the link to the latest run's experiment."""
    link = f"{server}/{latest_experiment(server)}"
    print(f"MLflow: {link} {note}".rstrip(), flush=True)
    if open_browser:
        webbrowser.open(link)


def latest_experiment(server: str) -> str:
    """Return the URL fragment of the charts of the latest run's experiment."""
    found = ask(server, "experiments/search", {"max_results": 1000})
    identifiers = [experiment["experiment_id"] for experiment in found.get("experiments", [])]
    newest = {"experiment_ids": identifiers, "order_by": ["attributes.start_time DESC"], "max_results": 1}
    runs = ask(server, "runs/search", newest).get("runs", [])
    identifier = runs[0]["info"]["experiment_id"] if runs else identifiers[0]
    # MLflow opens in its mode for language models; this is the page of training runs.
    return f"#/experiments/{identifier}/runs?workflowType=machine_learning&compareRunsMode=CHART"


def ask(server: str, what: str, request: dict[str, Any]) -> dict[str, Any]:
    """Call MLflow's REST API."""
    from urllib.request import Request, urlopen

    url, body = f"{server}/api/2.0/mlflow/{what}", json.dumps(request).encode()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)
