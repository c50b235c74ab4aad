"""Tasks on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlframe.executors.base import LOST, Work, Worker
from dlframe.registry import Natural, NonNegative, executors
from dlframe.types import ConfigError

if TYPE_CHECKING:
    from types import ModuleType


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

    def start(self, work: Sequence[Work]) -> list[Worker]:
        ray = self.ray = self.ray or self._connected()
        gpus = self.gpus or (work[0].devices if work[0].accelerator == "gpu" else 0)
        return [Task(ray, one, {**self.resources, "num_gpus": gpus}) for one in work]

    def close(self) -> None:
        if self.ray:
            self.ray.shutdown()

    def _connected(self) -> ModuleType:
        ray = _ray()
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"executor.address: no Ray cluster answers. Received: {self.address}. {reason}"
            raise ConfigError(message, "executor.address") from None
        return ray


class Task:
    """A worker as a task."""

    def __init__(self, ray: ModuleType, work: Work, resources: dict[str, Any]) -> None:
        self.ray = ray
        remote = ray.remote(_work).options(max_retries=0, name=f"dlframe-{work.number}", **resources)
        self.reference = remote.remote(work)

    def poll(self) -> int | None:
        try:
            if not self.ray.wait([self.reference], timeout=0)[0]:
                return None
            return self.ray.get(self.reference)
        except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.NodeDiedError, self.ray.exceptions.ObjectLostError):
            return LOST
        except self.ray.exceptions.RayError:
            return LOST

    def stop(self) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.cancel(self.reference)
            self.ray.wait([self.reference], timeout=30)


def _work(work: Work) -> int:
    """Run on a machine of the cluster."""
    os.chdir(work.folder)
    os.environ.update(work.environment)
    with work.log.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return work.run(work.arguments)


def _ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError("executor=ray: requires Ray. Try: python -m pip install 'dlframe[ray]'", "executor") from None
    return ray
