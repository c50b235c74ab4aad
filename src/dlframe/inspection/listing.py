"""Command `list [GROUP ...]`: what can be chosen. No component is imported."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from dlframe.config import names
from dlframe.inspection.show import LARGEST, Options, discover
from dlframe.registry import CHOICES, REGISTRIES, STUDY_CHOICES, plugins
from dlframe.types import ConfigError, command_line, nearest, printable, read_text, say

__all__ = ["Options", "listing", "main"]


def main(arguments: Sequence[str]) -> int:
    """List components and their origin: of these groups, or of all.

    Files of `./conf` and `./plugins` are listed beside what dlframe brings; plugins that are broken are named.

    Raises:
        ConfigError: There is no such group.
    """
    say(*listing(arguments).split("\n"))
    return 0


def listing(groups: Sequence[str]) -> str:
    """Return the components of groups (default all): name, summary and origin.

    Raises:
        ConfigError: A group does not exist.
    """
    groups = discover("list", groups)
    every = (*REGISTRIES, *CHOICES, *STUDY_CHOICES)
    for group in groups:
        if group not in every:
            known, equals, _ = group.partition("=")
            hint = f" Try: {command_line('show', group)}" if equals and known in every else nearest(group, every)
            raise ConfigError(f"list {group}: no such group.{hint}")
    blocks = [_block(group) for group in groups or every]
    faults = [printable(f"plugin '{name}' {fault}") for name, fault in plugins.broken.items()]
    return "\n\n".join(filter(None, [*blocks, "\n".join(faults)]))


def _block(group: str) -> str:
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
    room = max(40, shutil.get_terminal_size((120, 24)).columns - width - 14)
    lines = [
        f"  {name:<{width}}{textwrap.shorten(summary, room, placeholder=' ...'):<{room}}  {origin}"
        for name, summary, origin in sorted(rows)
    ]
    return "\n".join([group, *map(printable, lines)])


def _first_comment(path: Path) -> str:
    """Return the first comment of a YAML file that is not a Hydra directive."""
    try:
        lines = read_text(path, LARGEST, errors="replace").splitlines()
    except OSError:
        return ""  # told where it is chosen
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), "")
