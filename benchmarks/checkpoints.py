"""What the journal and the checkpoints cost: epochs with and without them, interleaved in one training: A B C A B C ...

    python benchmarks/checkpoints.py [digits fashion_mnist] [--rounds 15] [--steps 0]

"kept" is an epoch of the cnn with all that a run keeps by default: its metrics in the journal, and a copy of the best weights,
which here every epoch takes anew. "often" also saves the whole state, and the best weights with it, every 10 steps. A ratio
is the median over rounds of an epoch's time to that of the epoch without, by wall clock and by CPU time; an epoch is `--steps`
steps (0: all), validation included. Such ratios are no surer than the machine is quiet; so the time that a "kept" epoch spends
in the recorder is measured too. The last column is what a run pays by default: one, and the share of that time, and of a state
in each minute.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from dlframe.config import Config, load
from dlframe.engine.fit import fit
from dlframe.jobs.train import load_data
from dlframe.registry import callbacks, plugins
from dlframe.runs.journal import Journal
from dlframe.runs.recorder import BEST, RunRecorder
from dlframe.runs.signals import Signals

MODES = ("without", "kept", "often")
OFTEN_STEPS = 10


class Switched(RunRecorder):
    """A recorder of which an epoch has all, the last states left out, or nothing."""

    def __init__(self, config: Config, folder: Path) -> None:
        super().__init__(config, folder, Journal(folder), Signals())
        self.mode = MODES[0]
        self.asked = 0.0
        self.seconds_inside = 0.0
        self.seconds_of_states: list[float] = []

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.mode != "without":
            started = time.perf_counter()
            super().log_metrics(step, metrics)
            self._count(started)

    def save_best(self, weights: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        if self.mode != "without":
            started = time.perf_counter()
            super().save_best(weights, facts)
            self._count(started)

    def _count(self, started: float) -> None:
        if self.mode == "kept":
            self.seconds_inside += time.perf_counter() - started

    def should_save(self, step: int, epoch: int) -> bool:
        self.asked = time.perf_counter()
        return self.mode == "often" and step % OFTEN_STEPS == 0

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        super().save(tree, facts)
        self.seconds_of_states.append(time.perf_counter() - self.asked)


class Interleave(Callback):
    """Switches the recorder at each epoch, and takes the times."""

    def __init__(self, recorder: Switched) -> None:
        self.recorder = recorder
        self.marks: list[tuple[float, float]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        pl_module.at.best = None
        self.recorder.mode = MODES[len(self.marks) % len(MODES)]
        self.marks.append((time.perf_counter(), time.process_time()))

    def rounds(self) -> list[dict[str, tuple[float, float]]]:
        """Wall and CPU seconds of each mode's epoch; of the first two rounds none, which pay for what is made once."""
        spent = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self.marks[:-1], self.marks[1:], strict=True)]
        size = len(MODES)
        return [dict(zip(MODES, spent[i : i + size], strict=True)) for i in range(2 * size, len(spent) - size + 1, size)]


def measure(data: str, rounds: int, steps: int) -> None:
    options = ["model=cnn", f"data={data}", f"epochs={(rounds + 2) * len(MODES) + 1}", f"trainer.limit_batches={steps}"]
    with tempfile.TemporaryDirectory() as folder:
        recorder = Switched(load(options), Path(folder))
        interleave = Interleave(recorder)
        callbacks.entries.pop("measure", None)

        @callbacks.register("measure")
        def _measure() -> Callback:
            """Measures."""
            return interleave

        config = load([*options, "callback=[measure]"])
        fit(config, load_data(config), recorder, Path(folder) / BEST)
    times = interleave.rounds()
    state = statistics.median(recorder.seconds_of_states)
    ratios = [statistics.median(r[mode][i] / r["without"][i] for r in times) for mode in MODES[1:] for i in (0, 1)]
    epoch = statistics.median(r["without"][0] for r in times)
    inside = recorder.seconds_inside / (rounds + 2)
    print(f"{data:<16}{1000 * epoch:>10.0f}", *(f"{ratio:>11.4f}" for ratio in ratios), end="")
    print(f"{1000 * inside:>12.2f}{1000 * state:>12.1f}{1 + inside / epoch + state / 60:>12.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["digits", "fashion_mnist"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=0)
    options = parser.parse_args()
    plugins.discover()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'data':<16}{'ms/epoch':>10}{'kept wall':>12}{'kept CPU':>12}{'often wall':>12}{'often CPU':>12}", end="")
    print(f"{'ms inside':>12}{'ms/state':>12}{'by default':>12}")
    for data in options.data:
        measure(data, options.rounds, options.steps)


if __name__ == "__main__":
    main()
