"""Measurements of the machine by MLflow's own monitors, sent with the numbers of the run."""

from __future__ import annotations

import threading
import time

from mlflow.entities import Metric
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SHORTEST = 1.0
"""Seconds over which a load can be told at the end of a run."""


class SystemMetrics(SystemMetricsMonitor):
    """Load of processors, memory, disk, network and GPUs, every ten seconds.

    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL and MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING change that. MLflow's monitor sends
    what it measures itself, and stops when a server does not answer; here it waits for the next upload. A step is a second.

    Args:
        run_id: MLflow's run.
        began: When the run began, in ms since the epoch.
    """

    def __init__(self, run_id: str, began: int) -> None:
        super().__init__(run_id)
        self.began = began
        self.ended = threading.Event()
        self.waiting: list[Metric] = []
        self.lock = threading.Lock()
        self.start()

    def monitor(self) -> None:
        """Measure until the run has ended."""
        self.collect_metrics()  # a load is told since the last question in this thread
        for monitor in self.monitors:
            monitor.clear_metrics()
        while not self.ended.is_set():
            measured = 0
            for _ in range(self.samples_before_logging):
                before = time.monotonic()
                is_last = self.ended.wait(self.sampling_interval)
                if not is_last or time.monotonic() - before >= SHORTEST:
                    self.collect_metrics()
                    measured += 1
                if is_last:
                    break
            if measured:
                self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        """Keep what was measured until it is taken."""
        now = time.time_ns() // 1_000_000
        node = f"{self.node_id}/" if self.node_id else ""
        step = max(0, (now - self.began) // 1000)
        with self.lock:
            self.waiting += [Metric(f"system/{node}{name}", value, now, step) for name, value in metrics.items()]
        for monitor in self.monitors:
            monitor.clear_metrics()

    def take(self) -> list[Metric]:
        """Return what waits, which is then to be sent; `put_back` returns what was not."""
        with self.lock:
            taken, self.waiting = self.waiting, []
        return taken

    def put_back(self, metrics: list[Metric]) -> None:
        """Let metrics wait again that were not sent."""
        with self.lock:
            self.waiting = [*metrics, *self.waiting]

    def finish(self) -> None:
        """Measure a last time."""
        self.ended.set()
        if self._process:
            self._process.join(5)
            self._process = None
