"""Stamps tell every change, or that they would not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlframe.storage import stamps as module
from dlframe.storage.stamps import below, stamps


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").write_text("one")
    return tmp_path / "a"


def longer(folder: Path) -> None:
    (folder / "b" / "c.txt").write_text("three")


def with_the_times_of_before(folder: Path) -> None:
    file = folder / "b" / "c.txt"
    times = file.stat()
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(folder: Path) -> None:
    (folder / "new").write_text("two")
    (folder / "new").replace(folder / "b" / "c.txt")


def added(folder: Path) -> None:
    (folder / "b" / "d.txt").write_text("")


def removed(folder: Path) -> None:
    (folder / "b" / "c.txt").unlink()


def moved(folder: Path) -> None:
    (folder / "b").rename(folder / "d")


@pytest.mark.parametrize("change", [longer, with_the_times_of_before, replaced, added, removed, moved])
def test_a_change_below_a_folder_changes_its_stamps(folder, change):
    before = stamps(below(folder))
    assert before is not None
    assert stamps(below(folder)) == before
    change(folder)
    assert stamps(below(folder)) != before


def test_a_file_that_appears_changes_the_stamp_of_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FRESH_SECONDS", 0)
    missing = stamps([tmp_path / "x", "a\0b"])
    (tmp_path / "x").write_text("")
    assert missing is not None
    assert stamps([tmp_path / "x", "a\0b"]) != missing


def test_a_fresh_file_has_no_stamp(tmp_path):
    """It may change again within the resolution of its times."""
    (tmp_path / "x").write_text("")
    assert stamps([tmp_path / "x"]) is None


def test_too_many_files_have_none(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    assert stamps(below(folder)) is None


def test_links_to_folders_are_not_followed(folder):
    (folder / "b" / "loop").symlink_to(folder)
    assert len([*below(folder)]) == 4
