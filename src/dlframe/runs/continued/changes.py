"""Runs that are trained further with other options: what is refused, and what their folder keeps of the change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlframe.config import Config, load_saved
from dlframe.runs.continued.options import MAY_CHANGE, Changes, changes, described, is_among
from dlframe.runs.journal import read
from dlframe.runs.recorder import states
from dlframe.runs.run_directory import FREE, RESULT, flat, read_overrides, write_config
from dlframe.storage import checkpoint
from dlframe.types import ConfigError, quoted


def is_continued(folder: Path) -> bool:
    """Return whether a run was trained further with other options, and so is not what its first config gives."""
    return any(record["kind"] == "start" and "continued" in record for record in read(folder))


def is_named(config: Config, folder: Path) -> bool:
    """Return whether the config names this run as the one to continue."""
    return config.run.resume not in ("auto", "none", "") and Path(config.run.resume) == folder


@dataclass(frozen=True)
class Continuation:
    """A run that is trained further with other options.

    Attributes:
        changes: What differs from its config.
        step: Step of the checkpoint from which it continues.
        epochs: Whole epochs that it has behind it.
    """

    changes: Changes
    step: int
    epochs: int

    @classmethod
    def of(cls, config: Config, folder: Path) -> Continuation | None:
        """Return what is changed in the run that the config names; None without a change.

        Raises:
            ConfigError: Other options differ than those that may, or nothing is left to train.
        """
        if not is_named(config, folder):
            return None
        before = dict(flat(load_saved(folder / "config.yaml", config.run.plugin_paths).values))
        found = {k: v for k, v in changes(before, dict(flat(config.values))).items() if k.split(".")[0] not in FREE}
        for key, (there, here) in sorted(found.items(), key=lambda item: not item[0].endswith(".name")):
            is_round = key == "validate_every" and config.run.validate_unit == "steps"  # what a state counts
            if is_round or not is_among(key, MAY_CHANGE):
                rule = "a run is continued with other epochs, learning rate, scheduler, batch size, devices or logging only"
                new = f"For a new run with its weights: {quoted(f'initial_checkpoint={folder}')}"
                raise ConfigError(f"resume: {key} is {there!r} in {folder} and {here!r} here; {rule}. {new}", key)
        if not found:
            return None
        if not (kept := states(folder)):
            raise ConfigError(f"resume: {folder} has no checkpoint to continue from, with {described(found)}.", "resume")
        facts = checkpoint.read_facts(kept[0], folder)
        if not isinstance(facts.get("options"), dict):
            rule = f"{kept[0]} does not say with which options it was trained, as those of earlier versions"
            raise ConfigError(f"resume: {rule}. Try: {quoted(f'initial_checkpoint={folder}')}", "resume")
        step, epochs = (value if type(value := facts.get(name)) is int else 0 for name in ("step", "epoch"))
        if not config.trainer.max_steps and config.run.epochs <= epochs:
            rule = f"must be more than the {epochs} that {folder} has behind it"
            raise ConfigError(f"epochs: {rule}. Received: {config.run.epochs}. Try: epochs={2 * epochs}", "epochs")
        return cls(found, step, epochs)

    @property
    def tags(self) -> dict[str, Any]:
        """What the tracker shows: parameters of a run never change there."""
        return {"continued.from_step": self.step, "continued.changes": described(self.changes)}

    def write(self, config: Config, folder: Path) -> None:
        """Write what is typed and chosen now into the run's folder; a result is that of a run that has ended."""
        (folder / RESULT).unlink(missing_ok=True)
        write_config(config.values, overrides(config, folder), folder)


def overrides(config: Config, folder: Path) -> tuple[str, ...]:
    """Return the overrides of a command that would train the run, as it is continued, from its beginning."""
    if not is_named(config, folder):
        return config.overrides
    typed = {text.partition("=")[0]: text for text in config.overrides}
    merged = {text.partition("=")[0]: text for text in read_overrides(folder)} | typed
    return tuple(text for key, text in merged.items() if key != "resume")
