"""The command `python -m dlframe.contracts`: the contract tests, on the entries of plugins."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from dlframe.runs.environment import leave_current_folder
from dlframe.types import say

USAGE = """\
python -m dlframe.contracts [PATH ...] [options of pytest]

Test what entries of plugins promise: those of ./plugins and of installed distributions, or only those of the files and
folders that are named. `-k NAME` chooses among them. What could not be tried is listed with its reason.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the contract tests; the exit status, 0 where all that was tried holds."""
    if {"-h", "--help"} & set(arguments):
        say(*USAGE.splitlines())
        return 0
    leave_current_folder()
    try:
        import pytest
    except ImportError:
        say("error: the contract tests need pytest. Try: python -m pip install 'dlframe[test]'", error=True)
        return 2
    paths = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    named = [f"--plugin={path}" for path in paths]
    # The author's own pytest settings apply, but for the pattern by which these files are found.
    # Each assertion has a sentence; tensors spelled out below it would hide the next one.
    shown = ["-rs", "--tb=short", "--assert=plain", "-o", "python_files=test_*.py"]
    tests = ["-p", "dlframe.contracts.options", "--pyargs", "dlframe.contracts"]
    return int(pytest.main([*tests, *shown, *named, *arguments[len(paths) :]]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
