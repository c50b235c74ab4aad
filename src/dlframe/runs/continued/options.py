"""Options that may change when a run is trained further."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

BATCHES = ("batch_size", "batch_elements", "accumulate_grad_batches")
"""Options that cut an epoch into steps."""
RATES = ("scheduler", "optimizer.lr")
DEVICES = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
MAY_CHANGE = (
    "epochs",
    *BATCHES,
    *RATES,
    *DEVICES,
    "trainer.num_threads",
    "trainer.num_workers",
    "trainer.resident",
    "trainer.deterministic",
    "log_every_n_steps",
    "validate_every",
)

Changes = dict[str, tuple[Any, Any]]
"""Option -> its value before and now; None where there is none."""


def is_among(key: str, keys: tuple[str, ...]) -> bool:
    """Return whether an option, or the group that holds it, is among others; the learning rate of a network is optimizer.lr."""
    if key.startswith("networks.") and key.endswith(".lr"):
        key = "optimizer.lr"
    return key in keys or key.partition(".")[0] in keys


def changeable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config that may change, by dotted key, as JSON has them: what a checkpoint was trained with."""
    found = {}
    for key in MAY_CHANGE:
        group, _, option = key.partition(".")
        if option:
            found[key] = values[group][option]
        elif isinstance(values[group], Mapping):
            found |= {f"{group}.{name}": value for name, value in values[group].items()}
        else:
            found[key] = values[group]
    found |= {f"networks.{name}.lr": own["lr"] for name, own in values["networks"].items() if "lr" in own}
    return json.loads(json.dumps(found))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Return the options that differ."""
    return {key: (before.get(key), now.get(key)) for key in sorted({*before, *now}) if before.get(key) != now.get(key)}


def described(found: Changes) -> str:
    """Return changes in words: "epochs 30 to 60"; of another scheduler its name only."""
    shown = {key: pair for key, pair in found.items() if "scheduler.name" not in found or not key.startswith("scheduler.")}
    shown |= {key: pair for key, pair in found.items() if key == "scheduler.name"}
    return ", ".join(f"{key.removesuffix('.name')} {before} to {now}" for key, (before, now) in shown.items())
