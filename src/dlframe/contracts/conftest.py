"""Runs the contract tests on the entries of plugins."""

from __future__ import annotations

import pytest

from dlframe.contracts.selection import parametrize, plugin_entries
from dlframe.registry import Entry


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, plugin_entries(tuple(metafunc.config.getoption("plugin", None) or ())))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests of groups in which there is no entry, which pytest would list as skipped."""
    items[:] = [item for item in items if isinstance(_entry(item), Entry | None)]


def _entry(item: pytest.Item) -> object:
    call = getattr(item, "callspec", None)
    return call.params.get("entry") if call else None
