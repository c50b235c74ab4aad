"""Command `ui`: the MLflow pages of a store."""

from __future__ import annotations

import atexit
import errno
import html
import os
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from dlframe.config import load_options
from dlframe.registry import Place
from dlframe.runs.run_directory import artifact_root
from dlframe.storage.known import sqlite_file, store_uri
from dlframe.tracking.store import address, quiet, reachable
from dlframe.types import TrackingError, command_line, say


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
    runs: Place = "runs"
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
        TrackingError: There is no store yet, the port is taken, or MLflow cannot open the store.
    """
    if uri.startswith(("http://", "https://")):
        reachable(uri)
        try:
            fragment = latest_experiment(partial(ask, uri))
        except Exception as error:  # of MLflow's client, or of an answer of any shape
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
            raise TrackingError(f"tracking.uri: {address(uri)} answers unlike an MLflow server: {reason}") from None
        show(f"{address(uri)}/{fragment}", open_browser)
        return
    database = sqlite_file(uri)
    if database and not database.exists():
        raise TrackingError(f"tracking.uri: no store at {database} yet. Create one by a run: python -m dlframe model=cnn")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listen(host, port) as listening:
            from dlframe.tracking.ui.pages import Gate, mlflow_application, server

            try:
                app = mlflow_application(uri, root)
            except TrackingError:
                raise
            except Exception as error:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise TrackingError(f"tracking.uri: MLflow cannot open {database or address(uri)}: {reason}") from None
            gate = Gate(app, host, port)
            here = (
                f"http://{f'[{host}]' if ':' in host else host}:{port}" if not gate.any_address else f"http://127.0.0.1:{port}"
            )
            asking = app.test_client()
            fragment = latest_experiment(lambda what, request: asking.post(f"/api/2.0/mlflow/{what}", json=request).json)
            pages = server(gate, listening, host, port)
            show(f"{here}/?token={gate.token}{fragment}", open_browser, "(Ctrl-C stops the server)")
            if gate.any_address:
                say(f"host: {host} lets in other machines that have the token, over an unencrypted connection")
            pages.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port.

    Raises:
        TrackingError: The port is taken.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno != errno.EADDRINUSE:
            raise TrackingError(f"host, port: {host}:{port} cannot be used: {error.strerror or error}") from None
        other = next((p for p in range(port + 1, min(port + 100, 65536)) if free(host, p)), "...")
        raise TrackingError(f"port: {port} on {host} is taken. Try: {command_line('ui', f'port={other}')}") from None
    return listening


def free(host: str, port: int) -> bool:
    """Return whether a server can listen on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def show(link: str, open_browser: bool, note: str = "") -> None:
    """Print, and optionally open, a link."""
    say(f"MLflow: {link} {note}".rstrip())
    if open_browser:
        # The link in a private file: other accounts can read the arguments of the browser's process.
        handle, name = tempfile.mkstemp(prefix="dlframe-ui-", suffix=".html")
        atexit.register(Path(name).unlink, missing_ok=True)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(link)}">')
        webbrowser.open(Path(name).as_uri() if "?token=" in link else link)


def latest_experiment(ask: Callable[[str, dict[str, Any]], Any]) -> str:
    """Return the URL fragment of the charts of the latest run's experiment."""
    found = ask("experiments/search", {"max_results": 1000})
    identifiers = [experiment["experiment_id"] for experiment in found.get("experiments", [])]
    newest = {"experiment_ids": identifiers, "order_by": ["attributes.start_time DESC"], "max_results": 1}
    runs = ask("runs/search", newest).get("runs", [])
    identifier = runs[0]["info"]["experiment_id"] if runs else identifiers[0]
    # MLflow opens in its mode for language models; this is the page of training runs.
    return f"#/experiments/{identifier}/runs?workflowType=machine_learning&compareRunsMode=CHART"


def ask(uri: str, what: str, request: dict[str, Any]) -> dict[str, Any]:
    """Call a server's REST API as MLflow's client does."""
    os.environ.update(quiet(os.environ))
    from dlframe.tracking.uploader import call

    return call(uri, what, request)
