"""Which run goes on: one of the user's own, or one that the user names; and what is written, and deleted, in its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.runs import resume
from dlframe.runs.journal import ended
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")
SHORT = ["model=mlp", "epochs=1", "model.width=8", "tracking=none"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of somebody else."""
    home = tmp_path_factory.mktemp("theirs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        folder = run(load([*SHORT, f"runs={home}"])).folder
    assert folder
    return folder


def unfinish(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(line for line in lines if '"kind": "end"' not in line))
    (folder / "result.json").unlink()


@pytest.fixture
def theirs(made: Path, user: Path) -> Path:
    """A copy of it among the user's runs."""
    return Path(shutil.copytree(made, user / "runs" / made.name)).relative_to(user)


KINDS: dict[str, Callable[[Path], Any]] = {
    "finished": lambda folder: None,
    "unfinished": unfinish,
    "with_a_result_of_100_percent": lambda folder: (folder / "result.json").write_text(
        json.dumps(json.loads((folder / "result.json").read_text()) | {"metrics": {"accuracy": 1.0}})
    ),
    "a_link": lambda folder: (folder.rename("elsewhere"), folder.symlink_to(Path("elsewhere").absolute())),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_somebody_else_is_not_taken_for_ones_own(kind: str, theirs: Path, capsys: Any) -> None:
    """It is told, and goes on where it is named."""
    KINDS[kind](theirs)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    result = run(load([*SHORT, "resume=auto"]))
    assert result.folder != theirs
    said = capsys.readouterr().err
    assert said == (
        f"note: {theirs} has this config, but was not started by you in this place. To continue it: resume={theirs}\n"
    )
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before
    own = run(load([*SHORT, "resume=auto"]))
    assert own.folder == result.folder
    assert resume.find(load([*SHORT, f"resume={theirs}"])) == theirs


def test_a_run_that_was_continued_by_name_is_ones_own(theirs: Path) -> None:
    unfinish(theirs)
    assert run(load([*SHORT, f"resume={theirs}"])).folder == theirs
    assert ended(theirs) == "FINISHED"
    assert resume.find(load([*SHORT, "resume=auto"])) == theirs


def test_a_run_that_was_moved_is_found_by_its_name_only(theirs: Path, user: Path) -> None:
    shutil.rmtree(theirs)
    folder = run(load(SHORT)).folder
    assert folder
    (user / "runs").rename(user / "moved")
    moved = user / "moved" / folder.name
    assert resume.find(load([*SHORT, "runs=moved", "resume=auto"])) is None
    assert resume.find(load([*SHORT, "runs=moved", f"resume={moved}"])) == moved


LINKS = (
    "checkpoints",
    "journal.jsonl",
    "tracking.json",
    "changes.diff",
    "figures",
    ".predictions.parquet.part",
    "model/spec.json",
)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_or_deleted_behind_a_link(name: str, known: bool, theirs: Path, tmp_path: Path) -> None:
    """Also a link to what does not exist yet."""
    if known:
        from dlframe.storage.known import remember

        remember(run=theirs)
    unfinish(theirs)
    outside = tmp_path / "outside"
    place = theirs / name
    if place.is_dir():
        place.rename(outside)
        (outside / ".profile").write_text("mine")
    elif place.exists():
        place.rename(outside)
    place.symlink_to(outside)
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    config = load([*SHORT, "resume=auto" if known else f"resume={theirs}"])
    if name == "journal.jsonl":  # without a journal a folder is no run, and is left alone
        assert not known or run(config).folder != theirs
    else:
        with pytest.raises(ConfigError, match=r"^resume: .* must hold no links\. Received: .*\. Remove it\.$"):
            run(config)
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before


@pytest.mark.parametrize("name", [".profile", ".ssh", ".state", "notes.part", ".stated.txt"])
def test_only_unfinished_checkpoints_are_deleted(name: str, theirs: Path) -> None:
    unfinish(theirs)
    (theirs / "checkpoints" / name).write_text("mine")
    ours = [theirs / "checkpoints" / f".{name}.safetensors.1.part" for name in ("state-000000001", "best")]
    for path in ours:
        path.write_text("")
    run(load([*SHORT, f"resume={theirs}"]))
    assert (theirs / "checkpoints" / name).read_text() == "mine"
    assert not any(path.exists() for path in ours)
