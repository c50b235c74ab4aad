"""Text of the command line as keys and values. Hydra's grammar reads numbers and lists; text arrives as it was typed."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from dlframe.config.choices import LISTS, NESTED, OPTIONS, known_keys, unknown
from dlframe.config.settings import option_set, settings
from dlframe.registry import CHOICES, GROUPS, Entry, plugins
from dlframe.registry.parameters import Parameter, parts
from dlframe.types import ConfigError, command_line

T = TypeVar("T")


def given_keys(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value as it was typed, of several the last. Tells an unknown key before anything is read."""
    given: dict[str, str] = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            raise ConfigError(f"{text}: must be key=value. See: python -m dlframe train --help")
        if key.split(".")[0] not in (NESTED if "." in key else known_keys()):
            raise unknown(key, known_keys())
        if re.search(r"[\x00-\x1f\x7f-\x9f]", raw):
            raise ConfigError(f"{key}: must hold no control characters. Received: {raw!r}.", key)
        given[key] = raw
    return given


def plugin_paths(raw: str) -> list[str]:
    """`plugin_paths`, which are needed before anything else can be understood. One may stand without brackets."""
    value = _value("plugin_paths", raw) if raw.startswith("[") else _text(raw)
    return [] if value is None else [str(item) for item in value] if isinstance(value, list) else [value]


def parse(given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices of groups, and values by dotted key."""
    choices: dict[str, Any] = {}
    assignments: dict[str, Any] = {}
    for key, raw in given.items():
        if key in GROUPS or key in CHOICES:
            # What has none of these signs is a name, and Hydra's parser, which takes its time to load, is not needed.
            value = _value(key, raw) if set(raw) & set(",[]{}()") else _text(raw)
            choices[key] = chosen_names(key, value) if key in LISTS else value
            if key not in LISTS and isinstance(value, list):
                hint = f" Try: {key}={value[0]}" if value else ""
                raise ConfigError(f"{key}: takes one entry, for all networks. Received: {raw}.{hint}", key)
        elif key == "plugin_paths":
            assignments[key] = plugin_paths(raw)
        else:
            assignments[key] = _text(raw) if _is_text(key) else _value(key, raw)
    return choices, assignments


def load_options(command: str, options: type[T], arguments: Sequence[str], prefix: str = "") -> T:
    """The checked options of a command other than training, from "key=value" arguments.

    Args:
        command: Its name, for the messages.
        options: A dataclass: the options with their types, ranges, defaults and meanings.
        arguments: Each names another option. Of two of one option neither is a default that the other changes, as in an
            experiment, so that one of them is a mistake.
        prefix: Beginning of all keys, such as "search.".

    Raises:
        ConfigError: There is no such option, it is given twice, or its value is outside its range.
    """
    parameters = {prefix + name: p for name, p in option_set(prefix or command, options).parameters.items()}
    values = typed_values(command, parameters, arguments)
    return options(**{key.removeprefix(prefix): value for key, value in values.items()})


def typed_values(command: str, parameters: Mapping[str, Parameter], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the checked value of each parameter from "key=value" arguments, see `load_options`."""
    values: dict[str, Any] = {}
    for text in arguments:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"{command}: options are key=value. Received: {text!r}. See: {command_line(command, '--help')}")
        if key not in parameters:
            raise unknown(key, parameters, command)
        if key in values:
            raise ConfigError(f"{key}: must be given once. Received: {key} twice. Try: {text}", key)
        if key == "plugin_paths":
            values[key] = plugin_paths(raw)
        else:
            values[key] = _text(raw) if parts(parameters[key].annotation)[0] is str else _value(key, raw)
    return {key: p.check(values.get(key, p.default), key) for key, p in parameters.items()}


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The cells of a grid: the product of every override that lists several values ("model=cnn,rnn")."""
    given = given_keys(overrides)
    plugins.discover(plugin_paths(given.get("plugin_paths", "null")))
    axes = []
    for key, raw in given.items():
        text = f"{key}={raw}"
        override = None if key == "plugin_paths" else sweep_of(key, raw)
        if not override:
            axes.append([text])
            continue
        axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        if not axes[-1]:
            raise ConfigError(f"{text}: holds no value.", key)
    return [list(cell) for cell in itertools.product(*axes)]


def sweep_of(key: str, raw: str) -> Any:
    """Hydra's reading of an override that stands for several values, or for an interval of them; None for another."""
    try:
        override = _parser().parse_override(f"{key}={raw}")
    except Exception:
        if _is_text(key):
            return None
        raise _unreadable(key, raw) from None
    return override if override.is_sweep_override() else None


def chosen_names(group: str, value: Any) -> list[Any]:
    """The names that a list of entries is chosen by."""
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{group}: must be a list of names. Received: {value}.", group)
    if len(set(names)) < len(names):
        raise ConfigError(f"{group}: takes each name once. Received: [{', '.join(names)}].", group)
    return names


def _value(key: str, raw: str) -> Any:
    """What Hydra's grammar makes of a value: a number, a bool, null, a list, a text."""
    return copy.deepcopy(_parsed(key, raw))


@functools.lru_cache(maxsize=1024)
def _parsed(key: str, raw: str) -> Any:
    try:
        override = _parser().parse_override(f"{key}={raw}")
    except Exception:
        raise _unreadable(key, raw) from None
    if override.is_sweep_override():
        raise ConfigError(
            f"{key}={raw}: several values make a grid, which needs -m. Try: {command_line('-m', f'{key}={raw}')}", key
        )
    value = override.value()
    return list(value) if isinstance(value, (list, tuple)) else value


def _text(raw: str) -> str | None:
    if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "'\"":
        return raw[1:-1]
    return None if raw == "null" else raw


def _unreadable(key: str, raw: str) -> ConfigError:
    hint = "Quote each text in a list" if raw.startswith("[") else f"To have it as text: {key}='\"{raw}\"'"
    return ConfigError(f"{key}: cannot be read as a value. Received: {raw}. {hint}", key)


@functools.cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _is_text(key: str) -> bool:
    """Whether a value of `key` is text, which is taken as it stands: paths with "=", spaces, quotes."""
    kinds = {parts(p.annotation)[0] for p in _parameters(key)}
    return kinds == {str}


def _parameters(key: str) -> list[Parameter]:
    """Every option that `key` may stand for, whatever is chosen in its group."""
    *path, option = key.split(".")
    entries: list[Entry] = []
    if not path:
        entries = [settings.get("run")]
    elif path[0] in GROUPS:
        entries = list(GROUPS[path[0]])
    elif path[0] in OPTIONS:
        entries = [settings.get(path[0])]
    return [entry.parameters[option] for entry in entries if option in entry.parameters]
