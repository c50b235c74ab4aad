"""The optimizers of timm that torch.optim lacks.

Left out: Adahessian, which needs a second derivative; Kron, whose own random numbers make a resumed run differ;
Lookahead, which wraps another optimizer; what torch.optim has too.

`params` are parameter groups; what a group states itself (`lr`, `weight_decay`) wins over the option. `caution` masks
the updates whose sign the present gradient contradicts (Liang et al. 2024, arXiv:2411.16085).
"""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer

from dlframe.registry import Count, NonNegative, Positive, Probability, optimizers

Betas = tuple[Probability, Probability]
Decay = Literal["l2", "decoupled"]


def timm(optimizer: str, params: list[dict], **options: object) -> Optimizer:
    """timm's class of that name, imported here because it takes seconds."""
    import timm.optim

    return getattr(timm.optim, optimizer)(params, **options)


@optimizers.register("muon")
def muon(
    params: list[dict],
    *,
    lr: Positive = 1e-2,
    momentum: Probability = 0.95,
    nesterov: bool = True,
    betas: Betas = (0.9, 0.95),
    eps: Positive = 1e-7,
    weight_decay: NonNegative = 0.01,
    iterations: Count = 5,
    scale: Literal["match_rms_adamw", "original", "rms_to_rms"] = "match_rms_adamw",
    second_moment: Literal["none", "adamuon"] = "none",
) -> Optimizer:
    """Orthogonalised momentum for matrices, Adam for the rest.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), rates matched to AdamW's as in Liu et al. 2025,
    arXiv:2502.16982. Weights of two and more dimensions are flattened to matrices; those of one, and those too thin for
    a matrix, are moved by AdamW (NAdamW with `nesterov`) at the same rate.

    Args:
        lr: Learning rate of both.
        momentum: Share of the velocity that each step keeps (matrices).
        nesterov: Look ahead along the velocity.
        betas: Decay rates of Adam's running moments.
        eps: Added to denominators for stability.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        iterations: Newton-Schulz iterations of the orthogonalisation.
        scale: How the rate follows a matrix's shape: to the size of AdamW's steps, Jordan's, or spectral.
        second_moment: Scale the orthogonal step elementwise as AdaMuon does (Si et al. 2025, arXiv:2507.11005).
    """
    return timm(
        "Muon",
        params,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        nesterov=nesterov,
        ns_steps=iterations,
        eps=eps,
        adjust_lr_fn=scale,
        betas=betas,
        algo="muon" if second_moment == "none" else "adamuon",
    )


@optimizers.register("lion")
def lion(
    params: list[dict],
    *,
    lr: Positive = 3e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: NonNegative = 0.1,
    caution: bool = False,
) -> Optimizer:
    """The sign of the momentum: half of Adam's memory.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675: a rate 3 to 10 times smaller
    than AdamW's, and a weight decay as many times larger.

    Args:
        lr: Learning rate: the size of every step.
        betas: Share of the momentum in the step, and decay rate of the momentum.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm("Lion", params, lr=lr, betas=betas, weight_decay=weight_decay, caution=caution)


@optimizers.register("lamb")
def lamb(
    params: list[dict],
    *,
    lr: Positive = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-6,
    weight_decay: NonNegative = 0.01,
    max_grad_norm: Positive | None = 1.0,
    caution: bool = False,
) -> Optimizer:
    """Adam with a rate per layer in proportion to its weights, for very large batches.

    You et al. 2019, "Large Batch Optimization for Deep Learning", arXiv:1904.00962.

    Args:
        lr: Learning rate, relative to the norm of a layer's weights.
        betas: Decay rates of the running first and second moment.
        eps: Added to the denominator for stability.
        weight_decay: Strength of the weight decay; a group without any has no rate per layer.
        max_grad_norm: Norm that all gradients together are cut to first.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "Lamb",
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        caution=caution,
    )


@optimizers.register("lars")
def lars(
    params: list[dict],
    *,
    lr: Positive = 5.0,
    momentum: Probability = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 1e-4,
    trust: Positive = 1e-3,
    eps: Positive = 1e-8,
) -> Optimizer:
    """SGD with a rate per layer in proportion to its weights, for very large batches.

    You, Gitman and Ginsburg 2017, "Large Batch Training of Convolutional Networks", arXiv:1708.03888.

    Args:
        lr: Learning rate, times `trust` relative to the norm of a layer's weights.
        momentum: Share of the velocity that each step keeps.
        nesterov: Look ahead along the velocity; no effect without momentum.
        weight_decay: L2 penalty, added to the gradient.
        trust: How far a layer may move, in proportion to its weights' norm.
        eps: Added to the denominator for stability.
    """
    return timm(
        "Lars",
        params,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
        trust_coeff=trust,
        eps=eps,
        always_adapt=True,
    )


@optimizers.register("adan")
def adan(
    params: list[dict],
    *,
    lr: Positive = 2e-3,
    betas: tuple[Probability, Probability, Probability] = (0.98, 0.92, 0.99),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.02,
    caution: bool = False,
) -> Optimizer:
    """Adaptive Nesterov momentum from the change of the gradient.

    Xie et al. 2022, arXiv:2208.06677.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running gradient, of its change, and of the second moment.
        eps: Added to the denominator for stability.
        weight_decay: Strength of the weight decay, proximal as in the paper.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm("Adan", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, caution=caution)


@optimizers.register("adopt")
def adopt(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.9999),
    eps: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    decay: Decay = "decoupled",
    caution: bool = False,
) -> Optimizer:
    """Adam that converges for any second decay rate.

    Taniguchi et al. 2024, arXiv:2411.02853: divides by the second moment of the step before.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running first and second moment.
        eps: Smallest denominator.
        weight_decay: Strength of the weight decay.
        decay: Add it to the gradient, or take it from the weights as AdamW does.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "Adopt",
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decoupled=decay == "decoupled",
        caution=caution,
    )


@optimizers.register("adabelief")
def adabelief(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-16,
    weight_decay: NonNegative = 0.0,
    decay: Decay = "decoupled",
    rectify: bool = False,
) -> Optimizer:
    """Adam with the variance of the gradient around its mean in place of its square.

    Zhuang et al. 2020, arXiv:2010.07468.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running mean and variance of the gradient.
        eps: Added to the denominator for stability.
        weight_decay: Strength of the weight decay.
        decay: Add it to the gradient, or take it from the weights as AdamW does.
        rectify: Take no adaptive step before the variance can be trusted, as RAdam.
    """
    return timm(
        "AdaBelief",
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decoupled_decay=decay == "decoupled",
        rectify=rectify,
    )


@optimizers.register("adamp")
def adamp(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    delta: Positive = 0.1,
    decay_ratio: NonNegative = 0.1,
    nesterov: bool = False,
    caution: bool = False,
) -> Optimizer:
    """Adam without the steps that only grow weights whose scale has no effect.

    Heo et al. 2020, "Slowing Down the Weight Norm Increase in Momentum-based Optimizers", arXiv:2006.08217.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running first and second moment.
        eps: Added to the denominator for stability.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        delta: Cosine of weight and gradient, times the root of the size, under which a weight counts as scale-free.
        decay_ratio: Share of the weight decay that scale-free weights get.
        nesterov: Look ahead along the momentum.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "AdamP",
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        delta=delta,
        wd_ratio=decay_ratio,
        nesterov=nesterov,
        caution=caution,
    )


@optimizers.register("sgdp")
def sgdp(
    params: list[dict],
    *,
    lr: Positive = 0.05,
    momentum: Probability = 0.9,
    nesterov: bool = True,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    delta: Positive = 0.1,
    decay_ratio: NonNegative = 0.1,
    caution: bool = False,
) -> Optimizer:
    """SGD without the steps that only grow weights whose scale has no effect.

    Heo et al. 2020, arXiv:2006.08217.

    Args:
        lr: Learning rate.
        momentum: Share of the velocity that each step keeps.
        nesterov: Look ahead along the velocity.
        eps: Added to norms for stability.
        weight_decay: Strength of the weight decay, decoupled.
        delta: Cosine of weight and gradient, times the root of the size, under which a weight counts as scale-free.
        decay_ratio: Share of the weight decay that scale-free weights get.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "SGDP",
        params,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        eps=eps,
        weight_decay=weight_decay,
        delta=delta,
        wd_ratio=decay_ratio,
        caution=caution,
    )


@optimizers.register("sgdw")
def sgdw(
    params: list[dict],
    *,
    lr: Positive = 0.05,
    momentum: Probability = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 1e-3,
    caution: bool = False,
) -> Optimizer:
    """SGD with decoupled weight decay.

    Loshchilov and Hutter 2017, arXiv:1711.05101.

    Args:
        lr: Learning rate.
        momentum: Share of the velocity that each step keeps.
        nesterov: Look ahead along the velocity; no effect without momentum.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "SGDW",
        params,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
        caution=caution,
    )


@optimizers.register("laprop")
def laprop(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Positive = 1e-15,
    weight_decay: NonNegative = 0.0,
    caution: bool = False,
) -> Optimizer:
    """Adam with the momentum of the scaled gradient.

    Ziyin, Wang and Ueda 2020, "LaProp: Separating Momentum and Adaptivity in Adam", arXiv:2002.04839.

    Args:
        lr: Learning rate.
        betas: Decay rates of the momentum and of the running second moment.
        eps: Added to the denominator for stability.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm("LaProp", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, caution=caution)


@optimizers.register("madgrad")
def madgrad(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    momentum: Probability = 0.9,
    eps: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    decay: Decay = "decoupled",
) -> Optimizer:
    """Dual averaging with momentum and the cube root of the squared gradients.

    Defazio and Jelassi 2021, arXiv:2101.11075.

    Args:
        lr: Learning rate.
        momentum: Share of the old weights in the average that is the new ones.
        eps: Added to the denominator for stability.
        weight_decay: Strength of the weight decay.
        decay: Add it to the gradient, or take it from the weights as AdamW does.
    """
    return timm(
        "MADGRAD",
        params,
        lr=lr,
        momentum=momentum,
        eps=eps,
        weight_decay=weight_decay,
        decoupled_decay=decay == "decoupled",
    )


@optimizers.register("mars")
def mars(
    params: list[dict],
    *,
    lr: Positive = 3e-3,
    betas: Betas = (0.9, 0.99),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
    gamma: NonNegative = 0.025,
    base: Literal["adamw", "lion"] = "adamw",
    caution: bool = False,
) -> Optimizer:
    """Variance-reduced gradients for AdamW or Lion.

    Yuan et al. 2024, arXiv:2411.10438, in the form that costs one gradient a step. Weights of one dimension get AdamW.

    Args:
        lr: Learning rate.
        betas: Decay rates of the running first and second moment.
        eps: Added to the denominator for stability.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        gamma: Strength of the variance reduction.
        base: Optimizer that takes the reduced gradient.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "Mars",
        params,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        gamma=gamma,
        mars_type=base,
        caution=caution,
    )


@optimizers.register("novograd")
def novograd(
    params: list[dict],
    *,
    lr: Positive = 1e-2,
    betas: Betas = (0.95, 0.98),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-3,
) -> Optimizer:
    """Momentum of gradients that are normalised layer by layer.

    Ginsburg et al. 2019, arXiv:1905.11286.

    Args:
        lr: Learning rate.
        betas: Decay rates of the momentum and of a layer's squared gradient norm.
        eps: Added to the denominator for stability.
        weight_decay: Strength of the weight decay, added to the normalised gradient.
    """
    return timm("NvNovoGrad", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@optimizers.register("rmsprop_tf")
def rmsprop_tf(
    params: list[dict],
    *,
    lr: Positive = 1e-3,
    alpha: Probability = 0.9,
    eps: Positive = 1e-10,
    weight_decay: NonNegative = 0.0,
    decay: Decay = "l2",
    momentum: Probability = 0.9,
    centered: bool = False,
    caution: bool = False,
) -> Optimizer:
    """RMSprop as TensorFlow has it, for models whose recipes need it.

    Unlike `rmsprop`: eps under the root, squared gradients from one, the rate inside the momentum.

    Args:
        lr: Learning rate.
        alpha: Decay rate of the running squared gradient.
        eps: Added under the root for stability.
        weight_decay: Strength of the weight decay.
        decay: Add it to the gradient, or take it from the weights as AdamW does.
        momentum: Share of the velocity that each step keeps.
        centered: Divide by the running variance of the gradient, not by its square.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "RMSpropTF",
        params,
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        decoupled_decay=decay == "decoupled",
        momentum=momentum,
        centered=centered,
        caution=caution,
    )


@optimizers.register("adafactor_bv")
def adafactor_bv(
    params: list[dict],
    *,
    lr: Positive = 2e-3,
    beta2_decay: Positive = 0.8,
    beta2_cap: Probability = 0.999,
    momentum: Probability | None = 0.9,
    momentum_dtype: Literal["bfloat16", "float32"] = "bfloat16",
    clip: Positive | None = None,
    weight_decay: NonNegative = 0.0,
    caution: bool = False,
) -> Optimizer:
    """Adafactor with momentum in half precision, as used for large vision transformers.

    Zhai et al. 2021, "Scaling Vision Transformers", arXiv:2106.04560, section 3.4.

    Args:
        lr: Learning rate, of Adam's size.
        beta2_decay: The second moment's decay rate is 1 - step ** -beta2_decay.
        beta2_cap: Largest value of that rate.
        momentum: Share of the velocity that each step keeps; null for none.
        momentum_dtype: Precision of the velocity.
        clip: Largest root mean square of an update; null for none.
        weight_decay: Share of a weight, times the learning rate, that each step takes away.
        caution: Mask the updates that the gradient contradicts.
    """
    return timm(
        "AdafactorBigVision",
        params,
        lr=lr,
        decay_rate=beta2_decay,
        beta2_cap=beta2_cap,
        momentum=momentum,
        momentum_dtype=momentum_dtype,
        clipping_threshold=clip,
        weight_decay=weight_decay,
        caution=caution,
    )
