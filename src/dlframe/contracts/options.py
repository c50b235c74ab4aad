"""The option of pytest that names plugins. In a file of its own: pytest reads options before it reads a package's conftest."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dlframe")
    group.addoption("--plugin", action="append", default=[], metavar="PATH", help="plugin to test: a file or a folder")
