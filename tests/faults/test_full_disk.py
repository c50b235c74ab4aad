"""A run whose disk fills up goes on, loses nothing, and says so; one that cannot end is told to go on later."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.faults.conftest import SmallDisk

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.runs.journal import ended, history
from dlframe.runs.recorder import states

SMALL = ["model=mlp", "model.width=8", "tracking=none", "checkpoint.every=20", "checkpoint.unit=steps", "checkpoint.keep=2"]


def start(disk: SmallDisk, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dlframe", *SMALL, f"runs={disk.path}", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_state(disk: SmallDisk, process: subprocess.Popen) -> Path:
    while not (found := list(disk.path.glob("*/checkpoints/state-*"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return found[0].parent.parent


def test_training_goes_on_while_the_disk_is_full(small_disk: SmallDisk, tmp_path: Path) -> None:
    with start(small_disk, "epochs=300") as process:
        folder = first_state(small_disk, process)
        small_disk.fill()
        assert process.stderr
        warnings = [process.stderr.readline(), process.stderr.readline()]
        newest = states(folder)[0]
        time.sleep(0.5)
        assert states(folder)[0] == newest
        small_disk.free()
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert sorted(warning.rpartition(";")[2] for warning in warnings) == [
        " the checkpoints before are whole.\n",
        " the journal goes on in memory and is written when there is room\n",
    ]
    reference = run(load([*SMALL, f"runs={tmp_path / 'reference'}", "epochs=300"]))
    assert history(folder) == history(reference.folder)
    assert [state.read_bytes() for state in states(folder)[1:]] != []
    assert ended(folder) == "FINISHED"


def test_a_run_that_cannot_end_says_so_and_goes_on_later(small_disk: SmallDisk, tmp_path: Path) -> None:
    with start(small_disk, "epochs=100") as process:
        folder = first_state(small_disk, process)
        small_disk.fill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "No space left on device" in said
    assert "Traceback" not in said
    small_disk.free()
    with start(small_disk, "epochs=100", "resume=auto") as process:
        out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert f"goes on {folder}" in out
    reference = run(load([*SMALL, f"runs={tmp_path / 'reference'}", "epochs=100"]))
    assert history(folder) == history(reference.folder)
