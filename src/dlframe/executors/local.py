"""Processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from dlframe.executors.base import Work, Worker, threads
from dlframe.registry import Count, executors
from dlframe.types import ConfigError

GRACE_SECONDS = 30
"""Time in which a process saves its state before it is killed."""


@executors.register("local")
class Local:
    """Processes on this machine, each with its share of the CPU threads and a device of its own.

    Args:
        workers_per_device: Workers that share a GPU.
        isolate: Run each trial in a new process, which costs its imports: a trial that crashes takes no other with it.
    """

    def __init__(self, *, workers_per_device: Count = 1, isolate: bool = False) -> None:
        self.workers_per_device = workers_per_device
        self.trials_each = 1 if isolate else 0

    def start(self, work: Sequence[Work]) -> list[Worker]:
        return [Process(w, {**threads(w), **self._device(w)}) for w in work]

    def close(self) -> None:
        pass

    def _device(self, work: Work) -> dict[str, str]:
        if work.accelerator != "gpu" or work.workers == 1:
            return {}
        found = visible_devices()
        places = len(found) // work.devices * self.workers_per_device
        if work.workers > places:
            share = -(-work.workers * work.devices // max(1, len(found)))
            raise ConfigError(
                f"workers: {len(found)} GPUs have room for {places} trials of {work.devices}. Received: {work.workers}. "
                f"Try: executor.workers_per_device={share}",
                "workers",
            )
        first = work.number // self.workers_per_device * work.devices
        return {"CUDA_VISIBLE_DEVICES": ",".join(found[first : first + work.devices])}


class Process:
    """A worker in a process of its own."""

    def __init__(self, work: Work, environment: dict[str, str]) -> None:
        with work.log.open("ab") as log:
            self.process = subprocess.Popen(
                work.command,
                env={**os.environ, **environment, **work.environment},
                cwd=work.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver, which tells the worker
            )

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in told.split(",") if name.strip()]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, line in enumerate(x for x in done.stdout.splitlines() if x.startswith("GPU "))]
