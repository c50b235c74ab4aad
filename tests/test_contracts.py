"""The contracts of dlframe.contracts on every entry that comes with dlframe, and on the worked examples of plugins/."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import dlframe.contracts
from dlframe.contracts.samples import suitable
from dlframe.contracts.selection import every_entry, parametrize
from dlframe.registry import plugins

plugins.discover()
ENTRIES = every_entry()

for path in sorted(Path(dlframe.contracts.__file__).parent.glob("test_*.py")):
    module = import_module(f"dlframe.contracts.{path.stem}")
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert not tests.keys() & globals().keys(), "two contracts have one name"
    globals().update(tests)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, ENTRIES)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if "sample" in e.facts and e.group != "data"], ids=lambda e: e.name)
def test_there_is_data_for_every_entry(entry):
    """Where there is none, the contracts of a plugin's entry are skipped; of these none may be."""
    try:
        assert suitable(entry)
    except pytest.skip.Exception as reason:
        pytest.fail(str(reason))
