"""What the tests share: a user with a token, servers, and run folders as somebody else could make them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
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


NOBODY = 65534
"""The uid of another account."""

needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as another account")


@pytest.fixture
def home(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home and working folder of the user; DLFRAME_DATA is not set."""
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.delenv("DLFRAME_DATA", raising=False)
    return user


def photos(folder: Path, per_class: int = 5, side: int = 8) -> Path:
    """Two classes of small pictures, of which nobody else may see any."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            picture = rng.integers(0, 255, (side, side), dtype=np.uint8)
            Image.fromarray(picture).save(folder / label / f"{number}.png")
            (folder / label / f"{number}.png").chmod(0o600)
    folder.chmod(0o700)
    return folder


def in_little_memory(code: str, gigabytes: float, seconds: float = 60) -> str:
    """What Python code prints in a process of its own that may have so much memory, with torch or without."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({int(gigabytes * 1e9)},) * 2)\n"
    command = [sys.executable, "-c", limit + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    return done.stdout + done.stderr
