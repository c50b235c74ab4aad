"""The trials of a study while they run: on real terminals of two widths, and in a file."""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import asdict
from fcntl import ioctl
from typing import Any

import pytest

from dlframe.reports.live import LiveTable
from dlframe.types import Objective, Screen, TrialRecord, duration
from dlframe.types.terminal import cells, fitted

ACCURACY = Objective(metric="val/accuracy", better="max", unit="fraction")


def trial(number: int, state: Any = "complete", value: float = 0.0, **fields: Any) -> TrialRecord:
    options = fields.pop("options", {"model.width": "16", "optimizer.lr": "0.0031622776601683795"})
    values = (value,) if state == "complete" else ()
    return TrialRecord(number=number, state=state, options=options, values=values, **fields)


DONE = [trial(0, value=0.5), trial(1, "failed", failure="out of memory\n\x1b[31m"), trial(2, value=0.9), trial(3, "pruned")]
STEPS = [
    [trial(0, "running"), trial(1, "running")],
    [DONE[0], trial(1, "running", reported=((1, 0.25),)), trial(2, "running")],
    [*DONE[:2], trial(2, "running")],
    [*DONE, trial(4, "running")],
]
"""What is told of a study, one after the other."""

CODE = """
import json, struct, sys, termios
from fcntl import ioctl
from dlframe.reports.live import LiveTable
from dlframe.types import Objective, TrialRecord, say
steps, sizes = json.loads(sys.argv[1])
say("before")
with LiveTable(6, Objective(metric="val/accuracy", better="max", unit="fraction")) as live:
    for step, (rows, columns) in zip(steps, sizes, strict=True):
        if rows:
            ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        live.update([TrialRecord(**record) for record in step])
        live.update([TrialRecord(**record) for record in step])
    say("a worker was killed", error=True)
say("after")
"""


def command(steps: list[list[TrialRecord]], sizes: list[tuple[int, int]]) -> list[str]:
    return [sys.executable, "-c", CODE, json.dumps([[[*map(asdict, step)] for step in steps], sizes])]


def on_terminal(steps: list[list[TrialRecord]], sizes: list[tuple[int, int]], term: str = "xterm") -> str:
    """What a process writes to a pseudo-terminal."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *sizes[0], 0, 0))
    environment = {**os.environ, "TERM": term, "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command(steps, sizes), stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # Linux: the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, said.decode()
    return said.decode().replace("\r\n", "\n")


class Terminal:
    """What a terminal shows. It knows three sequences, and no others may occur."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0

    def write(self, said: str) -> None:
        for part in re.findall(r"\x1b\[\d*[FKJ]|\n|[^\x1b\n]+|\x1b", said):
            line = self.lines[self.row]
            if part == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part.startswith("\x1b") and part.endswith("F"):
                self.row, self.column = self.row - int(part[2:-1]), 0
                assert self.row >= 0
            elif part == "\x1b[K":
                self.lines[self.row] = line[: self.column]
            elif part == "\x1b[J":
                self.lines[self.row :] = [line[: self.column]]
            else:
                assert part.isprintable()
                self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)

    def flush(self) -> None:
        pass

    def narrow(self, columns: int) -> None:
        """Break the lines that are longer, as terminals do."""
        self.lines = [line[i : i + columns] for line in self.lines for i in range(0, max(len(line), 1), columns)]
        self.row = len(self.lines) - 1


def screen(said: str) -> list[str]:
    terminal = Terminal()
    terminal.write(said)
    return terminal.lines


@pytest.mark.parametrize("columns", [40, 200])
def test_a_terminal_shows_one_table_below_what_is_said(columns: int) -> None:
    lines = screen(on_terminal(STEPS, [(24, columns)] * len(STEPS)))
    assert lines[0] == "before"
    assert lines[1].startswith("trial 1 failed: out of memory\\n\\x1b[31m: model.width=16")
    assert lines[2] == "a worker was killed"
    assert lines[3].startswith("4 of 6 trials done")
    assert lines[4].split()[:3] == ["trial", "state", "val/accuracy"]
    rows = [line.split()[:3] for line in lines[5:10]]
    assert rows[0] == ["0", "complete", "50.00"]
    assert [row[1] for row in rows] == ["complete", "failed", "complete", "pruned", "running"]
    assert lines[10].startswith("best 90.00 %, trial 2: mod")
    assert lines[11:] == ["after", ""]
    assert all(cells(line) < columns for line in lines[3:11])
    assert ("optimizer.lr=0.003162" in lines[5]) == (columns == 200)


@pytest.mark.parametrize("columns", [120, 30, 7])
def test_a_narrower_window_breaks_lines_which_are_taken_away(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal: Any = Terminal()
    live = LiveTable(6, ACCURACY)
    live.screen = Screen()
    live.screen.stream = terminal
    terminal.write("before\n")
    monkeypatch.setattr(Screen, "size", lambda _: (200, 24))
    live.update(STEPS[1])
    assert max(map(len, terminal.lines)) > 30
    terminal.narrow(columns)
    monkeypatch.setattr(Screen, "size", lambda _: (columns, 24))
    live.update(STEPS[2][:1])
    live.close()
    kept = "before" if columns > 6 else ""
    assert terminal.lines == [kept, *(fitted(line, columns - 1) for line in live.table(columns, 24)), ""]


@pytest.mark.parametrize("paint", ["\x1b[2J", "\x9b31m", "a\nb", "\x1b]0;owned\x07", "\u202egnp.exe", "\rbest"])
def test_what_trials_hold_is_escaped(paint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal: Any = Terminal()
    live = LiveTable(2, Objective(metric=paint, better="max", unit=paint))
    live.screen = Screen()
    live.screen.stream = terminal
    monkeypatch.setattr(Screen, "size", lambda _: (200, 24))
    live.update([trial(0, value=0.5, options={paint: paint})])
    live.close()
    assert len(terminal.lines) == 5
    assert all(line.isprintable() for line in terminal.lines)
    assert terminal.lines[3].startswith("best 0.5 ")


def test_small_windows() -> None:
    lines = screen(on_terminal(STEPS, [(24, 80), (5, 80), (24, 80), (4, 80)]))
    assert lines[-5].startswith("4 of 6 trials done")
    assert lines[-3].split()[:2] == ["4", "running"]
    assert lines[-2:] == ["after", ""]


def test_a_table_that_is_as_before_is_not_drawn_again() -> None:
    assert on_terminal(STEPS[:1], [(24, 80)]).count("trial  state") == 2  # once, and once below what was said


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_moves_no_cursor_gets_lines(term: str) -> None:
    said = on_terminal(STEPS, [(24, 80)] * len(STEPS), term)
    assert "\x1b" not in said
    assert "[4/6] trial 3: " in said


def test_a_file_gets_a_line_for_each_trial_that_has_ended() -> None:
    done = subprocess.run(command(STEPS, [(0, 0)] * len(STEPS)), capture_output=True, encoding="utf-8", check=True)
    options = "model.width=16 optimizer.lr=0.0031622776601683795"
    lines = [re.sub("; about .* left", "", line) for line in done.stdout.splitlines()]
    assert lines == [
        "before",
        f"[1/6] trial 0: {options}: 50.00 %, best 50.00 % (trial 0)",
        f"[2/6] trial 1: {options}: failed: out of memory\\n\\x1b[31m, best 50.00 % (trial 0)",
        f"[3/6] trial 2: {options}: 90.00 %, best 90.00 % (trial 2)",
        f"[4/6] trial 3: {options}: pruned, best 90.00 % (trial 2)",
        "after",
    ]


def test_what_earlier_calls_have_done_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveTable(6, ACCURACY, before=DONE[:3]) as live:
        live.update(DONE[:3])
        assert capsys.readouterr().out == ""
        live.update(DONE)
    assert capsys.readouterr().out.startswith("[4/6] trial 3: ")


def test_the_time_left_is_that_of_the_trials_of_this_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("dlframe.reports.live.time.monotonic", lambda: now[0])
    live = LiveTable(100, ACCURACY, before=[trial(i, value=0.1) for i in range(50)])
    now[0] += 60
    live.update([trial(i, value=0.1) for i in range(60)])  # 10 in 60 s, 40 to go
    assert live.table(80, 24)[0] == "60 of 100 trials done, about 4 min left"
    live.update([trial(i, value=0.1) for i in range(100)])
    assert live.table(80, 24)[0] == "100 of 100 trials done"
    assert [*map(duration, (1, 89, 600, 9000, 400000))] == ["1 s", "89 s", "10 min", "2.5 h", "4.6 days"]


@pytest.mark.parametrize("rows", [1, 5, 8, 24])
def test_many_running_trials_leave_room(rows: int) -> None:
    live = LiveTable(2000, ACCURACY)
    live.records = [trial(i, value=0.1) for i in range(500)] + [trial(i, "running") for i in range(500, 1000)]
    lines = live.table(80, rows)
    assert len(lines) <= max(rows, 6)
    assert lines[0] == "500 of 2000 trials done, 500 running"
    assert any("more running" in line for line in lines)


def test_a_value_that_is_not_finite_is_undefined_and_never_the_best() -> None:
    live = LiveTable(2, ACCURACY)
    live.records = [trial(0, value=float("nan")), trial(1, "running", reported=((3, 0.5),))]
    lines = live.table(80, 24)
    assert "undefined" in lines[2]
    assert "50.00 % at 3" in lines[3]
    assert not any(line.startswith("best") for line in lines)


def test_no_trial_yet() -> None:
    assert LiveTable(5, ACCURACY).table(80, 24)[0] == "0 of 5 trials done"


def test_a_text_is_cut_by_its_columns() -> None:
    assert fitted("猫猫猫", 6) == "猫猫猫"
    assert fitted("猫猫猫", 5) == "猫猫…"
    assert fitted("naïve", 3) == "na…"
    assert fitted("e\u0301a", 2) == "e\u0301a"
    assert [fitted("ab", n) for n in (0, 1, 2)] == ["", "…", "ab"]


@pytest.mark.parametrize(("metric", "models", "told"), [("loss", "ab", False), ("loss", "aa", True), ("accuracy", "ab", True)])
def test_losses_of_different_models_have_no_best(
    metric: str, models: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [trial(number, value=0.5, options={"model": model}) for number, model in enumerate(models)]
    live = LiveTable(2, Objective(metric=f"val/{metric}", better="min", unit=""))
    live.update(trials)
    assert ("best 0.5" in capsys.readouterr().out) == told
    assert ("best 0.5" in "\n".join(live.table(80, 24))) == told
