"""Learning-rate schedules, as factors of each parameter group's rate.

Schedules are stepped once per optimizer step, `plateau` once per validation. Lengths are fractions of the run, so a schedule
keeps its shape when the number of epochs or the batch size changes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Interval
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from dlframe.registry import Fraction, Natural, NonNegative, Option, schedulers

OpenFraction = Annotated[float, Interval(gt=0, lt=1)]
Divisor = Annotated[float, Interval(ge=1)]


@schedulers.register("constant")
def constant(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Constant learning rate."""
    return LambdaLR(optimizer, lambda step: 1.0)


@schedulers.register("warmup_cosine")
def warmup_cosine(optimizer: Optimizer, steps: int, *, warmup_ratio: Fraction = 0.05, min_lr_ratio: Fraction = 0.0) -> LambdaLR:
    """Linear warm-up followed by cosine decay.

    SGDR without restarts (Loshchilov and Hutter 2016, arXiv:1608.03983) after the warm-up of Goyal et al. 2017
    (arXiv:1706.02677). Both ends are above zero: every step changes the weights.

    Args:
        warmup_ratio: Length of the warm-up, as a fraction of the run.
        min_lr_ratio: Final learning rate, as a fraction of the initial one.
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
    """One-cycle policy: rise to the learning rate, then decay.

    Super-convergence (Smith and Topin 2017, arXiv:1708.07120), as in torch. The paper also cycles the momentum:
    `cycle_momentum=true`.

    Args:
        pct_start: Length of the rise, as a fraction of the run; at least two steps rise and one falls.
        div_factor: Peak rate divided by the initial rate.
        final_div_factor: Initial rate divided by the final rate.
        anneal_strategy: Curve of both halves.
        cycle_momentum: Cycle the momentum from 0.95 to 0.85 and back; no effect without momentum.
    """
    # torch divides by the length of each half, so a run of one or two steps uses a cycle of three.
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
def step(
    optimizer: Optimizer, steps: int, *, milestones: tuple[OpenFraction, ...] = (0.5, 0.75), gamma: OpenFraction = 0.1
) -> LambdaLR:
    """Step decay of the learning rate at milestones.

    The defaults are those of ResNet on CIFAR-10 (He et al. 2015, arXiv:1512.03385).

    Args:
        milestones: Fractions of the run after which the rate drops.
        gamma: Factor of the rate at each milestone.
    """
    # torch's MultiStepLR has integer keys in its state; JSON would turn them into strings and break resuming.
    # Rounded first: 0.55 * 100 is more than 55 in floats.
    drops = [math.ceil(round(milestone * steps, 6)) for milestone in milestones]
    return LambdaLR(optimizer, lambda step: gamma ** sum(step >= drop for drop in drops))


schedulers.adopt(
    "plateau",
    "torch.optim.lr_scheduler:ReduceLROnPlateau",
    """Decay of the learning rate when the monitored metric stops improving.

    Stepped once per validation with a value to minimize; a metric to maximize is negated.
    """,
    omit="others",
    # A relative threshold is wrong for negative values.
    fixed={"threshold_mode": "abs"},
    factor=Option(OpenFraction, "Factor of the rate at each decay."),
    patience=Option(Natural, "Epochs without improvement before a decay.", default=5),
    min_delta=Option(NonNegative, "Minimum change, in the metric's unit, that counts as an improvement.", of="threshold"),
    min_lr=Option(NonNegative, "Minimum learning rate."),
)
