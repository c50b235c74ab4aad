"""What a training tells while it goes on, and what a run keeps of it on disk: metrics, best weights, states to go on from."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config
from dlframe.runs.journal import Journal, read
from dlframe.runs.signals import Signals
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"
BEST = Path(FOLDER, "best.safetensors")


class Recorder:
    """What a learner tells and asks while it trains. This one keeps nothing and asks for nothing but to heed signals.

    Args:
        signals: Those of the process.
    """

    def __init__(self, signals: Signals | None = None) -> None:
        self.signals = signals or Signals()

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the values that metrics have at an optimizer step."""

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take the weights of an epoch that is the best so far."""

    def best_weights(self) -> Mapping[str, Tensor] | None:
        """The best weights, where they are in memory only."""
        return None

    def should_save(self, step: int, epoch: int) -> bool:
        """Whether the state is to be saved, so many optimizer steps and whole epochs after the beginning."""
        return False

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Take the state of the training: `facts` holds "step" and "epoch"."""

    def latest_checkpoint(self) -> Path | None:
        """The state to go on from; None to begin."""
        return None

    def save_metadata(self, name: str, value: int) -> None:
        """Take what was found out at the beginning, for a process that goes on with the run."""

    def load_metadata(self, name: str) -> int | None:
        """What was noted."""
        return None


class InMemoryRecorder(Recorder):
    """Keeps the best weights, in memory."""

    weights: Mapping[str, Tensor] | None = None

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        # Copies, for training goes on to change the weights.
        self.weights = {
            # What is no tensor is the extra state of a module.
            name: value.detach().to("cpu", copy=True) if hasattr(value, "detach") else copy.deepcopy(value)
            for name, value in weights.items()
        }

    def best_weights(self) -> Mapping[str, Tensor] | None:
        return self.weights


class RunRecorder(InMemoryRecorder):
    """Keeps a run in its folder.

    The best weights are written with the next state, which counts on them: to write them at each epoch that is the best so
    far would cost more than a short epoch may. What cannot be written, because a disk is full, is said once and tried again
    at the next occasion: training goes on, and the checkpoints before are whole.

    Args:
        config: What runs.
        folder: The run's folder.
        journal: Its journal.
        signals: Those of the process.
    """

    def __init__(self, config: Config, folder: Path, journal: Journal, signals: Signals) -> None:
        super().__init__(signals)
        self.folder = folder
        self.journal = journal
        self.options = config.checkpoint
        self.model = config.values["model"]["name"]
        self.started = time.monotonic()
        self.step = 0
        """Optimizer steps at the last state."""
        self._epoch = 0
        self._time = self.started
        self._best: dict[str, Any] | None = None
        self._facts: dict[str, Any] = {}
        self._failed = False

    @property
    def seconds(self) -> float:
        """Wall time of the run, that of earlier processes up to their last state included."""
        return time.monotonic() - self.started

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.journal.metrics(step, metrics)

    def save_best(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().save_best(weights, facts)
        self._facts = {"kind": "best", "model": self.model, **facts}

    def write_best(self) -> None:
        """Write the best weights, unless they are written."""
        if self.weights is None:
            return
        try:
            checksum = checkpoint.save(self.folder / BEST, self.weights, self._facts)
        except CheckpointError as error:
            self._warn(error)
            return
        self._best = {"step": self._facts["step"], "sha256": checksum}
        self.weights = None

    def best_weights(self) -> Mapping[str, Tensor] | None:
        self.write_best()
        return self.weights

    def should_save(self, step: int, epoch: int) -> bool:
        """In steps and in epochs: at every multiple, wherever a run was stopped and continued."""
        every = self.options.every
        if not every:
            return False
        if self.options.unit == "minutes":
            return time.monotonic() - self._time >= 60 * every
        now, last = (step, self.step) if self.options.unit == "steps" else (epoch, self._epoch)
        return now // every > last // every

    def save(self, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self._epoch, self._time = facts["epoch"], time.monotonic()
        step = self.step = facts["step"]
        self.write_best()
        if self.weights is not None or not self.journal.sync():
            return  # a state must not outrun the best weights and the metrics that it counts on
        facts = {"kind": "state", "model": self.model, "best": self._best, "seconds": self.seconds, **facts}
        try:
            checkpoint.save(self.folder / FOLDER / f"state-{step:09d}.safetensors", tree, facts)
        except CheckpointError as error:
            self._warn(error)
            return
        self._failed = False
        for old in states(self.folder)[self.options.keep :]:
            old.unlink(missing_ok=True)

    def _warn(self, error: CheckpointError) -> None:
        if not self._failed:
            print(f"warning: {error} Training goes on; the checkpoints before are whole.", file=sys.stderr, flush=True)
        self._failed = True

    def save_metadata(self, name: str, value: int) -> None:
        self.journal.write("note", name=name, value=value)

    def load_metadata(self, name: str) -> int | None:
        return read_metadata(self.folder, name)

    def latest_checkpoint(self) -> Path | None:
        """The newest state that is whole; damaged ones are named and passed over."""
        for unfinished in (self.folder / FOLDER).glob(".*"):
            unfinished.unlink(missing_ok=True)  # of a process that was killed while it wrote
        for path in states(self.folder):
            try:
                _, facts = checkpoint.load(path)
                self._check_best(path, facts["best"])
            except CheckpointError as error:
                print(f"warning: {error} An earlier state is used, if there is one.", file=sys.stderr, flush=True)
                continue
            self._best = facts["best"]
            self.step, self._epoch, self._time = facts["step"], facts["epoch"], time.monotonic()
            self.started -= facts["seconds"]
            print(f"goes on after step {self.step:,}, in epoch {self._epoch + 1}", flush=True)
            return path
        return None

    def _check_best(self, path: Path, best: Mapping[str, Any] | None) -> None:
        """A `CheckpointError` where the best weights that a state counts on are gone. Later ones will be made again."""
        if best and checkpoint.load(self.folder / BEST)[1]["step"] < best["step"]:
            raise CheckpointError(f"{path}: counts on better weights than {BEST.name} has.")


def states(folder: Path) -> list[Path]:
    """The training states in a run folder, the newest first."""
    return sorted((folder / FOLDER).glob("state-*.safetensors"), reverse=True)


def read_metadata(folder: Path, name: str) -> int | None:
    """What a run noted last under a name."""
    values = [record.get("value") for record in read(folder) if record["kind"] == "note" and record.get("name") == name]
    return values[-1] if values and isinstance(values[-1], int) else None
