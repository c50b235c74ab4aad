"""Lines that fit a terminal."""

from __future__ import annotations

import pytest

from dlframe.types import wrapped

TEXT = "cnn on digits: 1,078 + 360 + 359 samples; scikit-learn, offline; in runs/cnn-digits-20260101-000000"


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_a_line_is_broken_between_words_on_a_terminal_only(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert wrapped(TEXT) == [TEXT]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = wrapped(TEXT)
    assert " ".join(line.strip() for line in lines) == TEXT
    long = {"runs/cnn-digits-20260101-000000", "in"}
    assert all(len(line) <= int(columns) or set(line.split()) <= long for line in lines)
