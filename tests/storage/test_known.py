"""The list of what the user has typed and started, and the address of a store."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from dlframe.storage.known import is_known, remember, store_uri


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "dlframe"


def test_entries_are_written_once_one_object_a_line(state: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert remember(store="http://höst") == ""
        assert remember(run=tmp_path / "a" / ".." / "b", store="http://höst") == ""
    lines = (state / "known.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"store": "http://höst"},
        {"run": str(tmp_path / "b"), "store": "http://höst"},
    ]
    assert is_known(run=tmp_path / "b", store="http://höst")
    assert not is_known(run=tmp_path / "b")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "known.jsonl").stat().st_mode) == 0o600


def test_a_line_that_was_cut_off_spoils_no_other(state: Path) -> None:
    remember(store="one")
    with (state / "known.jsonl").open("a") as file:
        file.write('{"store": "tw')
    assert remember(store="three") == ""
    assert is_known(store="one")
    assert is_known(store="three")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert "file" in remember(store="one")
    assert not is_known(store="one")


def test_the_store_is_in_the_folder_of_runs_and_without_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert store_uri("sqlite", "a b") == f"sqlite:///{Path.cwd() / 'a b' / 'mlflow.db'}"
    assert store_uri(f"sqlite:///{tmp_path}/x/../link/a.db") == f"sqlite:///{tmp_path}/real/a.db"
    for other in ("http://host:5000", "sqlite:///file:x?uri=true", "sqlite://", "sqlite:///:memory:", "sqlite:///a\0b"):
        assert store_uri(other) == other
