"""Weights of an earlier run that a new one begins with: found, compared with the model, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dlframe.config import Config
from dlframe.config.yaml_files import read
from dlframe.runs import run_directory
from dlframe.runs.recorder import BEST, FOLDER
from dlframe.storage import checkpoint
from dlframe.tasks.base import Task
from dlframe.types import CheckpointError, ConfigError, nearest

KEY = "initial_checkpoint"
LISTED = 4
"""Tensors that a line names at most."""


@dataclass(frozen=True)
class Source:
    """A checkpoint to begin with, which may be somebody else's.

    Attributes:
        file: The checkpoint.
        folder: The run that it belongs to; None for a file elsewhere.
    """

    file: Path
    folder: Path | None

    @classmethod
    def of(cls, config: Config) -> Source:
        """Return the checkpoint that the config names.

        Raises:
            ConfigError: There is none, or the model has no weights that are trained.
            CheckpointError: It is damaged, or of another model or task.
        """
        given = config.run.initial_checkpoint
        model = config.values["model"]["name"]
        if not config.networks:
            raise ConfigError(f"{KEY}: model={model} learns without gradients, and has no weights to begin with.", KEY)
        source = cls._found(given)
        facts = checkpoint.read_facts(source.file, source.folder)
        if facts.get("model") != model:
            raise CheckpointError(
                f"{KEY}: {source.file} is of another model: must be '{model}'. Received: '{facts.get('model')}'."
            )
        task, theirs = config.entry("task"), facts.get("task")
        if theirs not in (None, task.name, task.facts["extends"]):
            raise CheckpointError(f"{KEY}: {source.file} is of another task: must be '{task.name}'. Received: '{theirs}'.")
        return source

    @classmethod
    def _found(cls, given: str) -> Source:
        path = Path(given).expanduser()
        if path.is_dir():
            if (path / BEST).is_file():
                return cls(path / BEST, path)
        elif path.exists():
            run = path.parent.parent
            return cls(path, run if path.parent.name == FOLDER and (run / "config.yaml").is_file() else None)
        beside = [other.name for other in path.parent.glob("*/") if (other / BEST).is_file()]
        hint = nearest(path.name, beside)
        raise ConfigError(f"{KEY}: must be a run directory with {BEST}, or a checkpoint. Received: '{given}'.{hint}", KEY)

    def described(self) -> dict[str, Any]:
        """Return what the new run keeps of it: file, SHA-256, model, task, step; of a run the fingerprint of its data."""
        facts = checkpoint.read_facts(self.file, self.folder)
        own = {name: facts[name] for name in ("model", "task", "step") if isinstance(facts.get(name), (str, int))}
        data = {"data": run_directory.read_data(self.folder).fingerprint} if self.folder else {}
        return {"file": str(self.file.resolve()), "sha256": checkpoint.sha256(self.file, self.folder), **own, **data}


@dataclass(frozen=True)
class Match:
    """What a model takes from a checkpoint.

    Attributes:
        taken: Tensors by their name in the model.
        new: Those of the model that begin anew, each with the reason.
        left: Names of those that the model does not have.
    """

    taken: dict[str, Tensor]
    new: dict[str, str]
    left: list[str]

    @classmethod
    def of(cls, model: nn.Module, weights: Mapping[str, Any]) -> Match:
        """Compare names, shapes and kinds of numbers. Extra state is fitted to data, and each run fits its own."""
        theirs = {name.removeprefix("model."): tensor for name, tensor in weights.items() if name.startswith("model.")}
        theirs, own = ({name: t for name, t in each.items() if isinstance(t, Tensor)} for each in (theirs, model.state_dict()))
        new = {}
        for name, tensor in own.items():
            if (other := theirs.get(name)) is None:
                new[name] = "not there"
            elif other.shape != tensor.shape:
                new[name] = f"{_sides(other)} there, {_sides(tensor)} here"
            elif other.is_floating_point() != tensor.is_floating_point():
                new[name] = f"{other.dtype} there, {tensor.dtype} here"
        return cls(
            taken={name: theirs[name] for name in own if name not in new},
            new=new,
            left=[name for name in theirs if name not in own],
        )

    @property
    def is_same_network(self) -> bool:
        """Whether at least half of the tensors match; counters, which match in any network, do not count."""
        taken = sum(tensor.ndim > 0 for tensor in self.taken.values())
        return taken > 0 and 2 * taken >= taken + len(self.new)

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} of {len(self.taken) + len(self.new)} tensors"]
        if self.new:
            parts.append("new: " + _listed([f"{name} ({why})" for name, why in self.new.items()]))
        if self.left:
            parts.append("left out: " + _listed(self.left))
        return "; ".join(parts)


def load(task: Task, config: Config) -> str:
    """Load the weights of the checkpoint that the config names into the model of a task; return what was loaded, in words.

    Raises:
        ConfigError: There is no such checkpoint.
        CheckpointError: It is damaged, or another model's.
    """
    source = Source.of(config)
    match = matched(task, config, source)
    task.model.load_state_dict(match.taken, strict=False)
    return f"{KEY}: {match}; from {source.file}{_other_classes(task, source)}"


def _other_classes(task: Task, source: Source) -> str:
    """Return what to say of a head that fits though it was trained on other classes."""
    theirs = run_directory.read_data(source.folder).classes if source.folder else {}
    for name, field in task.spec.targets.items():
        if (names := theirs.get(name)) and len(names) == len(field.names) and names != field.names:
            were, are = _listed([*names]), _listed([*field.names])
            return f"; the head of {len(names)} classes is taken over, which were {were}, and are {are}"
    return ""


def matched(task: Task, config: Config, source: Source) -> Match:
    """Return what the model of a task takes from a checkpoint.

    Raises:
        CheckpointError: It is that of another network.
    """
    match = Match.of(task.model, checkpoint.weights(source.file))
    if not match.is_same_network:
        name = config.values["model"]["name"]
        raise CheckpointError(
            f"{KEY}: {source.file} has another network than this model={name}: {match}.{_hint(config, source)}"
        )
    return match


def _hint(config: Config, source: Source) -> str:
    """Return the options with which the model would be the one of the run."""
    theirs = read(source.folder / "config.yaml", inside=source.folder).get("model") if source.folder else None
    own = config.values["model"]
    others = (
        [f"model.{key}={theirs[key]}" for key in own if key in theirs and theirs[key] != own[key]]
        if isinstance(theirs, dict)
        else []
    )
    return f" Try: {' '.join(others)}" if others else ""


def _sides(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
