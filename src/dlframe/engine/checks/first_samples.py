"""First pass of two samples through the networks of a task, before optimizers are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch.nn.parameter import is_lazy

from dlframe.config import Config
from dlframe.engine import memory
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.registry import Entry
from dlframe.tasks.base import Task
from dlframe.types import Batch, Dataset, DlframeError, RegistrationError, located


def pass_first_samples(task: Task, config: Config, dataset: Dataset, memory_format: torch.memory_format) -> None:
    """Pass two training samples through the networks, which makes what they make in their first forward pass.

    Lazy layers learn their sizes, and layers may be made. Buffers and random numbers stay as they were.

    Raises:
        RegistrationError: A model of a plugin fails, or returns something else than its task learns from.
    """
    entry = config.entry("model")
    few = dataset.train.take(np.arange(min(2, len(dataset.train))))
    context = ProcessContext(task.device)
    ((step,),) = BatchLoader(few, dataset.spec, Order(2), context=lambda: context, memory_format=memory_format)
    if memory_format == torch.channels_last and not any(map(is_lazy, task.parameters())):
        task.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    buffers = {name: buffer.clone() for name, buffer in task.named_buffers() if not is_lazy(buffer)}
    shape = task.output_shape()

    def look(_: Any, __: Any, output: Any) -> None:
        if shape is not None and (fault := _fault(output, (len(step.batches[0]), *shape))):
            raise _error(entry, fault)

    hook = task.model.register_forward_hook(look)
    try:
        with torch.random.fork_rng(devices=()):
            _learn(task, config.networks or (), step.batches[0])
    except Exception as error:
        if isinstance(error, DlframeError) or memory.ran_out(error) or "dlframe" == entry.origin == config.entry("task").origin:
            raise
        raise _failure(entry, error, few, dataset) from error
    finally:
        hook.remove()
    for name, buffer in task.named_buffers():
        if name in buffers:
            buffer.copy_(buffers[name])


def _learn(task: Task, networks: Sequence[str], batch: Batch) -> None:
    batch = task.features(batch)
    totals = {"samples": len(batch), **task.counts(batch)}
    for network in networks:
        task.loss_part(batch, network, totals)


def check_model(model: torch.nn.Module, entry: Entry) -> None:
    """Refuse a LightningModule with a training of its own, which would not be used.

    Raises:
        RegistrationError: It has one.
    """
    if isinstance(model, LightningModule):
        for method in ("training_step", "configure_optimizers"):
            if getattr(type(model), method) is not getattr(LightningModule, method):
                fault = (
                    f"is a LightningModule, whose {method} would not be used. Register the network alone, an nn.Module; "
                    "the loss is that of the task, and optimizer=NAME chooses the optimizer"
                )
                raise _error(entry, fault)


def _error(entry: Entry, fault: str) -> RegistrationError:
    return RegistrationError(f"model '{entry.name}' ({entry.where}) {fault}.")


def _fault(output: Any, shape: tuple[int, ...]) -> str:
    """Return what is wrong with the output of a model for samples; empty if nothing is."""
    rule = f"must return a tensor of shape {shape}"
    if not isinstance(output, torch.Tensor):
        return f"{rule}. Received: {_described(output)}"
    if tuple(output.shape) != shape:
        return f"{rule}. Received: shape {tuple(output.shape)}"
    return "" if output.is_floating_point() else f"{rule}, of floats. Received: {output.dtype}"


def _described(output: Any) -> str:
    """Return the type of an output, with the shapes in it."""
    if isinstance(output, torch.Tensor):
        return f"tensor {tuple(output.shape)}"
    if isinstance(output, dict):
        inside = ", ".join(f"{name}: {_described(value)}" for name, value in list(output.items())[:4])
        return f"{type(output).__name__} of {inside}; return one of them"
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of {', '.join(_described(item) for item in output[:4])}; return one of them"
    return type(output).__name__


def _failure(entry: Entry, error: Exception, samples: Any, dataset: Dataset) -> RegistrationError:
    """Return the error of a model that fails on its first samples, with its line."""
    shapes = ", ".join(f"{name} {_shape(samples[name])}" for name in dataset.spec.inputs)
    hint = ". Try x.flatten(1), or trainer.channels_last=false" if "view size is not compatible" in str(error) else ""
    said = located(error, Path(entry.where.rpartition(":")[0]).parent)
    return _error(entry, f"fails on two samples of {dataset.spec.name} ({shapes}): {said.rstrip('.')}{hint}")


def _shape(column: Any) -> str:
    return str(tuple(column.shape)) if isinstance(column, np.ndarray) else type(column).__name__.lower()
