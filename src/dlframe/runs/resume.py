"""Search of runs of a config in a directory of runs: the one to resume, or one that has ended."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlframe.config import Config, load_saved
from dlframe.config.yaml_files import read as read_yaml
from dlframe.runs import journal
from dlframe.runs.continued.changes import Continuation, is_continued, is_named
from dlframe.runs.recorder import BEST
from dlframe.runs.run_directory import FREE, RESULT, changed_code, check_links, flat, has_same_versions, identity, title
from dlframe.storage.checkpoint import read_facts
from dlframe.storage.known import is_known
from dlframe.types import CheckpointError, ConfigError, DataError, nearest, quoted, say


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
            for folder, start in finished(self.runs):
                if has_same_versions(folder) and not is_continued(folder):
                    self._known.setdefault(_job(start["parameters"], start["tags"].get("data.fingerprint")), folder)
        found = self._known.get(_job(dict(flat(config.values)), fingerprint))
        return found if found and not changed_code(found, config) else None


def finished(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the finished runs in a directory that this user has started, each with the first record of its journal."""
    for folder in sorted(runs.glob("*/")) if runs.is_dir() else []:
        start = _beginning(folder)
        if not isinstance(start.get("parameters"), dict) or not isinstance(start.get("tags"), dict):
            continue
        if (folder / RESULT).is_file() and is_known(run=folder) and journal.ended(folder) == "FINISHED":
            yield folder, start


def begins_with(config: Config) -> Config:
    """Return a config with the run that its `initial_checkpoint=best` means; any other config is returned as it is.

    It is the finished run of the same experiment, model and task with the best value of the monitored metric.

    Raises:
        ConfigError: There is no such run, or they have several data sets, whose scores cannot be compared.
    """
    key, metric = "initial_checkpoint", config.monitor
    if config.run.initial_checkpoint != "best":
        return config
    model, task = config.values["model"]["name"], config.values["task"]["name"]
    found: list[tuple[float, Path, str, str]] = []
    for folder, start in finished(Path(config.run.runs)):
        if start.get("experiment") != config.experiment or start["tags"].get("limited"):
            continue
        try:
            facts = read_facts(folder / BEST, folder)
        except CheckpointError:
            continue
        value = facts.get(metric)
        if facts.get("model") == model and facts.get("task") == task and isinstance(value, float) and math.isfinite(value):
            of = start.get("data")
            data = of.get("name") if isinstance(of, dict) else ""
            found.append((value, folder, str(data), str(start["tags"].get("data.fingerprint"))))
    read = config.metrics[metric.removeprefix("val/")]
    if not found:
        rule = f"{config.run.runs} has no finished run of model={model} in the experiment '{config.experiment}' with {metric}"
        raise ConfigError(f"{key}=best: {rule}. Try: {key}=RUN, a run directory", key)
    found.sort(key=lambda one: one[0], reverse=read.better == "max")
    if len({fingerprint for *_, fingerprint in found}) > 1:
        first = {fingerprint: f"{folder} ({data})" for _, folder, data, fingerprint in reversed(found)}
        rule = f"the runs of '{config.experiment}' have {len(first)} data sets, on which {metric} cannot be compared"
        raise ConfigError(f"{key}=best: {rule}. The best of each: {', '.join(first.values())}. Try: {key}=RUN", key)
    value, folder, *_ = found[0]
    say(f"{key}=best: {folder}, {metric} {read.text(value)}, of {len(found)} runs in the experiment '{config.experiment}'")
    typed = (f"{key}={folder}" if text.startswith(f"{key}=") else text for text in config.overrides)
    return replace(config.changed(**{key: str(folder)}), overrides=tuple(typed))


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
