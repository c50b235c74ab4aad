"""MLflow's pages for one user: a token, a list of routes, no other server."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
import secrets
import socket
import warnings
from base64 import b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from dlframe.storage.known import sqlite_file
from dlframe.tracking.store import quiet
from dlframe.types import say

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

API = "/ajax-api/2.0/mlflow/"
ARTIFACTS = re.compile(rf"(/model-versions)?/get-artifact|{API}logged-models/[\w-]+/artifacts/files")
"""Routes that answer with a file of a run."""
MODEL = r"logged-models/[\w-]+"
ROUTES = {
    "GET": (
        r"/|/static-files/[\w./-]+|/ajax-api/3\.0/mlflow/(server-info|ui-telemetry)",
        ARTIFACTS.pattern,
        rf"{API}(runs/get|artifacts/list|metrics/get-history(-bulk(-interval)?)?|experiments/(get|get-by-name|search))",
        rf"{API}({MODEL}(/artifacts/directories)?|model-versions/(get|search|get-download-uri))",
        rf"{API}registered-models/(get|search|alias|get-latest-versions)",
    ),
    "POST": (
        "/graphql",
        rf"{API}runs/(search|update|delete|restore|set-tag|delete-tag)",
        rf"{API}experiments/(search|search-datasets|update|delete|restore|set-experiment-tag|delete-experiment-tag)",
        rf"{API}(logged-models/search|model-versions/(create|set-tag|transition-stage))",
        rf"{API}registered-models/(create|rename|alias|set-tag|get-latest-versions)",
    ),
    "PATCH": (rf"{API}({MODEL}/tags|model-versions/update|registered-models/update)",),
    "DELETE": (
        rf"{API}({MODEL}(/tags/[^/]+)?|model-versions/(delete|delete-tag)|registered-models/(delete|delete-tag|alias))",
    ),
}
"""Method -> the paths that the pages of runs, experiments and models ask for: to show, name, tag and delete them.

Everything else is not there: MLflow's assistant, gateway, jobs, traces, scorers, prompts, webhooks and users, uploads, new
runs, and new experiments, whose location would be chosen by the request.
"""
ALLOWED = {method: re.compile("|".join(paths)) for method, paths in ROUTES.items()}

EMPTY = {
    ("GET", f"{API}gateway-proxy"): '{"endpoints": []}',
    ("POST", "/ajax-api/3.0/mlflow/datasets/search"): '{"datasets": []}',
    ("POST", "/ajax-api/3.0/mlflow/traces/search"): '{"traces": []}',
    ("POST", "/ajax-api/3.0/mlflow/traces/metrics"): '{"data_points": []}',
}
"""What the pages ask of applications that are not there, and would report as errors: there is none of it."""

POLICY = "Content-Security-Policy"
LOGIN = """
localStorage["mlflow.settings.telemetry.enabled_v1"] = "false"
localStorage["mlflow.telemetry.info.alert.dismissed_v1"] = "true"
localStorage["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"] = "true"
localStorage["mlflow.assistant.panelOpen_v1"] = "false"
location.replace("{}/" + location.hash)
"""
"""Leads to the pages, without the panel and the notice of what is not there; the names are those of MLflow 3.17."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    POLICY: "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'self'; "
    "base-uri 'none'; object-src 'none'; frame-ancestors 'self'",
}
"""Added to every answer: the pages ask no other server."""
LOCAL = {"127.0.0.1", "localhost", "::1"}
LOCAL_FILES = {"", "file", "models", "runs"}
"""Schemes of artifact locations that lead to files of this machine."""


class Gate:
    """WSGI application that passes requests of one browser to another application.

    The printed link has the token. It sets a cookie for a random path and leads there: a browser sends cookies to all ports of
    a host, and another account may serve one of them.

    Args:
        app: The application behind.
        host: The address that is listened on.
        port: Its port.
    """

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        self.app = app
        self.token = secrets.token_urlsafe(32)
        self.prefix = f"/{hashlib.sha256(self.token.encode()).hexdigest()[:32]}"
        self.cookie = f"dlframe-ui-{port}"
        self.any_address = host in ("0.0.0.0", "::")
        self.names = LOCAL | {host.lower()} | ({socket.gethostname().lower()} if self.any_address else set())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        answer = self.refusal(request) or self.login(request)
        headers = dict(HEADERS)
        if answer is None:
            path = environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(self.prefix)
            environ["SCRIPT_NAME"] = self.prefix
            if ALLOWED.get(request.method, re.compile("(?!)")).fullmatch(path):
                answer = self.app
                if ARTIFACTS.fullmatch(path):  # of an origin of its own, without scripts, in whatever way it is opened
                    headers[POLICY] = "sandbox; default-src 'none'"
            elif found := EMPTY.get((request.method, path)):
                answer = Response(found, mimetype="application/json")
            else:
                answer = sentence(404, f"No page of runs asks for {request.method} here.")

        def start(status: str, sent: list[tuple[str, str]], exc_info: Any = None) -> Any:
            # Two policies are both in force.
            kept = [(name, value) for name, value in sent if name == POLICY or name.title() not in headers]
            return start_response(status, [*kept, *headers.items()], exc_info)

        return answer(environ, start)

    def refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that another site may have made a browser send."""
        host = request.headers.get("Host", "")
        if not self.own(host):
            return sentence(403, "This address is not one of the server's.")
        if request.headers.get("Origin", f"http://{host}") not in (f"http://{host}", f"https://{host}"):
            return sentence(403, "Another site's pages may not use this server.")
        navigation = request.method == "GET" and request.path in ("/", f"{self.prefix}/")
        if not navigation and request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return sentence(403, "Another site's pages may not use this server.")
        return None

    def own(self, host: str) -> bool:
        """Return whether a Host header names this server: not a name that was made to point here."""
        parsed = re.fullmatch(r"\[([\da-f:.]+)\](?::\d+)?|([\w.-]+)(?::\d+)?", host.lower(), re.ASCII)
        name = (parsed[1] or parsed[2]) if parsed else ""
        if name in self.names or not self.any_address:
            return name in self.names
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def login(self, request: Request) -> Response | None:
        """Return the answer to a request without the cookie: to the link, one that sets it."""
        given = request.args.get("token", "")
        if request.path == "/" and request.method == "GET" and same(given, self.token):
            script = LOGIN.format(self.prefix)
            answer = Response(f"<!doctype html><title>dlframe</title><script>{script}</script>", mimetype="text/html")
            # A redirect would be a request of the site that linked here, and without a strict cookie.
            answer.headers[POLICY] = f"default-src 'none'; script-src 'sha256-{digest(script)}'"
            answer.headers["Cache-Control"] = "no-store"
            answer.set_cookie(self.cookie, self.token, path=f"{self.prefix}/", httponly=True, samesite="Strict")
            return answer
        if not (request.path.startswith(f"{self.prefix}/") and same(request.cookies.get(self.cookie, ""), self.token)):
            return sentence(401, "Open the link that `python -m dlframe ui` printed: it has the token.")
        return None


def same(given: str, token: str) -> bool:
    """Compare in a time that does not depend on the token."""
    return secrets.compare_digest(given.encode(errors="replace"), token.encode())


def digest(script: str) -> str:
    """Return the hash by which a page's policy names a script."""
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()


def sentence(status: int, text: str) -> Response:
    return Response(f"{text}\n", status, mimetype="text/plain")


class Handler(WSGIRequestHandler):
    """Requests of a browser: nothing is logged, neither addresses, which may have the token, nor what strangers send."""

    timeout = 60

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        pass


def mlflow_application(uri: str, root: str) -> Any:
    """Return MLflow's Flask application of a store.

    MLflow 3.17 has its assistant, gateway, jobs and traces in another application, which is not even imported.

    Raises:
        TrackingError: The store is that of a newer MLflow.
        Exception: MLflow cannot open the store.
    """
    for name in [name for name in os.environ if name.lstrip("_").startswith("MLFLOW_")]:
        del os.environ[name]  # of another server: its credentials, its prefix, its hosts
    os.environ.update(quiet(os.environ))
    os.environ.update(
        {
            "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",  # it lets in any port of this machine; `Gate` does not
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_AI_GATEWAY": "false",  # then the pages do not show it
        }
    )
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    from mlflow.server import app, constants, handlers
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as repositories

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"  # those that `mlflow server` has written here are read as files
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = "./mlartifacts"
    if root:
        os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = root
    # Private, MLflow 3.17: a store names the location of each run, and no option restricts it to this machine.
    for scheme in repositories._registry.keys() - LOCAL_FILES:
        del repositories._registry[scheme]
    # MLflow 3.17: a store names addresses that are told of new model versions, and no option forbids it.
    handlers.deliver_webhook = lambda **_: None
    from dlframe.tracking.database import prepared

    database = sqlite_file(uri)
    if database and os.access(database.parent, os.W_OK):
        with prepared(database) as note:
            say(*[note] if note else [])
    handlers.initialize_backend_stores(uri, uri, root or None)
    return app


def server(app: WSGIApplication, listening: socket.socket, host: str, port: int) -> Any:
    """Return a server in this process, with a thread per request."""
    served = make_server(host, port, app, threaded=True, request_handler=Handler, fd=listening.fileno())
    served.handle_error = lambda request, client_address: None
    return served
