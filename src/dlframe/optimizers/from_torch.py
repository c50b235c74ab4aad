"""Optimizers of torch.optim for mini-batch training.

Not included: LBFGS (evaluates the loss several times per step), Rprop (requires full-batch gradients), SparseAdam (sparse
gradients only), Muon (matrices only; `muon` is timm's), ASGD (keeps an average without using it; see the callback `ema`).
Functions, unlike adopted classes, choose torch's fused kernels.

`params` are parameter groups; a group's own `lr` and `weight_decay` override the options.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch.optim import Optimizer

from dlframe.registry import NonNegative, Option, Positive, Probability, optimizers

Betas = tuple[Probability, Probability]
MOMENTS = Option(Betas, "Decay rates of the running first and second moment.")
EPS = Option(Positive, "Added to the denominator for stability.")
L2 = Option(NonNegative, "L2 penalty, added to the gradient.")
STRENGTH = "Weight decay coefficient."
DECOUPLED_WEIGHT_DECAY = Option(
    bool, "Decay the weights as AdamW does; false adds an L2 penalty to the gradient.", default=True
)


def fused(params: list[dict]) -> bool:
    """Return whether torch has a fused kernel for all parameters."""
    tensors = [parameter for group in params for parameter in group["params"]]
    return all(t.device.type in ("cpu", "cuda") and t.is_floating_point() for t in tensors)


@optimizers.register("adam", search={"lr": "tag(log,interval(1e-4,1e-1))"})
def adam(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam: steps scaled by running moments of the gradient.

    Kingma and Ba 2014, arXiv:1412.6980.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running first and second moment.
        eps: Added to the denominator for stability.
        weight_decay: L2 penalty, added to the gradient; `adamw` decouples it.
        amsgrad: Divide by the largest second moment seen (Reddi et al. 2018, arXiv:1904.09237).
    """
    return torch.optim.Adam(params, lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused(params))


@optimizers.register("adamw", search={"lr": "tag(log,interval(1e-4,1e-1))", "weight_decay": "tag(log,interval(1e-4,1e-1))"})
def adamw(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay.

    Loshchilov and Hutter 2017, arXiv:1711.05101.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running first and second moment.
        eps: Added to the denominator for stability.
        weight_decay: Decoupled weight decay coefficient.
        amsgrad: Divide by the largest second moment seen (Reddi et al. 2018, arXiv:1904.09237).
    """
    return torch.optim.AdamW(params, lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused(params))


@optimizers.register("sgd", search={"lr": "tag(log,interval(1e-3,1))", "momentum": "interval(0.8,0.99)"})
def sgd(
    params: list[dict],
    *,
    lr: Positive = 0.05,
    momentum: Probability = 0.9,
    dampening: Probability = 0.0,
    weight_decay: NonNegative = 0.0,
    nesterov: bool = True,
) -> Optimizer:
    """Stochastic gradient descent with momentum.

    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning" (ICML), as in
    torch: the velocity is independent of the learning rate, so a schedule acts at once.

    Args:
        lr: Learning rate.
        momentum: Fraction of the velocity that each step keeps; 0 is plain gradient descent.
        dampening: Fraction of the gradient excluded from the velocity; requires `nesterov=false`.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: Use Nesterov momentum (1983); no effect without momentum or with dampening.
    """
    look_ahead = nesterov and momentum > 0 and dampening == 0
    return torch.optim.SGD(params, lr, momentum, dampening, weight_decay=weight_decay, nesterov=look_ahead, fused=fused(params))


@optimizers.register("decoupled_sgd", search={"lr": "tag(log,interval(1e-1,1e2))", "momentum": "interval(0.8,0.95)"})
def decoupled_sgd(
    params: list[dict],
    *,
    lr: Positive = 11.5,
    momentum: Probability = 0.85,
    weight_decay: NonNegative = 0.0153,
) -> Optimizer:
    """Stochastic gradient descent with Nesterov momentum, whose options can be changed one at a time.

    Jordan 2024, arXiv 2404.00498. As `sgd` with a rate of lr / (1 + 1 / (1 - momentum)), so that the momentum does not change
    how far the weights move, and with an L2 penalty of weight_decay / lr for each group of parameters, so that the rate does
    not change the decay. The defaults are for batches of 1,024 samples.

    Args:
        lr: Learning rate, together with the momentum.
        momentum: Fraction of the velocity that each step keeps.
        weight_decay: Decay of the weights, independent of the learning rate.
    """
    length = 1 + 1 / (1 - momentum)
    groups = []
    for group in params:
        rate = group.get("lr", lr)
        groups.append({**group, "lr": rate / length, "weight_decay": group.get("weight_decay", weight_decay / rate)})
    return torch.optim.SGD(groups, lr / length, momentum, nesterov=momentum > 0, fused=fused(groups))


@optimizers.register("adagrad")
def adagrad(
    params: list[dict],
    *,
    lr: Positive = 1e-2,
    lr_decay: NonNegative = 0.0,
    eps: Positive = 1e-10,
    weight_decay: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
) -> Optimizer:
    """Steps scaled by the root of the summed squared gradients.

    Duchi, Hazan and Singer 2011, "Adaptive Subgradient Methods" (JMLR 12).

    Args:
        lr: Learning rate.
        lr_decay: Decay of the rate as 1 / (1 + lr_decay * steps).
        eps: Added to the denominator for stability.
        weight_decay: L2 penalty, added to the gradient.
        initial_accumulator_value: Initial value of the sum.
    """
    return torch.optim.Adagrad(params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, fused=fused(params))


@optimizers.register("adafactor")
def adafactor(
    params: list[dict],
    *,
    lr: Positive = 1e-2,
    beta2_decay: Annotated[float, Interval(le=0)] = -0.8,
    eps: Positive = 1e-3,
    clip_threshold: Annotated[float, Interval(ge=1)] = 1.0,
    weight_decay: NonNegative = 0.0,
) -> Optimizer:
    """Adam with a factored second moment, which needs little memory.

    Shazeer and Stern 2018, arXiv:1804.04235, without momentum, as in torch.

    Args:
        lr: Learning rate, relative to the size of the weights.
        beta2_decay: Exponent of the second moment's decay rate, 1 - step ** beta2_decay.
        eps: Minimum size of the weights that scale the rate.
        clip_threshold: Maximum root mean square of an update, before scaling by the rate.
        weight_decay: Decoupled weight decay coefficient.
    """
    return torch.optim.Adafactor(params, lr, beta2_decay, (None, eps), clip_threshold, weight_decay)


optimizers.adopt(
    "nadam",
    "torch.optim:NAdam",
    """Adam with Nesterov momentum.

    Dozat 2016, "Incorporating Nesterov Momentum into Adam" (ICLR workshop).
    """,
    omit="others",
    lr=Option(Positive, "Learning rate."),
    betas=MOMENTS,
    eps=EPS,
    weight_decay=Option(NonNegative, STRENGTH),
    decoupled_weight_decay=DECOUPLED_WEIGHT_DECAY,
    momentum_decay=Option(NonNegative, "Decay of the momentum warm-up."),
)

optimizers.adopt(
    "radam",
    "torch.optim:RAdam",
    """Adam with a rectified second moment in the first steps.

    Liu et al. 2019, "On the Variance of the Adaptive Learning Rate and Beyond", arXiv:1908.03265.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate."),
    betas=MOMENTS,
    eps=EPS,
    weight_decay=Option(NonNegative, STRENGTH),
    decoupled_weight_decay=DECOUPLED_WEIGHT_DECAY,
)

optimizers.adopt(
    "adamax",
    "torch.optim:Adamax",
    """Adam with the maximum gradient instead of the second moment.

    Kingma and Ba 2014, arXiv:1412.6980, section 7.1.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate."),
    betas=Option(Betas, "Decay rates of the running first moment and of the maximum gradient."),
    eps=Option(Positive, "Added to the maximum gradient for stability."),
    weight_decay=L2,
)

optimizers.adopt(
    "rmsprop",
    "torch.optim:RMSprop",
    """Steps scaled by the root of the running squared gradient.

    Tieleman and Hinton 2012, Coursera lecture 6.5; centered as in Graves 2013, arXiv:1308.0850.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate.", default=1e-3),
    alpha=Option(Probability, "Decay rate of the running squared gradient."),
    eps=EPS,
    weight_decay=L2,
    momentum=Option(Probability, "Fraction of the velocity that each step keeps."),
    centered=Option(bool, "Divide by the running variance instead of the squared gradient."),
)

optimizers.adopt(
    "adadelta",
    "torch.optim:Adadelta",
    """Steps scaled by the ratio of running updates to running gradients.

    Zeiler 2012, arXiv:1212.5701.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate; 1 is the paper's method."),
    rho=Option(Probability, "Decay rate of both running squares."),
    eps=Option(Positive, "Added to both for stability; sets the size of the first steps."),
    weight_decay=L2,
)
