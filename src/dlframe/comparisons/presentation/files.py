"""Files of comparisons: a table in the format of its ending, a page, or a block within a Markdown file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlframe.analysis.comparison import Comparison
from dlframe.comparisons.presentation import datasets, page, table
from dlframe.types import ConfigError, printable, read_text, say

HTML, MARKDOWN = ".html", ".md"
BEGIN, END = "<!-- dlframe compare -->", "<!-- end of dlframe compare -->"
"""Lines of a Markdown file around what a comparison has written, and writes again."""
BLOCK = re.compile(f"{BEGIN}(((?!{BEGIN}).)*?){END}\n?", re.DOTALL)
MADE = re.compile("```sh\n(.*)\n```")
"""What a block says of the command that has made it."""
LARGEST = 2**24
"""Bytes of a Markdown file whose block is replaced."""


def check(out: str, command: str) -> None:
    """Refuse a file that no comparison can be written to, before anything is trained.

    Args:
        out: The file; empty for none.
        command: Command that makes it again.

    Raises:
        ConfigError: Its ending is unknown, its folder does not exist, or it is a Markdown file without a place for tables.
    """
    if not out:
        return
    path = Path(out)
    if path.suffix not in (endings := [*table.FORMATS, HTML]):
        raise ConfigError(f"out: must end in {', '.join(endings)}. Received: {out!r}.", "out")
    if not path.parent.is_dir():
        raise ConfigError(f"out: {path} cannot be written: No such file or directory.", "out")
    if path.suffix == MARKDOWN and os.path.lexists(path):
        _around(path, command)


def write(
    out: str,
    found: Sequence[Comparison],
    command: str,
    *,
    failed: Mapping[str, str] | None = None,
    detect: float = 0.0,
) -> None:
    """Write comparisons into a file.

    Args:
        out: The file; empty for none.
        found: Comparisons.
        command: Command that makes it again.
        failed: Table that could not be made -> reason.
        detect: Difference that is worth seeing, see `dlframe.comparisons.presentation.words.pair_sentence`.

    Raises:
        ConfigError: It cannot be written.
    """
    if not out:
        return
    path, failed, replaced = Path(out), failed or {}, ""
    try:
        if path.suffix == HTML:
            with tempfile.TemporaryDirectory() as folder:
                figures = [page.draw(comparison, Path(folder)) for comparison in found]
                joint = page.draw_together(found, Path(folder))
            text = page.html(found, figures, "Comparison", command, detect, failed, joint)
        else:
            parts = [table.FORMATS[path.suffix](comparison, detect) for comparison in found]
            text = "\n".join([*parts, *_together(path.suffix, found, failed)])
        if path.suffix == MARKDOWN:
            before, replaced, after = _around(path, command) if os.path.lexists(path) else ("", "", "")
            text = f"{before}{BEGIN}\n\n{_fenced(command)}\n{text.rstrip()}\n\n{END}\n{after}"
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"out: {path} cannot be written: {error.strerror or error}.", "out") from None
    made = MADE.search(replaced)
    say(f"written: {path}" + (f", in place of what was made by: {printable(made[1])}" if made and made[1] != command else ""))


def _together(ending: str, found: Sequence[Comparison], failed: Mapping[str, str]) -> list[str]:
    """Return what several comparisons say together and which tables failed, as lines of a file; CSV has numbers only."""
    said = [*datasets.sentences(found), *(f"failed: {title}: {reason}" for title, reason in failed.items())]
    marks = {MARKDOWN: "- ", ".tex": "% ", ".txt": ""}
    return [f"{marks[ending]}{printable(text)}" for text in said] if ending in marks else []


def _fenced(command: str) -> str:
    return f"```sh\n{command}\n```\n"


def _around(path: Path, command: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the block of a Markdown file; of several, the one that the command has made.

    Raises:
        ConfigError: It has no such block, or cannot be read.
    """
    try:
        text = read_text(path, LARGEST)
    except (OSError, ValueError) as error:
        raise ConfigError(f"out: {path} cannot be read: {' '.join(str(error).split())[:200]}.", "out") from None
    blocks = [*BLOCK.finditer(text)]
    if not blocks or len(blocks) != text.count(BEGIN) or len(blocks) != text.count(END):
        rule = f"is there, and must have the lines '{BEGIN}' and '{END}', between which the tables are written"
        raise ConfigError(f"out: {path} {rule}. Add them, or name a new file", "out")
    own = [block for block in blocks if _fenced(command) in block[1]] or [block for block in blocks if not block[1].strip()]
    if len(blocks) > 1 and len(own) != 1:
        rule = f"has {len(blocks)} blocks of tables, of which one must be empty or made by this command"
        raise ConfigError(f"out: {path} {rule}. Received: {command}", "out")
    block = own[0] if own else blocks[0]
    return text[: block.start()], block[1], text[block.end() :]
