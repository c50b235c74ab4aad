"""Tasks on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.executors.base import LOST, Work, Worker
from dlframe.registry import Natural, NonNegative, executors
from dlframe.types import ConfigError, DlframeError, say

if TYPE_CHECKING:
    from types import ModuleType

ALIVE_SECONDS = 5
"""Time between two looks at whether the cluster is there, and for its answer."""


@executors.register("ray")
class Ray:
    """Tasks on a Ray cluster, one for each trial.

    The storage of the study coordinates them, and the state of each trial is in its run folder: `runs` must be on storage that
    all machines share, and dlframe and the plugins must be installed on each. A trial whose machine is lost goes on elsewhere.

    Args:
        address: Address of the cluster: "auto" for the one of this machine, or HOST:PORT; "local" starts one.
        cpus: CPUs of a trial.
        gpus: GPUs of a trial, as a share if it is below 1; 0 for those of `trainer.devices` where the accelerator is gpu.
        memory_gb: Memory of a trial in GB that Ray sets aside; 0 for none.
    """

    trials_each = 1

    def __init__(
        self, *, address: str = "auto", cpus: NonNegative = 1.0, gpus: NonNegative = 0.0, memory_gb: Natural = 0
    ) -> None:
        self.resources: dict[str, Any] = {"num_cpus": cpus} | ({"memory": memory_gb * 10**9} if memory_gb else {})
        self.gpus = gpus
        self.address = address
        self.ray: ModuleType | None = None
        self.gone = ""
        self.closed = threading.Event()

    def start(self, work: Sequence[Work]) -> list[Worker]:
        self.ray = self.ray or self._connected()
        gpus = self.gpus or (work[0].devices if work[0].accelerator == "gpu" else 0)
        self._check_alive()
        return [Task(self, one, {**self.resources, "num_gpus": gpus}) for one in work]

    def _check_alive(self) -> None:
        """Check that the cluster is there.

        Raises:
            ConfigError: It is not.
        """
        if self.gone:
            raise ConfigError(self.gone, "executor.address")

    def _watch(self, address: str) -> None:
        """Notice that the cluster is gone: calls of Ray then hang, until it ends the process after a minute."""
        failures = 0
        while not self.closed.wait(ALIVE_SECONDS):
            try:
                _reach(address)
                failures = 0
            except OSError as error:
                failures += 1
                if failures == 2:
                    self.gone = (
                        f"executor.address: the Ray cluster is gone ({error}). The same command continues on another one"
                    )
                elif failures > 3:
                    say(f"error: {self.gone}", error=True)
                    os._exit(2)

    def close(self) -> None:
        if self.ray and not self.gone:
            self.ray.shutdown()
        self.closed.set()

    def _connected(self) -> ModuleType:
        ray = _ray()
        try:
            if ":" in self.address:  # Ray itself goes on trying for minutes
                _reach(self.address)
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"executor.address: no Ray cluster answers. Received: {self.address}. {reason}"
            raise ConfigError(message, "executor.address") from None
        address = ray.get_runtime_context().gcs_address
        threading.Thread(target=self._watch, args=[address], daemon=True).start()
        return ray


class Task:
    """A worker as a task."""

    def __init__(self, cluster: Ray, work: Work, resources: dict[str, Any]) -> None:
        assert cluster.ray
        self.cluster, self.ray, self.log = cluster, cluster.ray, work.log
        remote = self.ray.remote(_work).options(max_retries=0, name=f"dlframe-{work.number}", **resources)
        self.reference = remote.remote(work)

    def poll(self) -> int | None:
        self.cluster._check_alive()
        errors = self.ray.exceptions
        try:
            if not self.ray.wait([self.reference], timeout=0)[0]:
                return None
            return self.ray.get(self.reference, timeout=30)
        except errors.RayTaskError as error:  # such as where dlframe is not installed
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"error: a machine of the cluster cannot work: {str(error).strip().splitlines()[-1]}\n")
            return 1
        except errors.RayError:
            return LOST

    def stop(self) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError, ConfigError):
            self.cluster._check_alive()
            self.ray.cancel(self.reference)
            self.ray.wait([self.reference], timeout=30)


def _work(work: Work) -> int:
    """Run on a machine of the cluster."""
    os.chdir(work.folder)
    os.environ.update(work.environment)
    with work.log.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            return work.run(work.arguments)
        except DlframeError as error:
            say(f"error: {error}", error=True)
            return 2


def _reach(address: str) -> None:
    """Connect to HOST:PORT.

    Raises:
        OSError: Nothing answers.
        ValueError: It is no address.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ALIVE_SECONDS):
        pass


def _ray() -> ModuleType:
    if (Path.home() / ".ray" / "auth_token").is_file():  # `ray start` has written it, and asks for it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError("executor=ray: requires Ray. Try: python -m pip install 'dlframe[ray]'", "executor") from None
    return ray
