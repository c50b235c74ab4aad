"""Training steps a second against hand-written torch loops, interleaved in one process: A B C A B C ...

    python benchmarks/steps.py [cnn mlp rnn gan boxes ragged ranking speech fasttext text_cnn bilstm text_transformer fraud
        anomaly lstm tcn nbeats patch_tst lazy] [--rounds 15] [--steps 40]

"plain" is the loop one writes by hand: the same network, tensors, batch order and optimizer, torch's defaults. For the
cnn it is the textbook order, NCHW memory and an optimizer that is not fused. "tuned" has dlframe's own network, memory
order and fused optimizer. "alone", for the cnn, is the plain loop in a process of its own with torch alone, as its writer
would run it: without what dlframe sets for its process (memory that is kept, threads that soon sleep). A ratio above 1
means that dlframe is faster; it is the median over rounds of the ratio of one round, by wall clock and by CPU time. Each
round is an epoch of `--steps` steps, the Trainer's own work included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import nn

from alone import Textbook
from dlframe.config import Config, load
from dlframe.engine.fit import build_task, fit
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data
from dlframe.registry import callbacks, plugins
from dlframe.runs.recorder import InMemoryRecorder
from dlframe.tasks.base import Task
from dlframe.types import Batch, Dataset, Lazy, Ragged

PLUGIN = Path(__file__).parent.parent / "tests" / "foreign" / "tokens"
TOKENS = [f"plugin_paths={PLUGIN}", "task=tagging", "data=words", "model=tagger"]
CASES = {
    "cnn": ["model=cnn", "data=fashion_mnist", "batch_size=128", "optimizer=adam"],
    "mlp": ["model=mlp", "data=digits", "batch_size=64", "optimizer=adam"],
    "rnn": ["model=rnn", "data=fashion_mnist", "batch_size=128", "optimizer=adam"],
    "gan": ["model=gan", "data=digits", "batch_size=64", "optimizer=adam"],
    "boxes": ["task=object_detection", "batch_size=16", "optimizer=adam"],
    "ragged": [*TOKENS, "batch_size=32", "optimizer=adam"],
    "ranking": ["task=recommendation", "optimizer=adam"],
    "speech": ["task=speech_recognition", "data=tones", "optimizer=adam"],
    **{
        name: ["task=text_classification", "data=sms_spam", f"model={name}", "batch_size=32", "optimizer=adam"]
        for name in ("fasttext", "text_cnn", "bilstm", "text_transformer")
    },
    "fraud": ["task=fraud_detection", "data=synthetic_fraud", "batch_size=512", "optimizer=adam"],
    "anomaly": ["task=anomaly_detection", "model=deep_svdd", "batch_size=64", "optimizer=adam"],
    **{
        name: ["task=forecasting", "data=sp500", f"model={name}", "batch_size=32", "optimizer=adam"]
        for name in ("lstm", "tcn", "nbeats", "patch_tst")
    },
    "lazy": [*TOKENS, f"data.path={tempfile.gettempdir()}/dlframe-words", "batch_size=32", "optimizer=adam"],
}
OPTIONS = ["augmentation=[]", "scheduler=constant", "optimizer.lr=0.001", "weight_decay_params=all"]
Segment = Callable[[], tuple[float, float] | None]
"""Does some steps; may say how many wall-clock and processor seconds they took, if it does them elsewhere."""


def textbook(twin: nn.Module) -> Textbook:
    """The textbook's cnn in the sizes of dlframe's."""
    first, second = (m for m in twin.modules() if isinstance(m, nn.Conv2d))
    hidden, head = (m for m in twin.modules() if isinstance(m, nn.Linear))
    dropout = next(m.p for m in twin.modules() if isinstance(m, nn.Dropout))
    channels = (first.in_channels, first.out_channels, second.out_channels)
    return Textbook(channels, (hidden.in_features, hidden.out_features), head.out_features, dropout)


class Alone:
    """The textbook loop in a process of its own, one epoch at each call."""

    def __init__(self, twin: nn.Module, dataset: Dataset, config: Config, steps: int, folder: Path) -> None:
        model, image = textbook(twin), dataset.spec.inputs["image"]
        sizes = {
            "channels": (model.first.in_channels, model.first.out_channels, model.second.out_channels),
            "hidden": (model.hidden.in_features, model.hidden.out_features),
            "classes": model.head.out_features,
            "dropout": model.dropout.p,
        }
        columns = {"images": dataset.train["image"], "labels": dataset.train["label"].astype(np.int64)}
        np.savez(folder / "data.npz", **columns, **sizes, mean=image.mean, std=image.std)
        script = Path(__file__).with_name("alone.py")
        command = [sys.executable, script, folder / "data.npz", str(steps), str(config.run.batch_size)]
        theirs = {name: value for name, value in os.environ.items() if name not in ("THP_MEM_ALLOC_ENABLE", "GOMP_SPINCOUNT")}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=theirs)

    def __call__(self) -> tuple[float, float]:
        assert self.process.stdin, self.process.stdout
        print(file=self.process.stdin, flush=True)
        wall, cpu = self.process.stdout.readline().split()  # type: ignore[union-attr]
        return float(wall), float(cpu)


class Hand:
    """A hand-written loop over the tensors of a data set.

    Samples of varying length are joined by slices, those in files are read one by one, in batches of the same samples as
    dlframe's: what is compared is the work around the network.
    """

    def __init__(self, task: Task, dataset: Dataset, config: Config, steps: int, *, tuned: bool) -> None:
        self.task = (task.to(memory_format=torch.channels_last) if tuned else task).train()
        self.tuned, self.networks, self.spec = tuned, config.networks, dataset.spec
        self.columns = {name: tensors(dataset.train[name]) for name in dataset.spec.fields}
        assert isinstance(config.run.batch_size, int)
        self.order = Order(config.run.batch_size, seed=0, limit=steps)
        self.loader = BatchLoader(dataset.train, dataset.spec, self.order, context=lambda: ProcessContext(torch.device("cpu")))
        self.epoch = 0
        self.optimizers = [
            torch.optim.Adam(task.network(name).parameters(), lr=1e-3, fused=True if tuned else None) for name in self.networks
        ]

    def __call__(self) -> None:
        self.epoch += 1
        for (index,) in self.loader.plan(self.epoch):
            batch = Batch({name: self.gather(column, index) for name, column in self.columns.items()}, index, self.spec)
            batch = self.task.features(batch)
            totals = {"samples": len(index), **self.task.counts(batch)}
            counted = type(self.task).counts is not Task.counts
            for name, optimizer in zip(self.networks, self.optimizers, strict=True):
                optimizer.zero_grad()
                (self.task.loss(batch, name, totals) if counted else self.task.loss(batch, name)).backward()
                optimizer.step()

    def gather(self, column: Any, index: torch.Tensor) -> Any:
        if isinstance(column, Ragged):
            return joined([column[i] for i in index.tolist()])
        if isinstance(column, Lazy):
            return joined([torch.from_numpy(np.load(column.items[i])) for i in index.tolist()])
        if not self.tuned:
            return column[index]
        rows = column.index_select(0, index)
        return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows


def joined(samples: list[torch.Tensor]) -> Ragged:
    offsets = torch.tensor([0, *map(len, samples)]).cumsum(0)
    return Ragged(torch.cat(samples), offsets)


def tensors(column: Any) -> Any:
    if isinstance(column, Ragged):
        return Ragged(torch.from_numpy(column.values), torch.from_numpy(column.offsets))
    return column if isinstance(column, Lazy) else torch.from_numpy(column.copy())


def measured(segment: Segment) -> tuple[float, float]:
    """Wall and CPU seconds of a segment."""
    wall, cpu = time.perf_counter(), time.process_time()
    if own := segment():
        return own
    return time.perf_counter() - wall, time.process_time() - cpu


class Interleave(Callback):
    """Times an epoch of the Trainer, then the hand-written loops."""

    def __init__(self) -> None:
        self.loops: dict[str, Segment] = {}
        self.rounds: list[dict[str, tuple[float, float]]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.start = time.perf_counter(), time.process_time()

    def on_validation_start(self, trainer, pl_module) -> None:
        self.end = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        own = (self.end[0] - self.start[0], self.end[1] - self.start[1])
        self.rounds.append({"dlframe": own, **{name: measured(loop) for name, loop in self.loops.items()}})


def with_callback(callback: Callback) -> list[str]:
    """Overrides that give a callback to the Trainer, by registering it as a plugin would."""
    callbacks.entries.pop("measure", None)

    @callbacks.register("measure")
    def _measure() -> Callback:
        """Measures."""
        return callback

    return ["callback=[measure]"]


def compare(case: str, rounds: int, steps: int) -> list[dict[str, tuple[float, float]]]:
    """Rounds of timings of one case, the first two skipped: the first steps pay for what is made once."""
    interleave = Interleave()
    overrides = [*CASES[case], *OPTIONS, *with_callback(interleave)]
    config = load([*overrides, f"epochs={rounds + 2}", f"trainer.limit_batches={steps}"])
    dataset = load_data(config)
    for part in ("validation", "test"):
        split = getattr(dataset, part)
        setattr(dataset, part, split.take(np.arange(min(256, len(split)))))
    steps = min(steps, BatchLoader(dataset.train, dataset.spec, Order(config.run.batch_size), context=ProcessContext).steps())
    for name in ("plain", "tuned"):
        task = build_task(config, dataset)
        if name == "plain" and case == "cnn":
            task.model = textbook(task.model)
        interleave.loops[name] = Hand(task, dataset, config, steps, tuned=name == "tuned")
    with tempfile.TemporaryDirectory() as folder:
        if case == "cnn":
            alone = Alone(build_task(config, dataset).model, dataset, config, steps, Path(folder))
            interleave.loops["alone"] = alone
        fit(config, dataset, InMemoryRecorder(), Path())
        if case == "cnn":
            alone.process.communicate()
    return interleave.rounds[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    plugins.discover()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'case':<18}{'against':<9}{'ratio wall':>11}{'ratio CPU':>11}{'dlframe ms/step':>17}{'other ms/step':>15}")
    for case in options.cases:
        rounds = compare(case, options.rounds, options.steps)
        for other in [name for name in rounds[0] if name != "dlframe"]:
            wall, cpu = (statistics.median(r[other][i] / r["dlframe"][i] for r in rounds) for i in (0, 1))
            own, its = (1000 * statistics.median(r[n][1] for r in rounds) / options.steps for n in ("dlframe", other))
            print(f"{case:<18}{other:<9}{wall:>11.2f}{cpu:>11.2f}{own:>17.2f}{its:>15.2f}", flush=True)


if __name__ == "__main__":
    main()
