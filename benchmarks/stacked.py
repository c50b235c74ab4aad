"""N models as one stack against N models one after the other, interleaved in one process: A B A B ...

    python benchmarks/stacked.py [mlp mlp-dropout mlp-256 cnn rnn] [--models 8,32] [--rounds 9] [--steps 10]

"loop" is the tuned loop of `benchmarks/steps.py` for each of the N models in turn: dlframe's own network, memory order and
fused optimizer, without the Trainer. Each model has its own seed, batches and learning rate. A round is `--steps` steps of all
models; "ratio" is the median over rounds of the ratio of one round, by wall clock, and "range" has the quartiles. "runs" is the
ratio of whole trainings of ten epochs with validation and test, without folders: N times `fit`, against a stack with its
measurement and tracing. "used" is what the measurement at the start of a stack decides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dlframe.config import Config, load
from dlframe.engine.fit import build_optimizer, build_task, fit
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data
from dlframe.population.members import Member
from dlframe.population.stack import NotStackableError
from dlframe.population.training import StackTraining
from dlframe.registry import plugins
from dlframe.runs.recorder import InMemoryRecorder
from dlframe.types import Dataset

CASES = {
    "mlp": ["model=mlp", "model.width=32", "model.dropout=0"],
    "mlp-dropout": ["model=mlp", "model.width=32"],
    "mlp-256": ["model=mlp"],
    "cnn": ["model=cnn", "model.width=8", "model.hidden_dim=32"],
    "rnn": ["model=rnn", "model.width=32"],
}
OPTIONS = ["data=digits", "batch_size=64", "epochs=10", "scheduler=constant", "weight_decay_params=all"]


class Hand:
    """A hand-written loop over the tensors of a data set."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.task = build_task(config, dataset).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = build_optimizer(config, "model", self.task.network("model"))
        assert isinstance(config.run.batch_size, int)
        order = Order(config.run.batch_size, seed=config.run.seed)
        self.loader = BatchLoader(dataset.train, dataset.spec, order, context=lambda: ProcessContext(torch.device("cpu")))
        self.plan = [batch for (batch,) in self.loader.plan()]

    def step(self, number: int) -> None:
        batch = self.loader.batch(self.plan[number])
        totals = {"samples": len(batch), **self.task.counts(batch)}
        self.optimizer.zero_grad()
        self.task.loss_part(self.task.features(batch), "model", totals).backward()
        self.optimizer.step()


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def steps_of(training: StackTraining, steps: int) -> None:
    index, sizes = training._plan(0)
    for number in range(steps):
        training._optimize(index[:, number * sizes[0] : (number + 1) * sizes[0]])
        training.schedule.step()


def rounds_of(configs: Sequence[Config], dataset: Dataset, rounds: int, steps: int) -> tuple[list[tuple[float, float]], bool]:
    """Seconds of each round, as one and one after the other, and whether a stack would be used."""
    training = StackTraining([Member.build(config, dataset) for config in configs])
    used = training.measure().pays
    hands = [Hand(config, dataset) for config in configs]

    def loop() -> None:
        for hand in hands:
            for number in range(steps):
                hand.step(number)

    found = [(timed(lambda: steps_of(training, steps)), timed(loop)) for _ in range(rounds + 1)]
    return found[1:], used


def whole_runs(configs: Sequence[Config], dataset: Dataset) -> tuple[float, float]:
    """Seconds of whole trainings, as one and one after the other."""

    def together() -> None:
        members = [Member.build(config, dataset) for config in configs]
        training = StackTraining(members)
        training.measure()
        for member in members:
            member.recorder = InMemoryRecorder()
        training.run()
        for member in members:
            member.scored(Path())

    return timed(together), timed(lambda: [fit(config, dataset, InMemoryRecorder(), Path()) for config in configs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--models", default="8,32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    plugins.discover()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'case':<13}{'models':>7}{'stack ms/step':>15}{'loop ms/step':>14}{'ratio':>7}{'range':>13}{'runs':>7}  used")
    for case in options.cases:
        for models in map(int, options.models.split(",")):
            own = [[f"seed={i}", f"optimizer.lr={lr:.6g}"] for i, lr in enumerate(np.geomspace(1e-4, 1e-2, models))]
            configs = [load([*CASES[case], *OPTIONS, *each]) for each in own]
            dataset = load_data(configs[0])
            try:
                rounds, used = rounds_of(configs, dataset, options.rounds, options.steps)
            except NotStackableError as error:
                print(f"{case:<13}{models:>7}  {error}", flush=True)
                continue
            ratios = [loop / stack for stack, loop in rounds]
            low, middle, high = statistics.quantiles(ratios, n=4)
            stack, loop = (1000 * statistics.median(column) / options.steps for column in zip(*rounds, strict=True))
            together, alone = whole_runs(configs, dataset)
            span = f"{low:.1f} to {high:.1f}"
            figures = f"{stack:>15.2f}{loop:>14.2f}{middle:>7.2f}{span:>13}{alone / together:>7.2f}"
            print(f"{case:<13}{models:>7}{figures}  {'yes' if used else 'no'}", flush=True)


if __name__ == "__main__":
    main()
