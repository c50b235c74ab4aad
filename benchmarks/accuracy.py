"""Time to the same validation accuracy, against a hand-written torch loop, in turn in one process: A B A B ...

    python benchmarks/accuracy.py [mlp cnn] [--rounds 5]

Both train the same network from the same seeds with Adam at 1e-3 and validate after the same number of steps; the clock runs
from the first step until a validation has reached the target. The hand-written loop is the "plain" one of steps.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback

from dlframe.config import load
from dlframe.engine.fit import build_task, fit
from dlframe.jobs.train import load_data
from dlframe.registry import plugins
from dlframe.runs.recorder import InMemoryRecorder
from dlframe.tasks.base import Task
from dlframe.types import Batch, Split
from steps import CASES, OPTIONS, Hand, textbook, with_callback

TARGETS = {"mlp": (0.97, 16), "cnn": (0.85, 50)}
"""Accuracy to reach, and the steps between two validations."""


class Race(Callback):
    """Stops the Trainer at the target."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.seconds = float("nan")

    def on_train_start(self, trainer, pl_module) -> None:
        self.start = time.perf_counter(), time.process_time()

    def on_validation_end(self, trainer, pl_module) -> None:
        if float(trainer.callback_metrics["val/accuracy"]) >= self.target:
            self.wall, self.cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
            self.steps = pl_module.steps
            trainer.should_stop = True


@torch.inference_mode()
def accuracy(task: Task, split: Split) -> float:
    """Share of a split that a task gets right."""
    task.eval()
    right = 0
    for part in np.array_split(np.arange(len(split)), -(-len(split) // 256)):
        columns = {name: torch.from_numpy(split[name][part]) for name in task.spec.fields}
        scores = task.score(task.features(Batch(columns, torch.from_numpy(part), task.spec)))
        right += int((scores["probability"].argmax(1) == scores["target"]).sum())
    task.train()
    return right / len(split)


def race(case: str, seed: int) -> dict[str, tuple[float, float, int]]:
    """Wall seconds, CPU seconds and steps of both to the target."""
    target, steps = TARGETS[case]
    watch = Race(target)
    config = load(
        [*CASES[case], *OPTIONS, *with_callback(watch), "epochs=60", f"trainer.limit_batches={steps}", f"seed={seed}"]
    )
    dataset = load_data(config)
    fit(config, dataset, InMemoryRecorder(), Path())
    task = build_task(config, dataset)
    if case == "cnn":
        task.model = textbook(task.model)
    loop = Hand(task, dataset, config, steps, tuned=False)
    wall, cpu, taken = time.perf_counter(), time.process_time(), 0
    while True:
        loop()
        taken += steps
        if accuracy(task, dataset.validation) >= target:
            break
    own = (watch.wall, watch.cpu, watch.steps)
    return {"dlframe": own, "plain": (time.perf_counter() - wall, time.process_time() - cpu, taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    plugins.discover()
    print(f"{'case':<6}{'target':>8}{'ratio wall':>12}{'ratio CPU':>11}{'dlframe':>20}{'plain':>20}")
    for case in options.cases:
        rounds = [race(case, seed) for seed in range(options.rounds)]
        wall, cpu = (statistics.median(r["plain"][i] / r["dlframe"][i] for r in rounds) for i in (0, 1))
        texts = [
            f"{statistics.median(r[n][0] for r in rounds):.2f} s, {statistics.median(r[n][2] for r in rounds):.0f} steps"
            for n in ("dlframe", "plain")
        ]
        print(f"{case:<6}{TARGETS[case][0]:>8.0%}{wall:>12.2f}{cpu:>11.2f}{texts[0]:>20}{texts[1]:>20}", flush=True)


if __name__ == "__main__":
    main()
