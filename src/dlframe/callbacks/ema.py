"""Averages of the weights over training steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn
from torch.utils.hooks import RemovableHandle

from dlframe.registry import Count, NonNegative, Probability, callbacks


@callbacks.register("ema")
class ExponentialMovingAverage(Callback):
    """Exponential moving average of the weights, for validation and test.

    Polyak and Juditsky 1992, as in Tarvainen and Valpola 2017, arXiv:1703.01780. Floating-point buffers, such as
    batch norm statistics, are averaged too. Training continues with the weights themselves. Lightning's
    EMAWeightAveraging updates once per Trainer step, which here may contain several optimizer steps.

    Args:
        decay: Fraction of the average that each step keeps; at most (1 + step) / (10 + step), to forget the initial
            weights.
    """

    def __init__(self, *, decay: Probability = 0.999) -> None:
        self.decay = decay
        self.steps = 0
        self.total = 1
        """Optimizer steps of the whole training."""
        self.averages: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._backup: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights or resumed averages; hook the last optimizer."""
        tensors = {**dict(pl_module.named_parameters()), **dict(pl_module.named_buffers())}
        self._weights = {name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()}
        resumed = self.averages
        self.averages = {
            # In float32 at least: bfloat16 would round away what a step adds.
            name: (resumed[name] if resumed else tensor.clone()).to(tensor.device, _precise(tensor.dtype))
            for name, tensor in self._weights.items()
        }
        self._hooks = [o.register_step_post_hook(lambda *_: self._update()) for o in trainer.optimizers[-1:]]
        count = getattr(trainer.train_dataloader, "total_steps", None)
        steps = count(trainer.max_epochs, trainer.world_size) if count else trainer.estimated_stepping_batches
        self.total = max(1, int(steps))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = [weight.to(_precise(weight.dtype)) for weight in self._weights.values()]
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), weights, self.steps)

    @torch.no_grad()
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the weights by the averages."""
        self._backup = [weight.clone() for weight in self._weights.values()] if self._has_begun else []
        if self._backup:
            torch._foreach_copy_(list(self._weights.values()), list(self.averages.values()))

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the weights, after the learner has saved the best."""
        if self._backup:
            torch._foreach_copy_(list(self._weights.values()), self._backup)
            self._backup = []

    @property
    def _has_begun(self) -> bool:
        """Whether the averages differ from the initial weights."""
        return self.steps > 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.averages = state_dict["steps"], state_dict["averages"]


@callbacks.register("look_ahead")
class LookAhead(ExponentialMovingAverage):
    """Slow weights that follow the trained ones, which every few steps start again from them.

    Zhang et al. 2019 (arXiv 1907.08610), as in Jordan 2024 (arXiv 2404.00498): the slow weights keep little at first and more
    towards the end, floating-point buffers included; they are validated and tested.

    Args:
        every: Optimizer steps between two updates.
        decay: Fraction of the slow weights that the last update keeps.
        power: Exponent of the fraction of the training that is done, by which the decay grows; 0 for a constant one.
    """

    def __init__(self, *, every: Count = 5, decay: Probability = 0.774, power: NonNegative = 3.0) -> None:
        super().__init__(decay=decay)
        self.every, self.power = every, power

    @torch.no_grad()
    def _update(self) -> None:
        self.steps += 1
        if self.steps % self.every:
            return
        decay = self.decay * min(1.0, self.steps / self.total) ** self.power
        slow, fast = [*self.averages.values()], [*self._weights.values()]
        torch._foreach_lerp_(slow, [weight.to(_precise(weight.dtype)) for weight in fast], 1 - decay)
        torch._foreach_copy_(fast, slow)


@callbacks.register("swa")
class StochasticWeightAverage(ExponentialMovingAverage):
    """Stochastic weight averaging: the mean of the weights over the end of the training, for validation and test.

    Izmailov et al. 2018 (arXiv 1803.05407). Floating-point buffers are averaged too, where the paper measures batch norm
    statistics anew. Until the averaging begins, the weights themselves are validated. The paper keeps the learning rate high
    meanwhile, which is the scheduler's choice: scheduler=constant.

    Args:
        start: Fraction of the optimizer steps before the averaging begins.
        every: Optimizer steps between two weights that are averaged.
    """

    def __init__(self, *, start: Probability = 0.75, every: Count = 1) -> None:
        super().__init__()
        self.start, self.every = start, every
        self.averaged = 0
        """Weights in the mean."""

    @torch.no_grad()
    def _update(self) -> None:
        self.steps += 1
        since = self.steps - max(1, math.ceil(self.start * self.total))
        if since < 0 or since % self.every:
            return
        weights = [weight.to(_precise(weight.dtype)) for weight in self._weights.values()]
        averages = [*self.averages.values()]
        if self.averaged:
            get_swa_multi_avg_fn()(averages, weights, self.averaged)
        else:
            torch._foreach_copy_(averages, weights)
        self.averaged += 1

    @property
    def _has_begun(self) -> bool:
        return self.averaged > 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "averaged": self.averaged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.averaged = state_dict["averaged"]


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
