"""The trials of a study while they run: a table on a terminal, a line for each that has ended in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from dlframe.types import Objective, Screen, TrialRecord, best_of, duration, say

ROWS = 12
"""Most trials in the table: those that run, and the last that have ended."""
ALWAYS = 24
"""Columns that the number, the state and the spaces of a row take."""


class LiveTable:
    """Trials of a study while they run.

    On a terminal, a table of the trials that run and those that have just ended is drawn again in place; failures stay above
    it. Elsewhere, each trial that has ended is told in one line.

    Args:
        total: Number of trials to do, those of earlier calls included.
        objective: First objective.
        before: Trials that earlier calls have done, which are not told again.
    """

    def __init__(self, total: int, objective: Objective, *, before: Iterable[TrialRecord] = ()) -> None:
        self.total = total
        self.objective = objective
        self.told = {record.number for record in before if record.state != "running"}
        self.before = len(self.told)
        self.started = time.monotonic()
        self.records: list[TrialRecord] = []
        self.screen = Screen() if Screen.available() else None

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Show where the study stands.

        Args:
            records: All trials of the study.
        """
        self.records = sorted(records, key=lambda record: record.number)
        ended = [record for record in self.records if record.state != "running"]
        new = [record for record in ended if record.number not in self.told]
        best: TrialRecord | None = None
        if not self.screen and new:
            best = self._best(record for record in ended if record.number in self.told)
        for record in new:
            self.told.add(record.number)
            if not self.screen:
                best = self._best([*filter(None, [best]), record]) or best
                say(self._line(record, best))
            elif record.state == "failed":
                say(f"trial {record.number} failed: {record.failure or 'no reason given'}: {_options(record)}")
        if self.screen:
            self.screen.draw(self.table(*self.screen.size()))

    def close(self) -> None:
        """End the table; what it shows stays."""
        if self.screen:
            self.screen.close()

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def table(self, columns: int, rows: int) -> list[str]:
        """Return the lines of the table.

        Args:
            columns: Columns of the terminal; options are cut, or left out where there are few.
            rows: Rows of the terminal.
        """
        running = [record for record in self.records if record.state == "running"]
        ended = [record for record in self.records if record.state != "running"]
        room = max(min(ROWS, rows - 5), 1)
        kept = max(room - len(running), min(3, room // 2))
        recent = ended[max(len(ended) - kept, 0) :]
        shown = sorted([*recent, *running[: room - len(recent)]], key=lambda record: record.number)
        counts = {state: sum(r.state == state for r in self.records) for state in ("running", "pruned", "failed")}
        done = f"{len(ended)} of {self.total} trials done{self._left(', ')}"
        lines = [", ".join([done, *(f"{n} {state}" for state, n in counts.items() if n)])]
        values = [_value(record, self.objective) for record in shown]
        name = self.objective.metric
        width = max([len(name) if columns > 60 else min(len(name), 12), *map(len, values)])
        name = name if len(name) <= width else f"…{name[1 - width :]}"
        options = columns - ALWAYS - width > 12
        lines.append(f"{'trial':>5}  {'state':<8}  {name:>{width}}" + "  options" * options)
        for record, value in zip(shown, values, strict=True):
            lines.append(
                f"{record.number:>5}  {record.state:<8}  {value:>{width}}" + f"  {_options(record, brief=True)}" * options
            )
        if len(shown) < len(running) + len(recent):
            lines.append(f"       and {len(running) + len(recent) - len(shown)} more running")
        if best := self._best(self.records):
            lines.append(f"best {self.objective.read.text(best.values[0])}, trial {best.number}: {_options(best, brief=True)}")
        return lines

    def _best(self, records: Iterable[TrialRecord]) -> TrialRecord | None:
        """Return the best trial; None for losses of different models, each of which has a scale of its own."""
        models = {record.options.get("model") for record in self.records}
        is_loss = self.objective.metric.rpartition("/")[2] == "loss"
        return None if is_loss and len(models) > 1 else best_of(records, self.objective)

    def _left(self, before: str) -> str:
        """Return the time left, from the trials that have ended since the start: "about 3 min left"."""
        done = len(self.told) - self.before
        remaining = self.total - len(self.told)
        seconds = (time.monotonic() - self.started) / max(done, 1) * remaining
        return f"{before}about {duration(seconds)} left" if done and seconds >= 1 else ""

    def _line(self, record: TrialRecord, best: TrialRecord | None) -> str:
        what = self.objective.read.text(record.values[0]) if record.state == "complete" and record.values else record.state
        failure = f": {record.failure}" if record.failure else ""
        said = f", best {self.objective.read.text(best.values[0])} (trial {best.number})" if best else ""
        head = f"[{len(self.told)}/{self.total}] trial {record.number}: {_options(record)}: "
        return f"{head}{what}{failure}{said}{self._left('; ')}"


def _value(record: TrialRecord, objective: Objective) -> str:
    """Return the value of a trial; the last that it has reported, and after which epoch, while there is none."""
    if record.state == "complete":
        return objective.read.text(record.values[0] if record.values else math.nan)
    if record.reported:
        epoch, value = record.reported[-1]
        return f"{objective.read.text(value)} at {epoch}"
    return "-"


def _options(record: TrialRecord, *, brief: bool = False) -> str:
    return " ".join(f"{key}={brief_number(value) if brief else value}" for key, value in record.options.items())


def brief_number(text: str) -> str:
    """Return a number with four digits, and any other text as it is."""
    try:
        return f"{float(text):.4g}" if len(text) > 7 and "." in text else text
    except ValueError:
        return text
