"""The optimizers of timm that torch.optim lacks and that have a following.

`params` are parameter groups; what a group states itself (`lr`, `weight_decay`) wins over the option. `caution` masks
the updates whose sign the present gradient contradicts (Liang et al. 2024, arXiv:2411.16085).
"""

from typing import Literal

from dlframe.registry import Count, NonNegative, Option, Positive, Probability, optimizers

Betas = tuple[Probability, Probability]
MOMENTS = Option(Betas, "Decay rates of the running first and second moment.")
EPS = Option(Positive, "Added to the denominator for stability.")
MOMENTUM = "Share of the velocity that each step keeps."
DECOUPLED = "Share of a weight, times the learning rate, that each step takes away."
STRENGTH = "Strength of the weight decay."
DECOUPLED_WEIGHT_DECAY = "Decay the weights as AdamW does; false adds an L2 penalty to the gradient."
DELTA = "Cosine of weight and gradient, times the root of the size, under which a weight counts as scale-free."
WD_RATIO = Option(NonNegative, "Share of the weight decay that scale-free weights get.")
CAUTION = Option(bool, "Mask the updates that the gradient contradicts.")

optimizers.adopt(
    "muon",
    "timm.optim:Muon",
    """Orthogonalised momentum for matrices, Adam for the rest.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), rates matched to AdamW's as in Liu et al. 2025,
    arXiv:2502.16982. Weights of two and more dimensions are flattened to matrices; those of one, and those too thin for
    a matrix, are moved by AdamW (NAdamW with `nesterov`) at the same rate.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate of both.", default=1e-2),
    momentum=Option(Probability, "Share of the velocity that each step keeps (matrices).", default=0.95),
    nesterov=Option(bool, "Look ahead along the velocity.", default=True),
    betas=Option(Betas, "Decay rates of Adam's running moments.", default=(0.9, 0.95)),
    eps=Option(Positive, "Added to denominators for stability.", default=1e-7),
    weight_decay=Option(NonNegative, DECOUPLED, default=0.01),
    ns_steps=Option(Count, "Newton-Schulz iterations of the orthogonalisation.", default=5),
    adjust_lr_fn=Option(
        Literal["match_rms_adamw", "original", "rms_to_rms"],
        "How the rate follows a matrix's shape: to the size of AdamW's steps, Jordan's, or spectral.",
    ),
    algo=Option(
        Literal["muon", "adamuon"],
        "Algorithm; AdaMuon scales the orthogonal step elementwise (Si et al. 2025, arXiv:2507.11005).",
    ),
)

optimizers.adopt(
    "lion",
    "timm.optim:Lion",
    """The sign of the momentum: half of Adam's memory.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675: a rate 3 to 10 times smaller
    than AdamW's, and a weight decay as many times larger.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate: the size of every step.", default=3e-4),
    betas=Option(Betas, "Share of the momentum in the step, and decay rate of the momentum."),
    weight_decay=Option(NonNegative, DECOUPLED, default=0.1),
    caution=CAUTION,
)

optimizers.adopt(
    "lamb",
    "timm.optim:Lamb",
    """Adam with a rate per layer in proportion to its weights, for very large batches.

    You et al. 2019, "Large Batch Optimization for Deep Learning", arXiv:1904.00962.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate, relative to the norm of a layer's weights.", default=1e-2),
    betas=MOMENTS,
    eps=EPS,
    weight_decay=Option(NonNegative, "Strength of the weight decay; a group without any has no rate per layer."),
    max_grad_norm=Option(Positive | None, "Norm that all gradients together are cut to first."),
    caution=CAUTION,
)

optimizers.adopt(
    "lars",
    "timm.optim:Lars",
    """SGD with a rate per layer in proportion to its weights, for very large batches.

    You, Gitman and Ginsburg 2017, "Large Batch Training of Convolutional Networks", arXiv:1708.03888.
    """,
    omit="others",
    fixed={"always_adapt": True},
    lr=Option(Positive, "Learning rate, times `trust_coeff` relative to the norm of a layer's weights.", default=5.0),
    momentum=Option(Probability, MOMENTUM, default=0.9),
    nesterov=Option(bool, "Look ahead along the velocity; needs momentum."),
    weight_decay=Option(NonNegative, "L2 penalty, added to the gradient.", default=1e-4),
    trust_coeff=Option(Positive, "How far a layer may move, in proportion to its weights' norm."),
    eps=EPS,
)

optimizers.adopt(
    "adan",
    "timm.optim:Adan",
    """Adaptive Nesterov momentum from the change of the gradient.

    Xie et al. 2022, arXiv:2208.06677.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate.", default=2e-3),
    betas=Option(
        tuple[Probability, Probability, Probability],
        "Decay rates of the running gradient, of its change, and of the second moment.",
    ),
    eps=EPS,
    weight_decay=Option(NonNegative, "Strength of the weight decay, proximal as in the paper.", default=0.02),
    caution=CAUTION,
)

optimizers.adopt(
    "adopt",
    "timm.optim:Adopt",
    """Adam that converges for any second decay rate.

    Taniguchi et al. 2024, arXiv:2411.02853: divides by the second moment of the step before.
    """,
    omit="others",
    lr=Option(Positive, "Learning rate."),
    betas=MOMENTS,
    eps=Option(Positive, "Smallest denominator."),
    weight_decay=Option(NonNegative, STRENGTH),
    decoupled_weight_decay=Option(bool, DECOUPLED_WEIGHT_DECAY, default=True, of="decoupled"),
    caution=CAUTION,
)

optimizers.adopt(
    "adamp",
    "timm.optim:AdamP",
    """Adam without the steps that only grow weights whose scale has no effect.

    Heo et al. 2020, "Slowing Down the Weight Norm Increase in Momentum-based Optimizers", arXiv:2006.08217.
    """,
    lr=Option(Positive, "Learning rate."),
    betas=MOMENTS,
    eps=EPS,
    weight_decay=Option(NonNegative, DECOUPLED, default=0.01),
    delta=Option(Positive, DELTA),
    wd_ratio=WD_RATIO,
    nesterov=Option(bool, "Look ahead along the momentum."),
    caution=CAUTION,
)

optimizers.adopt(
    "sgdp",
    "timm.optim:SGDP",
    """SGD without the steps that only grow weights whose scale has no effect.

    Heo et al. 2020, arXiv:2006.08217.
    """,
    omit=("dampening",),
    lr=Option(Positive, "Learning rate.", default=0.05),
    momentum=Option(Probability, MOMENTUM, default=0.9),
    nesterov=Option(bool, "Look ahead along the velocity.", default=True),
    eps=Option(Positive, "Added to norms for stability."),
    weight_decay=Option(NonNegative, "Strength of the weight decay, decoupled."),
    delta=Option(Positive, DELTA),
    wd_ratio=WD_RATIO,
    caution=CAUTION,
)

optimizers.adopt(
    "madgrad",
    "timm.optim:MADGRAD",
    """Dual averaging with momentum and the cube root of the squared gradients.

    Defazio and Jelassi 2021, arXiv:2101.11075.
    """,
    lr=Option(Positive, "Learning rate.", default=1e-3),
    momentum=Option(Probability, "Share of the old weights in the average that is the new ones."),
    eps=EPS,
    weight_decay=Option(NonNegative, STRENGTH),
    decoupled_weight_decay=Option(bool, DECOUPLED_WEIGHT_DECAY, default=True, of="decoupled_decay"),
)
