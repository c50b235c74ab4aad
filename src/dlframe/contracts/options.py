"""The option of pytest that names plugins: pytest reads options before it reads the conftest of a package."""

from __future__ import annotations

import pytest

from dlframe.contracts.selection import plugin_entries


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dlframe")
    group.addoption("--plugin", action="append", default=[], metavar="PATH", help="plugin to test: a file or a folder")


def pytest_configure(config: pytest.Config) -> None:
    """A plugin that is not there is told before torch is imported."""
    plugin_entries(tuple(config.option.plugin))
