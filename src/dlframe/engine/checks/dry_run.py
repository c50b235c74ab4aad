"""One batch tried before a training: what the model costs in parameters, multiply-adds, memory and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dlframe.engine import fit, internals  # isort: skip  # before torch
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dlframe.config import Config
from dlframe.engine.loader import BatchLoader, ProcessContext, Step
from dlframe.runs.recorder import Recorder
from dlframe.tasks.base import Task
from dlframe.types import Batch, Dataset, duration

TIMED = 3
"""Steps that are timed, after one that pays for what is made once."""


@dataclass(frozen=True)
class Trial:
    """What a dry run has found.

    Attributes:
        parameters: Of the model.
        trained: Those of them that the optimizers change.
        multiply_adds: Of one sample in a forward pass, in products of matrices, convolutions and attention.
        has_recurrent: Whether there are recurrent layers, whose multiply-adds may be missing.
        memory: Bytes of weights, gradients, optimizers' state and what a step keeps for its backward pass.
        steps_in_epoch: Optimizer steps.
        steps: Optimizer steps of the whole training.
        seconds: Time of a step, without validation.
        samples: In a step.
    """

    parameters: int
    trained: int
    multiply_adds: float
    has_recurrent: bool
    memory: int
    steps_in_epoch: int
    steps: int
    seconds: float
    samples: int

    def __str__(self) -> str:
        steps = f"{self.steps:,} steps, {self.steps_in_epoch:,} in an epoch"
        if not self.trained:
            return f"{self.parameters:,} parameters, none of them trained by gradients; {steps}"
        counted = f"{_short(self.multiply_adds)} multiply-adds a sample" if self.multiply_adds else "multiply-adds not counted"
        counted += " (those of recurrent layers may be missing)" if self.has_recurrent and self.multiply_adds else ""
        return (
            f"{self.parameters:,} parameters, {self.trained:,} of them trained; {counted}; "
            f"about {_bytes(self.memory)} for a step of {self.samples:,} samples; {steps}: "
            f"about {duration(self.steps * self.seconds)} without validation, at {1 / self.seconds:,.1f} steps a second"
        )


def dry_run(config: Config, dataset: Dataset) -> Trial:
    """Build everything, train and validate one batch, and measure a few steps; nothing is written.

    Raises:
        DlframeError: What the training would end with at its beginning.
    """
    fit.prepare_process(config)
    # Elsewhere than in this process, nothing could be measured.
    config = config.changed(trainer={"devices": 1, "num_nodes": 1, "strategy": "auto"})
    if config.run.batch_size == "auto":
        config = fit.fitted_batch(config, dataset, Recorder())
    learner, trainer = fit.train(config.changed(epochs=1, trainer={"limit_batches": 1, "max_steps": 0}), dataset, Recorder())
    device = trainer.strategy.root_device
    internals.release(trainer, learner)
    task = fit.build_task(config, dataset).to(device).train()
    unlabeled = config.entry("model").facts["unlabeled"]
    context = partial(ProcessContext, device)
    loader = fit.batches(config, dataset, dataset.train, task, context, shuffle=True, unlabeled=unlabeled)
    return _measured(config, task, loader)


def _measured(config: Config, task: Task, loader: BatchLoader) -> Trial:
    step: Step = next(iter(loader))[0]
    optimizers = {name: fit.build_optimizer(config, name, task.network(name)) for name in config.networks}
    step_of_one = step.of([0]) if len(step.batches) > 1 else step
    with FlopCounterMode(display=False) as counter:
        for network in config.networks:
            step_loss(task, network, step_of_one)
    kept, seconds = _kept(task, config.networks, step_of_one), []
    for _ in range(TIMED + 1 if optimizers else 0):
        started = time.perf_counter()
        for name, optimizer in optimizers.items():
            step_loss(task, name, step).backward()
            optimizer.step()
            task.zero_grad()
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        seconds.append(time.perf_counter() - started)
    trained = [p for o in optimizers.values() for group in o.param_groups for p in group["params"] if p.requires_grad]
    states = [value for o in optimizers.values() for state in o.state.values() for value in state.values()]
    weights = [*task.parameters(), *task.buffers()]
    return Trial(
        parameters=sum(p.numel() for p in task.model.parameters()),
        trained=sum(p.numel() for p in trained),
        multiply_adds=counter.get_total_flops() / 2 / step_of_one.samples,
        has_recurrent=any(isinstance(module, torch.nn.RNNBase) for module in task.modules()),
        memory=kept + sum(t.nbytes for t in (*weights, *trained, *states) if isinstance(t, Tensor)),
        steps_in_epoch=loader.steps(),
        steps=loader.total_steps(loader.epochs(config.run.epochs)),
        seconds=statistics.median(seconds[1:]) if optimizers else 0.0,
        samples=step.samples,
    )


def step_loss(
    task: Task,
    network: str,
    step: Step,
    augmentations: Sequence[Callable[[Batch, torch.Generator], Batch]] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the loss of a step, whose batches are all kept until the backward pass; augmentations draw by `generator`."""
    batches = [task.features(batch) for batch in step.batches]
    for augment in augmentations:
        assert generator
        batches = [augment(batch, generator) for batch in batches]
    totals: dict[str, Any] = {"samples": step.samples}
    for batch in batches:
        for name, count in task.counts(batch).items():
            totals[name] = totals.get(name, 0) + count
    return torch.stack([task.loss_part(batch, network, totals) for batch in batches]).sum()


def _kept(task: Task, networks: Sequence[str], step: Step) -> int:
    """Return the bytes that the largest forward pass of a network keeps for its backward pass, beside weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*task.parameters(), *task.buffers())}
    largest = 0
    for network in networks:
        kept: dict[int, int] = {}

        def note(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            step_loss(task, network, step)
        largest = max(largest, sum(kept.values()))
    return largest


def _short(number: float) -> str:
    """Return a number with a prefix: "1.2 million"."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"


def _bytes(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
