"""Prodigy optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlframe.registry import NonNegative, Positive, Probability, optimizers


@optimizers.register("prodigy")
class Prodigy(Optimizer):
    """Adam that estimates its learning rate.

    Mishchenko and Defazio 2023, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", arXiv 2306.06101, algorithm
    4, with the decoupled weight decay of AdamW. Gradients g at weights x give a lower bound d of the distance to
    the solution, which scales Adam's steps:

        r <- sqrt(beta2) r + (1 - sqrt(beta2)) lr d^2 <g, x0 - x>
        s <- sqrt(beta2) s + (1 - sqrt(beta2)) lr d^2 g
        m <- beta1 m + (1 - beta1) d g
        v <- beta2 v + (1 - beta2) (d g)^2
        x <- x - lr d (m / (sqrt(v) + d eps) + weight_decay x)
        d <- max(d, r / |s|_1)

    All parameters share d; a group with a smaller rate takes smaller steps and has less weight in r and s, unlike in the
    paper. State: four tensors of the weights' size, two more than Adam. The sums are those of one process: correct on one
    device and with DDP, not with FSDP.

    Args:
        lr: Factor of the estimated learning rate; keep 1 and use a schedule.
        betas: Decay rates of the running first and second moment.
        eps: Added to the denominator for stability.
        weight_decay: Decoupled weight decay coefficient.
        initial_distance: Initial value of d, which only grows; must be below the optimal learning rate.
    """

    def __init__(
        self,
        params: list[dict],
        *,
        lr: Positive = 1.0,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.01,
        initial_distance: Positive = 1e-6,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.initial_distance = initial_distance

    @property
    def distance(self) -> Tensor:
        """Current d, a scalar: Adam's learning rate without the factor `lr`."""
        return self._shared()["distance"]

    def _shared(self) -> dict[str, Tensor]:
        """Shared state, kept with the first parameter: saved by `state_dict`, without synchronizing a GPU."""
        first = self.param_groups[0]["params"][0]
        state = self.state[first]
        if "distance" not in state:
            state["distance"] = torch.tensor(self.initial_distance, device=first.device)
            state["progress"] = torch.zeros((), device=first.device)
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step and return the value of the closure, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        d, r = self._shared()["distance"], self._shared()["progress"]
        beta3 = math.sqrt(self.param_groups[0]["betas"][1])
        r.mul_(beta3)
        norm = torch.zeros_like(d)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            size = group["lr"] * d
            for x in group["params"]:
                if x.grad is None:
                    continue
                state = self.state[x]
                if "origin" not in state:
                    state["origin"] = x.clone()
                    state |= {name: torch.zeros_like(x) for name in ("gradients", "moment", "square")}
                origin, s, m, v = (state[name] for name in ("origin", "gradients", "moment", "square"))
                g = d * x.grad
                r += (1 - beta3) * size * (g * (origin - x)).sum()
                norm += s.lerp_(size * g, 1 - beta3).abs().sum()
                m.lerp_(g, 1 - beta1)
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                x -= size * (m / (v.sqrt() + d * group["eps"]) + group["weight_decay"] * x)
        d.copy_(torch.maximum(d, r / norm.clamp(min=torch.finfo(norm.dtype).tiny)))
        return loss
