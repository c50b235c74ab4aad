"""A run whose disk fills up goes on, loses nothing, and says so; one that cannot end is told to go on later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conftest import until
from tests.faults.conftest import SmallDisk
from tests.faults.matrix import Server, Training, the_run

from dlframe.cli import main
from dlframe.runs.journal import ended, history
from dlframe.runs.recorder import states
from dlframe.runs.run_directory import FOLDER_VARIABLE

SMALL = ("model=mlp", "model.width=8", "tracking=none", "log_every_n_steps=1", "epochs=30")
STATES = ("checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20", "checkpoint.max_to_keep=2")
PLUGIN = f"plugin_paths={Path(__file__).with_name('entries.py')}"


def start(server: Server, disk: SmallDisk, home: Path, *overrides: str) -> Training:
    """A training that waits before epochs 1 and 4 for files of these names in `home`."""
    held = (PLUGIN, "callback=[held]", f"callback.held.folder={home}")
    return server.start([*SMALL, *STATES, *held, f"runs={disk.path}", *overrides], home)


@pytest.fixture(scope="module")
def undisturbed(forking: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training where there is room."""
    home = tmp_path_factory.mktemp("reference")
    training = forking.start([*SMALL, *STATES], home)
    assert training.status() == 0, training.said()
    return the_run(home)


def full_from_epoch_two(server: Server, disk: SmallDisk, home: Path) -> tuple[Training, Path]:
    """A training whose disk is full once a first state is written, and its folder."""
    training = start(server, disk, home)
    (state,) = until(lambda: list(disk.path.glob("*/checkpoints/state-*")))
    disk.fill()
    (home / "2").touch()
    return training, state.parent.parent


def warnings(training: Training) -> list[str]:
    """What each was followed by."""
    return sorted(line.rpartition(";")[2] for line in training.said().splitlines() if line.startswith("warning: "))


def test_training_goes_on_while_the_disk_is_full(
    forking: Server, undisturbed: Path, small_disk: SmallDisk, tmp_path: Path
) -> None:
    training, folder = full_from_epoch_two(forking, small_disk, tmp_path)
    (newest,) = states(folder)
    until(lambda: len(warnings(training)) == 2)
    assert states(folder) == [newest]
    small_disk.free()
    (tmp_path / "4").touch()
    assert training.status() == 0, training.said()
    assert warnings(training) == [
        " earlier checkpoints are valid.",
        " the journal continues in memory until there is space",
    ]
    assert history(folder) == history(undisturbed)
    assert [state.name for state in states(folder)] == [state.name for state in states(undisturbed)]
    assert ended(folder) == "FINISHED"


def test_a_run_that_cannot_end_says_so_and_goes_on_later(
    forking: Server, undisturbed: Path, small_disk: SmallDisk, tmp_path: Path
) -> None:
    (tmp_path / "4").touch()
    training, folder = full_from_epoch_two(forking, small_disk, tmp_path)
    assert training.status() == 2, training.said()
    assert "No space left on device" in training.said().splitlines()[-1]
    assert "Traceback" not in training.said()
    small_disk.free()
    training = start(forking, small_disk, tmp_path, "resume=auto")
    assert training.status() == 0, training.said()
    assert f"resumes {folder}" in training.said()
    assert history(folder) == history(undisturbed)


def test_a_run_that_cannot_begin_leaves_nothing(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    small_disk.fill()
    assert main([*SMALL, f"runs={small_disk.path}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert "No space left on device" in said[-1]
    assert [path.name for path in small_disk.path.iterdir()] == ["ballast"]
    assert FOLDER_VARIABLE not in os.environ
