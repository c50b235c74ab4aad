"""What stands between a training and an MLflow server at many sites: a certificate of the company's own, a login, a prefix."""

from __future__ import annotations

import ssl
import subprocess
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Front:
    """A proxy on the loopback before a server.

    Args:
        port: The server's.
        login: What the header Authorization must say, if anything.
        prefix: Path before those of the server.
        certificate: Files of a certificate and of its key, with which it speaks TLS.
    """

    def __init__(self, port: int, *, login: str = "", prefix: str = "", certificate: tuple[Path, Path] | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if login and self.headers.get("Authorization") != login:
                    self._answer(401, b"<html>401 Authorization Required</html>", "text/html")
                elif not self.path.startswith(f"{prefix}/"):
                    self._answer(404, b"<html>404 Not Found</html>", "text/html")
                else:
                    behind = HTTPConnection("127.0.0.1", port, timeout=60)
                    kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
                    behind.request(self.command, self.path.removeprefix(prefix), body or None, kept)
                    answer = behind.getresponse()
                    self._answer(answer.status, answer.read(), answer.headers.get("Content-Type", "text/plain"))
                    behind.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that does not know the certificate hangs up."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.uri = f"{'https://localhost' if certificate else 'http://127.0.0.1'}:{self.http.server_port}{prefix}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Make an authority of one's own; the files of its certificate, and of a certificate for localhost by it with its key."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    ca, ca_key, cert, cert_key = (folder / name for name in ("ca.pem", "ca.key", "cert.pem", "cert.key"))
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    made = ["openssl", "req", "-x509", *key, "-subj", "/CN=The company"]
    subprocess.run([*made, "-keyout", str(ca_key), "-out", str(ca), *usage], check=True, capture_output=True)
    own = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    signed = ["openssl", "req", "-x509", *key, "-subj", "/CN=localhost", "-CA", str(ca), "-CAkey", str(ca_key)]
    subprocess.run([*signed, "-keyout", str(cert_key), "-out", str(cert), *own], check=True, capture_output=True)
    return ca, cert, cert_key
