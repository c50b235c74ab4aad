"""Search of runs of a config in a directory of runs: the one to resume, or one that has ended."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from dlframe.config import Config, load_saved
from dlframe.config.yaml_files import read as read_yaml
from dlframe.runs import journal
from dlframe.runs.continued.changes import Continuation, is_continued, is_named
from dlframe.runs.run_directory import FREE, RESULT, changed_code, check_links, flat, has_same_versions, identity, title
from dlframe.storage.known import is_known
from dlframe.types import ConfigError, DataError, nearest, quoted, say


def find(config: Config) -> Path | None:
    """Return the run directory to resume; None for a new run.

    Raises:
        ConfigError: The folder is not a run directory, or its run has another config.
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
            same = [(time, folder) for time, folder in same if not is_continued(folder)]
            own = [(time, folder) for time, folder in same if is_known(run=folder)]
            if same and not own:
                name = max(same)[1]
                option = quoted(f"resume={name}")
                note = f"note: {name} has this config, but was not started by you in this place. To continue it: {option}"
                say(note, error=True)
            return _checked(max(own)[1]) if own else None
    folder = Path(config.run.resume)
    if not _beginning(folder):
        beside = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        hint = nearest(folder.name, ["auto", "none", *beside])
        raise ConfigError(f"resume: must be auto, none or a run directory. Received: '{folder}'.{hint}", "resume")
    return at(config, folder)


def at(config: Config, folder: Path) -> Path | None:
    """Return the folder if a run has begun in it, else None.

    Raises:
        ConfigError: Its run has another config.
    """
    if not (start := _beginning(folder)):
        return None
    goes_on = is_named(config, folder) and (is_continued(folder) or Continuation.of(config, folder))
    if start.get("identity") != identity(config.values) and not goes_on:
        raise ConfigError(f"resume: {folder} has another config: {_difference(config, folder)}.", "resume")
    return _checked(folder)


class Finished:
    """Finished runs in a directory of runs, by what they were.

    Only those that this user has started are taken, by the same versions of packages.

    Args:
        runs: The directory.
    """

    def __init__(self, runs: str) -> None:
        self.runs = Path(runs)
        self._known: dict[str, Path] | None = None

    def find(self, config: Config, fingerprint: str) -> Path | None:
        """Return a finished run of a config on the data with a fingerprint; None without one."""
        if self._known is None:
            self._known = {}
            for folder in sorted(self.runs.glob("*/")) if self.runs.is_dir() else []:
                start = _beginning(folder)
                parameters, tags = start.get("parameters"), start.get("tags")
                if not isinstance(parameters, dict) or not isinstance(tags, dict) or not (folder / RESULT).is_file():
                    continue
                if (
                    is_known(run=folder)
                    and journal.ended(folder) == "FINISHED"
                    and has_same_versions(folder)
                    and not is_continued(folder)
                ):
                    self._known.setdefault(_job(parameters, tags.get("data.fingerprint")), folder)
        found = self._known.get(_job(dict(flat(config.values)), fingerprint))
        return found if found and not changed_code(found, config) else None


UNCOUNTED = {*FREE, "run_name", "experiment_name"}
"""Options in which two runs of one job may differ."""


def _job(options: dict[str, Any], fingerprint: Any) -> str:
    """Return what makes two runs the same job, whatever their names."""
    counted = {key: value for key, value in options.items() if key.split(".")[0] not in UNCOUNTED}
    return json.dumps([counted, fingerprint], sort_keys=True)


def _checked(folder: Path) -> Path:
    check_links(folder)
    read_yaml(folder / "config.yaml", inside=folder)  # a run whose files are damaged is not trained first
    return folder


def _beginning(folder: Path) -> dict[str, Any]:
    """Return the first record of a run's journal; empty without one."""
    try:
        record, _ = next(journal.follow(folder))
    except (StopIteration, DataError):
        return {}
    return record if record["kind"] == "start" and isinstance(record.get("time"), int) else {}


def _difference(config: Config, folder: Path) -> str:
    """Describe the first option in which the configs differ."""
    own = dict(flat(config.values))
    theirs = dict(flat(load_saved(folder / "config.yaml", config.run.plugin_paths).values))
    for key in sorted(own.keys() | theirs.keys()):
        if key.split(".")[0] not in FREE and own.get(key) != theirs.get(key):
            return f"{key} is {theirs.get(key)!r} there and {own.get(key)!r} here"
    return "created by another version of dlframe"
