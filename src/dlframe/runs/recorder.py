"""Recorders of metrics, best weights and checkpoints during training."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config
from dlframe.runs.continued.options import changeable
from dlframe.runs.journal import Journal, read
from dlframe.runs.signals import Signals
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, say

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"
BEST = Path(FOLDER, "best.safetensors")


Watch = Callable[[int, Mapping[str, float]], None]
"""Sees epochs done, and the metrics of the validation after them."""


class Recorder:
    """Base class for run recorders, which records nothing.

    Args:
        signals: Signals of the process.
    """

    folder: Path | None = None
    """Run directory; None without one."""

    def __init__(self, signals: Signals | None = None) -> None:
        self.signals = signals or Signals()

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the values of metrics at an optimizer step."""

    def validated(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of the validation after `epoch` epochs."""

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Save the weights of the best epoch so far."""

    def best_weights(self) -> Mapping[str, Tensor] | None:
        """Return the best weights if they are only in memory."""
        return None

    def save_top(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any], kept: Sequence[int]) -> None:
        """Save the weights of one of the best epochs; of those saved so, keep only the ones after the steps `kept`."""

    def should_save(self, step: int, epoch: int) -> bool:
        """Return whether to save a checkpoint after these steps and epochs."""
        return False

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Save a checkpoint; `facts` holds "step" and "epoch"."""

    def latest_checkpoint(self) -> Path | None:
        """Return the checkpoint to resume from; None to start."""
        return None

    def tell(self, note: str) -> None:
        """Print a note on how the training differs from what one may expect."""

    def keep(self, name: str, lines: Sequence[str]) -> None:
        """Keep a file of the run directory as an artifact, and print what is to be said of it."""

    def show(self, line: str) -> None:
        """Print what belongs to the opening of a run."""

    def save_metadata(self, name: str, value: int) -> None:
        """Save a value for processes that resume the run."""

    def load_metadata(self, name: str) -> int | None:
        """Return a saved value; None without one."""
        return None


class InMemoryRecorder(Recorder):
    """Recorder of the best weights, in memory."""

    weights: Mapping[str, Tensor] | None = None

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        # Copies, since training changes the weights.
        self.weights = {
            # Other values than tensors are the extra state of a module.
            name: value.detach().to("cpu", copy=True) if hasattr(value, "detach") else copy.deepcopy(value)
            for name, value in weights.items()
        }

    def best_weights(self) -> Mapping[str, Tensor] | None:
        return self.weights


class RunRecorder(InMemoryRecorder):
    """Recorder of a run in its directory.

    The best weights are written with the next checkpoint, which refers to them: writing them at every best epoch would cost
    too much for short epochs. If a disk is full, a warning is printed once and writing is retried later; training
    continues, and earlier checkpoints stay valid.

    Args:
        config: Config of the run.
        folder: Run directory.
        journal: Journal of the run.
        signals: Signals of the process.
        watch: Sees the metrics of each validation; may end the run by `RunPruned`.
    """

    folder: Path

    def __init__(self, config: Config, folder: Path, journal: Journal, signals: Signals, watch: Watch | None = None) -> None:
        super().__init__(signals)
        self.watch = watch
        self.folder = folder
        self.journal = journal
        self.options = config.checkpoint
        self.trained_with = changeable(config.values)
        self.names = {group: config.values[group]["name"] for group in ("model", "task")}
        self.started = time.monotonic()
        self.step = 0
        """Optimizer steps at the last checkpoint."""
        self._epoch = 0
        self._time = self.started
        self._best: dict[str, Any] | None = None
        self._facts: dict[str, Any] = {}
        self._failed = False

    @property
    def seconds(self) -> float:
        """Wall time of the run, including earlier processes."""
        return time.monotonic() - self.started

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.journal.metrics(step, metrics)

    def validated(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if self.watch:
            self.watch(epoch, metrics)

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().save_best(weights, facts)
        self._facts = {"kind": "best", **self.names, **facts}

    def write_best(self, *, is_last: bool = False) -> None:
        """Write the best weights, unless already written.

        Raises:
            CheckpointError: They cannot be written, and `is_last`: nothing writes them later.
        """
        if self.weights is None:
            return
        try:
            checksum = checkpoint.save(self.folder / BEST, self.weights, self._facts)
        except CheckpointError as error:
            if is_last:
                raise
            self._warn(error)
            return
        self._best = {"step": self._facts["step"], "sha256": checksum}
        self.weights = None

    def save_top(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any], kept: Sequence[int]) -> None:
        top = {step: self.folder / FOLDER / f"top-{step:09d}.safetensors" for step in kept}
        try:
            checkpoint.save(top[facts["step"]], weights, {"kind": "best", **self.names, **facts})
        except CheckpointError as error:
            self._warn(error)
            return
        for old in (self.folder / FOLDER).glob("top-*.safetensors"):
            if old not in top.values():
                old.unlink(missing_ok=True)

    def best_weights(self) -> Mapping[str, Tensor] | None:
        self.write_best()
        return self.weights

    def should_save(self, step: int, epoch: int) -> bool:
        """Return whether an interval has passed; of steps and epochs a multiple, also after resuming."""
        minutes, options = self.options.every_n_minutes, self.options
        if minutes and time.monotonic() - self._time >= 60 * minutes:
            return True
        counts = ((options.every_n_epochs, self._epoch, epoch), (options.every_n_steps, self.step, step))
        return any(every and now // every > last // every for every, last, now in counts)

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        if self.write(tree, facts):
            self.prune()

    def write(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
        """Save a checkpoint beside the earlier ones; return whether it is written."""
        self._epoch, self._time = facts["epoch"], time.monotonic()
        step = self.step = facts["step"]
        self.write_best()
        if self.weights is not None or not self.journal.sync():
            return False  # a checkpoint requires its best weights and metrics on disk
        facts = {
            "kind": "state",
            **self.names,
            "options": self.trained_with,
            "best": self._best,
            "seconds": self.seconds,
            "journal": self.journal.size,
            **facts,
        }
        try:
            checkpoint.save(state_of(self.folder, step), tree, facts)
        except CheckpointError as error:
            self._warn(error)
            return False
        self._failed = False
        return True

    def prune(self) -> None:
        """Remove the oldest checkpoints."""
        for old in states(self.folder)[self.options.max_to_keep :]:
            old.unlink(missing_ok=True)

    def _warn(self, error: CheckpointError) -> None:
        if not self._failed:
            say(f"warning: {str(error).rstrip('.')}. Training continues; earlier checkpoints are valid.", error=True)
        self._failed = True

    def tell(self, note: str) -> None:
        say(f"note: {note}", error=True)

    def keep(self, name: str, lines: Sequence[str]) -> None:
        if (self.folder / name).is_file():
            self.journal.write("artifact", path=name, to="")
        say(*lines)

    def show(self, line: str) -> None:
        say(line)

    def save_metadata(self, name: str, value: int) -> None:
        self.journal.write("note", name=name, value=value)

    def load_metadata(self, name: str) -> int | None:
        return read_metadata(self.folder, name)

    def latest_checkpoint(self, step: int | None = None) -> Path | None:
        """Return the latest valid checkpoint, or that of a step; warn about damaged ones."""
        for name in (".state-*.part", ".best.*.part", ".top-*.part"):
            for unfinished in (self.folder / FOLDER).glob(name):
                unfinished.unlink(missing_ok=True)  # of a process killed while writing
        for path in states(self.folder):
            if step not in (None, step_of(path)):
                continue
            try:
                tree, facts = checkpoint.load(path, self.folder)
                self._check_facts(path, facts)
            except CheckpointError as error:
                say(f"warning: {error} Using an earlier checkpoint, if any.", error=True)
                continue
            self._best = facts["best"]
            self.step, self._epoch, self._time = facts["step"], facts["epoch"], time.monotonic()
            self.started -= facts["seconds"]
            if (lost := facts.get("journal", 0) - self.journal.found) > 0:
                what = f"lost {lost:,} bytes of records that {path.name} counts on: earlier metrics are missing"
                say(f"warning: {self.journal.path}: {what}", error=True)
            progress = tree.get("progress")
            is_done = isinstance(progress, dict) and progress.get("done") is True
            say(f"resumed from step {self.step:,}, {'the end of training' if is_done else f'epoch {self._epoch + 1}'}")
            return path
        return None

    def _check_facts(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Raise `CheckpointError` if the facts of a state are not what `write` saves, or its best weights are missing."""
        best = facts.get("best", {})
        counts = [
            facts.get("step"),
            facts.get("epoch"),
            facts.get("journal", 0),
            *([best.get("step")] if isinstance(best, dict) else []),
        ]
        seconds = facts.get("seconds")
        is_time = isinstance(seconds, (int, float)) and 0 <= seconds < 2**53
        if not (is_time and all(type(count) is int and count >= 0 for count in counts) and isinstance(best, dict | None)):
            raise CheckpointError(f"{path}: the checkpoint is damaged: its facts are not those of a state.")
        if best:
            step = checkpoint.load(self.folder / BEST, self.folder)[1].get("step")
            if type(step) is not int or step < best["step"]:
                raise CheckpointError(f"{path}: requires newer weights than {BEST.name} has.")


def states(folder: Path) -> list[Path]:
    """Return the checkpoints of a run directory, the latest first."""
    return sorted((folder / FOLDER).glob("state-*.safetensors"), reverse=True)


def state_of(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint after a step."""
    return folder / FOLDER / f"state-{step:09d}.safetensors"


def step_of(path: Path) -> int:
    """Return the step of a checkpoint, which its name tells."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def read_metadata(folder: Path, name: str) -> int | None:
    """Return the last saved value of a name; None without one."""
    values = [record.get("value") for record in read(folder) if record["kind"] == "note" and record.get("name") == name]
    return values[-1] if values and isinstance(values[-1], int) else None
