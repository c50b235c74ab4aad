"""The choices of a config, composed by Hydra: defaults lists, presets, experiments; then references between values."""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config.choices import LISTS, NESTED, OPTIONS, check_name, file_of, folders, names
from dlframe.config.overrides import chosen_names
from dlframe.config.settings import settings
from dlframe.registry import CHOICES, GROUPS, Registry
from dlframe.registry.parameters import REQUIRED
from dlframe.storage.stamps import below, stamps
from dlframe.types import ConfigError, nearest

if TYPE_CHECKING:
    from hydra.core.plugins import Plugins


MOST = 64
"""Composed configs that are kept: Hydra takes a hundred times as long as copying one."""

TYPED = "file-that-was-typed"
"""Name in Hydra of an experiment that was typed by the path of its file."""

_composed: OrderedDict[Any, tuple[dict[str, Any], dict[str, str]]] = OrderedDict()
"""The configs composed last, by all that they depend on."""


def compose(choices: Mapping[str, Any], locations: dict[str, str]) -> dict[str, Any]:
    """Compose the values that the chosen files and entries give.

    They are kept for the next config with the same choices, until a file or an entry is added, changed or removed.

    Args:
        choices: Group -> the name, or the names, chosen in it.
        locations: Takes "file:line" of each dotted key that a file sets.

    Raises:
        ConfigError: A file cannot be read, or a defaults list names what does not exist.
    """
    typed = file_of("experiment", choices.get("experiment"))
    written = stamps([*(path for folder in folders() for path in below(folder)), *([str(typed)] if typed else [])])
    entries = tuple((group, *registry.entries) for group, registry in GROUPS.items())
    key = repr(sorted(choices.items())), written, entries
    if written is None or key not in _composed:
        places: dict[str, str] = {}
        try:
            values = _compose(choices, places)
        finally:
            locations |= places
        if written is None:
            return values
        _composed[key] = values, places
    _composed.move_to_end(key)
    while len(_composed) > MOST:
        _composed.popitem(last=False)
    values, places = _composed[key]
    locations |= places
    return copy.deepcopy(values)


def _compose(choices: Mapping[str, Any], locations: dict[str, str]) -> dict[str, Any]:
    """Compose with Hydra; see `compose`."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from dlframe.config import yaml_files

    _store_entries()
    plugins = _hydra_plugins()
    plugins.register(yaml_files.YamlFolder)
    plugins.register(yaml_files.SearchPath)
    yaml_files.SearchPath.folders = folders()
    yaml_files.YamlFolder.locations = locations
    yaml_files.YamlFolder.typed = {}
    if (name := choices.get("experiment")) not in names("experiment") and (file := file_of("experiment", name)):
        choices = {**choices, "experiment": TYPED}
        yaml_files.YamlFolder.typed = {f"experiment/{TYPED}": file}
    overrides = [
        "~experiment" if group == "experiment" and value is None else f"{group}={_quoted(value)}"
        for group, value in choices.items()
        if group not in LISTS
    ]
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings(), initialize_config_dir(config_dir=str(folders()[-1]), version_base="1.3"):
            warnings.simplefilter("ignore")  # Hydra's advice on `_self_`
            composed = compose("config", overrides=overrides)
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group in (*GROUPS, *CHOICES):
            check_name(group, name, names(group))
        hint = nearest(f"/{group.rpartition('/')[2]}", [f"/{known}" for known in (*GROUPS, *CHOICES)])
        raise ConfigError(f"/{group}: {name}: a defaults list names no such file or entry.{hint}", group) from None
    except RecursionError:
        raise ConfigError("conf: a defaults list leads back to its own file.") from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        absent = re.search(r"Could not override '(\w+)'", str(error))
        if absent and absent[1] in LISTS:
            rule = "components of which there may be several are no part of a defaults list"
            raise ConfigError(f"conf: override /{absent[1]}: {rule}. Write: {absent[1]}: [NAME]", absent[1]) from None
        if absent and absent[1] in choices:
            file = next(folder / "config.yaml" for folder in folders() if (folder / "config.yaml").is_file())
            raise ConfigError(f"{file}: its defaults list has no '{absent[1]}'. Add: - {absent[1]}: null") from None
        raise ConfigError(f"conf: {' '.join(str(error).split())}") from None
    values: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    values |= _chosen_lists(values, choices)
    return {key: value for key, value in values.items() if value is not None or key not in NESTED}


def without_options_of_others(
    values: dict[str, Any], choices: Mapping[str, Any], locations: Mapping[str, str], given: Collection[str]
) -> tuple[str, ...]:
    """Take out the options that presets and experiments set for another component than the one that is chosen.

    `lr: 0.003` of a task whose optimizer is adamw says nothing about sgd.

    Args:
        values: The composed values, which are changed.
        choices: Group -> the name, or the names, chosen in it.
        locations: "file:line" of each dotted key that a file sets.
        given: Keys that are typed; nothing is said about these.

    Returns:
        A sentence for each component that keeps its own defaults.
    """
    notes = []
    for group, name in choices.items():
        own = values.get(group)
        if group not in GROUPS or group in (*LISTS, "task") or name not in GROUPS[group].entries or not isinstance(own, dict):
            continue  # a file that has the name chosen knows what is set beside it
        places = {key: locations.get(f"{group}.{key}", "") for key in own}
        places = {key: place for key, place in places.items() if group_of(place) not in ("", group)}
        other = compose({key: value for key, value in choices.items() if key != group}, {}).get(group) if places else None
        if not isinstance(other, dict) or other.get("name") in (None, own.get("name")):
            continue
        left = {f"{group}.{key}": own.pop(key) for key in places}
        if told := ", ".join(f"{key}={value}" for key, value in left.items() if key not in given):
            place = next(iter(places.values()))
            notes.append(f"{group}={name} has defaults of its own; left out, as set for {other['name']}: {told} ({place})")
    return tuple(notes)


def without_options_of_a_preset(values: dict[str, Any], locations: Mapping[str, str], given: Mapping[str, str]) -> str:
    """Take out what a preset sets for its own task where the model brings another that has no such option.

    Args:
        values: A composed config, which is changed.
        locations: "file:line" of each dotted key that a file sets.
        given: Keys that are typed; these stay, to be refused.

    Returns:
        What was taken out and where it was set; empty where nothing was.
    """
    model, task = values.get("model"), values.get("task")
    if not isinstance(model, dict) or not isinstance(task, dict) or model.get("name") not in GROUPS["model"].entries:
        return ""
    own = GROUPS["model"].get(model["name"]).facts["task"]
    known = GROUPS["task"].get(own).parameters if own else {}
    places = {
        key: locations.get(f"task.{key}", "") for key in task if key not in (*known, "name") and f"task.{key}" not in given
    }
    left = [key for key, place in places.items() if own and group_of(place) == "task"]
    told = ", ".join(f"task.{key}={task.pop(key)}" for key in left)
    return f"{told} ({places[left[0]]})" if left else ""


def group_of(place: str) -> str:
    """Return the group of the file of a location, "conf/task/mine.yaml:3": that whose folder holds it; empty for none."""
    file = Path(place.rpartition(":")[0])
    inside = (file.relative_to(folder).parts for folder in folders() if place and file.is_relative_to(folder))
    return next((parts[0] for parts in inside if len(parts) > 1), "")


def _hydra_plugins() -> Plugins:
    """Hydra's own plugins, without a search of the import path, where it would run any folder named hydra_plugins."""
    from hydra.core.plugins import Plugins

    name = "hydra_plugins"
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # an import fails
    try:
        return Plugins.instance()
    finally:
        del sys.modules[name]
        sys.modules.update(before)


def _store_entries() -> None:
    """Give Hydra a config of each registered entry, so that a defaults list may choose it."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        for entry in registry:
            folder = "task/class" if group == "task" else group
            store.store(group=folder, name=entry.name, node={"name": entry.name}, package=group)
    presets = names("task", files_only=True)
    for task in GROUPS["task"]:
        if task.name in presets:
            continue
        # A task without a preset places itself; data and model are for the command line or an experiment to choose.
        placed = [{"/task/class@task": task.name}, {"/data": None}, {"/model": None}]
        store.store(group="task", name=task.name, node={"defaults": placed}, package="_global_")


def _chosen_lists(values: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each entry that is chosen in a group of many."""
    lists = {}
    for group in LISTS:
        placed = values.get(group)
        options = placed if isinstance(placed, dict) else dict.fromkeys(chosen_names(group, placed))
        chosen = {str(name): options.get(name) or {} for name in choices.get(group, options)}
        for name, given in chosen.items():
            if not isinstance(given, dict):
                raise ConfigError(f"{group}.{name}: must hold options. Received: {given!r}.", f"{group}.{name}")
        lists[group] = {name: {"name": name, **given} for name, given in chosen.items()}
    return lists


def _quoted(value: Any) -> str:
    return "null" if value is None else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted key. What no signature has is found when all is checked."""
    *path, last = key.split(".")
    if path and last == "name" and path[0] in GROUPS:
        raise ConfigError(f"{key}: an entry is chosen by its group. Try: {path[0]}={value}", key)
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: '{part}' holds no options.", key)
    values[last] = value


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """References between values (`${batch_size}`) replaced. Resolvers, which could read the environment, are refused."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def walk(node: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, str):
            yield key, node
        for name, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield from walk(child, f"{key}.{name}".lstrip("."))

    references = [(key, text) for key, text in walk(values, "") if "${" in text]
    if not references:
        return values
    from dlframe.config.yaml_files import REFERENCE, REFERENCES

    for key, text in references:
        if "${" in REFERENCE.sub("", text):
            raise ConfigError(f"{key}: a reference may name another option only. Received: {text!r}.", key)
    if (count := sum(text.count("${") for _, text in references)) > REFERENCES:
        key = references[0][0]
        raise ConfigError(f"{key}: a config may hold {REFERENCES} references. Received: {count}.", key)
    try:
        return OmegaConf.to_container(OmegaConf.create(_filled(values)), resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key, text = references[0]
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}. Received: {text!r}.", key) from None


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the defaults that the signatures hold, so that a reference may name one."""

    def over(registry: Registry, name: Any, options: Any) -> Any:
        known = registry.entries.get(name) if isinstance(name, str) else None
        if not known or not isinstance(options, Mapping):
            return options
        return {n: p.default for n, p in known.parameters.items() if p.default is not REQUIRED} | dict(options)

    filled = over(settings, "run", values)
    for group in (*GROUPS, *OPTIONS):
        options = values.get(group, {})
        if group in LISTS:
            filled[group] = {name: over(GROUPS[group], name, given) for name, given in options.items()}
        elif isinstance(options, Mapping):
            registry = GROUPS.get(group, settings)
            filled[group] = over(registry, options.get("name") if group in GROUPS else group, options)
    return filled
