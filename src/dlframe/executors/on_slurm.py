"""Jobs of a SLURM cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlframe.executors.base import LOST, Work, Worker
from dlframe.registry import Count, executors
from dlframe.types import ConfigError

if TYPE_CHECKING:
    from submitit import Job


@executors.register("submitit")
class Submitit:
    """Jobs of a SLURM cluster, submitted as one array by submitit; each works until no trial is left or its time is over.

    `runs` must be on storage that all machines share. A job whose time is over is submitted again, and its trial goes on.

    Args:
        cluster: "slurm", or "local" for processes on this machine, to try it out.
        partition: Partition; empty for the cluster's default.
        timeout_minutes: Time of a job.
        cpus_per_task: CPUs of a job.
        memory_gb: Memory of a job in GB.
        gpus_per_node: GPUs of a job; 0 for those of `trainer.devices` where the accelerator is gpu.
    """

    trials_each = 0

    def __init__(
        self,
        *,
        cluster: Literal["slurm", "local"] = "slurm",
        partition: str = "",
        timeout_minutes: Count = 240,
        cpus_per_task: Count = 4,
        memory_gb: Count = 16,
        gpus_per_node: int = 0,
    ) -> None:
        self.cluster = cluster
        self.options: dict[str, Any] = {
            "timeout_min": timeout_minutes,
            "cpus_per_task": cpus_per_task,
            "mem_gb": memory_gb,
            **({"slurm_partition": partition} if partition else {}),
        }
        self.gpus_per_node = gpus_per_node

    def start(self, work: Sequence[Work]) -> list[Worker]:
        try:
            import submitit
        except ImportError:
            fix = "Try: python -m pip install 'dlframe[slurm]'"
            raise ConfigError(f"executor=submitit: requires submitit. {fix}", "executor") from None
        folder = work[0].log.parent / "submitit"
        folder.mkdir(mode=0o700, exist_ok=True)  # it holds pickles, which are read where the job runs
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"executor.cluster: {error}", "executor.cluster") from None
        gpus = self.gpus_per_node or (work[0].devices if work[0].accelerator == "gpu" else 0)
        executor.update_parameters(name="dlframe", gpus_per_node=gpus, **self.options)
        with executor.batch():
            jobs = [executor.submit(_work, list(w.command), dict(w.environment), w.folder, w.log) for w in work]
        return [Submitted(job, w.log) for job, w in zip(jobs, work, strict=True)]

    def close(self) -> None:
        pass


class Submitted:
    """A worker as a job."""

    def __init__(self, job: Job[Any], log: Path) -> None:
        self.job = job
        self.log = log

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        from submitit.core.utils import UncompletedJobError

        if (error := self.job.exception()) is None:
            return self.job.result()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"error: {' '.join(str(error).split())[-300:]}\n")
        return LOST if isinstance(error, UncompletedJobError) else 1

    def stop(self) -> None:
        self.job.cancel(check=False)


def _work(command: list[str], environment: dict[str, str], folder: Path, log: Path) -> int:
    """Run in the job; the exit status."""
    with log.open("ab") as output:
        return subprocess.run(
            command, env={**os.environ, **environment}, cwd=folder, stdout=output, stderr=output, check=False
        ).returncode
