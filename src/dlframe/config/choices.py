"""What can be chosen: the groups of a config, the folders of YAML files, the names in both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlframe.config.settings import settings
from dlframe.registry import GROUPS, REGISTRIES, plugins
from dlframe.registry.renamed import new_name
from dlframe.types import ConfigError, command_line, nearest

LISTS = ("augmentation", "callback", "metric")
"""Groups of which a run takes any number, in order."""
OPTIONS = ("trainer", "tracking", "checkpoint")
"""Groups of options that belong to no entry."""
NESTED = (*GROUPS, *OPTIONS, "networks")
"""Keys that hold options."""


SUFFIXES = (".yaml", ".yml")


def file_of(group: str, name: Any) -> Path | None:
    """Return the YAML file of a choice: by its name, or for an experiment by its path; None without one."""
    if not isinstance(name, str):
        return None
    if found := names(group, files_only=True).get(name):
        return Path(found)
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    return path if group == "experiment" and path.suffix in SUFFIXES and path.is_file() else None


def folders() -> list[Path]:
    """Folders of YAML files in the order that decides between two of a name: the user's, those of plugins, the packaged one."""
    local, packaged = Path("conf"), plugins.PACKAGED_CONF
    own = [local] if local.is_dir() and local.resolve() != packaged.resolve() else []
    return [*own, *plugins.conf_folders, packaged]


def names(group: str, *, files_only: bool = False) -> dict[str, str]:
    """The choices of a group: name -> where it comes from; of its YAML files only, or of its entries too."""
    found = {}
    for folder in reversed(folders()):
        for path in sorted((folder / group).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                found[path.relative_to(folder / group).as_posix().removesuffix(path.suffix)] = str(path)
    if files_only:
        return found
    if group == "task":  # a preset comes before a class of its name
        return {entry.name: entry.origin for entry in GROUPS[group]} | found
    if group in REGISTRIES:
        found |= {entry.name: entry.origin for entry in REGISTRIES[group]}
    return found


def check_name(group: str, name: Any, among: Iterable[str], key: str = "") -> None:
    """Raises a `ConfigError` with the nearest where `name` is not among those of its group."""
    if isinstance(name, str) and name in among:
        return
    name = "null" if name is None else name
    hint = nearest(str(name), among)
    hint += "".join(f" Plugin '{plugin}' {why}." for plugin, why in plugins.broken.items())
    raise ConfigError(f"{group}={name}: no such {group}.{hint} See: {command_line('list', group)}", key or group)


def known_keys() -> list[str]:
    """What the first part of a key can be."""
    return [*settings.get("run").parameters, *NESTED, "experiment"]


def unknown(key: str, known: Iterable[str], owner: str = "") -> ConfigError:
    """What to say of a key that nothing has: its new name, or the nearest.

    Args:
        key: As it was typed.
        known: The keys that there are.
        owner: The group of options, or the command, that the key is meant for; empty for a run.
    """
    if key.split(".")[-1].startswith("_"):
        return ConfigError(f"{key}: is not supported: choose a registered entry, model=NAME.", key)
    sought = key.split(".")[-1 if owner else 0]
    if new := new_name("", owner or "run", sought):
        return ConfigError(f"{key}: is called '{new}' now.", key)
    see = f"show {owner}" if owner in OPTIONS else f"{owner} --help".lstrip()
    return ConfigError(f"{key}: no such option.{nearest(sought, known)} See: {command_line(*see.split())}", key)
