"""Learning-rate range test: which rates lower the loss, and from which on it diverges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dlframe.engine import fit, internals  # isort: skip  # before torch
import torch

from dlframe.config import Config
from dlframe.engine.checks.dry_run import loss_of
from dlframe.engine.loader import ProcessContext, Step
from dlframe.runs.recorder import Recorder
from dlframe.types import Dataset, TrainingError

STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0
SMOOTHING = 0.98
"""Weight of the losses before, in their moving average."""
DIVERGED = 4.0
"""Times the lowest loss at which the test ends."""
SKIPPED = 10
"""First steps whose moving average is of too few losses to tell anything."""
FALL = 0.01
"""Part of the loss by which it must fall, to tell anything."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    Attributes:
        rates: (steps,) rising learning rates.
        losses: (steps,) moving averages of the training loss.
        steepest: The rate at which the loss falls fastest; NaN where it does not fall.
        lowest: The rate at which it is lowest.
    """

    rates: np.ndarray
    losses: np.ndarray
    steepest: float
    lowest: float


def range_test(config: Config, dataset: Dataset) -> RangeTest:
    """Train a model that is thrown away for some steps, at rates that rise from step to step, and see how its loss goes.

    Smith (2017, "Cyclical learning rates for training neural networks"). Precision is 32 bit, and augmentations, clipping,
    weights to begin with and the schedule are left out. The model has one network.

    Raises:
        TrainingError: The loss falls at no rate.
    """
    fit.prepare_process(config)
    config = config.changed(trainer={"devices": 1, "num_nodes": 1, "strategy": "auto", "max_steps": 0})
    if config.run.batch_size == "auto":
        config = fit.fitted_batch(config, dataset, Recorder())
    # A training of one batch tells what would end it, and finds the device.
    learner, trainer = fit.train(config.changed(epochs=1, trainer={"limit_batches": 1}), dataset, Recorder())
    device = trainer.strategy.root_device
    internals.release(trainer, learner)
    rates, losses = _losses(config, dataset, device)
    rates, losses = np.array(rates), np.array(losses)
    if len(losses) < SKIPPED + 2 or losses[SKIPPED:].min() > losses[SKIPPED] - FALL * abs(losses[SKIPPED]):
        raise TrainingError("find=lr: the loss falls at no learning rate. Look at the data, or try another optimizer")
    slope = np.gradient(losses)[SKIPPED:]
    return RangeTest(rates, losses, float(rates[SKIPPED + slope.argmin()]), float(rates[SKIPPED + losses[SKIPPED:].argmin()]))


def _losses(config: Config, dataset: Dataset, device: torch.device) -> tuple[list[float], list[float]]:
    """Return rates, and the moving average of the loss at each, until it diverges."""
    task = fit.build_task(config, dataset).to(device).train()
    (network,) = config.networks
    optimizer = fit.build_optimizer(config, network, task.network(network))
    scales = [group["lr"] / config.values["optimizer"]["lr"] for group in optimizer.param_groups]
    epoch = 0

    def steps() -> Iterator[Step]:
        nonlocal epoch
        while True:
            yield from itertools.chain.from_iterable(loader)
            epoch += 1

    def context() -> ProcessContext:
        return ProcessContext(device, epoch=epoch)

    unlabeled = config.entry("model").facts["unlabeled"]
    loader = fit.batches(config, dataset, dataset.train, task, context, shuffle=True, unlabeled=unlabeled)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for number, step in zip(range(STEPS), steps(), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = rate * scale
        optimizer.zero_grad()
        loss = loss_of(task, network, step)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
        smoothed = average / (1 - SMOOTHING ** (number + 1))
        if not math.isfinite(smoothed) or (losses and smoothed > DIVERGED * abs(min(losses))):
            break
        rates.append(rate)
        losses.append(smoothed)
        loss.backward()
        optimizer.step()
    return rates, losses
