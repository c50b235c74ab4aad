"""The way to the terminal."""

from __future__ import annotations

import sys

from dlframe.types.errors import printable


def say(*lines: str, error: bool = False) -> None:
    """Write lines to standard output, or to standard error.

    Each line may quote an untrusted file, so that control characters (line breaks too) and those that change the writing
    direction are escaped. Nothing else in dlframe writes to the terminal.
    """
    if lines:
        print(*map(printable, lines), sep="\n", file=sys.stderr if error else sys.stdout, flush=True)
