"""Command `show GROUP=NAME`: options of a component, which is not imported."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlframe.config import LISTS, check_name, load_options, names
from dlframe.config.settings import settings
from dlframe.registry import CHOICES, REGISTRIES, STUDY_CHOICES, Entry, plugins
from dlframe.registry.parameters import REQUIRED
from dlframe.types import ConfigError, command_line, printable, read_text, say

LARGEST = 2**18
"""Bytes of a YAML file."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `list` and `show`.

    Args:
        plugin_paths: Files and folders of plugins, beside ./plugins and the installed ones.
    """

    plugin_paths: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Show the options of a component: type, range, default, meaning.

    A YAML file (trainer=gpu, a task preset, an experiment) is printed as it is. `show run`, `show trainer`,
    `show checkpoint` and `show tracking` explain the options that belong to no component.

    Raises:
        ConfigError: There is no such component.
    """
    say(*options(arguments).split("\n"))
    return 0


def options(arguments: Sequence[str]) -> str:
    """Return the options of a component: type, range, default, meaning.

    Args:
        arguments: ["model=cnn"] (or a YAML file's group=name), or "run", "trainer", "tracking" for the settings of a run.

    Raises:
        ConfigError: The component does not exist.
    """
    arguments = discover("show", arguments)
    group, equals, name = arguments[0].partition("=") if len(arguments) == 1 else ("", "", "")
    if group in settings.entries and not equals:
        return describe(settings.get(group), "" if group == "run" else f"{group}.")
    files_only = (*CHOICES, *STUDY_CHOICES)
    if group not in (*REGISTRIES, *files_only) or not name:
        received = " ".join(arguments) or "nothing"
        see = f"list {group}" if group in (*REGISTRIES, *files_only) else "show --help"
        rule = f"must be GROUP=NAME, or one of {', '.join(settings.entries)}"
        raise ConfigError(f"show: {rule}. Received: {received}. See: {command_line(*see.split())}")
    if name in (files := names(group)) and (group in files_only or name not in REGISTRIES[group].entries):
        try:
            text = read_text(files[name], LARGEST, errors="replace").rstrip()
        except OSError as error:
            raise ConfigError(f"show: {error}") from None
        lines = [f"{group}={name}", f"from {files[name]}", "", *(f"  {line}".rstrip() for line in text.splitlines())]
        return "\n".join(map(printable, lines))
    check_name(group, name, files if group in files_only else {**files, **REGISTRIES[group].entries})
    entry = REGISTRIES[group].get(name)
    return describe(entry, f"{group}.{name}." if group in LISTS else f"{group}.")


def discover(command: str, arguments: Sequence[str]) -> list[str]:
    """Discover plugins, also those of `plugin_paths`, and return the other arguments."""
    own = [text for text in arguments if text.startswith("plugin_paths=")]
    plugins.discover(load_options(command, Options, own).plugin_paths)
    return [text for text in arguments if text not in own]


def describe(entry: Entry, prefix: str) -> str:
    head = f"{entry.group}={entry.name}" if prefix and entry.group in REGISTRIES else entry.name
    lines = [
        f"{head}: {entry.summary}",
        f"from {entry.origin}, {Path(entry.where).name}{entry.target and f', {entry.target}'}",
        "",
    ]
    lines += option_lines(entry, prefix)
    if not entry.parameters:
        lines.append(f"  {entry.unavailable or 'no options'}")
    if entry.left_out:
        text = f"Parameters of {entry.target} without an option: {', '.join(entry.left_out)}."
        lines += ["", *textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(map(printable, lines))


def option_lines(entry: Entry, prefix: str = "") -> Iterator[str]:
    """Yield the options of a component: type, range, default, meaning."""
    for option in entry.parameters.values():
        default = "required" if option.default is REQUIRED else f"default {_text(option.default)}"
        yield f"  {prefix}{option.name}: {option.rule}; {default}"
        yield from textwrap.wrap(option.doc, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _text(value: object) -> str:
    """Return a default as typed on the command line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"
