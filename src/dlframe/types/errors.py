"""Errors that a user can fix, and the words that they are told in."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class DlframeError(Exception):
    """A mistake that the user can fix: one line with the key, the rule, the value received and the nearest valid name."""

    def __str__(self) -> str:
        return printable(super().__str__())  # parts of it may come from untrusted files


class ConfigError(DlframeError):
    """A config with an unknown name or a value outside its range. `key` is the dotted name of the option."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class RegistrationError(DlframeError):
    """A class or a plugin that cannot be registered."""


class DataError(DlframeError):
    """Data that is missing, empty, unreadable or not as declared."""


class CheckpointError(DlframeError):
    """A checkpoint that is missing, damaged or of another model."""


class TrainingError(DlframeError):
    """A training that cannot continue."""


class TrackingError(DlframeError):
    """A tracking store that does not answer."""


def printable(text: str) -> str:
    """Escape what a terminal obeys: control characters, and those that change the direction of writing."""
    hidden = {c for c in text if unicodedata.category(c) == "Cc" or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"}
    return "".join(repr(c)[1:-1] if c in hidden else c for c in text) if hidden else text


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: the closest of `names`, or all of them where none is close and they are few."""
    names = sorted(names)
    if close := difflib.get_close_matches(name, names, n=1):
        return f" Did you mean '{close[0]}'?"
    return f" Choose from: {', '.join(names)}." if 0 < len(names) <= 12 else ""
