"""What is uploaded, and to where: the names that a run writes, to the folder of runs or to the server that was typed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import until
from tests.security.conftest import TOKEN
from tests.security.hostile import Server

from dlframe.tracking import UploadState, reachable, upload
from dlframe.tracking.content.models import environment
from dlframe.types import TrackingError

RESULT = {"path": "result.json", "to": ""}
FIGURE = {"path": "figures/curve.png", "to": "figures"}
MODEL = {"kind": "model", "path": "model"}

# --- to where

ELSEWHERE = {
    "another_server": "{other}/x",
    "another_server_in_capitals": "HTTP://{other_host}/x",
    "another_server_behind_a_user": "http://{host}@{other_host}/x",
    "another_server_behind_a_backslash": "http://{host}\\@{other_host}/x",
    "another_server_behind_a_fragment": "http://{host}#@{other_host}/x",
    "another_server_behind_a_query": "http://{host}?@{other_host}/x",
    "another_server_behind_a_tab": "ht\ttp://{other_host}/x",
    "another_port": "http://127.0.0.1:{other_port}/x",
    "another_name": "http://localhost:{port}/x",
    "another_scheme": "https://{host}/x",
    "a_trailing_dot": "http://127.0.0.1.:{port}/x",
    "artifacts_of_another_server": "mlflow-artifacts://{other_host}/1",
    "artifacts_of_another_server_in_capitals": "MLFLOW-ARTIFACTS://{other_host}/1",
    "artifacts_behind_a_user": "mlflow-artifacts://{host}@{other_host}/1",
    "no_scheme": "//{other_host}/x",
    "s3": "s3://bucket/x",
    "ftp": "ftp://{other_host}/x",
    "dbfs": "dbfs:/x",
    "a_drive": "C:\\x",
    "a_run": "runs:/1/x",
    "a_file": "file://{outside}",
    "a_file_in_capitals": "FILE://{outside}",
    "a_file_of_a_host": "file://localhost{outside}",
    "a_file_of_another_host": "file://evil{outside}",
    "a_path": "{outside}",
    "a_path_by_dots": "{runs}/artifacts/../../../outside",
    "a_path_by_escaped_dots": "file://{runs}/artifacts/%2e%2e/%2e%2e/%2e%2e/outside",
    "a_path_by_a_link": "{runs}/artifacts/link/x",
    "a_path_of_a_process": "/proc/self/cwd/../outside",
    "a_device": "/dev/shm/dlframe-outside",
    "another_run": "{runs}/another",
    "nothing": "",
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_artifacts_go_nowhere_else(
    kind: str, server: Server, other: Server, written: Callable[..., Path], user: Path, tmp_path: Path
) -> None:
    """Also of a server that was typed; metrics arrive, and what stays is told."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (user / "runs" / "artifacts").mkdir(parents=True)
    (user / "runs" / "artifacts" / "link").symlink_to(outside)
    names: dict[str, Any] = {"other": other.uri, "outside": outside, "runs": user / "runs"}
    names |= {"host": server.uri.removeprefix("http://"), "other_host": other.uri.removeprefix("http://")}
    names |= {"port": server.http.server_port, "other_port": other.http.server_port}
    server.location = ELSEWHERE[kind].format(**names)
    run = written(server.uri, RESULT, FIGURE, MODEL, parameters={"long": "x" * 7000})
    before = sorted(tmp_path.rglob("*"))
    said = upload(run, uri=server.uri)
    assert said.startswith(f"MLflow rejected 4 records of {run}/journal.jsonl: artifacts stay in the run directory: '")
    assert " is neither on the tracking server (start it with --serve-artifacts) nor in " in said
    assert "\n" not in said
    assert server.metrics()
    assert server.files() == {}
    new = {path.name for path in {*tmp_path.rglob("*")} - {*before}}
    assert new <= {"tracking.json", ".tracking.lock"}
    assert not Path("/dev/shm/dlframe-outside").exists()
    assert UploadState.load(run).status == "FINISHED"


@pytest.mark.parametrize(
    "location", ["http://{other}/x", "mlflow-artifacts://{other}/x", "file:///tmp/dlframe-outside", "s3://x"]
)
def test_a_model_goes_nowhere_else(location: str, server: Server, other: Server, written: Callable[..., Path]) -> None:
    server.model_location = location.format(other=other.uri.removeprefix("http://"))
    run = written(server.uri, RESULT, MODEL)
    assert "MLflow rejected 1 record" in upload(run, uri=server.uri)
    assert [*server.files()] == ["1/run/artifacts/result.json"]
    assert not Path("/tmp/dlframe-outside").exists()


@pytest.mark.parametrize(
    "location", ["mlflow-artifacts:/1/run", "mlflow-artifacts://{host}/1/run", "http://{host}/artifacts/1/run"]
)
def test_the_server_itself_gets_everything(location: str, server: Server, other: Server, written: Callable[..., Path]) -> None:
    server.location = location.format(host=server.uri.removeprefix("http://"))
    run = written(server.uri, RESULT, FIGURE, MODEL)
    assert upload(run, uri=server.uri) == ""
    names = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "data/config.yaml", "data/signature.json")
    wheels = {name for name in environment() if name.startswith("wheels/")}
    expected = {*names, *wheels, "data/weights.safetensors", "result.json", "figures/curve.png"}
    assert {name.removeprefix("1/run/") for name in server.files()} == expected
    assert {authorization for _, _, authorization, _ in server.seen} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("root", ["{other}/x", "{outside}", "mlflow-artifacts://{other_host}", "s3://bucket"])
def test_a_journal_names_no_place(root: str, other: Server, written: Callable[..., Path], user: Path, tmp_path: Path) -> None:
    """Artifacts of the store in the folder of runs are there too, also those of later runs."""
    names = {"other": other.uri, "other_host": other.uri.removeprefix("http://"), "outside": tmp_path / "outside"}
    run = written(f"sqlite:///{user}/runs/mlflow.db", RESULT, artifact_root=root.format(**names))
    assert upload(run) == ""
    (sent,) = (user / "runs" / "artifacts" / "x").glob("*/artifacts/result.json")
    assert sent.read_text() == "{}"
    assert not (tmp_path / "outside").exists()


# --- what

NAMES: dict[str, dict[str, Any]] = {
    "a_model": {"path": "m", "to": "model"},
    "a_model_as_a_figure": {"path": "m/MLmodel", "to": "figures"},
    "a_model_in_the_root": {"path": "MLmodel", "to": ""},
    "a_pickle": {"path": "evil.pkl", "to": ""},
    "a_folder": {"path": "figures", "to": "figures"},
    "a_page": {"path": "figures/page.html", "to": "figures"},
    "a_page_as_a_figure": {"path": "figures/page.html\0.png", "to": "figures"},
    "a_figure_of_a_folder": {"path": "figures/a/b.png", "to": "figures"},
    "a_figure_by_dots": {"path": "figures/../secret.png", "to": "figures"},
    "a_hidden_figure": {"path": "figures/.png", "to": "figures"},
    "a_figure_elsewhere": {"path": "figures/curve.png", "to": "model"},
    "a_figure_in_the_root": {"path": "figures/curve.png", "to": ""},
    "a_result_elsewhere": {"path": "result.json", "to": "model"},
    "a_result_by_dots": {"path": "figures/../result.json", "to": ""},
    "a_result_in_capitals": {"path": "RESULT.JSON", "to": ""},
    "a_link": {"path": "data.json", "to": ""},
    "a_linked_figure": {"path": "figures/linked.png", "to": "figures"},
    "a_pipe": {"path": "overrides.txt", "to": ""},
    "a_directory": {"path": "config.yaml", "to": ""},
    "too_large": {"path": "predictions.parquet", "to": ""},
    "gone": {"path": "changes.diff", "to": ""},
    "a_list": {"path": ["result.json"], "to": ""},
    "no_place": {"path": "result.json"},
    "a_model_elsewhere": {"kind": "model", "path": "m"},
    "a_model_by_dots": {"kind": "model", "path": "figures/../model"},
    "a_model_of_the_run": {"kind": "model", "path": "."},
}


@pytest.mark.parametrize("kind", NAMES)
def test_only_what_a_run_writes_is_uploaded(kind: str, server: Server, written: Callable[..., Path], tmp_path: Path) -> None:
    run = written(server.uri, NAMES[kind], FIGURE)
    (tmp_path / "secret").write_text("secret")
    (run / "m").mkdir()
    for name in ("m/MLmodel", "MLmodel", "evil.pkl", "figures/page.html"):
        (run / name).write_text("evil")
    (run / "data.json").symlink_to(tmp_path / "secret")
    (run / "figures" / "linked.png").symlink_to(tmp_path / "secret")
    os.mkfifo(run / "overrides.txt")
    (run / "config.yaml").mkdir()
    with (run / "predictions.parquet").open("wb") as file:
        file.truncate(2**37)
    said = upload(run, uri=server.uri)
    assert said.startswith(f"MLflow rejected 1 record of {run}/journal.jsonl: ")
    assert server.files() == {"1/run/artifacts/figures/curve.png": b"png"}
    assert UploadState.load(run).status == "FINISHED"


def test_a_linked_folder_of_figures_is_not_followed(server: Server, written: Callable[..., Path], tmp_path: Path) -> None:
    run = written(server.uri, FIGURE)
    (run / "figures").rename(tmp_path / "figures")
    (run / "figures").symlink_to(tmp_path / "figures")
    assert "rejected 1 record" in upload(run, uri=server.uri)
    assert server.files() == {}


def add(name: str, content: bytes = b"evil") -> Callable[[Path], Any]:
    return lambda model: (model / name).write_bytes(content)


MODELS: dict[str, Callable[[Path], Any]] = {
    "a_description": add("MLmodel"),
    "a_pickle": add("python_model.pkl", pickle.dumps(1)),
    "code": add("loader.py"),
    "a_library": add("libevil.so"),
    "requirements": add("requirements.txt"),
    "a_folder": lambda model: (model / "code").mkdir(),
    "a_hidden_file": add(".evil"),
    "pickled_weights": add("weights.safetensors", pickle.dumps({"a": 1})),
    "zipped_weights": add("weights.safetensors", b"PK\3\4" + bytes(100)),
    "linked_weights": lambda model: (model / "spec.json").symlink_to("/etc/passwd"),
    "a_signature_of_nothing": add("signature.json", b"[]"),
    "a_signature_that_runs": add(
        "signature.json", json.dumps({"inputs": [{"name": "x", "dtype": "f4,f4", "shape": [1]}], "outputs": []}).encode()
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_data(kind: str, server: Server, written: Callable[..., Path]) -> None:
    """Nothing that could be run is uploaded, and what is not whole is not finished."""
    run = written(server.uri, MODEL, RESULT)
    MODELS[kind](run / "model")
    assert "MLflow rejected 1 record" in upload(run, uri=server.uri)
    content = b"".join(server.files().values())
    assert b"evil" not in content
    assert b"root:" not in content
    assert not any(method == "PATCH" and b"READY" in body for method, _, _, body in server.seen)
    assert "1/run/artifacts/result.json" in server.files()


def test_what_load_model_runs_is_of_this_installation(server: Server, written: Callable[..., Path]) -> None:
    assert upload(written(server.uri, MODEL), uri=server.uri) == ""
    sent = server.files()
    assert not any(name.endswith((".py", ".pkl", ".pickle", ".pt", ".so")) for name in sent)
    function = yaml.safe_load(sent["1/run/artifacts/MLmodel"])["flavors"]["python_function"]
    assert (function["loader_module"], function["data"]) == ("dlframe.runs.exported_model", "data")
    assert not {"code", "python_model", "model_code_path"} & function.keys()
    wheels = {name.removeprefix("1/run/artifacts/"): body for name, body in sent.items() if name.endswith(".whl")}
    assert wheels == {name: body for name, body in environment().items() if name.endswith(".whl")}


# --- servers

ANSWERS = {
    "a_redirect": b"HTTP/1.1 302 Found\r\nLocation: {other}/x\r\nContent-Length: 0\r\n\r\n",
    "a_lasting_redirect": b"HTTP/1.1 308 Permanent Redirect\r\nLocation: {other}/x\r\nContent-Length: 0\r\n\r\n",
    "a_redirect_without_a_scheme": b"HTTP/1.1 307 Moved\r\nLocation: //{other_host}/x\r\nContent-Length: 0\r\n\r\n",
    "a_page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "a_refresh": b"HTTP/1.1 200 OK\r\nRefresh: 0; url={other}\r\nContent-Length: 2\r\n\r\n[]",
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "less_than_said": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}",
    "a_length_of_text": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n[]",
    "a_negative_length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n[]",
    "too_much": b"HTTP/1.1 200 OK\r\n\r\n{}" + b" " * 2**21,
    "deep": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    "no_http": b"\x16\x03\x01" * 10,
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_leads_nowhere(
    kind: str, server: Server, other: Server, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is kept, the trouble told in one line, and neither the token nor a file goes elsewhere."""
    monkeypatch.setattr("dlframe.tracking.uploader.LARGEST_ANSWER", 2**20)
    host = other.uri.removeprefix("http://").encode()
    server.answer = ANSWERS[kind].replace(b"{other}", other.uri.encode()).replace(b"{other_host}", host)
    run = written(server.uri, RESULT)
    said = upload(run, uri=server.uri)
    assert said.startswith(f"4 records in {run}/journal.jsonl not uploaded to MLflow yet (")
    assert "\n" not in said
    assert len(said) < 1000
    with pytest.raises(TrackingError, match=r"^tracking\.uri: no MLflow server at "):
        reachable(server.uri)
    server.answer = None
    until(lambda: upload(run, uri=server.uri) == "")  # a connection that was kept may be closed by now
    assert [*server.files()] == ["1/run/artifacts/result.json"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_upload_is_not_redirected(status: int, server: Server, other: Server, written: Callable[..., Path]) -> None:
    """A redirected PUT would hand over the file."""
    answer = f"HTTP/1.1 {status} Go\r\nLocation: {other.uri}/x\r\nContent-Length: 0\r\n\r\n".encode()
    mlflow = server.mlflow

    def redirecting(method: str, path: str, body: bytes) -> dict[str, Any]:
        if path.endswith("runs/log-batch") and b"loss" in body:
            server.answer = answer
        return mlflow(method, path, body)

    server.mlflow = redirecting  # type: ignore[method-assign]
    run = written(server.uri, RESULT)
    assert "the server redirects to another address: " in upload(run, uri=server.uri)
    assert b"{}" not in [body for method, _, _, body in other.seen if method == "PUT"]
