"""What a run keeps to go on from: when, how much, and what happens when a file is damaged or a disk is full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlframe.config import load
from dlframe.runs import recorder
from dlframe.runs.journal import FILE, Journal
from dlframe.runs.recorder import BEST, RunRecorder, states
from dlframe.runs.signals import Signals
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError


@pytest.fixture
def kept(tmp_path):
    """Makes the recorder of a run in a folder, with options of `checkpoint`."""
    journals = []

    def make(*options: str, folder: Path = tmp_path) -> RunRecorder:
        for journal in journals:
            journal.close()
        config = load(["model=mlp", *(f"checkpoint.{option}" for option in options)])
        journals.append(Journal(folder))
        return RunRecorder(config, folder, journals[-1], Signals())

    yield make
    for journal in journals:
        journal.close()


def save(run: RunRecorder, step: int, epoch: int = 0) -> None:
    run.save({"step": torch.tensor(step)}, {"step": step, "epoch": epoch})


def names(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("state-")) for path in states(folder)]


def test_the_last_three_states_are_kept(kept, tmp_path):
    run = kept()
    for step in (9, 10, 100, 1000):
        save(run, step)
    assert names(tmp_path) == [1000, 100, 10]


@pytest.mark.parametrize(
    ("unit", "every", "due"),
    [
        ("steps", 4, [4, 8]),  # at 7 it is not: 4 to 7 lie between the same multiples
        ("steps", 0, []),
        ("epochs", 1, [4, 8]),
        ("epochs", 2, [8]),
    ],
)
def test_steps_and_epochs_are_due_at_their_multiples(kept, unit, every, due):
    run = kept(f"every_n_{unit}={every}")
    found = []
    for step in range(1, 10):
        if run.should_save(step, step // 4):
            save(run, step, step // 4)
            found.append(step)
    assert found == due


def test_minutes_are_due_after_their_time(kept, monkeypatch):
    now = 100.0
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now)
    run = kept("every_n_minutes=0.5")
    assert not run.should_save(1, 0)
    now = 130.0
    assert run.should_save(2, 0)
    save(run, 2)
    assert not run.should_save(3, 0)


def test_a_run_goes_on_from_its_newest_state_with_the_time_that_it_took(kept, tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now)
    run = kept("every_n_minutes=0", "every_n_steps=4")
    now = 60.0
    save(run, 4, 1)
    now = 1000.0
    again = kept("every_n_minutes=0", "every_n_steps=4")
    assert again.latest_checkpoint() == tmp_path / "checkpoints" / "state-000000004.safetensors"
    now = 1001.0
    assert again.seconds == 61.0
    assert again.step == 4
    assert (again.should_save(7, 1), again.should_save(8, 2)) == (False, True)


def test_records_that_a_state_counts_on_and_that_are_gone_are_told(kept, tmp_path, capsys):
    run = kept()
    run.log_metrics(1, {"loss": 0.5})
    save(run, 4)
    assert kept().latest_checkpoint()
    assert "warning" not in capsys.readouterr().err
    (tmp_path / FILE).write_bytes(b"")
    again = kept()
    again.journal.write("start", name="x" * 200)  # as a process does before it looks for a state
    assert again.latest_checkpoint()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / FILE}: lost ")
    assert line.endswith(" bytes of records that state-000000004.safetensors counts on: earlier metrics are missing")


@pytest.mark.parametrize(("done", "place"), [(False, "epoch 4"), (True, "the end of training")])
def test_where_a_run_goes_on_is_said(kept, done, place, capsys):
    kept().save({"progress": {"done": done}}, {"step": 8, "epoch": 3})
    assert kept().latest_checkpoint()
    assert capsys.readouterr().out == f"resumed from step 8, {place}\n"


def damage_end(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def damage_middle(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def damage_all(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_end, damage_middle, damage_all])
def test_a_damaged_state_is_named_and_the_one_before_it_is_used(kept, tmp_path, capsys, damage):
    run = kept()
    for step in (1, 2, 3):
        save(run, step)
    damage(states(tmp_path)[0])
    assert kept().latest_checkpoint() == tmp_path / "checkpoints" / "state-000000002.safetensors"
    assert f"warning: {states(tmp_path)[0]}: " in capsys.readouterr().err


def test_a_state_without_its_best_weights_is_not_used(kept, tmp_path, capsys):
    run = kept()
    save(run, 1)
    run.save_best({"weight": torch.ones(2)}, {"step": 2})
    save(run, 3)
    assert kept().latest_checkpoint() == states(tmp_path)[0]
    damage_end(tmp_path / BEST)
    assert kept().latest_checkpoint() == states(tmp_path)[1]
    assert str(tmp_path / BEST) in capsys.readouterr().err
    checkpoint.save(tmp_path / BEST, {"weight": torch.ones(2)}, {"step": 1})
    assert kept().latest_checkpoint() == states(tmp_path)[1]
    checkpoint.save(tmp_path / BEST, {"weight": torch.ones(2)}, {"step": 9})  # of a later epoch, which will come again
    assert kept().latest_checkpoint() == states(tmp_path)[0]


def test_what_a_killed_process_left_unfinished_goes(kept, tmp_path):
    save(kept(), 1)
    (tmp_path / "checkpoints" / ".state-000000002.safetensors.99.part").write_bytes(b"half")
    kept().latest_checkpoint()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["state-000000001.safetensors"]


def full(path: Path, tree: dict, facts: dict) -> str:
    raise CheckpointError(f"{path}: cannot write the checkpoint: No space left on device")


def test_on_a_full_disk_training_goes_on_and_the_best_weights_wait(kept, tmp_path, capsys, monkeypatch):
    run = kept()
    save(run, 1)
    weights = {"weight": torch.ones(2)}
    with monkeypatch.context() as patch:
        patch.setattr(recorder.checkpoint, "save", full)
        run.save_best(weights, {"step": 2})
        weights["weight"] += 1  # training goes on in place
        save(run, 3)
        assert torch.equal(run.best_weights()["weight"], torch.ones(2))
        warnings = capsys.readouterr().err.splitlines()
        assert len(warnings) == 1
        assert warnings[0].endswith("No space left on device. Training continues; earlier checkpoints are valid.")
    assert names(tmp_path) == [1]
    save(run, 4)
    assert run.best_weights() is None
    assert names(tmp_path) == [4, 1]
    assert torch.equal(checkpoint.weights(tmp_path / BEST)["weight"], torch.ones(2))
    assert kept().latest_checkpoint() == states(tmp_path)[0]


def test_what_was_found_out_is_recalled_by_the_next_process(kept):
    run = kept()
    assert run.load_metadata("batch_size") is None
    run.save_metadata("batch_size", 16)
    run.save_metadata("batch_size", 32)
    assert kept().load_metadata("batch_size") == 32
