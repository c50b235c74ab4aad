"""Command `show GROUP=NAME`: options of a component, which is not imported."""

from __future__ import annotations

import shutil
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
    """Show the options of a component: type, range, default, meaning. Of a group alone, its entries.

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
    if group in (*REGISTRIES, *files_only) and not equals:
        return block(group) or f"{group}: has nothing to choose from"
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


def block(group: str) -> str:
    """Return what can be chosen in a group: name, summary and origin; empty where there is nothing."""
    rows = [(e.name, e.summary, e.origin) for e in REGISTRIES.get(group, ())]
    taken = {name for name, _, _ in rows}
    for name, path in names(group).items():
        if name not in taken or path.endswith(".yaml"):
            brought = {plugins.PACKAGED_CONF: "dlframe", **plugins.conf_folders}
            home = next((owner for folder, owner in brought.items() if Path(path).is_relative_to(folder)), path)
            rows.append((f"{name} (preset)" if group == "task" else name, _first_comment(Path(path)), home))
    if not rows:
        return ""
    width = max(len(name) for name, _, _ in rows) + 2
    lines = []
    for name, summary, origin in sorted(rows):
        told = f"{summary}  {origin}".lstrip()
        begin = f"  {name:<{width}}"
        lines += wrapped(told, begin, len(begin), 1000)
    return "\n".join([group, *map(printable, lines)])


def _first_comment(path: Path) -> str:
    """Return the first comment of a YAML file that is not a Hydra directive."""
    try:
        lines = read_text(path, LARGEST, errors="replace").splitlines()
    except OSError:
        return ""  # told where it is chosen
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), "")


def wrapped(text: str, begin: str = "", indent: int = 0, most: int = 120) -> list[str]:
    """Return a text in lines that fit the terminal, at most `most` wide. No word is cut, as names are copied.

    Args:
        text: The text.
        begin: Beginning of the first line.
        indent: Spaces before the others.
        most: Width of the widest line.
    """
    width = max(min(most, shutil.get_terminal_size((min(most, 120), 24)).columns), indent + 20)
    lines = textwrap.wrap(
        text, width, initial_indent=begin, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )
    return lines or [begin.rstrip()]


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
        lines += ["", *wrapped(text, "  ", 2, 100)]
    return "\n".join(map(printable, lines))


def option_lines(entry: Entry, prefix: str = "") -> Iterator[str]:
    """Yield the options of a component: type, range, default, meaning."""
    for option in entry.parameters.values():
        default = "required" if option.default is REQUIRED else f"default {_text(option.default)}"
        yield from wrapped(f"{prefix}{option.name}: {option.rule}; {default}", "  ", 4)
        if option.doc:
            yield from wrapped(option.doc, " " * 6, 6, 100)


def _text(value: object) -> str:
    """Return a default as typed on the command line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"
