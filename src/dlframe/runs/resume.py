"""Which run a command continues: one of the same config, in the same folder of runs."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from dlframe.config import Config, load_saved
from dlframe.runs import journal
from dlframe.runs.run_directory import FREE, flat, identity, title
from dlframe.types import ConfigError, nearest


def find(config: Config) -> Path | None:
    """The folder of the run that `config.run.resume` means; None for a new one.

    Raises:
        ConfigError: The folder that is named holds no run, or one of another config.
    """
    wanted = identity(config.values)
    match config.run.resume:
        case "none" | "":
            return None
        case "auto":
            beginnings = {
                folder: _beginning(folder) for folder in Path(config.run.runs).glob(f"{glob.escape(title(config))}-*")
            }
            same = [(start["time"], folder) for folder, start in beginnings.items() if start.get("identity") == wanted]
            return max(same)[1] if same else None
    folder = Path(config.run.resume)
    start = _beginning(folder)
    if not start:
        beside = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        hint = nearest(folder.name, ["auto", "none", *beside])
        raise ConfigError(f"resume: must be auto, none or the folder of a run. Received: '{folder}'.{hint}", "resume")
    if start.get("identity") != wanted:
        raise ConfigError(f"resume: {folder} is a run of another config: {_difference(config, folder)}.", "resume")
    return folder


def _beginning(folder: Path) -> dict[str, Any]:
    """The first record of a run's journal; empty where there is none."""
    try:
        record, _ = next(journal.follow(folder))
    except (StopIteration, OSError):
        return {}
    return record if record["kind"] == "start" and isinstance(record.get("time"), int) else {}


def _difference(config: Config, folder: Path) -> str:
    """The first option in which the config of a run differs, in words."""
    own = dict(flat(config.values))
    theirs = dict(flat(load_saved(folder / "config.yaml", config.run.plugin_paths).values))
    for key in sorted(own.keys() | theirs.keys()):
        if key.split(".")[0] not in FREE and own.get(key) != theirs.get(key):
            return f"{key} is {theirs.get(key)!r} there and {own.get(key)!r} here"
    return "it was made by another version of dlframe"
