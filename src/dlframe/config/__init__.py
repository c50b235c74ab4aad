"""Compose a config, check everything in it before anything is built, and say every error well.

Hydra composes the choices (YAML files and registered entries); values are then set and checked against the signatures.
Nothing in a config can name code: a key that no signature has is refused, wherever it came from.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlframe.config.choices import LISTS, OPTIONS, check_name, file_of, folders, names
from dlframe.config.compose import assign, compose, group_of, resolved, without_options_of_a_preset, without_options_of_others
from dlframe.config.overrides import assignments_of, choices_of, given_keys, load_options, plugin_paths, unquoted
from dlframe.config.run_config import EXPERIMENT_VARIABLE, Config
from dlframe.config.validation import check, check_no_secret, check_places, check_registered
from dlframe.registry import GROUPS, plugins
from dlframe.registry.parameters import place
from dlframe.registry.renamed import translated
from dlframe.types import ConfigError

__all__ = [
    "EXPERIMENT_VARIABLE",
    "LISTS",
    "OPTIONS",
    "Config",
    "check",
    "check_name",
    "check_no_secret",
    "check_registered",
    "folders",
    "load",
    "load_options",
    "load_saved",
    "names",
    "plugin_paths",
]


LOCK = threading.RLock()
"""Held while a config is composed: Hydra and the registries are global to the process."""


def _alone(function: Callable[..., Config]) -> Callable[..., Config]:
    """Have one thread at a time load a config, so that each gets its own result and its own message."""

    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Config:
        with LOCK:
            return function(*args, **kwargs)

    return locked


@_alone
def load(overrides: Sequence[str]) -> Config:
    """The checked config of one run from command-line overrides ("model=cnn", "optimizer.lr=0.01"); of two of one key the last.

    Raises:
        ConfigError: An override or a YAML file names something unknown, or holds a value outside its range.
        RegistrationError: A plugin of `plugin_paths`, or one that the config chooses, is broken.
    """
    given = given_keys(overrides)
    plugins.discover(plugin_paths(given.get("plugin_paths", "null")))
    choices = choices_of(given)
    if not {"task", "experiment"} & choices.keys() and (own := _task_of(choices.get("data"))):
        choices["task"] = own
    for group, value in choices.items():
        for name in value if group in LISTS else [value]:
            if not (group == "experiment" and (name is None or file_of(group, name))):
                check_name(group, name, names(group))
    locations: dict[str, str] = {}
    try:
        named = given.get("resume") if not {"task", "experiment"} & given.keys() else None
        values = _of_run(named, choices, locations) or _whole(choices, locations)
        notes: tuple[str, ...] = ()
        left = ""
        if values is None:
            values = compose(choices, locations)
            notes = without_options_of_others(values, choices, locations, given)
            left = without_options_of_a_preset(values, locations, given)
            if _is_fitted_at_once(values) and group_of(locations.get("epochs", "")) in ("", "task"):
                values["epochs"] = 1  # a further one would only score the same again
        if values.pop("plugin_paths", None) and "plugin_paths" not in given:
            raise ConfigError("plugin_paths: code is named on the command line only, never in a file.", "plugin_paths")
        for key, value in assignments_of(given, values):
            assign(values, key, value)
        config = check(resolved(values), tuple(f"{key}={raw}" for key, raw in given.items()))
        asked, has = values.get("task"), config.entry("task").name
        if ("task" in given or left) and isinstance(asked, Mapping) and asked.get("name") not in (None, has):
            said = f"; left out: {left}" if left else ""
            notes += (
                f"model={config.entry('model').name} brings its own task: {has}, instead of task={choices['task']}{said}",
            )
        config = replace(config, notes=notes)
        usual = config.tracking.uri in ("auto", "sqlite", "none", "")
        check_places(config, "" if usual else _packaged_store(choices.get("tracking")))
    except ConfigError as error:
        if error.key not in given and (place := locations.get(error.key)):
            raise ConfigError(f"{place}: {error}", error.key) from None
        raise
    plugins.preload(config.chosen)
    return config


def _of_run(resume: str | None, choices: Mapping[str, Any], locations: dict[str, str]) -> dict[str, Any] | None:
    """Return the values that a run saved which is to be continued, and those of choices that were typed and are others there.

    None where `resume` names no run. Plugins of the run are code, and are not taken over; its folder of runs is, unless the
    run was moved.
    """
    from dlframe.config.yaml_files import read

    if not resume or resume in ("none", "auto"):
        return None
    try:
        folder = Path(place(unquoted(resume) or ""))
    except ValueError:
        return None  # told when the value is checked
    if not (folder / "config.yaml").is_file():
        return None

    values = translated(read(folder / "config.yaml", inside=folder))
    values.pop("plugin_paths", None)
    runs = values.pop("runs", None)
    if isinstance(runs, str) and os.path.realpath(runs) == os.path.realpath(folder.parent):
        values["runs"] = runs
    typed = compose(choices, locations) if choices else {}
    for group, chosen in choices.items():
        there = saved if isinstance(saved := values.get(group), dict) else {}
        if group in LISTS:
            is_same = [*there] == list(chosen)
        else:
            is_same = group in GROUPS and there.get("name") == typed[group]["name"]
        if not is_same:
            values[group] = typed.get(group, {})
    return values


def _whole(choices: Mapping[str, Any], locations: dict[str, str]) -> dict[str, Any] | None:
    """Return the values of an experiment that is a whole config, as a run saves it; None for another one."""
    from dlframe.config.yaml_files import read

    file = file_of("experiment", choices.get("experiment"))
    places: dict[str, str] = {}
    if not file or not _is_whole(values := read(file, locations=places)):
        return None
    locations |= places
    values = translated(values)
    values.pop("resume", None)  # how that run began
    own = {group: name for group, name in choices.items() if group != "experiment"}
    return values | ({group: compose(own, {}).get(group, {}) for group in own} if own else {})


def _is_whole(content: dict[Any, Any]) -> bool:
    """Return whether a file names a component of each group, and is composed of nothing else."""
    chosen = (content.get(group) for group in GROUPS if group not in LISTS)
    return "defaults" not in content and all(isinstance(options, dict) and "name" in options for options in chosen)


def _task_of(data: Any) -> str:
    """Return the task preset that a data set states, for where the user names no task."""
    entry = GROUPS["data"].entries.get(data) if isinstance(data, str) else None
    return next(iter(entry.facts["tasks"].values()), "") if entry else ""


def _is_fitted_at_once(values: Mapping[str, Any]) -> bool:
    """Return whether the model has no network to train."""
    model = values.get("model")
    entry = GROUPS["model"].entries.get(str(model.get("name"))) if isinstance(model, Mapping) else None
    return entry is not None and not entry.facts["networks"]


def _packaged_store(choice: str | None) -> str:
    """The store of dlframe's own file of this name, which was typed: `tracking=server`."""
    from dlframe.config.yaml_files import read

    file = plugins.PACKAGED_CONF / "tracking" / f"{choice}.yaml"
    return str(read(file).get("uri", "")) if choice in names("tracking") and file.is_file() else ""


@_alone
def load_saved(path: Path, plugin_paths: Sequence[str] = (), overrides: Sequence[str] = ()) -> Config:
    """The config that a run saved. It is data: plugins that it names are not loaded, those of `plugin_paths` are.

    Args:
        path: The file.
        plugin_paths: Files and folders of plugins.
        overrides: Options of components that are set to other values, as "data.path=FOLDER".

    Raises:
        ConfigError: There is none, it cannot be read, or this version of dlframe or its plugins do not know what it names.
    """
    from dlframe.config.yaml_files import read

    values = read(path, inside=path.parent)
    plugins.discover(plugin_paths)
    values = translated(values)
    for key, value in assignments_of(given_keys(overrides), values):
        assign(values, key, value)
    try:
        return check(values)
    except ConfigError as error:
        named = values.get("plugin_paths") if not plugin_paths else None
        hint = " The run had plugins, which are code. If you trust them, name them: plugin_paths=PATH" if named else ""
        raise ConfigError(f"{path}: {error}{hint}", error.key) from None
