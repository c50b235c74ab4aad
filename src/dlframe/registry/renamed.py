"""Options of earlier versions and what they are called now, so that an old command is answered with the new name."""

from __future__ import annotations

RENAMED: dict[str, dict[str, str]] = {
    "run": {"players": "networks"},
}
"""Group, "group.entry" or the name of a set of options ("run", "trainer") -> old name -> new name."""


def new_name(group: str, entry: str, option: str) -> str:
    """What an option of an entry is called now; empty where it has no other name."""
    for owner in (f"{group}.{entry}", group, entry):
        if name := RENAMED.get(owner, {}).get(option):
            return name
    return ""
