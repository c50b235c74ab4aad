"""A proxy on the loopback that stands before a real server and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

HTML = b"<html><body><h1>503 Service Unavailable</h1></body></html>"
ANSWERS = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(HTML), HTML),
    "400": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(HTML), HTML),
}
"""What it says without asking the server."""


@dataclass(frozen=True)
class Mode:
    """How the proxy behaves.

    Attributes:
        name: "pass", "refuse" (nobody listens), "hang" (no answer), "slow", a key of `ANSWERS` (400 to POST only), "drop
            request" (the server gets `after` bytes), "drop answer" (the server has taken the request; the client gets `after`
            bytes), "drop first answers" (the same, to the first request of each kind).
        after: Bytes.
        seconds: How long a slow answer takes.
        requests: How many requests are to see it.
    """

    name: str = "pass"
    after: int = 0
    seconds: float = 0.0
    requests: int = 1


class Proxy:
    """Listens on a port of its own and hands what it gets to `port`, one request a connection.

    Attributes:
        requests: Requests that came in each mode so far.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.requests: Counter[str] = Counter()
        self.mode = Mode()
        self.listener: socket.socket | None = None
        self.kinds: set[bytes] = set()
        self.open: set[socket.socket] = set()
        self.port = 0
        self._listen()
        self.uri = f"http://127.0.0.1:{self.port}"

    def switch(self, name: str, *, after: int = 0, seconds: float = 0.0) -> None:
        """Behave like that from now on; what hangs is let go."""
        self.mode = Mode(name, after, seconds)
        if name == "refuse":
            self.close()
        elif not self.listener:
            self._listen()
        if name != "hang":
            self._drop_all()

    def close(self) -> None:
        """Listen no longer."""
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        self._drop_all()

    def _listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _drop_all(self) -> None:
        for client in list(self.open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        self.open.add(client)
        with client, contextlib.suppress(OSError):
            request = read_request(client)
            if request:
                mode = self.mode
                self.requests[mode.name] += 1
                self._answer(client, request, mode)
        self.open.discard(client)

    def _answer(self, client: socket.socket, request: bytes, mode: Mode) -> None:
        if mode.name == "hang":
            client.recv(1)  # until somebody gives up
        elif mode.name in ANSWERS and (mode.name != "400" or request.startswith(b"POST")):
            client.sendall(ANSWERS[mode.name])
        else:
            time.sleep(mode.seconds)
            with socket.create_connection(("127.0.0.1", self.server_port)) as server:
                if mode.name == "drop request":
                    server.sendall(request[: mode.after])
                    return
                server.sendall(request)
                answer = read_all(server)
            if mode.name == "drop answer" or (mode.name == "drop first answers" and self._is_first(request)):
                answer = answer[: mode.after]
            client.sendall(answer)

    def _is_first(self, request: bytes) -> bool:
        """Whether no request of its kind, such as POST runs/create, came before."""
        kind = re.sub(rb"[0-9a-f-]{32,}|\?.*", b"", request.partition(b" HTTP/")[0])
        is_first = kind not in self.kinds
        self.kinds.add(kind)
        return is_first


def read_request(client: socket.socket) -> bytes:
    """A whole request, changed so that the server closes the connection after its answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := client.recv(65536)):
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    chunked = re.search(rb"(?im)^transfer-encoding: *chunked", head)
    while (len(body) < int(length[1])) if length else (chunked and not body.endswith(b"0\r\n\r\n")):
        if not (part := client.recv(65536)):
            return b""
        body += part
    head = re.sub(rb"(?im)^connection:.*\r\n", b"", head + b"\r\n").rstrip(b"\r\n")
    return head + b"\r\nConnection: close\r\n\r\n" + body


def read_all(server: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := server.recv(65536):
        parts.append(part)
    return b"".join(parts)
