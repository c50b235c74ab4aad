"""Which contract is tried on which entry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from dlframe.registry import REGISTRIES, Entry, plugins
from dlframe.types import DlframeError

CONTRACTS: set[str] = set()
"""Names of the contracts in the test files that have been imported."""


def contract(*groups: str) -> Callable[[Any], Any]:
    """Decorator: a test of every entry of `groups`, or of all groups, but for those that are exempt from it."""

    def decorate(test: Any) -> Any:
        CONTRACTS.add(_name(test))
        test.groups = groups or tuple(REGISTRIES)
        return test

    return decorate


def _name(test: Any) -> str:
    return test.__name__.removeprefix("test_")


def parametrize(metafunc: pytest.Metafunc, entries: Iterable[Entry]) -> None:
    """Give a contract its entries; one that is exempt is skipped for the reason that it states."""
    if not (groups := getattr(metafunc.function, "groups", ())):
        return
    cases = []
    for entry in entries:
        if entry.group in groups:
            reason = entry.facts["exempt"].get(_name(metafunc.function))
            marks = [pytest.mark.skip(reason=f"{entry.group}={entry.name} is exempt: {reason}")] if reason else []
            cases.append(pytest.param(entry, id=f"{entry.group}/{entry.name}", marks=marks))
    metafunc.parametrize("entry", cases)


@functools.cache
def plugin_entries(paths: tuple[str, ...]) -> list[Entry]:
    """The entries of the plugins at `paths`; without any, of ./plugins and of installed distributions."""
    try:
        plugins.discover(paths)
    except DlframeError as error:
        pytest.exit(f"error: {error}", 2)
    places = [Path(path).resolve() for path in paths]
    found = [entry for entry in every_entry() if entry.origin != "dlframe" and (not paths or _is_in(entry, places))]
    if not found and not (plugins.broken and not paths):
        where = f"in {', '.join(paths)}" if paths else f"in {Path('plugins').resolve()} or installed"
        pytest.exit(f"error: no entry of a plugin is {where}. Try: python -m dlframe.contracts PATH", 4)
    return found


def every_entry() -> list[Entry]:
    """All that is registered."""
    return [entry for registry in REGISTRIES.values() for entry in registry]


def _is_in(entry: Entry, places: list[Path]) -> bool:
    file = Path(entry.where.rpartition(":")[0]).resolve()
    return any(file.is_relative_to(place) for place in places)
