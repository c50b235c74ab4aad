"""Options of earlier versions and what they are called now, so that an old command is answered with the new name."""

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
}
"""Group, "group.entry" or the name of a set of options ("run", "trainer") -> old name -> new name."""


def new_name(group: str, entry: str, option: str) -> str:
    """What an option of an entry is called now; empty where it has no other name."""
    for owner in (f"{group}.{entry}", group, entry):
        if name := RENAMED.get(owner, {}).get(option):
            return name
    return ""
