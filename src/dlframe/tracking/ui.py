"""Command `ui`: the MLflow pages of a store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from dlframe.config import load_options
from dlframe.runs.run_directory import artifact_root, store_uri
from dlframe.tracking.store import QUIET, address, connection_error, reachable
from dlframe.tracking.trusted_stores import sqlite_file
from dlframe.types import TrackingError

START_SECONDS = 90
"""Time limit for the first answer of `mlflow server`."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `ui`.

    Args:
        port: Port of the pages.
        host: Address of the pages; 0.0.0.0 shows them to other machines.
        runs: Folder of the runs.
        uri: Another store: a sqlite:/// URI, or the http(s) address of an MLflow server.
        open_browser: Open the pages in the browser.
    """

    port: Annotated[int, Interval(ge=1, le=65535)] = 5000
    host: str = "127.0.0.1"
    runs: str = "runs"
    uri: str = ""
    open_browser: bool = False


def main(arguments: Sequence[str]) -> int:
    """Serve the MLflow pages of the runs in the current directory until Ctrl-C: parameters, curves, figures, models.

    Raises:
        DlframeError: There is no store yet, the port is taken, or the server does not start.
    """
    options = load_options("ui", Options, arguments)
    uri = store_uri(options.uri, options.runs)
    serve(uri, artifact_root(options.runs), options.host, options.port, options.open_browser)
    return 0


def serve(uri: str, root: str, host: str = "127.0.0.1", port: int = 5000, open_browser: bool = False) -> None:
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
    command += ["--default-artifact-root", root] if root else []
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
