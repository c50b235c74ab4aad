"""Old names and values of options: a command is answered with the new one, a saved config is translated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
    "data.series": {"features": "past"},
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


def _words(**new: Any) -> Callable[[Any], Any]:
    return lambda value: new.get(value, value) if isinstance(value, str) else value


DECAY = {"decoupled_weight_decay": _words(l2=False, decoupled=True)}

VALUES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "run": {"on_nan": _words(stop="raise")},
    "data.image_folder": {"color_mode": _words(grey="grayscale")},
    # One number was the largest ratio of the sides, either way.
    "augmentation.erasing": {"ratio": lambda value: [1 / value, value] if isinstance(value, float) and value > 0 else value},
    "optimizer.adopt": DECAY,
    "optimizer.madgrad": DECAY,
    "optimizer.muon": {"algo": _words(none="muon")},
    "optimizer.nadam": DECAY,
    "optimizer.radam": DECAY,
    "scheduler.one_cycle": {"anneal_strategy": _words(cosine="cos"), "cycle_momentum": _words(keep=False, cycle=True)},
}
"""Owner, as in `RENAMED` -> new name of an option -> present value of an old one."""

TASKS = {"adversarial": "classification", "closed_form": "classification"}
"""Tasks of earlier versions -> the task that took them over; the models brought their options with them."""


def new_name(group: str, entry: str, option: str) -> str:
    """Return the present name of an option; empty if the option was not renamed."""
    for owner in (f"{group}.{entry}", group, entry):
        if name := RENAMED.get(owner, {}).get(option):
            return name
    return ""


def translated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a saved config under their present names; the values of the present version unchanged."""
    checkpoint = config.get("checkpoint")
    if isinstance(checkpoint, Mapping) and "unit" in checkpoint and "every" in checkpoint:
        every = {"every_n_minutes": 0, f"every_n_{checkpoint['unit']}": checkpoint["every"]}
        config = {**config, "checkpoint": {"max_to_keep": checkpoint.get("keep", 3)} | every}
    task = config.get("task")
    if isinstance(task, Mapping) and (name := TASKS.get(str(task.get("name")))):
        config = {**config, "task": {"name": name, "label_smoothing": task.get("label_smoothing", 0.0)}}
    data = config.get("data")
    if isinstance(data, Mapping) and data.get("name") == "image_folder" and "fit" not in data:
        config = {**config, "data": {**data, "fit": "crop"}}  # the only way before there was a choice
    values = {}
    for key, value in _renamed("", "run", config).items():
        nested = isinstance(value, Mapping)
        if nested and all(isinstance(part, Mapping) for part in value.values()):  # a list of components
            value = {name: _renamed(key, str(name), part) for name, part in value.items()}
        elif nested:
            value = _renamed(key, str(value.get("name", key)), value)
        values[key] = value
    return values


def _renamed(group: str, entry: str, options: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {new_name(group, entry, str(key)) or key: value for key, value in options.items()}
    for name, present in VALUES.get(f"{group}.{entry}" if group else entry, {}).items():
        if name in renamed:
            renamed[name] = present(renamed[name])
    return renamed
