"""Servers that a user may meet: one that speaks MLflow's language and lies, and one that must never be called."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = re.compile(r'"dlframe\.key", "value": "([0-9a-f]+)"')


class Server:
    """An MLflow server, as far as an upload goes, on the loopback.

    Attributes:
        location: Where it says that artifacts are: of experiments, of runs, and of models.
        model_location: Where those of models are instead.
        answer: Bytes that it answers to everything; None for MLflow's answers.
        refusal: Returns status and text of the answer to a request; of status 200 are those that are not refused.
        seen: (method, path, Authorization, body) of every request.
    """

    def __init__(self) -> None:
        self.location = "mlflow-artifacts:/1/run/artifacts"
        self.model_location: str | None = None
        self.answer: bytes | None = None
        self.seen: list[tuple[str, str, str, bytes]] = []
        self.tags: list[dict[str, str]] = []
        self.refusal: Callable[[str, str, bytes], tuple[int, str]] = lambda method, path, body: (200, "")
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.seen.append((self.command, self.path, self.headers.get("Authorization", ""), body))
                self.close_connection = True
                if owner.answer is not None:
                    self.wfile.write(owner.answer)
                    return
                status, text = owner.refusal(self.command, self.path, body)
                content = (
                    text.encode()
                    if status != 200
                    else b"OK"
                    if self.path == "/health"
                    else json.dumps(owner.mlflow(self.command, self.path, body)).encode()
                )
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that hangs up in the middle of an answer is what is expected."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def files(self) -> dict[str, bytes]:
        """What was uploaded, by its path."""
        return {path.partition("/artifacts/")[2]: body for method, path, _, body in self.seen if method == "PUT"}

    def metrics(self) -> bool:
        """Whether the run's metrics arrived."""
        return any(path.endswith("log-batch") and b'"metrics"' in body for _, path, _, body in self.seen)

    def mlflow(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        what = path.partition("/mlflow/")[2].partition("?")[0]
        experiment = {"experiment_id": "1", "name": "x", "artifact_location": self.location, "lifecycle_stage": "active"}
        info = {"run_id": "0" * 32, "experiment_id": "1", "run_name": "x", "status": "RUNNING", "start_time": 1}
        if what == "runs/create":
            self.tags = json.loads(body)["tags"]
        run = {"info": {**info, "artifact_uri": self.location, "lifecycle_stage": "active"}, "data": {"tags": self.tags}}
        place = self.model_location or self.location
        model = {"info": {"model_id": "m-1", "experiment_id": "1", "name": "model", "artifact_uri": place, "status": 1}}
        answers: dict[str, dict[str, Any]] = {
            "experiments/get-by-name": {"experiment": experiment},
            "runs/create": {"run": run},
            "runs/get": {"run": run},
            "runs/update": {"run_info": run["info"]},
            "logged-models": {"model": model},
            "logged-models/m-1": {"model": model},
        }
        return answers.get(what, {})
