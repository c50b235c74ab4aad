"""Learning-rate range test: the loss of a model that is thrown away, while its learning rate grows from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from dlframe.engine import fit, initial_weights, internals  # isort: skip  # before torch
import numpy as np
import torch

from dlframe.config import Config
from dlframe.engine.checks.dry_run import step_loss
from dlframe.engine.learner import averages_weights
from dlframe.engine.loader import ProcessContext, Step
from dlframe.runs.recorder import Recorder
from dlframe.tasks.base import Task
from dlframe.types import Dataset

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
KEPT = 0.9
"""Fraction of the mean loss that each step keeps."""
LEAST = 10
"""Steps without which nothing is suggested."""
DIVERGED = 4.0
"""The test ends where the mean loss exceeds the least one by this factor."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    Attributes:
        rates: (n,) learning rates, one a step.
        losses: (n,) the loss at each step, before the step.
        smooth: (n,) means of the losses, later ones counting more.
        suggested: Where the mean falls steepest over the logarithm of the rate; None where it does not fall.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    suggested: float | None

    @classmethod
    def of(cls, rates: list[float], losses: list[float]) -> RangeTest:
        """Smooth the losses as Adam does its means, without a bias to the first, and find the steepest fall."""
        smooth = means(losses)
        suggested = None
        if len(rates) >= LEAST:
            slopes = np.gradient(smooth, np.log(rates))[LEAST // 2 : max(LEAST // 2 + 1, int(np.argmin(smooth)) + 1)]
            place = int(np.argmin(slopes))
            if slopes[place] < 0:
                suggested = float(f"{rates[place + LEAST // 2]:.2g}")
        return cls(np.array(rates), np.array(losses), np.array(smooth), suggested)


def means(losses: list[float]) -> list[float]:
    """Return exponential means of losses, each divided by the sum of its weights."""
    found, mean = [], 0.0
    for step, loss in enumerate(losses, 1):
        mean = KEPT * mean + (1 - KEPT) * loss
        found.append(mean / (1 - KEPT**step))
    return found


def range_test(config: Config, dataset: Dataset) -> RangeTest:
    """Train a model for some steps, each with a higher rate, until the loss grows; nothing is written.

    The optimizer is the config's; its learning rates by layer keep their ratios. The schedule does not count. The model has one
    network, trained in 32 or 64 bits.
    """
    config = config.changed(trainer={"devices": 1, "num_nodes": 1, "strategy": "auto", "max_steps": 0})
    fit.prepare_process(config)
    if config.run.batch_size == "auto":
        config = fit.fitted_batch(config, dataset, Recorder())
    task = fit.build_task(config, dataset)
    if config.run.initial_checkpoint:
        initial_weights.load(task, config)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else config.trainer.accelerator)
    task.to(device).train()
    if config.trainer.precision == "64-true":
        task.double()
    name = config.networks[0]
    optimizer = fit.build_optimizer(config, name, task.network(name))
    if averages_weights(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    ratios = [group["lr"] / config.values["optimizer"]["lr"] for group in optimizer.param_groups]
    augmentations = config.build_list("augmentation", spec=dataset.spec)
    generator = torch.Generator(device).manual_seed(config.run.seed)
    rates: list[float] = []
    losses: list[float] = []
    steps = _steps(config, dataset, task, device)
    for rate, step in zip(np.geomspace(LOWEST, HIGHEST, STEPS).tolist(), steps, strict=False):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        loss = step_loss(task, name, step, augmentations, generator)
        value = loss.item()
        if not math.isfinite(value):
            break
        rates.append(rate)
        losses.append(value)
        smooth = means(losses)
        if len(losses) > LEAST and smooth[-1] > DIVERGED * min(smooth):
            break
        loss.backward()
        if config.run.gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(task.network(name).parameters(), config.run.gradient_clip_val)
        with internals.whole_precision(device):
            optimizer.step()
        optimizer.zero_grad()
    return RangeTest.of(rates, losses)


def _steps(config: Config, dataset: Dataset, task: Task, device: torch.device) -> Iterator[Step]:
    """Yield the training steps of one epoch after the other."""
    epoch = 0
    unlabeled = config.entry("model").facts["unlabeled"]
    while True:
        context = partial(ProcessContext, device, 0, 1, epoch)
        loader = fit.batches(config, dataset, dataset.train, task, context, shuffle=True, unlabeled=unlabeled)
        for chunk in loader:
            yield from chunk
        epoch += 1
