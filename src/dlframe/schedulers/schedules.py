"""The learning rate over a run, as a factor of each parameter group's own.

A schedule is stepped once an optimizer step, `plateau` once an epoch. Lengths are shares of the run, so that a schedule
keeps its shape when the number of epochs or the batch size changes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Interval
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from dlframe.registry import Fraction, Natural, NonNegative, Option, schedulers

Share = Annotated[float, Interval(gt=0, lt=1)]
Divisor = Annotated[float, Interval(ge=1)]


@schedulers.register("constant")
def constant(optimizer: Optimizer, steps: int) -> LambdaLR:
    """The same learning rate to the end."""
    return LambdaLR(optimizer, lambda step: 1.0)


@schedulers.register("warmup_cosine")
def warmup_cosine(optimizer: Optimizer, steps: int, *, warmup_ratio: Fraction = 0.05, min_lr_ratio: Fraction = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine down.

    SGDR without restarts (Loshchilov and Hutter 2016, arXiv:1608.03983) after the warm-up of Goyal et al. 2017
    (arXiv:1706.02677). Neither end is zero: each of the `steps` steps moves the weights.

    Args:
        warmup_ratio: Share of the run in which the rate rises.
        min_lr_ratio: Share of the learning rate that the cosine falls towards.
    """
    rise = round(warmup_ratio * steps)
    fall = max(1, steps - rise)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * min(1.0, (step - rise) / fall))) / 2

    return LambdaLR(optimizer, factor)


@schedulers.register("one_cycle")
def one_cycle(
    optimizer: Optimizer,
    steps: int,
    *,
    pct_start: Fraction = 0.3,
    div_factor: Divisor = 25.0,
    final_div_factor: Divisor = 10000.0,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = False,
) -> OneCycleLR:
    """One cycle: up to the learning rate, then far down.

    Super-convergence (Smith and Topin 2017, arXiv:1708.07120), as torch has it. The paper also moves the momentum
    against the rate: that is `cycle_momentum=true`.

    Args:
        pct_start: Share of the run in which the rate rises; at least two steps rise and one falls.
        div_factor: The run starts at the learning rate divided by this.
        final_div_factor: The run ends at its start divided by this.
        anneal_strategy: Curve of both halves.
        cycle_momentum: Move the momentum from 0.95 to 0.85 and back; no effect on an optimizer without momentum.
    """
    # torch divides by the length of each half, so neither may be empty: a run of one or two steps is cut from one of 3.
    total = max(3, steps)
    rise = min(max(2, round(pct_start * total)), total - 1)
    has_momentum = all("betas" in group or group.get("momentum", 0) > 0 for group in optimizer.param_groups)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=rise / total,
        anneal_strategy=anneal_strategy,
        cycle_momentum=cycle_momentum and has_momentum,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )


@schedulers.register("step")
def step(optimizer: Optimizer, steps: int, *, milestones: tuple[Share, ...] = (0.5, 0.75), gamma: Share = 0.1) -> LambdaLR:
    """Drops the learning rate at milestones.

    The defaults are those of ResNet on CIFAR-10 (He et al. 2015, arXiv:1512.03385).

    Args:
        milestones: Shares of the run after which the rate drops.
        gamma: What the rate is multiplied by at each.
    """
    # Not torch's MultiStepLR: its state has integer keys, which JSON turns into strings, so that it resumes wrongly.
    return LambdaLR(optimizer, lambda step: gamma ** sum(step >= share * steps for share in milestones))


schedulers.adopt(
    "plateau",
    "torch.optim.lr_scheduler:ReduceLROnPlateau",
    """Drops the learning rate when the monitored metric stops improving.

    Stepped once an epoch with a value to be lowered: a metric that should rise is given negated.
    """,
    omit="others",
    # An absolute threshold: a relative one is wrong for negative values.
    fixed={"threshold_mode": "abs"},
    factor=Option(Share, "What the rate is multiplied by."),
    patience=Option(Natural, "Epochs without improvement that are let pass.", default=5),
    min_delta=Option(NonNegative, "Smallest change, in the metric's own unit, that is an improvement.", of="threshold"),
    min_lr=Option(NonNegative, "Learning rate that is not undercut."),
)
