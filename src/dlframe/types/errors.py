"""Errors that users can fix, and their wording."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, format characters (of no width, of the writing direction), surrogates, line ends."""

JOINERS = {"\u200c", "\u200d"}
"""Format characters that belong to the spelling of words in Arabic and Indic scripts, and to emoji: kept beside those."""


class DlframeError(Exception):
    """Error that the user can fix: key, rule, received value, fix."""

    def __str__(self) -> str:
        return printable(super().__str__())  # parts of it may come from untrusted files


class ConfigError(DlframeError):
    """Config with an unknown name or invalid value; `key` is its option."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def located(error: BaseException, folder: Path) -> str:
    """Return type and message of an error in one line, after the last line of code in `folder` that it passed."""
    line = ""
    trace = error.__traceback__
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).is_relative_to(folder):
            line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return line + " ".join(f"{type(error).__name__}: {error}".split())


class RegistrationError(DlframeError):
    """Class or plugin that cannot be registered."""


class NameTaken(RegistrationError):
    """Component whose name another one has already."""


class DataError(DlframeError):
    """Data that are missing, empty, unreadable or not as declared."""


class MissingPackageError(DataError):
    """Package of an extra that is not installed."""


class OtherTaskError(DataError):
    """Data whose file has a target for another task; `preset` is its name."""

    def __init__(self, message: str, preset: str) -> None:
        super().__init__(message)
        self.preset = preset


class CheckpointError(DlframeError):
    """Checkpoint that is missing, damaged or of another model."""


class TrainingError(DlframeError):
    """Training that cannot continue."""


class TrackingError(DlframeError):
    """Tracking store that does not answer or is not trusted."""


class WorkerError(DlframeError):
    """What keeps a process from working on a study, and is no failure of a trial."""


class RunPruned(DlframeError):
    """A run that a search has ended early, as others do better."""


def printable(text: str) -> str:
    """Escape control characters, line breaks, lone surrogates, and what is not seen or changes the writing direction."""
    hidden = {c for c in set(text) if unicodedata.category(c) in ESCAPED}
    if not hidden:
        return text
    joined = {i for i in range(1, len(text) - 1) if text[i] in JOINERS and text[i - 1] > "\x7f" < text[i + 1]}
    return "".join(repr(c)[1:-1] if c in hidden and i not in joined else c for i, c in enumerate(text))


def is_printable(text: object) -> bool:
    """Return whether a value is text that is shown as it is: the rule for what is typed, written and read."""
    return isinstance(text, str) and printable(text) == text


def shortened(text: str, size: int) -> str:
    """Return the beginning of a text that has at most so many bytes, as the names of files do."""
    return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")


def normalized(text: str) -> str:
    """Return text in the one form in which names are kept and compared, NFC: "é" may be typed or stored in two ways."""
    return unicodedata.normalize("NFC", text)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of an error message: the closest of `names`, or all if few."""
    names = sorted(names)
    if close := difflib.get_close_matches(name, names, n=1):
        return f" Did you mean '{close[0]}'?"
    return f" Choose from: {', '.join(names)}." if 0 < len(names) <= 12 else ""
