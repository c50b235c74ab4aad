"""What is uploaded of a study: the journal in its folder, and what its trials say of it in theirs."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlframe.runs import journal
from dlframe.runs.journal import Journal
from dlframe.types import ConfigError, Objective, TrialRecord, read_text

TRIAL = "trial.json"
"""File in the folder of a run that is a trial: its study, its number, its options."""


class StudyJournal:
    """Journal of a study, written by one of the processes that tell of it; the others' calls do nothing until it has ended.

    Args:
        folder: Folder of the study.
        objectives: What is compared.
        start: Fields of the record that begins or continues it.
    """

    def __init__(self, folder: Path, objectives: Sequence[Objective], start: Mapping[str, Any]) -> None:
        self.folder = folder
        self.objectives = objectives
        self.start = start
        self.journal: Journal | None = None
        self.told = -1
        """Ended trials of the last record."""

    def open(self) -> bool:
        """Begin to write, unless another process does; return whether this one did not and now does."""
        if self.journal or journal.being_written(self.folder):
            return False
        try:
            self.journal = Journal(self.folder)
        except ConfigError:  # another one was faster
            return False
        steps = [step for points in journal.history(self.folder).values() for step, _ in points]
        self.told = max(steps, default=0)
        self.journal.write("start", host=platform.node(), **self.start)
        return True

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Write the best values so far, over the number of trials that have ended."""
        ended = [record for record in records if record.state != "running"]
        if not self.journal or len(ended) <= self.told:
            return
        self.told = len(ended)
        found: dict[str, float] = {}
        for i, objective in enumerate(self.objectives):
            values = [value for record in ended if (value := record.value(i)) is not None]
            if values:
                found[f"best/{objective.metric}"] = max(values) if objective.better == "max" else min(values)
        if found:
            self.journal.metrics(len(ended), found)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Write values that the whole study has."""
        if self.journal:
            self.journal.metrics(max(self.told, 0), values)

    def artifact(self, path: str, to: str = "") -> None:
        """Have a file of the folder uploaded."""
        if self.journal:
            self.journal.write("artifact", path=path, to=to)

    def describe(self, text: str) -> None:
        """Have the run described, in Markdown."""
        if self.journal:
            self.journal.write("description", text=text)

    def end(self, status: str, message: str = "") -> None:
        """Write the end, and let go of the journal."""
        if self.journal:
            self.journal.write("end", status=status, message=message)
            self.journal.close()
            self.journal = None


def write_trial(folder: Path, *, study: str, trial: int, options: Sequence[str]) -> None:
    """Note in the folder of a run, before it begins, of which study it is a trial."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"study": study, "trial": trial, "options": " ".join(options)})
    (folder / TRIAL).write_text(text, encoding="utf-8")


def trial_of(folder: Path) -> dict[str, Any]:
    """Return the fields of a "start" by which a tracking store shows a run below its study: study and tags, or none."""
    try:
        found = json.loads(read_text(folder / TRIAL, 2**20, inside=folder))
        study, trial, options = found["study"], found["trial"], found["options"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {"study": study, "tags": {"dlframe.study": study, "dlframe.trial": trial, "dlframe.options": options}}
