"""What the tests share: a user with a token, servers, and run folders as somebody else could make them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.security.hostile import Server

from dlframe.registry import plugins
from dlframe.runs.journal import Journal

plugins.discover()  # before the fixture `registered` looks

TOKEN = "t0ken-0f-the-v1ct1m"


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user stands in; what the user has typed before is forgotten."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    return home


@pytest.fixture
def server() -> Iterator[Server]:
    """The server that the user has typed."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Server]:
    """A server that nobody has typed: nothing may reach it."""
    server = Server()
    yield server
    assert server.seen == []
    server.close()


@pytest.fixture
def written(user: Path) -> Callable[..., Path]:
    """A run folder with these records between its start and its end."""

    def write(uri: str, *records: dict[str, object], name: str = "run", **start: object) -> Path:
        folder = user / "runs" / name
        (folder / "figures").mkdir(parents=True)
        (folder / "figures" / "curve.png").write_bytes(b"png")
        (folder / "result.json").write_text("{}")
        model = folder / "model"
        model.mkdir()
        side = [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]
        (model / "signature.json").write_text(json.dumps({"inputs": side, "outputs": side}))
        (model / "config.yaml").write_text("{}")
        (model / "weights.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
        journal = Journal(folder)
        fields = {"run_name": name, "experiment": "x", "parameters": {"a": 1}, "tags": {}, "uri": uri, **start}
        journal.write("start", **fields)
        journal.metrics(1, {"loss": 0.5})
        for record in records:
            fields = dict(record)
            journal.write(str(fields.pop("kind", "artifact")), **fields)
        journal.write("end", status="FINISHED", message="")
        journal.close()
        return folder

    return write
