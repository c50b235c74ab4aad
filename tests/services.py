"""Servers that tests start on loopback addresses: PostgreSQL, MLflow's, and the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from dlframe.tracking.store import connection_error


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        whole = psutil.Process(process.pid)
        for each in [*whole.children(recursive=True), whole]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


def postgresql(name: str) -> str | None:
    """The path of a program of PostgreSQL, which Debian does not put into PATH; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return shutil.which(name) if not folders else shutil.which(name, path=str(folders[-1]))


class PostgreSQL:
    """A server of Debian's PostgreSQL, under an account of its own where the tests run as root.

    Args:
        folder: Folder that the account may enter, which those of pytest are not.
        password: Password of the superuser `postgres`.
        log: File of what it prints.
    """

    def __init__(self, folder: Path, password: str, log: Path) -> None:
        self.port = free_port()
        self.data = folder / "postgres"
        self.log = log
        self.data.mkdir()
        self.account: dict[str, Any] = {}
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o600)
        if os.getuid() == 0:
            entry = pwd.getpwnam("postgres")
            for path in (folder, self.data, secret):
                os.chown(path, entry.pw_uid, entry.pw_gid)
            self.account = {"user": "postgres", "group": "postgres", "extra_groups": []}
        options = ["--auth=scram-sha-256", "--username=postgres", f"--pwfile={secret}", "--no-locale", "--encoding=UTF8"]
        with self._where() as where:
            subprocess.run([str(postgresql("initdb")), *options, "--no-sync", "-D", str(self.data)], check=True, **where)
        self.process: subprocess.Popen | None = None

    @contextlib.contextmanager
    def _where(self) -> Iterator[dict[str, Any]]:
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        with self.log.open("ab") as log:
            yield {"cwd": self.data, "stdout": log, "stderr": log, "env": environment, **self.account}

    def start(self) -> subprocess.Popen:
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories="]
        command = [str(postgresql("postgres")), "-D", str(self.data), *(word for s in settings for word in ("-c", s))]
        with self._where() as where:
            self.process = subprocess.Popen(command, start_new_session=True, **where)
        return self.process

    def wait(self, seconds: float = 60) -> None:
        """Until it accepts connections."""
        deadline = time.monotonic() + seconds
        command = [str(postgresql("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(command, check=False).returncode:
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """Without waiting for its clients."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                kill_all(self.process)
        self.process = None


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short name, for sockets, that other accounts may be let into."""
    folder = Path(tempfile.mkdtemp(prefix="dlf-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class RayNodes:
    """Nodes of a Ray cluster, at different loopback addresses.

    Args:
        folder: Folder with a short name, for sockets.
        log: File of what they print.
        environment: Of the nodes and of their tasks.
    """

    HEAD = "127.0.0.2"

    def __init__(self, folder: Path, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.log = log
        token = folder / "token"
        token.write_text("a token of the tests, of more than thirty-two letters")
        self.environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **(environment or {})}
        self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.port = free_port(self.HEAD)
        self.processes: dict[str, subprocess.Popen] = {}

    @property
    def address(self) -> str:
        return f"{self.HEAD}:{self.port}"

    def start(self, address: str, *, cpus: int, without: Path | None = None) -> None:
        """Start a node; the first one, at `HEAD`, is the head. One without a folder finds it empty."""
        if address == self.HEAD:
            words = ["--head", f"--port={self.port}", f"--temp-dir={self.folder / 'ray'}", "--include-dashboard=false"]
        else:
            words = [f"--address={self.address}"]
        words += [f"--node-ip-address={address}", f"--num-cpus={cpus}", "--object-store-memory=80000000", "--block"]
        self._run(address, [*(hiding(without) if without else []), "ray", "start", *words])

    def _run(self, address: str, command: Sequence[str]) -> None:
        with self.log.open("ab") as log:
            self.processes[address] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def wait(self, nodes: int, seconds: float = 90) -> None:
        """Until so many nodes are alive."""
        options = f"log_to_driver=False, logging_level='ERROR', _node_ip_address='{self.HEAD}'"
        code = f"import ray; ray.init('{self.address}', {options}); print(sum(n['Alive'] for n in ray.nodes()))"
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.HEAD, self.port), 1):
                break
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-2000:]
            time.sleep(0.2)
        while True:
            done = subprocess.run(
                [sys.executable, "-c", code], env=self.environment, capture_output=True, text=True, check=False, cwd=self.folder
            )
            if done.returncode == 0 and int(done.stdout.split()[-1]) >= nodes:
                return
            assert time.monotonic() < deadline, done.stderr[-2000:] + self.log.read_text(errors="replace")[-2000:]
            time.sleep(0.5)

    def kill(self, address: str) -> None:
        """SIGKILL to all processes of a node, those of its tasks too."""
        kill_all(self.processes.pop(address))

    def close(self) -> None:
        for address in [*self.processes][::-1]:
            self.kill(address)


class MlflowServer:
    """A real MLflow server.

    Args:
        folder: Its working folder, with its store, and its files in `served` unless `options` say otherwise.
        options: Further words of `mlflow server`.
        port: Its port; 0 for a free one.
        hidden: A folder that the server finds empty, as one of another machine would.
        environment: Added to that of this process.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        hidden: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        if "--artifacts-destination" not in options:
            places += ["--artifacts-destination", str(folder / "served")]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", *places, *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*hiding(*([hidden] if hidden else [])), *command],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})},
                start_new_session=True,
            )

    def wait(self, seconds: float = 120) -> MlflowServer:
        """Until it answers."""
        deadline = time.monotonic() + seconds
        while connection_error(self.uri, 1):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        kill_all(self.process)


def hiding(*hidden: Path) -> list[str]:
    """Words before a command that finds these folders empty."""
    if not hidden:
        return []
    mounts = "".join(f"mount -t tmpfs none '{folder}' && " for folder in hidden)
    return ["unshare", "--mount", "sh", "-c", f'{mounts}exec "$@"', "sh"]


def can_hide() -> bool:
    """Return whether folders can be hidden from a command, which takes rights that few containers give."""
    try:
        return not subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode
    except OSError:
        return False
