"""One rule for characters, and the way to a terminal that has few of them."""

from __future__ import annotations

import io
import sys

import pytest

from dlframe.types import is_printable, printable, say, shortened


@pytest.mark.parametrize("text", ["", "a b", "été", "李明", "a\u3000b", "\u00a0", "\u2009", "नमस्ते\u200dक", "😀"])
def test_what_is_seen_is_printable(text):
    assert is_printable(text)
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\n", "\x1b[2J", "a\u200bb", "\u202e", "\ud800", "\u2028", "\x9f", 3, None])
def test_what_is_not_seen_is_not(text):
    assert not is_printable(text)


@pytest.mark.parametrize(
    ("text", "size", "found"), [("abc", 3, "abc"), ("abc", 2, "ab"), ("李明", 5, "李"), ("é", 1, ""), ("😀a", 4, "😀")]
)
def test_a_name_is_cut_by_bytes(text, size, found):
    assert shortened(text, size) == found


def test_a_terminal_of_ascii_shows_what_it_can(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    say("café 李 \x1b")
    assert shown.buffer.getvalue() == b"caf\\xe9 \\u674e \\x1b\n"
