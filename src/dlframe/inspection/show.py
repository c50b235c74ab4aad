"""Command `show GROUP=NAME`: options of a component, which is not imported."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlframe.config import LISTS, check_name, names, plugin_paths
from dlframe.config.settings import settings
from dlframe.registry import CHOICES, GROUPS, Entry, plugins
from dlframe.registry.parameters import REQUIRED
from dlframe.types import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Print the options of a component, or what a YAML file holds."""
    print(options(arguments))
    return 0


def options(arguments: Sequence[str]) -> str:
    """Return the options of a component: type, range, default, meaning.

    Args:
        arguments: ["model=cnn"] (or a YAML file's group=name), or "run", "trainer", "tracking" for the settings of a run.

    Raises:
        ConfigError: The component does not exist.
    """
    arguments = discover(arguments)
    group, equals, name = arguments[0].partition("=") if len(arguments) == 1 else ("", "", "")
    if group in settings.entries and not equals:
        return describe(settings.get(group), "" if group == "run" else f"{group}.")
    if group not in (*GROUPS, *CHOICES) or not name:
        raise ConfigError(f"show: must be: show GROUP=NAME, or show run. Received: {' '.join(['show', *arguments])}")
    if name in (files := names(group)) and (group in CHOICES or name not in GROUPS[group].entries):
        text = Path(files[name]).read_text(encoding="utf-8", errors="replace").rstrip()
        return f"{group}={name}\nfrom {files[name]}\n\n{textwrap.indent(text, '  ')}"
    check_name(group, name, files if group in CHOICES else {**files, **GROUPS[group].entries})
    entry = GROUPS[group].get(name)
    return describe(entry, f"{group}.{name}." if group in LISTS else f"{group}.")


def discover(arguments: Sequence[str]) -> list[str]:
    """Discover plugins and return the arguments except `plugin_paths`."""
    paths = [raw for key, _, raw in (a.partition("=") for a in arguments) if key == "plugin_paths"]
    plugins.discover(plugin_paths(paths[-1]) if paths else ())
    return [a for a in arguments if not a.startswith("plugin_paths=")]


def describe(entry: Entry, prefix: str) -> str:
    head = f"{entry.group}={entry.name}" if prefix and entry.group in GROUPS else entry.name
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
    return "\n".join(lines)


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
