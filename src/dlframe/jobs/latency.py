"""Time that a trained model takes for one sample."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import torch

from dlframe.config import Config
from dlframe.engine.fit import build_task
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data
from dlframe.runs.recorder import BEST
from dlframe.storage import checkpoint

WARMUP, REPETITIONS = 10, 50


def latency_ms(config: Config, folder: Path) -> float:
    """Return the median time in milliseconds to score one test sample, on the CPU, after a warm-up.

    Args:
        config: Config of the run.
        folder: Run directory, whose best weights are used.
    """
    dataset = load_data(config)
    task = build_task(config, dataset, restored=True)
    checkpoint.restore(task, checkpoint.weights(folder / BEST), folder / BEST)
    task.eval()
    one = dataset.test.take(np.arange(1))
    ((step,),) = BatchLoader(one, dataset.spec, Order(1), context=lambda: ProcessContext(torch.device("cpu")))
    times = []
    with torch.inference_mode():
        for _ in range(WARMUP + REPETITIONS):
            started = time.perf_counter()
            task.score(task.features(step.batches[0]))
            times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[WARMUP:])
