"""Adam, AdamW and SGD for the weights of a stack, each model with its own options: torch's own fused kernels, row by row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from dlframe.engine import internals
from dlframe.population.stack import Stack


class StackedOptimizer:
    """Steps the weights of a stack as the optimizers of the single models would.

    Their options are read from the parameter groups of these at each step, so that schedules of these act.

    Args:
        stack: Its weights.
        parameters: The parameters of each model by name.
        optimizers: The optimizer of each model, of one kind, with the same flags; Adam, AdamW or SGD.
        steps: Steps that are taken already; the state after them is that of the optimizers.
    """

    def __init__(
        self, stack: Stack, parameters: Sequence[Mapping[str, nn.Parameter]], optimizers: Sequence[Optimizer], steps: int = 0
    ) -> None:
        self.stack = stack
        self.optimizers = optimizers
        self._parameters = [[[own[name] for name in group] for group in stack.groups] for own in parameters]
        self.gradients = [torch.zeros_like(flat) for flat in stack.flat]
        first = optimizers[0]
        self.adam = isinstance(first, Adam)
        self.steps = steps
        group = first.param_groups[0]
        if self.adam:
            names = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if group["amsgrad"] else [])
        else:
            names = ["momentum_buffer"] if group["momentum"] else []
        self.state = {name: [torch.zeros_like(flat) for flat in stack.flat] for name in names}
        self._load()
        # A row is one contiguous piece of memory; made once, since making views costs as much as a small step.
        columns = (stack.flat, self.gradients, *self.state.values())
        self._rows = [[*zip(*(tensors[g].unbind(0) for tensors in columns), strict=True)] for g in range(len(stack.flat))]

    def step(self, gradients: Sequence[Tensor], clip: float | None, alive: Sequence[int]) -> Tensor | None:
        """Take a step.

        Args:
            gradients: (N, ...) of each parameter, in the order of the groups.
            clip: Largest L2 norm of a model's gradient.
            alive: Models that are stepped.

        Returns:
            The norms (N,) before clipping; None without clipping.
        """
        start = 0
        for group, out in zip(self.stack.groups, self.gradients, strict=True):
            torch.cat([gradient.flatten(1) for gradient in gradients[start : start + len(group)]], 1, out=out)
            start += len(group)
        norms = None
        if clip is not None:
            norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in self.gradients]).norm(dim=0)
            factor = (clip / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1)  # as torch.nn.utils.clip_grad_norm_
            for gradient in self.gradients:
                gradient.mul_(factor)
        self.steps += 1
        self._update(alive)
        return norms

    def _update(self, alive: Sequence[int]) -> None:
        update: Callable[..., None] = internals.fused_adam if self.adam else internals.fused_sgd
        step = torch.tensor(float(self.steps))
        together = len(alive) == len(self.stack)
        for g, flat in enumerate(self.stack.flat):
            options = [_options(self.optimizers[i].param_groups[g], self.adam) for i in alive]
            if together and all(own == options[0] for own in options):
                columns = (flat, self.gradients[g], *(state[g] for state in self.state.values()))
                update(columns, options[0], step)
            else:
                for i, own in zip(alive, options, strict=True):
                    update(self._rows[g][i], own, step)

    def unload(self, number: int) -> None:
        """Write a model's state to its optimizer, in the memory order of its parameters, which fused kernels rely on."""
        optimizer = self.optimizers[number]
        optimizer.state.clear()
        for g, group in enumerate(self.stack.groups):
            views = {name: [view for _, view in self.stack.split(group, flats[g])] for name, flats in self.state.items()}
            for k, parameter in enumerate(self._parameters[number][g]):
                own = {name: torch.empty_like(parameter).detach().copy_(view[k][number]) for name, view in views.items()}
                if self.steps and self.adam:
                    own = {"step": torch.tensor(float(self.steps), dtype=torch.float32), **own}
                if self.steps and own:
                    optimizer.state[parameter] = own

    def _load(self) -> None:
        for i, optimizer in enumerate(self.optimizers):
            for g, group in enumerate(self.stack.groups):
                for name, flats in self.state.items():
                    for parameter, (_, view) in zip(self._parameters[i][g], self.stack.split(group, flats[g]), strict=True):
                        if name in (own := optimizer.state.get(parameter, {})):
                            view[i].copy_(own[name])


def _options(group: Mapping[str, Any], adam: bool) -> tuple[Any, ...]:
    if adam:
        beta1, beta2 = group["betas"]
        return (
            group["lr"],
            beta1,
            beta2,
            group["weight_decay"],
            group["eps"],
            group["decoupled_weight_decay"],
            group["amsgrad"],
        )
    return (group["lr"], group["momentum"], group["weight_decay"], group["dampening"], group["nesterov"])


class StackedSchedule:
    """Steps the schedules of all models: those of torch that are formulas at once, others one by one.

    Args:
        schedulers: Of each model, of one kind with the same options.
        optimizers: Of each model.
    """

    def __init__(self, schedulers: Sequence[Any], optimizers: Sequence[Optimizer]) -> None:
        self.schedulers = schedulers
        self.optimizers = optimizers
        self._joint: Any = None

    def step(self) -> None:
        """Step all schedules after an optimizer step, but for those that are stepped by a metric."""
        first = self.schedulers[0]
        if isinstance(first, ReduceLROnPlateau):
            return
        if self._joint is None and type(first) in (LambdaLR, OneCycleLR) and first.last_epoch > 0:
            self._joint = self._joined(first)
        if self._joint is not None:
            self._joint.step()
            return
        begins = first.last_epoch == 0
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            if begins:
                optimizer.step()  # without gradients: torch warns of schedules whose optimizer has not stepped
            scheduler.step()

    def unload(self) -> None:
        """Bring the single schedules up to date."""
        if self._joint is None:
            return
        for i, scheduler in enumerate(self.schedulers):
            for name, value in vars(self._joint).items():
                if isinstance(value, list):
                    size = len(vars(scheduler)[name])
                    setattr(scheduler, name, value[i * size : (i + 1) * size])
                elif name != "optimizer":
                    setattr(scheduler, name, value)

    def _joined(self, first: Any) -> Any:
        """Return one schedule of the parameter groups of all models; what it has of each group is a list."""
        joint = copy.copy(first)
        joint.optimizer = SimpleNamespace(param_groups=[group for o in self.optimizers for group in o.param_groups])
        for name, value in vars(first).items():
            if isinstance(value, list):
                setattr(joint, name, [item for scheduler in self.schedulers for item in vars(scheduler)[name]])
        return joint
