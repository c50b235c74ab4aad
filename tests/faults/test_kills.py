"""Trainings that are killed, stopped or damaged and continued end identical, to the bit, to one that is left alone.

The first tests are a sample of `python benchmarks/kills.py`; the slow ones are the rest of it.
"""

from __future__ import annotations

import functools
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults import tracked
from tests.faults.matrix import (
    ALWAYS,
    Cell,
    Fault,
    Reference,
    Server,
    Training,
    cells,
    left_behind,
    reference,
    the_run,
    trial,
)

from dlframe.jobs.verify_resume import Comparison, compare
from dlframe.runs import journal
from dlframe.runs.recorder import BEST, states
from dlframe.storage import checkpoint

SAMPLED = {
    "accumulate 3, epochs",
    "augmentations, epochs",
    "gan, accumulate 2",
    "lda",
    "boxes, accumulate 3",
    "tokens, lazy",
}
"""Tried by default: the rest takes minutes."""
SAMPLE = [cell for cell in cells() if cell.name in SAMPLED]
KILLS = 3
MLP = ("model=mlp", "model.width=16")
PLUGIN = f"plugin_paths={Path(__file__).with_name('entries.py')}"


@pytest.fixture(scope="module")
def server(forking: Server) -> Server:
    return forking


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reference]:
    """The reference of a command line, trained once."""

    @functools.cache
    def trained(*arguments: str) -> Reference:
        return reference(server, Cell("", arguments), tmp_path_factory.mktemp("reference"))

    return trained


def until(condition: Callable[[], object], training: Training, seconds: float = 60) -> None:
    """Wait for something that a training does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, training.said()
        time.sleep(0.005)


def go_on(server: Server, home: Path, *arguments: str) -> str:
    """Continue a training to its end; what it says then."""
    before = len((home / "output.txt").read_text(encoding="utf-8"))
    training = server.start([*ALWAYS, *arguments, "resume=auto"], home)
    assert training.status() == 0, training.said()
    return training.said()[before:]


# --- kills


def tried(server: Server, cell: Cell, tmp_path: Path, kills: int) -> None:
    whole = reference(server, cell, tmp_path / "reference")
    done = trial(server, cell, whole, tmp_path / "killed", random.Random(cell.name), kills)
    assert done.kills
    assert done.trouble == "", f"killed {', '.join(done.kills)}"


@pytest.mark.parametrize("cell", SAMPLE, ids=lambda cell: cell.name)
def test_killed_at_random(server, cell, tmp_path):
    tried(server, cell, tmp_path, KILLS)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in cells() if cell not in SAMPLE], ids=lambda cell: cell.name)
def test_killed_at_random_in_every_other_way(server, cell, tmp_path):
    tried(server, cell, tmp_path, 1)


FAULTS = [
    *(Fault("save_file", number, when) for number in (1, 5) for when in ("before", "half", "after")),
    *(Fault(call, 5, when) for call in ("fsync", "replace") for when in ("before", "after")),
    Fault("unlink", 9, "before"),
    *(Fault("write", 12, when) for when in ("before", "half", "after")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.when} {fault.call} {fault.number}")
def test_killed_while_it_writes(server, whole, fault, tmp_path):
    """With three states kept, so that old ones are removed."""
    arguments = (*MLP, "checkpoint.max_to_keep=3")
    training = server.start([*ALWAYS, *arguments], tmp_path, fault=fault)
    assert training.status() == -signal.SIGKILL
    torn = (fault.call, fault.when) == ("write", "half")
    assert (the_run(tmp_path) / journal.FILE).read_bytes().endswith(b"\n") != torn
    assert left_behind(tmp_path, halves=torn) == ""
    go_on(server, tmp_path, *arguments)
    assert compare(whole(*arguments).folder, the_run(tmp_path)) == Comparison(3, "")
    assert not list(the_run(tmp_path).rglob(".*.part"))
    assert [record["kind"] for record in journal.read(the_run(tmp_path))].count("start") == 2


# --- damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


DAMAGES = {
    truncate: "{}: the checkpoint is damaged or truncated: ",
    flip: "{}: the checkpoint is damaged: the checksum does not match.",
    Path.unlink: "{}: no such checkpoint.",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("which", ["newest", "best"])
def test_a_damaged_checkpoint_is_named_and_passed_over(server, whole, which, damage, tmp_path):
    training = server.start([*ALWAYS, *MLP], tmp_path, fault=Fault("save_file", 7, "before"))
    assert training.status() == -signal.SIGKILL
    folder = the_run(tmp_path)
    counting = [state for state in states(folder) if checkpoint.read_facts(state)["best"]]
    assert len(states(folder)) > len(counting) >= 2
    damaged, passed = (folder / BEST, len(counting)) if which == "best" else (states(folder)[0], 1)
    damage(damaged)
    said = go_on(server, tmp_path, *MLP)
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    expected = f"warning: {DAMAGES[damage].format(damaged.relative_to(tmp_path))}"
    if (which, damage) == ("newest", Path.unlink):
        assert warnings == []
    else:
        assert all(line.startswith(expected) and line.endswith("Using an earlier checkpoint, if any.") for line in warnings)
        assert len(warnings) == passed
    assert compare(whole(*MLP).folder, folder).difference == ""


def test_with_every_state_damaged_the_run_begins_again(server, whole, tmp_path):
    training = server.start([*ALWAYS, *MLP], tmp_path, fault=Fault("save_file", 7, "before"))
    assert training.status() == -signal.SIGKILL
    folder = the_run(tmp_path)
    damaged = states(folder)
    for state in damaged:
        flip(state)
    assert go_on(server, tmp_path, *MLP).count("warning: ") == len(damaged) >= 4
    assert compare(whole(*MLP).folder, folder).difference == ""


# --- signals


LONG = (*MLP, "epochs=30", "checkpoint.every_n_steps=10000")


def trains(home: Path) -> bool:
    """Whether an epoch is over."""
    return any(record["kind"] == "metrics" for path in home.glob("runs/*/") for record in journal.read(path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_saves_and_stops(server, whole, number, tmp_path):
    training = server.start([*ALWAYS, *LONG], tmp_path)
    until(lambda: trains(tmp_path), training)
    training.send(number)
    assert training.status() == 128 + number, training.said()
    folder = the_run(tmp_path)
    assert journal.ended(folder) == "KILLED"
    (state,) = states(folder)
    facts = checkpoint.read_facts(state)
    assert 17 <= facts["step"] < 30 * 17
    last = training.said().splitlines()[-1]
    assert f"step {facts['step']:,}" in last
    assert last.endswith("resume=auto")
    go_on(server, tmp_path, *LONG)
    assert compare(whole(*LONG).folder, folder) == Comparison(1, "")


def test_a_signal_in_validation_waits_for_its_end(server, whole, tmp_path):
    arguments = (*MLP, PLUGIN, "callback=[slow_validation]", "checkpoint.every_n_steps=10000")
    training = server.start([*ALWAYS, *arguments], tmp_path)
    until(lambda: training.said().count("validates") == 2, training)
    training.send(signal.SIGTERM)
    assert training.status() == 143, training.said()
    folder = the_run(tmp_path)
    assert [checkpoint.read_facts(state)["step"] for state in states(folder)] == [2 * 17]
    assert [step for step, _ in journal.history(folder)["val/loss"]] == [17, 34]
    go_on(server, tmp_path, *arguments)
    assert compare(whole(*arguments).folder, folder) == Comparison(1, "")


def test_a_second_signal_stops_at_once(server, tmp_path):
    training = server.start([*ALWAYS, *MLP, PLUGIN, "augmentation=[asleep]"], tmp_path)
    until(lambda: "asleep" in training.said(), training)
    training.send(signal.SIGINT)
    assert training.status(0.5) is None, "the first waits for the end of the step"
    training.send(signal.SIGINT)
    assert training.status(20) == 130, training.said()
    assert journal.ended(the_run(tmp_path)) == "KILLED"
    assert states(the_run(tmp_path)) == []


def test_a_run_is_continued_by_one_process_at_a_time(server, whole, tmp_path):
    first = server.start([*ALWAYS, *LONG], tmp_path)
    until(lambda: trains(tmp_path), first)
    first.send(signal.SIGSTOP)  # or it might end before the second has begun
    second = server.start([*ALWAYS, *LONG, f"runs={tmp_path / 'runs'}", "resume=auto"], tmp_path / "second")
    assert second.status() == 2
    folder = tmp_path / "runs" / the_run(tmp_path).name
    assert second.said() == f"error: {folder}: another process is writing this run. Wait for it, or stop it.\n"
    first.send(signal.SIGCONT)
    assert first.status() == 0, first.said()
    assert compare(whole(*LONG).folder, folder) == Comparison(1, "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_two_processes(server, whole, number, tmp_path):
    arguments = (*LONG, "trainer=ddp")
    training = server.start([*ALWAYS, *arguments], tmp_path)
    until(lambda: trains(tmp_path), training)
    training.send(number)
    assert training.status() == 128 + number, training.said()
    assert journal.ended(the_run(tmp_path)) == "KILLED"
    assert len(states(the_run(tmp_path))) == 1
    go_on(server, tmp_path, *arguments)
    assert compare(whole(*arguments).folder, the_run(tmp_path)) == Comparison(1, "")


# --- with the upload process


@pytest.mark.slow
@pytest.mark.parametrize("kind", tracked.KINDS)
def test_a_training_and_its_upload_process_are_disturbed(server, kind, tmp_path):
    alone = reference(server, Cell("", (*tracked.COMMAND, "tracking=none")), tmp_path / "alone")
    case = tracked.Case(server, alone, tmp_path / "disturbed", random.Random(kind))
    assert tracked.disturbed(case, kind) == ""
