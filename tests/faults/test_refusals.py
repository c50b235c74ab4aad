"""A server that refuses a part of what a run has gets all the rest: no run stays open, no metric waits, and files are named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.security.hostile import Server

from dlframe.runs.journal import Journal
from dlframe.tracking import UploadState, has_pending, upload
from dlframe.tracking.store import quiet

os.environ.update(quiet(os.environ))

Refusal = Callable[[str, str, bytes], tuple[int, str]]
FINE: Refusal = lambda method, path, body: (200, "")  # noqa: E731
TOO_LARGE = "<html><title>413 Request Entity Too Large</title></html>"
STEPS = 300


def puts(status: int, *, longer: int = -1) -> Refusal:
    """Refuse the upload of files with more bytes."""
    return lambda method, path, body: (status if method == "PUT" and len(body) > longer else 200, TOO_LARGE)


def batches(refused: Callable[[dict[str, Any]], bool]) -> Refusal:
    """Refuse parameters, metrics or tags as MLflow does."""

    def refusal(method: str, path: str, body: bytes) -> tuple[int, str]:
        rows = json.loads(body) if path.endswith("log-batch") else {}
        parts = [row for kind in ("params", "metrics", "tags") for row in rows.get(kind, ())]
        told = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": "a value is refused"})
        return (400 if any(map(refused, parts)) else 200), told

    return refusal


class Trouble(NamedTuple):
    """What a server refuses, the files that stay for it, and whether something is refused for good."""

    refusal: Refusal
    stay: set[str]
    why: str = ""
    lost: int = 0


TROUBLES = {
    "too_large": Trouble(puts(413, longer=1000), {"model"}, "the server answers 413 Request Entity Too Large"),
    "forbidden": Trouble(puts(403), {"figures/curve.png", "model"}, "the server answers 403 Forbidden"),
    "no_artifacts": Trouble(puts(404), {"figures/curve.png", "model"}, "the server answers 404 Not Found"),
    "not_implemented": Trouble(puts(501), {"figures/curve.png", "model"}, "the server answers 501 Not Implemented"),
    "always_fails": Trouble(puts(500), {"figures/curve.png", "model"}, "the server answers 500 Internal Server Error"),
    "no_logged_models": Trouble(
        lambda method, path, body: (404 if "logged-models" in path else 200, "<!doctype html>"),
        {"model"},
        "the server answers 404 Not Found",
    ),
    "short_parameters": Trouble(batches(lambda row: len(str(row["value"])) > 500), set()),
    "short_tags": Trouble(batches(lambda row: len(str(row["value"])) > 250), set()),
    "a_metric": Trouble(batches(lambda row: row["key"] == "odd"), set(), lost=1),
    "no_data_sets": Trouble(lambda method, path, body: (404 if path.endswith("log-inputs") else 200, TOO_LARGE), set(), lost=1),
    "small_requests": Trouble(
        lambda method, path, body: (413 if path.endswith("log-batch") and len(body) > 2000 else 200, TOO_LARGE), set()
    ),
}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Path:
    """A run with numbers before and after a figure and a model, which has ended."""
    folder = tmp_path / "runs" / "run"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "curve.png").write_bytes(b"png")
    (folder / "model").mkdir()
    side = [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]
    (folder / "model" / "signature.json").write_text(json.dumps({"inputs": side, "outputs": side}))
    (folder / "model" / "weights.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}" + bytes(2000))
    journal = Journal(folder)
    start = {"run_name": "run", "experiment": "x", "parameters": {"seed": 0, "classes": "x" * 800}, "tags": {}}
    data = {"name": "digits", "digest": "5ed0c0c6320d", "source": "here", "profile": {"train": 3}}
    journal.write("start", **start, uri=server.uri, data=data, system_metrics=True)
    journal.write("artifact", path="figures/curve.png", to="figures")
    journal.write("model", path="model")
    for step in range(STEPS):
        journal.metrics(step, {"loss": step / 3, "odd": 1.0} if step == 7 else {"loss": step / 3})
    journal.write("end", status="FINISHED", message="")
    journal.close()
    return folder


def taken(server: Server, kind: str, refusal: Refusal) -> list[dict[str, Any]]:
    """The parameters or metrics that the server has not refused."""
    batches = [(m, p, b) for m, p, _, b in server.seen if p.endswith("log-batch") and refusal(m, p, b)[0] == 200]
    return [row for *_, body in batches for row in json.loads(body).get(kind, ())]


@pytest.mark.parametrize("name", TROUBLES)
def test_the_rest_arrives_and_the_run_is_closed(name: str, server: Server, run: Path) -> None:
    trouble = TROUBLES[name]
    server.refusal = trouble.refusal
    said = upload(run, uri=server.uri)
    assert any(path.endswith("runs/update") and b"FINISHED" in body for _, path, _, body in server.seen), "the run is open"
    points = {(row["step"], row["value"]) for row in taken(server, "metrics", trouble.refusal) if row["key"] == "loss"}
    assert points == {(step, step / 3) for step in range(STEPS)}
    assert {"seed"} <= {row["key"] for row in taken(server, "params", trouble.refusal)}
    state = UploadState.load(run)
    assert (state.status, state.error, set(state.files), state.refused) == ("FINISHED", "", trouble.stay, trouble.lost)
    if trouble.stay:
        assert said == (
            f"not uploaded to MLflow yet of {run}: {', '.join(sorted(trouble.stay))} ({trouble.why}). "
            f"Upload: python -m dlframe sync {run}"
        )
    assert has_pending(run) == bool(trouble.stay)

    server.refusal = FINE
    server.seen.clear()
    assert ("rejected 1 record" in upload(run, uri=server.uri)) == bool(trouble.lost)
    assert not any(path.endswith(("log-batch", "runs/update")) for _, path, _, _ in server.seen), "the numbers come again"
    assert not has_pending(run)
    files = server.files()
    assert all(any(path in sent for sent in files) for path in trouble.stay - {"model"})
    assert ("1/run/artifacts/data/weights.safetensors" in files) == ("model" in trouble.stay)


def test_a_registration_that_fails_is_set_aside_by_name(server: Server, run: Path) -> None:
    server.refusal = lambda method, path, body: (404 if "registered-models" in path else 200, "<!doctype html>")
    said = upload(run, uri=server.uri, register="digits@champion")
    assert said == (
        f"not uploaded to MLflow yet of {run}: register=digits@champion (the run has no model in the store yet). "
        f"Upload: python -m dlframe sync {run}"
    )
    assert UploadState.load(run).status == "FINISHED"


def test_a_value_that_is_too_long_for_a_server_is_cut_and_kept_whole_in_a_file(server: Server, run: Path) -> None:
    trouble = TROUBLES["short_parameters"]
    server.refusal = trouble.refusal
    upload(run, uri=server.uri)
    values = {row["key"]: row["value"] for row in taken(server, "params", trouble.refusal)}
    assert values == {"seed": "0", "classes": "x" * 500}
    assert json.loads(server.files()["1/run/artifacts/parameters.json"]) == {"seed": 0, "classes": "x" * 800}


def test_what_is_set_aside_is_not_sent_again_at_each_start(server: Server, run: Path) -> None:
    server.refusal = TROUBLES["too_large"].refusal
    upload(run, uri=server.uri)
    assert has_pending(run)
    assert not has_pending(run, aside=False)


def test_a_run_that_names_files_of_its_own_choice_in_its_state(server: Server, run: Path, tmp_path: Path) -> None:
    """As one that came from somebody else: the names are judged again when they are opened."""
    server.refusal = TROUBLES["forbidden"].refusal
    upload(run, uri=server.uri)
    (tmp_path / "secret").write_text("secret")
    path = run / "tracking.json"
    state = json.loads(path.read_text())
    state["files"] = {"../../secret": next(iter(state["files"].values()))}
    path.write_text(json.dumps(state))
    server.refusal = FINE
    assert "a run writes no artifact of this name" in upload(run, uri=server.uri)
    assert not any("secret" in name for name in server.files())
