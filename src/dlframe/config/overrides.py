"""Text of the command line as keys and values: the one reader of what is typed, with `-m` and without.

Text and names arrive as they were typed. Hydra's grammar reads numbers, lists of them, and functions such as `range(3)`.
"""

from __future__ import annotations

import copy
import functools
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from dlframe.config.choices import LISTS, NESTED, OPTIONS, known_keys, names, unknown
from dlframe.config.settings import option_set, settings
from dlframe.registry import CHOICES, GROUPS, Entry
from dlframe.registry.parameters import Parameter, is_union, parts
from dlframe.types import ConfigError, command_line, is_printable

T = TypeVar("T")

QUOTES = "'\""
BRACKETS = {")": "(", "]": "[", "}": "{"}
FUNCTION = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\((.*)\)")
"""Hydra's functions that stand for several values."""


# --- values


def split(raw: str) -> list[str]:
    """Split a text at the commas outside quotes and brackets.

    A quote counts where a part begins, if another one ends the part: that of "it's" is a letter. A bracket counts where it is
    closed.
    """
    commas, pairs, opened = [], [], []
    i, begins = 0, True
    while i < len(raw):
        sign = raw[i]
        if sign in QUOTES and begins and (end := re.compile(rf"{sign}(?=\s*(?:[,\])}}]|$))").search(raw, i + 1)):
            i = end.end()
            begins = False
            continue
        if sign == ",":
            commas.append(i)
        elif sign in BRACKETS.values():
            opened.append((sign, i))
        elif sign in BRACKETS and any(BRACKETS[sign] == bracket for bracket, _ in opened):
            while (last := opened.pop())[0] != BRACKETS[sign]:
                pass
            pairs.append((last[1], i))
        begins = sign in ",([{" or (begins and sign.isspace())
        i += 1
    inside = 0
    found, start = [], 0
    pairs.sort(reverse=True)
    for comma in commas:
        while pairs and pairs[-1][0] < comma:
            inside = max(inside, pairs.pop()[1])
        if comma > inside:
            found.append(raw[start:comma].strip())
            start = comma + 1
    return [*found, raw[start:].strip()] if found else [raw]


def unquoted(raw: str) -> str | None:
    """Return a text without the quotes around it; None for null."""
    if len(raw) >= 2 and raw[0] in QUOTES and raw[-1] == raw[0] and len(split(raw)) == 1:
        return raw[1:-1]
    return None if raw == "null" else raw


def quoted(text: str) -> str:
    """Return how a text is typed that is one value with `-m` too."""
    is_plain = len(split(text)) == 1 and not FUNCTION.fullmatch(text.strip()) and unquoted(text) == text
    ways = (f"{quote}{text}{quote}" for quote in QUOTES)
    return text if is_plain else next((way for way in ways if len(split(way)) == 1 and unquoted(way) == text), text)


def typed(value: Any) -> str:
    """Return a value as it is typed."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(quoted(item) if isinstance(item, str) else typed(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def is_text(annotation: Any) -> bool:
    """Return whether all values of a type are text, which is taken as it stands: paths with "=", spaces, digits."""
    bare = parts(annotation)[0]
    if is_union(bare):
        return all(map(is_text, typing.get_args(bare)))
    return bare in (str, Path) or (
        typing.get_origin(bare) is Literal and all(isinstance(v, str) for v in typing.get_args(bare))
    )


def value_of(key: str, raw: str, parameters: Iterable[Parameter]) -> Any:
    """Read what was typed for an option, by the types that it may have.

    Raises:
        ConfigError: It stands for several values, or cannot be read.
    """
    annotations = [p.annotation for p in parameters]
    if not annotations or all(map(is_text, annotations)):
        return unquoted(raw)
    items = [_items(annotation) for annotation in annotations]
    if all(items) and (texts := _listed(raw)) is not None:
        return [unquoted(text) for text in texts]
    if sweep := sweep_of(key, raw):
        raise several(key, raw, sweep)
    return copy.deepcopy(_parsed(key, raw))


def _items(annotation: Any) -> bool:
    """Return whether a type is a list of texts."""
    bare = parts(annotation)[0]
    items = [item for item in typing.get_args(bare) if item is not Ellipsis]
    return typing.get_origin(bare) in (tuple, list) and all(map(is_text, items))


def _listed(raw: str) -> list[str] | None:
    """Return the items of "[a, b]"; None for what is no list."""
    raw = raw.strip()
    if not (raw.startswith("[") and raw.endswith("]") and len(split(raw)) == 1):
        return None
    return [text.strip() for text in split(raw[1:-1])] if raw[1:-1].strip() else []


@functools.lru_cache(maxsize=1024)
def _parsed(key: str, raw: str) -> Any:
    """Return what Hydra's grammar makes of a value: a number, a bool, null, a list, a text."""
    try:
        value = _parser().parse_override(f"{key}={raw}").value()
    except Exception:
        hint = "Quote each text in a list" if raw.startswith("[") else f"To have it as text: {key}='\"{raw}\"'"
        raise ConfigError(f"{key}: cannot be read as a value. Received: {raw}. {hint}", key) from None
    return list(value) if isinstance(value, (list, tuple)) else value


@functools.cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


# --- several values


@dataclass(frozen=True)
class Sweep:
    """Several values of an option, or an interval of them.

    Attributes:
        texts: The values as they are typed; empty for an interval.
        tags: As "log" in `tag(log,interval(1,10))`.
        low: Lower end of an interval.
        high: Upper end of an interval.
        step: Distance of the numbers of a range.
        pattern: As it was typed, where the values are all names of a group that match it.
    """

    texts: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    pattern: str = ""

    @property
    def is_interval(self) -> bool:
        """Whether it is an interval."""
        return not self.texts


def sweep_of(key: str, raw: str) -> Sweep | None:
    """Return the several values that a text stands for, or their interval; None where it is one value.

    Raises:
        ConfigError: A function cannot be read, or a value is missing.
    """
    texts = split(raw)
    if len(texts) == 1:
        function = FUNCTION.fullmatch(raw.strip())
        if not function:
            return None
        texts = split(function[2])
        if function[1] == "tag" and len(texts) > 1:
            if not (inner := sweep_of(key, texts[-1])):
                raise ConfigError(f"{key}: a tag is of several values or an interval. Received: {raw}.", key)
            return replace(inner, tags=inner.tags | {*texts[:-1]})
        if function[1] != "choice":
            return _function(key, raw)
    if not all(texts):
        raise ConfigError(f"{key}: must have a value between commas. Received: {raw}. For an empty text: ''", key)
    return Sweep(tuple(text.strip() for text in texts))


def _function(key: str, raw: str) -> Sweep | None:
    """Return what one of Hydra's functions stands for; None for a value, such as `sort([2,1])`."""
    try:
        override = _parser().parse_override(f"{key}={raw}")
        value = override.value()
        if override.is_interval_sweep():
            return Sweep(tags=frozenset(value.tags), low=float(value.start), high=float(value.end))
        if hasattr(value, "filter"):
            return Sweep(_matching(key, raw, value), pattern=raw)
        if not override.is_sweep_override():
            return None
        texts = tuple(override.sweep_string_iterator())
        step = float(value.step) if override.is_range_sweep() else None
        sweep = Sweep(texts, frozenset(value.tags), step=step)
    except ConfigError:
        raise
    except Exception:  # Hydra's, ANTLR's and Python's own
        hint = f"To have it as text: {key}='\"{raw}\"'"
        raise ConfigError(f"{key}: cannot be read as several values. Received: {raw}. {hint}", key) from None
    if not texts:
        raise ConfigError(f"{key}: must have a value. Received: {raw}.", key)
    return sweep


def _matching(key: str, raw: str, pattern: Any) -> tuple[str, ...]:
    """Return the names of a group that a pattern chooses."""
    if key not in GROUPS and key not in CHOICES:
        raise ConfigError(f"{key}: glob() chooses among the names of a group. Received: {raw}. Try: {key}=A,B", key)
    found = tuple(pattern.filter(sorted(names(key))))
    if not found:
        raise ConfigError(f"{key}: no {key} matches. Received: {raw}. See: {command_line('list', key)}", key)
    return found


def several(key: str, raw: str, sweep: Sweep) -> ConfigError:
    """Return the error of several values where one is asked for."""
    text = f"{key}={raw}"
    if sweep.is_interval:
        return ConfigError(f"{text}: an interval is for a sweep. Try: {command_line('sweep', text)}", key)
    return ConfigError(f"{text}: several values make a grid, which needs -m. Try: {command_line('-m', text)}", key)


# --- keys


def given_keys(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value as it was typed, of several the last. Tells an unknown key before anything is read."""
    given: dict[str, str] = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            raise ConfigError(f"{text}: must be key=value. See: python -m dlframe train --help")
        if key.split(".")[0] not in (NESTED if "." in key else known_keys()) or re.search(r"[^\w.-]", key):
            raise unknown(key, known_keys())
        if not is_printable(raw):
            raise ConfigError(f"{key}: must hold no control characters. Received: {raw!r}.", key)
        given[key] = raw
    return given


def plugin_paths(raw: str) -> list[str]:
    """`plugin_paths`, which are needed before anything else can be understood. One may stand without brackets."""
    texts = _listed(raw)
    return [text for text in map(unquoted, [raw] if texts is None else texts) if text is not None]


def choices_of(given: Mapping[str, str]) -> dict[str, Any]:
    """Group -> the name, or the names, that were typed.

    Raises:
        ConfigError: Several are typed for a group that takes one.
    """
    choices: dict[str, Any] = {}
    for key, raw in given.items():
        if key not in GROUPS and key not in CHOICES:
            continue
        if sweep := sweep_of(key, raw):
            raise several(key, raw, sweep)
        texts = _listed(raw)
        if key in LISTS and any(text.startswith(("[", "{")) for text in ([raw] if texts is None else texts)):
            raise ConfigError(f"{key}: must be a list of names. Received: {raw}.", key)
        value = unquoted(raw) if texts is None else [unquoted(text) for text in texts]
        if key not in LISTS and isinstance(value, list):
            hint = f" Try: {key}={value[0]}" if value else ""
            raise ConfigError(f"{key}: takes one entry, for all networks. Received: {raw}.{hint}", key)
        choices[key] = chosen_names(key, value) if key in LISTS else value
    return choices


def assignments_of(given: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield key and value of each option that was typed, read by its type.

    Args:
        given: Key -> value as it was typed.
        values: The config, which says what is chosen in each group.

    Raises:
        ConfigError: A value cannot be read.
    """
    for key, raw in given.items():
        if key == "plugin_paths":
            yield key, plugin_paths(raw)
        elif key not in GROUPS and key not in CHOICES:
            yield key, value_of(key, raw, _parameters(key, values))


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
        values[key] = plugin_paths(raw) if key == "plugin_paths" else value_of(key, raw, [parameters[key]])
    return {key: p.check(values.get(key, p.default), key) for key, p in parameters.items()}


def chosen_names(group: str, value: Any) -> list[Any]:
    """The names that a list of entries is chosen by."""
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{group}: must be a list of names. Received: {value}.", group)
    if len(set(names)) < len(names):
        raise ConfigError(f"{group}: takes each name once. Received: [{', '.join(names)}].", group)
    return names


def _parameters(key: str, values: Mapping[str, Any]) -> list[Parameter]:
    """Return every option that `key` may stand for: that of what is chosen in its group, or of any entry."""
    group, *path, option = ["run", *key.split(".")] if "." not in key else key.split(".")
    if group == "networks":
        group, path = "optimizer", []
    entries: list[Entry] = [settings.get(group)] if group in ("run", *OPTIONS) else [*GROUPS[group]]
    chosen = values.get(group)
    for part in path:
        chosen = chosen.get(part) if isinstance(chosen, Mapping) else None
    name = chosen.get("name") if isinstance(chosen, Mapping) else None
    if group in GROUPS and isinstance(name, str) and name in GROUPS[group].entries:
        entries = [GROUPS[group].entries[name]]
    return [entry.parameters[option] for entry in entries if option in entry.parameters]
