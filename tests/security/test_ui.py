"""What others can do with the pages of `ui`: sites in the browser, accounts on the machine, files and stores of strangers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.conftest import until
from tests.tracking.served import Served

API = "/ajax-api/2.0/mlflow"
EXPERIMENT = f"{API}/experiments/get?experiment_id=0"
NOBODY = 65534
STORE = """
import sys
from pathlib import Path
from mlflow import MlflowClient
client, folder = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db"), Path(sys.argv[1])
locations = {"own": f"file://{folder}/artifacts/own", "served": "mlflow-artifacts:/1"}
for scheme in ("http", "https", "ftp", "sftp", "hdfs", "mlflow-artifacts"):
    locations[scheme] = f"{scheme}://127.0.0.1:{sys.argv[2]}/x"
for name, location in locations.items():
    run = client.create_run(client.create_experiment(name, artifact_location=location)).info
    if name == "own":
        client.log_text(run.run_id, "<script>1</script>", "page.html")
    print(name, run.run_id)
"""


class Shown(Served):
    """The pages of a store with a file in a run of its own, and a run whose files are said to be on another server."""

    def __init__(self, folder: Path) -> None:
        self.other = socket.create_server(("127.0.0.1", 0))
        arguments = [sys.executable, "-c", STORE, str(folder), str(self.other.getsockname()[1])]
        lines = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
        self.runs = dict(line.split() for line in lines)
        secret = {"MLFLOW_TRACKING_TOKEN": "of another server", "_MLFLOW_STATIC_PREFIX": "/x"}
        browser = folder / "browser"
        browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0" "$@" > {folder}/opened\nsleep 1\n')
        browser.chmod(0o700)
        environment = {**secret, "BROWSER": f"{browser} %s"}
        super().__init__(f"sqlite:///{folder}/mlflow.db", "open_browser=true", environment=environment)
        self.opened = folder / "opened"

    def file_of_browser(self) -> Path:
        """What the browser was started with."""
        until(lambda: self.opened.exists() and self.opened.read_text().count("\n") == 2)
        return Path(self.opened.read_text().splitlines()[1].removeprefix("file://"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    shown = Shown(tmp_path_factory.mktemp("shown"))
    yield shown
    assert shown.end(signal.SIGTERM) == (0, "")
    shown.other.close()


@pytest.mark.parametrize(
    "path", ["/", "{prefix}/", f"{{prefix}}{EXPERIMENT}", EXPERIMENT, "/health", "/static-files/favicon.ico"]
)
@pytest.mark.parametrize(
    ("query", "headers", "body"),
    [
        ("", {}, None),
        ("token=", {}, None),
        ("token=wrong", {}, None),
        ("token={short}", {}, None),
        ("Token={token}", {}, None),
        ("", {"Authorization": "Bearer {token}"}, None),
        ("", {"Authorization": "token {token}", "X-Token": "{token}"}, None),
        ("", {"Referer": "http://127.0.0.1:{port}/?token={token}"}, None),
        ("", {"Cookie": "token={token}; dlframe-ui={token}; dlframe-ui-1={token}"}, None),
        ("", {"Cookie": "dlframe-ui-{port}=wrong"}, None),
        ("", {"Cookie": "dlframe-ui-{port}=\xe9{short}"}, None),
        ("", {}, '{{"token": "{token}"}}'),
    ],
)
def test_without_the_token(shown: Shown, path: str, query: str, headers: dict[str, str], body: str | None) -> None:
    facts = {"token": shown.token, "short": shown.token[:-1], "port": shown.port, "prefix": shown.log_in()[0]}
    asked = path.format(**facts) + (("&" if "?" in path else "?") + query.format(**facts) if query else "")
    sent = {name: value.format(**facts) for name, value in headers.items()}
    answer = shown.ask("POST" if body else "GET", asked, sent, body and body.format(**facts))
    assert (answer.status, answer.body) == (401, "Open the link that `python -m dlframe ui` printed: it has the token.\n")


@pytest.mark.parametrize(
    "path", ["{prefix}/?token={token}", "/index.html?token={token}", f"{EXPERIMENT}&token={{token}}", "/graphql?token={token}"]
)
def test_the_token_elsewhere_than_in_the_link(shown: Shown, path: str) -> None:
    assert shown.ask("GET", path.format(token=shown.token, prefix=shown.log_in()[0])).status in (401, 404)
    assert shown.ask("POST", path.format(token=shown.token, prefix=shown.log_in()[0]), body="{}").status in (401, 404)


def test_the_cookie_is_of_these_pages_only(shown: Shown) -> None:
    """Scripts cannot read it, other sites cannot use it, and what else is served on this machine is not sent it."""
    answer = shown.ask("GET", f"/?token={shown.token}")
    cookie = f"dlframe-ui-{shown.port}={shown.token}; HttpOnly; Path=/[0-9a-f]{{32}}/; SameSite=Strict"
    assert re.fullmatch(cookie, answer.headers["Set-Cookie"])
    assert (answer.headers["Referrer-Policy"], answer.headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert shown.token not in answer.body
    prefix, header = shown.log_in()
    assert shown.ask("GET", f"{prefix}{EXPERIMENT}", header).status == 200
    assert shown.ask("GET", EXPERIMENT, header).status == 401


FORBIDDEN = [
    *(("PUT", f"/ajax-api/3.0/mlflow/assistant/{name}") for name in ("config", "skills")),
    *(("GET", f"/ajax-api/3.0/mlflow/assistant/{name}") for name in ("config", "sessions/1/stream", "providers")),
    *(("POST", f"/ajax-api/3.0/mlflow/assistant/{name}") for name in ("message", "skills/install")),
    *(("POST", f"/gateway/{name}") for name in ("mlflow/v1/chat/completions", "x/mlflow/invocations", "proxy/x/y")),
    *(("POST", f"/ajax-api/3.0/mlflow/gateway/{name}/create") for name in ("secrets", "endpoints", "model-definitions")),
    ("POST", f"{API}/gateway-proxy"),
    *(
        ("POST", f"/ajax-api/3.0/{name}")
        for name in ("jobs/", "jobs/search", "mlflow/jobs/x", "mlflow/prompt-optimization/jobs")
    ),
    *(("POST", f"/{name}") for name in ("v1/traces", "v1/metrics", "mcp", "mcp/")),
    *(("GET", f"/ajax-api/3.0/mlflow/{name}") for name in ("mcp-servers", "scorers/list", "workspaces", "roles/list")),
    *(
        ("POST", f"/ajax-api/3.0/mlflow/{name}")
        for name in ("scorers/register", "genai/evaluate/invoke", "demo/generate", "ui-telemetry")
    ),
    *(("POST", f"{API}/{name}") for name in ("webhooks", "webhooks/1/test", "users/create", "traces/delete-traces")),
    *(("POST", f"{API}/runs/{name}") for name in ("create", "log-batch", "log-metric", "log-model", "create-promptlab-run")),
    *(("POST", f"{API}/{name}") for name in ("experiments/create", "upload-artifact?run_uuid=1&path=x", "logged-models")),
    *((method, "/api/2.0/mlflow-artifacts/artifacts/x") for method in ("GET", "PUT", "DELETE")),
    *((method, "/ajax-api/2.0/mlflow-artifacts/artifacts/x") for method in ("GET", "PUT", "DELETE")),
    ("POST", "/api/2.0/mlflow/experiments/search"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("OPTIONS", EXPERIMENT),
    ("HEAD", EXPERIMENT),
    ("TRACE", "/"),
    ("GET", f"{API}/../3.0/mlflow/assistant/config"),
    ("GET", f"{API}/experiments/get/..%2f..%2f..%2f..%2f3.0/mlflow/scorers/list"),
    ("GET", f"/{API}/experiments/get?experiment_id=0"),
    ("GET", "/static-files/%2e%2e/%2e%2e/__init__.py"),
]


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_what_the_pages_do_not_need_is_not_there(shown: Shown, method: str, path: str) -> None:
    prefix, cookie = shown.log_in()
    with_cookie = shown.ask(method, f"{prefix}{path}", cookie, None if method in ("GET", "HEAD", "OPTIONS") else "{}")
    assert with_cookie.status == 404
    assert shown.ask(method, f"{prefix}{path}", body=None).status == 401


def test_a_run_is_renamed_tagged_and_deleted(shown: Shown) -> None:
    prefix, cookie = shown.log_in()
    for name, values in (
        ("update", {"run_id": shown.runs["http"], "run_name": "better"}),
        ("set-tag", {"run_id": shown.runs["http"], "key": "mlflow.note.content", "value": "a note"}),
        ("delete", {"run_id": shown.runs["http"]}),
        ("restore", {"run_id": shown.runs["http"]}),
    ):
        answer = shown.ask("POST", f"{prefix}{API}/runs/{name}", cookie, json.dumps(values))
        assert answer.status == 200, answer
    run = json.loads(shown.ask("GET", f"{prefix}{API}/runs/get?run_id={shown.runs['http']}", cookie).body)["run"]
    assert run["info"]["run_name"] == "better"
    assert {"key": "mlflow.note.content", "value": "a note"} in run["data"]["tags"]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "x@127.0.0.1:{port}",
        "10.0.0.1",
        "127.0.0.1, evil.example",
        "0.0.0.0:{port}",
        "[::1",
        "localhost:port",
    ],
)
def test_a_foreign_host(shown: Shown, host: str) -> None:
    """A site whose name was made to point to this machine."""
    prefix, cookie = shown.log_in()
    for path in (f"/?token={shown.token}", f"{prefix}/", f"{prefix}{EXPERIMENT}"):
        answer = shown.ask("GET", path, {**cookie, "Host": host.format(port=shown.port)})
        assert (answer.status, answer.body) == (403, "This address is not one of the server's.\n")
    if "." in host and " " not in host and "@" not in host:
        assert shown.ask("GET", f"http://{host.format(port=shown.port)}{prefix}{EXPERIMENT}", cookie).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{port}", "LOCALHOST:6000", "[::1]:{port}"])
def test_own_hosts(shown: Shown, host: str) -> None:
    """Also those of a port that is forwarded."""
    prefix, cookie = shown.log_in()
    own = host.format(port=shown.port)
    assert shown.ask("GET", f"{prefix}{EXPERIMENT}", {**cookie, "Host": own, "Origin": f"http://{own}"}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_a_foreign_site(shown: Shown, headers: dict[str, str]) -> None:
    """A page of another site, or of another port of this machine, even if the browser has sent the cookie along."""
    prefix, cookie = shown.log_in()
    sent = {**cookie, **{name: value.format(port=shown.port) for name, value in headers.items()}}
    for method, path in (
        ("GET", EXPERIMENT),
        ("POST", f"{API}/runs/delete"),
        ("GET", f"/get-artifact?run_uuid={shown.runs['own']}&path=page.html"),
    ):
        answer = shown.ask(method, f"{prefix}{path}", sent, "{}" if method == "POST" else None)
        assert (answer.status, answer.body) == (403, "Another site's pages may not use this server.\n")
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("name", ["get-artifact?run_uuid={own}&path=page.html", "get-artifact?run_id={own}&path=page.html"])
def test_a_page_in_a_run_is_not_of_this_origin(shown: Shown, name: str) -> None:
    prefix, cookie = shown.log_in()
    answer = shown.ask("GET", f"{prefix}/{name.format(own=shown.runs['own'])}", cookie)
    assert (answer.status, answer.body) == (200, "<script>1</script>")
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer.headers["Content-Disposition"] == "attachment; filename=page.html"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    outside = shown.ask("GET", f"{prefix}/get-artifact?run_uuid={shown.runs['own']}&path=../../../mlflow.db", cookie)
    assert outside.status == 400


@pytest.mark.parametrize("path", [f"{API}/artifacts/list?run_id={{run}}", "/get-artifact?run_uuid={run}&path=x"])
@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "sftp", "hdfs", "mlflow-artifacts"])
def test_a_store_that_names_another_server(shown: Shown, scheme: str, path: str) -> None:
    """The pages do not ask it."""
    prefix, cookie = shown.log_in()
    answer = shown.ask("GET", prefix + path.format(run=shown.runs[scheme]), cookie)
    assert answer.status >= 400 or '"files"' not in answer.body
    shown.other.settimeout(0.2)
    with pytest.raises(TimeoutError):
        shown.other.accept()


def test_nobody_else_can_see_the_token(shown: Shown) -> None:
    """One process, without the token in its arguments; the browser is given a file, which is the owner's."""
    file = shown.file_of_browser()
    assert shown.token not in shown.opened.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"?token={shown.token}#/experiments" in file.read_text()
    server = psutil.Process(shown.process.pid)
    until(lambda: not server.children(), 10)  # the browser has ended
    assert shown.token not in " ".join(server.cmdline())
    assert shown.token not in " ".join(server.environ().values())


ATTEMPTS = """
import encodings.idna, json, os, sys  # what another account may not be able to read
from http.client import HTTPConnection
os.setgroups([]), os.setgid(65534), os.setuid(65534)
pid, port, file = sys.argv[1:]
def ask(method, path, body=None):
    connection = HTTPConnection("127.0.0.1", int(port))
    connection.request(method, path, body, {"Content-Type": "application/json"})
    return connection.getresponse().status
def read(path):
    try:
        return len(open(path, "rb").read())
    except OSError as error:
        return type(error).__name__
assistant = "/ajax-api/3.0/mlflow/assistant/config"
requests = [("GET", "/"), ("PUT", assistant), ("POST", "/ajax-api/2.0/mlflow/runs/search"), ("GET", "/health")]
answers = [ask(method, path, None if method == "GET" else "{}") for method, path in requests]
print(json.dumps([answers, [read(f"/proc/{pid}/{name}") for name in ("environ", "mem")], read(file)]))
"""


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="becomes another account, which needs root")
def test_a_second_account_reads_and_runs_nothing(shown: Shown) -> None:
    file = shown.file_of_browser()
    arguments = [str(shown.process.pid), str(shown.port), str(file)]
    child = subprocess.run([sys.executable, "-c", ATTEMPTS, *arguments], capture_output=True, text=True, check=True)
    assert json.loads(child.stdout) == [[401] * 4, ["PermissionError"] * 2, "PermissionError"]


@pytest.mark.parametrize("options", [[], ["host=0.0.0.0"], ["host=localhost"]])
def test_who_is_listened_to(shown: Shown, options: list[str]) -> None:
    """Loopback, or what was asked for, and then it is said; strangers are refused there too."""
    served = Served(f"sqlite:///{shown.opened.parent}/mlflow.db", *options)
    (listening,) = [c for c in psutil.Process(served.process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    everywhere = options == ["host=0.0.0.0"]
    assert listening.laddr.ip == ("0.0.0.0" if everywhere else "127.0.0.1")
    if everywhere:
        assert served.process.stdout
        line = "host: 0.0.0.0 lets in other machines that have the token, over an unencrypted connection\n"
        assert served.process.stdout.readline() == line
    prefix, cookie = served.log_in()
    for host, expected in (("10.0.0.1:80", 200), (socket.gethostname(), 200), ("evil.example", 403)):
        if everywhere or expected == 403:
            assert served.ask("GET", f"{prefix}{EXPERIMENT}", {**cookie, "Host": host}).status == expected
    assert served.ask("GET", f"{prefix}{EXPERIMENT}").status == 401
    assert served.end() == (0, "")


def test_a_slow_stranger_holds_up_nobody(shown: Shown) -> None:
    prefix, cookie = shown.log_in()
    strangers = [socket.create_connection(("127.0.0.1", shown.port)) for _ in range(100)]
    for stranger in strangers:
        stranger.sendall(b"GET / HTTP/1.1\r\nX: ")
    start = time.monotonic()
    assert shown.ask("GET", f"{prefix}{EXPERIMENT}", cookie).status == 200
    assert time.monotonic() - start < 10
    for stranger in strangers:
        stranger.close()
