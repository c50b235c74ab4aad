"""Command `list [GROUP ...]`: what can be chosen. No component is imported."""

from __future__ import annotations

from collections.abc import Sequence

from dlframe.inspection.show import Options, block, discover
from dlframe.registry import CHOICES, REGISTRIES, STUDY_CHOICES, plugins
from dlframe.types import ConfigError, command_line, nearest, printable, say

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
    blocks = [block(group) for group in groups or every]
    faults = [printable(f"plugin '{name}' {fault}") for name, fault in plugins.broken.items()]
    return "\n\n".join(filter(None, [*blocks, "\n".join(faults)]))
