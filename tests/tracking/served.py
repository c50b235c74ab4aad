"""`python -m dlframe ui` in a process of its own, and requests to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


class Served:
    """Pages of a store, and its link."""

    def __init__(self, uri: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        runs = Path(uri.removeprefix("sqlite:///")).parent
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dlframe", "ui", f"runs='{runs}'", f"uri='{uri}'", f"port={self.port}", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline().strip()
        self.link = self.said.split()[1]
        self.token = self.link.partition("token=")[2].partition("#")[0]

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: str | None = None) -> Answer:
        """The answer to a request that has what is given here, and no cookie of itself."""
        return ask(self.port, method, path, headers, body)

    def log_in(self) -> tuple[str, dict[str, str]]:
        """The path of the pages, and the header of who has opened the link."""
        cookie = self.ask("GET", f"/?token={self.token}").headers["Set-Cookie"]
        found = re.search("Path=(/[0-9a-f]{32})/", cookie)
        assert found
        return found[1], {"Cookie": cookie.partition(";")[0]}

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """The exit status and what was said on the error output."""
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors


def ask(port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: str | None = None) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in (headers or {}))
    for name, value in (headers or {}).items():
        if value:
            connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body.encode() if body is not None else None)
    response = connection.getresponse()
    answer = Answer(response.status, dict(response.getheaders()), response.read().decode(errors="replace"))
    connection.close()
    return answer
