"""The services of compose.yaml as processes of this machine, on loopback addresses.

What a container would add is left out: images, their network and limits. The commands, environment, secrets, checks of health
and the entrypoint are those of the files in docker/; `Stack.here` replaces addresses and folders by those of this machine.

    postgres        Debian's PostgreSQL, under its own account
    object-store    moto, an S3 server that keeps objects in memory and checks no signature, in place of SeaweedFS
    ray-head, ray-worker, sweep     127.0.0.2, 127.0.0.3 and 127.0.0.4: nodes of one cluster have different addresses
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.docker.files import DOCKER, compose
from tests.services import PostgreSQL, free_port, kill_all, postgresql

ADDRESSES = {"ray-head": "127.0.0.2", "ray-worker": "127.0.0.3", "sweep": "127.0.0.4"}
"""Loopback addresses of services that need their own; the others are at 127.0.0.1."""


class Stack:
    """Services that are started one by one, and ended together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Any] = compose()["services"]
        self.processes: dict[str, subprocess.Popen] = {}
        self.ports = {name: free_port() for name in ("postgres", "object-store", "mlflow", "dashboard")}
        self.ports["ray-head"] = free_port(ADDRESSES["ray-head"])
        self.work = folder / "work"
        (self.work / "runs").mkdir(parents=True)
        shutil.copy(DOCKER / "secrets.sh", folder)
        subprocess.run([folder / "secrets.sh"], check=True)
        self.secrets = folder / "secrets"
        # Sockets of Ray have long names, and PostgreSQL's account cannot enter a folder of pytest.
        self.short = Path(tempfile.mkdtemp(prefix="dlf-", dir="/tmp"))

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    @property
    def tracking(self) -> str:
        """The address of the MLflow server."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    def here(self, text: str) -> str:
        """Text of compose.yaml with the addresses and folders of this machine."""
        port = self.ports
        replaced = {
            "/run/secrets": str(self.folder / "secrets"),
            "/etc/mlflow-auth.ini": str(self.folder / "mlflow-auth.ini"),
            "postgres:5432": f"127.0.0.1:{port['postgres']}",
            "object-store:8333": f"127.0.0.1:{port['object-store']}",
            "mlflow:5000": f"127.0.0.1:{port['mlflow']}",
            "127.0.0.1:5000": f"127.0.0.1:{port['mlflow']}",
            "--port=5000": f"--port={port['mlflow']}",
            "ray-head:6379": f"{ADDRESSES['ray-head']}:{port['ray-head']}",
            "--port=6379": f"--port={port['ray-head']} --dashboard-port={port['dashboard']} --temp-dir={self.short / 'ray'}",
            "0.0.0.0": "127.0.0.1",
        }
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """That of the service in its container: nothing of ours, but for where programs and packages are."""
        own = {key: self.here(value) for key, value in self.services[name].get("environment", {}).items()}
        programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
        packages = {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        fixed = {"PATH": os.pathsep.join(programs), "HOME": str(home), "XDG_STATE_HOME": str(self.work / "state")}
        return {**packages, **fixed, "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8", **own}

    def command(self, name: str, words: list[str]) -> list[str]:
        """What the container of a service would run, with the entrypoint of the image."""
        words = [part for word in words for part in (self.here(word).split() if word == "--port=6379" else [self.here(word)])]
        address = ADDRESSES.get(name)
        if address:
            words = [word.replace("ray start", f"ray start --node-ip-address={address}") for word in words]
            if words[:2] == ["ray", "start"]:
                words.insert(2, f"--node-ip-address={address}")
        return [str(DOCKER / "with-secrets.sh"), *words]

    def start(self, name: str, *more: str, replace: dict[str, str] | None = None) -> subprocess.Popen:
        """Start a service; its output goes to a file of its name."""
        words = [(replace or {}).get(word, word) for word in self.services[name]["command"]]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.command(name, words), *more],
                cwd=self.work,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.processes[name]

    def run(self, name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`docker compose run NAME ...`: a command in place of the service's own; `environment` replaces, "" removes."""
        merged = {key: value for key, value in {**self.environment(name), **environment}.items() if value}
        return subprocess.run(
            self.command(name, list(words)),
            cwd=self.work,
            env=merged,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def wait(self, name: str, seconds: float = 120) -> None:
        """Until the service's own check of its health succeeds."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        deadline = time.monotonic() + seconds
        while (done := self.run(name, *test)).returncode:
            ended = name in self.processes and self.processes[name].poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{name}: {done.stderr[-500:]}\n{self.said(name)}")
            time.sleep(0.5)

    def said(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def start_postgres(self) -> None:
        """PostgreSQL of this machine, with the databases that databases.sh creates."""
        server = PostgreSQL(self.short, self.secret("postgres_password"), self.folder / "postgres.log")
        self.ports["postgres"] = server.port
        self.processes["postgres"] = server.start()
        auth = compose()["configs"]["mlflow_auth"]["content"]
        (self.folder / "mlflow-auth.ini").write_text(self.here(auth))
        connection = {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports["postgres"])}
        self.services["postgres"]["healthcheck"]["test"][1] = str(postgresql("pg_isready"))
        self.services["postgres"]["healthcheck"]["test"].append(f"--port={self.ports['postgres']}")
        self.services["postgres"]["environment"] = {}
        self.wait("postgres")
        subprocess.run(
            [DOCKER / "databases.sh"],
            env={**os.environ, **connection, "PGPASSWORD": self.secret("postgres_password"), "SECRETS": str(self.secrets)},
            check=True,
        )

    def start_object_store(self) -> None:
        """An S3 server in place of the image's, and the bucket that the service `bucket` creates."""
        with (self.folder / "object-store.log").open("ab") as log:
            self.processes["object-store"] = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.ports["object-store"])],
                cwd=self.work,
                env=self.environment("bucket"),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        for again in (False, True):  # the second time the bucket is there
            while (done := self.run("bucket", *self.services["bucket"]["command"])).returncode:
                if again or time.monotonic() > deadline:
                    raise AssertionError(done.stderr + self.said("object-store"))
                time.sleep(0.5)

    def kill(self, name: str) -> None:
        """SIGKILL to every process of a service, as when its container is killed."""
        kill_all(self.processes.pop(name))

    def close(self) -> None:
        for name in [*self.processes][::-1]:
            if name == "postgres":
                self.processes[name].send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.processes[name].wait(20)
            self.kill(name)
        shutil.rmtree(self.short, ignore_errors=True)
