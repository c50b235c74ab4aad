"""Optimizers of timm that torch.optim lacks.

`params` are parameter groups; a group's own `lr` and `weight_decay` override the options. `caution` masks updates whose
sign contradicts the current gradient (Liang et al. 2024, arXiv:2411.16085).
"""

from typing import Literal

from dlframe.registry import Count, NonNegative, Option, Positive, Probability, optimizers

Betas = tuple[Probability, Probability]
MOMENTS = Option(Betas, "Decay rates of the running first and second moment.")
EPS = Option(Positive, "Added to the denominator for stability.")
MOMENTUM = "Fraction of the velocity that each step keeps."
DECOUPLED = "Decoupled weight decay coefficient."
STRENGTH = "Weight decay coefficient."
DECOUPLED_WEIGHT_DECAY = "Decay the weights as AdamW does; false adds an L2 penalty to the gradient."
DELTA = "Threshold of the cosine of weight and gradient, times the root of the size, for scale-invariant weights."
WD_RATIO = Option(NonNegative, "Relative weight decay of scale-invariant weights.")
CAUTION = Option(bool, "Mask updates that contradict the gradient.")

optimizers.adopt(
    "muon",
    "timm.optim:Muon",
    """Orthogonalized momentum for matrices, AdamW for other parameters.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with step sizes matched to AdamW's as in Liu et
    al. 2025, arXiv:2502.16982. Weights of two and more dimensions are flattened to matrices; vectors and matrices with
    one short side are updated by AdamW (NAdamW with `nesterov`) at the same rate.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate.", default=1e-2),
    momentum=Option(Probability, "Fraction of the velocity that each step keeps, for matrices.", default=0.95),
    nesterov=Option(bool, "Use Nesterov momentum.", default=True),
    betas=Option(Betas, "Decay rates of AdamW's running moments.", default=(0.9, 0.95)),
    eps=Option(Positive, "Added to denominators for stability.", default=1e-7),
    weight_decay=Option(NonNegative, DECOUPLED, default=0.01),
    ns_steps=Option(Count, "Newton-Schulz iterations of the orthogonalization.", default=5),
    adjust_lr_fn=Option(
        Literal["match_rms_adamw", "original", "rms_to_rms"],
        "Scaling of the rate by a matrix's shape: to the size of AdamW's steps, Jordan's, or spectral.",
    ),
    algo=Option(
        Literal["muon", "adamuon"],
        "Algorithm; AdaMuon scales the orthogonal step elementwise (Si et al. 2025, arXiv:2507.11005).",
    ),
)

optimizers.adopt(
    "lion",
    "timm.optim:Lion",
    """Sign of the momentum, with half of Adam's memory.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675. The
    rate is 3 to 10 times smaller than AdamW's, and the weight decay as many times larger.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate, the size of every step.", default=3e-4),
    betas=Option(Betas, "Weight of the momentum in a step, and decay rate of the momentum."),
    weight_decay=Option(NonNegative, DECOUPLED, default=0.1),
    caution=CAUTION,
)

optimizers.adopt(
    "lamb",
    "timm.optim:Lamb",
    """Adam with layer-wise rates, for very large batches.

    You et al. 2019, "Large Batch Optimization for Deep Learning", arXiv:1904.00962.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate, relative to the norm of a layer's weights.", default=1e-2),
    betas=MOMENTS,
    eps=EPS,
    weight_decay=Option(NonNegative, "Weight decay coefficient; 0 disables the layer-wise rate of a group."),
    max_grad_norm=Option(Positive | None, "Maximum norm of all gradients; null disables clipping."),
    caution=CAUTION,
)

optimizers.adopt(
    "lars",
    "timm.optim:Lars",
    """SGD with layer-wise rates, for very large batches.

    You, Gitman and Ginsburg 2017, "Large Batch Training of Convolutional Networks", arXiv:1708.03888.
    """,
    omit="others",
    fixed={"always_adapt": True},
    lr=Option(Positive, "Learning rate, times `trust_coeff` relative to the norm of a layer's weights.", default=5.0),
    momentum=Option(Probability, MOMENTUM, default=0.9),
    nesterov=Option(bool, "Use Nesterov momentum; requires momentum > 0."),
    weight_decay=Option(NonNegative, "L2 penalty, added to the gradient.", default=1e-4),
    trust_coeff=Option(Positive, "Trust coefficient: step of a layer, relative to its weights' norm."),
    eps=EPS,
)

optimizers.adopt(
    "adan",
    "timm.optim:Adan",
    """Adaptive Nesterov momentum from gradient differences.

    Xie et al. 2022, arXiv:2208.06677.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate.", default=2e-3),
    betas=Option(
        tuple[Probability, Probability, Probability],
        "Decay rates of the running gradient, its difference, and the second moment.",
    ),
    eps=EPS,
    weight_decay=Option(NonNegative, "Weight decay coefficient, proximal as in the paper.", default=0.02),
    caution=CAUTION,
)

optimizers.adopt(
    "adopt",
    "timm.optim:Adopt",
    """Adam that converges for any decay rate of the second moment.

    Taniguchi et al. 2024, arXiv:2411.02853: divides by the second moment of the previous step.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate."),
    betas=MOMENTS,
    eps=Option(Positive, "Minimum denominator."),
    weight_decay=Option(NonNegative, STRENGTH),
    decoupled_weight_decay=Option(bool, DECOUPLED_WEIGHT_DECAY, default=True, of="decoupled"),
    caution=CAUTION,
)

optimizers.adopt(
    "adamp",
    "timm.optim:AdamP",
    """Adam without radial steps of scale-invariant weights.

    Heo et al. 2020, "Slowing Down the Weight Norm Increase in Momentum-based Optimizers", arXiv:2006.08217.
    """,
    lr=Option(Positive, "Learning rate."),
    betas=MOMENTS,
    eps=EPS,
    weight_decay=Option(NonNegative, DECOUPLED, default=0.01),
    delta=Option(Positive, DELTA),
    wd_ratio=WD_RATIO,
    nesterov=Option(bool, "Use Nesterov momentum."),
    caution=CAUTION,
)

optimizers.adopt(
    "sgdp",
    "timm.optim:SGDP",
    """SGD without radial steps of scale-invariant weights.

    Heo et al. 2020, arXiv:2006.08217.
    """,
    omit=("dampening",),
    lr=Option(Positive, "Learning rate.", default=0.05),
    momentum=Option(Probability, MOMENTUM, default=0.9),
    nesterov=Option(bool, "Use Nesterov momentum.", default=True),
    eps=Option(Positive, "Added to norms for stability."),
    weight_decay=Option(NonNegative, DECOUPLED),
    delta=Option(Positive, DELTA),
    wd_ratio=WD_RATIO,
    caution=CAUTION,
)

optimizers.adopt(
    "madgrad",
    "timm.optim:MADGRAD",
    """Dual averaging with momentum and cube-root scaling.

    Defazio and Jelassi 2021, arXiv:2101.11075.
    """,
    lr=Option(Positive, "Learning rate.", default=1e-3),
    momentum=Option(Probability, "Weight of the old weights in the average that gives the new ones."),
    eps=EPS,
    weight_decay=Option(NonNegative, STRENGTH),
    decoupled_weight_decay=Option(bool, DECOUPLED_WEIGHT_DECAY, default=True, of="decoupled_decay"),
)
