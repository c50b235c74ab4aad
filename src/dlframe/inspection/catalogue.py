"""Commands `list` and `show`, which import no component."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from dlframe.config import LISTS, check_name, names, plugin_paths
from dlframe.config.settings import settings
from dlframe.registry import CHOICES, GROUPS, Entry, plugins
from dlframe.registry.parameters import REQUIRED
from dlframe.types import ConfigError, nearest


def listing(groups: Sequence[str]) -> str:
    """Return the components of groups (default all): name, summary and origin.

    Raises:
        ConfigError: A group does not exist.
    """
    groups = _discover(groups)
    every = (*GROUPS, *CHOICES)
    for group in groups:
        if group not in every:
            raise ConfigError(f"list {group}: no such group.{nearest(group, every)}")
    blocks = [_block(group) for group in groups or every]
    faults = [f"plugin '{name}' is left out: {fault}" for name, fault in plugins.broken.items()]
    return "\n\n".join(filter(None, [*blocks, "\n".join(faults)]))


def options(arguments: Sequence[str]) -> str:
    """Return the options of a component: type, range, default, meaning.

    Args:
        arguments: ["model=cnn"] (or a YAML file's group=name), or "run", "trainer", "tracking" for the settings of a run.

    Raises:
        ConfigError: The component does not exist.
    """
    arguments = _discover(arguments)
    group, equals, name = arguments[0].partition("=") if len(arguments) == 1 else ("", "", "")
    if group in settings.entries and not equals:
        return _describe(settings.get(group), "" if group == "run" else f"{group}.")
    if group not in (*GROUPS, *CHOICES) or not name:
        raise ConfigError(f"show: must be: show GROUP=NAME, or show run. Received: {' '.join(['show', *arguments])}")
    if name in (files := names(group)) and (group in CHOICES or name not in GROUPS[group].entries):
        text = Path(files[name]).read_text(encoding="utf-8", errors="replace").rstrip()
        return f"{group}={name}\nfrom {files[name]}\n\n{textwrap.indent(text, '  ')}"
    check_name(group, name, files if group in CHOICES else {**files, **GROUPS[group].entries})
    entry = GROUPS[group].get(name)
    return _describe(entry, f"{group}.{name}." if group in LISTS else f"{group}.")


def _discover(arguments: Sequence[str]) -> list[str]:
    """Discover plugins and return the arguments except `plugin_paths`."""
    paths = [raw for key, _, raw in (a.partition("=") for a in arguments) if key == "plugin_paths"]
    plugins.discover(plugin_paths(paths[-1]) if paths else ())
    return [a for a in arguments if not a.startswith("plugin_paths=")]


def _block(group: str) -> str:
    rows = [(e.name, e.summary, e.origin) for e in GROUPS.get(group, ())]
    taken = {name for name, _, _ in rows}
    for name, path in names(group).items():
        if name not in taken or path.endswith(".yaml"):
            brought = {plugins.PACKAGED_CONF: "dlframe", **plugins.conf_folders}
            home = next((owner for folder, owner in brought.items() if Path(path).is_relative_to(folder)), path)
            rows.append((f"{name} (preset)" if group == "task" else name, _first_comment(Path(path)), home))
    if not rows:
        return ""
    width = max(len(name) for name, _, _ in rows) + 2
    room = max(40, shutil.get_terminal_size((120, 24)).columns - width - 14)
    lines = [
        f"  {name:<{width}}{textwrap.shorten(summary, room, placeholder=' ...'):<{room}}  {origin}"
        for name, summary, origin in sorted(rows)
    ]
    return "\n".join([group, *lines])


def _first_comment(path: Path) -> str:
    """Return the first comment of a YAML file that is not a Hydra directive."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), "")


def _describe(entry: Entry, prefix: str) -> str:
    head = f"{entry.group}={entry.name}" if prefix and entry.group in GROUPS else entry.name
    lines = [
        f"{head}: {entry.summary}",
        f"from {entry.origin}, {Path(entry.where).name}{entry.target and f', {entry.target}'}",
        "",
    ]
    for option in entry.parameters.values():
        if option.default is REQUIRED:
            default = "required"
        else:
            default = f"default {_text(option.default)}"
        lines.append(f"  {prefix}{option.name}: {option.rule}; {default}")
        lines += textwrap.wrap(option.doc, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    if not entry.parameters:
        lines.append(f"  {entry.unavailable or 'no options'}")
    if entry.left_out:
        text = f"Parameters of {entry.target} without an option: {', '.join(entry.left_out)}."
        lines += ["", *textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(lines)


def _text(value: object) -> str:
    """Return a default as typed on the command line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"
