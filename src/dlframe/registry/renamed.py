"""Old names of options, so that an old command is answered with the new name."""

from __future__ import annotations

RENAMED: dict[str, dict[str, str]] = {
    "run": {
        "accumulate": "accumulate_grad_batches",
        "chunk": "steps_per_execution",
        "clip": "gradient_clip_val",
        "decay": "weight_decay_params",
        "log_every": "log_every_n_steps",
        "name": "run_name",
        "players": "networks",
    },
    "trainer": {"limit_steps": "limit_batches", "threads": "num_threads", "workers": "num_workers"},
    "checkpoint": {"every": "every_n_minutes", "unit": "every_n_steps", "keep": "max_to_keep"},
    "ui": {"open": "open_browser"},
    "task.classification": {"class_weights": "class_weight", "positive": "pos_label"},
    "model.backbone": {"train": "trainable", "lr_decay": "layer_decay"},
    "model.cnn": {"hidden": "hidden_dim"},
    "model.dlinear": {"kernel": "kernel_size"},
    "model.gan": {"hidden": "hidden_dim", "latent": "latent_dim", "objective": "generator_loss"},
    "model.rnn": {"cell": "cell_type"},
    "model.vit": {"patch": "patch_size", "heads": "num_heads"},
    "data.image_folder": {"size": "image_size", "color": "color_mode"},
    "augmentation.affine": {"shift": "translate", "outside": "padding_mode"},
    "augmentation.crop": {"fill": "padding_mode"},
    "augmentation.cutmix": {"probability": "p"},
    "augmentation.erasing": {"probability": "p", "area": "scale", "aspect": "ratio", "fill": "value"},
    "augmentation.flip": {"probability": "p"},
    "augmentation.mixup": {"probability": "p"},
    "augmentation.rand_augment": {"operations": "num_ops"},
    "optimizer.adafactor": {"clip": "clip_threshold"},
    "optimizer.adagrad": {"initial_accumulator": "initial_accumulator_value"},
    "optimizer.adamp": {"decay_ratio": "wd_ratio"},
    "optimizer.adopt": {"decay": "decoupled_weight_decay"},
    "optimizer.lars": {"trust": "trust_coeff"},
    "optimizer.madgrad": {"decay": "decoupled_weight_decay"},
    "optimizer.muon": {"iterations": "ns_steps", "scale": "adjust_lr_fn", "second_moment": "algo"},
    "optimizer.nadam": {"decay": "decoupled_weight_decay"},
    "optimizer.radam": {"decay": "decoupled_weight_decay"},
    "optimizer.sgdp": {"decay_ratio": "wd_ratio"},
    "scheduler.one_cycle": {
        "warmup": "pct_start",
        "start_divisor": "div_factor",
        "final_divisor": "final_div_factor",
        "shape": "anneal_strategy",
        "momentum": "cycle_momentum",
    },
    "scheduler.step": {"factor": "gamma"},
    "scheduler.warmup_cosine": {"warmup": "warmup_ratio", "floor": "min_lr_ratio"},
}
"""Group, "group.entry" or the name of a set of options ("run", "trainer") -> old name -> new name."""


def new_name(group: str, entry: str, option: str) -> str:
    """Return the present name of an option; empty if the option was not renamed."""
    for owner in (f"{group}.{entry}", group, entry):
        if name := RENAMED.get(owner, {}).get(option):
            return name
    return ""
