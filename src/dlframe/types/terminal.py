"""The way to the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from dlframe.types.errors import printable


def say(*lines: str, error: bool = False) -> None:
    """Write lines to standard output, or to standard error.

    Each line may quote an untrusted file, so that control characters (line breaks too) and those that change the writing
    direction are escaped. Nothing else in dlframe writes to the terminal. Lines that a `Screen` shows stay below.
    """
    if not lines:
        return
    stream = sys.stderr if error else sys.stdout
    shown = Screen.shown if Screen.shown and (stream is Screen.shown.stream or stream.isatty()) else None
    if shown:
        shown.erase()
    print(*(_encodable(printable(line), stream) for line in lines), sep="\n", file=stream, flush=True)
    if shown:
        shown.redraw()


def command_line(*words: object) -> str:
    """Return a command of dlframe that is safe to paste, whoever chose its words: each is `quoted`."""
    return " ".join(["python -m dlframe", *map(quoted, words)])


def quoted(word: object) -> str:
    """Return a word of a command as a shell takes it whole; what is not seen is escaped."""
    return shlex.quote(printable(str(word)))


def _encodable(text: str, stream: TextIO) -> str:
    """Escape the letters that a stream cannot write, such as one of ASCII."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Screen:
    """Lines at the end of a terminal, which are drawn again in the same place.

    Nothing of the terminal's state is changed but the place of the cursor, which is below the lines: a process that is killed
    leaves the terminal as it was.
    """

    shown: Screen | None = None
    """The one that has lines on the terminal, which `say` writes above."""

    def __init__(self) -> None:
        self.stream: TextIO = sys.stdout
        self.lines: list[str] = []
        self.drawn: list[str] = []
        self.columns = 0

    @staticmethod
    def available() -> bool:
        """Return whether standard output is a terminal that moves its cursor."""
        return os.name == "posix" and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")

    def size(self) -> tuple[int, int]:
        """Return the columns and rows of the terminal now; 80 and 24 where it does not say."""
        try:
            columns, rows = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, rows = 0, 0
        return columns or 80, rows or 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines in place of those shown: escaped as by `say`, each cut to one row, no more than fit."""
        columns, rows = self.size()
        self.lines = [*map(printable, lines)]
        cut = [fitted(line, columns - 1) for line in self.lines[: max(rows - 1, 1)]]
        if cut == self.drawn and columns == self.columns:
            return
        # Each line is overwritten, and only then is the rest of its row cleared, so that nothing flickers.
        self._write(self._up(columns) + "".join(f"{line}\x1b[K\n" for line in cut) + "\x1b[J")
        self.drawn, self.columns = cut, columns
        Screen.shown = self

    def redraw(self) -> None:
        """Show the lines again, after `erase`."""
        self.draw(self.lines)

    def erase(self) -> None:
        """Take the lines off the terminal."""
        self._write(self._up(self.size()[0]) + "\x1b[J")
        self.drawn = []

    def close(self) -> None:
        """Leave the lines where they are; what is written next follows them."""
        if Screen.shown is self:
            Screen.shown = None

    def _up(self, columns: int) -> str:
        """Move to the first row of what is shown, whose lines a narrower window has broken."""
        rows = sum(max(1, -(-cells(line) // columns)) for line in self.drawn)
        return f"\x1b[{rows}F" if rows else ""

    def _write(self, text: str) -> None:
        self.stream.write(_encodable(text, self.stream))
        self.stream.flush()


def wrapped(text: str, *, indent: str = "  ") -> list[str]:
    """Return a line as several that fit standard output, broken between words, if that is a terminal.

    Args:
        text: The line; not a command, which would no longer be copied as one.
        indent: Beginning of all lines but the first.
    """
    if not sys.stdout.isatty():
        return [text]
    columns = shutil.get_terminal_size().columns
    return textwrap.wrap(text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def cells(text: str) -> int:
    """Return the columns that a text takes: Chinese characters take two, combining marks none."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, columns: int) -> str:
    """Return a text that takes at most so many columns; one that is cut ends in an ellipsis."""
    if cells(text) <= columns:
        return text
    end = 0
    left = columns - 1
    while left >= _cells(text[end]):
        left -= _cells(text[end])
        end += 1
    return text[:end] + "…" * (columns > 0)


def duration(seconds: float) -> str:
    """Return a time in its natural unit: "40 s", "12 min", "3.5 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
