"""`ui uri=http://...` asks the server that was typed, and no other; whatever it answers is told in one line."""

from __future__ import annotations

from typing import Any

import pytest
from tests.security.hostile import Server

from dlframe.tracking.store import answer_of
from dlframe.tracking.ui import serve
from dlframe.types import TrackingError


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
@pytest.mark.parametrize("body", [None, b"{}"])
def test_a_redirect_is_not_followed(server: Server, other: Server, status: str, body: bytes | None) -> None:
    server.answer = f"HTTP/1.1 {status}\r\nLocation: {other.uri}/health\r\nContent-Length: 0\r\n\r\n".encode()
    with pytest.raises(OSError, match=status[:3]):
        answer_of(f"{server.uri}/health", body)
    assert len(server.seen) == 1


@pytest.mark.parametrize("answer", [[], {"experiments": 3}, {"experiments": [{}]}, {"experiments": []}, "text", None])
def test_an_answer_of_another_shape_is_told(server: Server, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(server, "mlflow", lambda *_: answer)
    with pytest.raises(TrackingError, match=rf"^tracking\.uri: {server.uri} answers unlike an MLflow server: .+"):
        serve(server.uri, "")


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n[[["]
)
def test_what_is_no_answer_is_told(server: Server, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(TrackingError, match=r"^[^\n]+$"):
        serve(server.uri, "")
