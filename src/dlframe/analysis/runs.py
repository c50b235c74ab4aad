"""Finished runs, and which of them are the seeds of one model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlframe.config.yaml_files import read as read_yaml
from dlframe.runs.recorder import read_metadata
from dlframe.runs.resume import UNCOUNTED
from dlframe.runs.run_directory import RESULT, flat, read_file, read_result
from dlframe.types import ConfigError, DataError, Result, is_printable, nearest, printable

UNCOMPARED = {*UNCOUNTED, "seed"}
"""Options in which the runs of one model may differ."""
SPLIT = "data.split_seed"
"""Option of data that draws another split; runs of one model may differ in it too."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Its directory.
        options: Its options by dotted key, "model.width".
        result: Its result.
        data: Name of its data.
        fingerprint: Of its data.
        parameters: Number of trained parameters; 0 where it is unknown.
        train: Number of training samples; 0 where it is unknown.
        form: The inputs as the model reads them, in words: "image 1x32x32"; empty of a run of the first versions.
        basis: What is the same of its data in any form: their options, split, sizes and classes.
    """

    folder: Path
    options: Mapping[str, Any]
    result: Result
    data: str
    fingerprint: str
    parameters: int
    train: int = 0
    form: str = ""
    basis: str = ""

    def shares_data(self, other: Run) -> bool:
        """Return whether the data are the same, or at least the same in another form, such as images of another size."""
        return self.fingerprint == other.fingerprint or (self.form != other.form and self.basis == other.basis)

    @property
    def seed(self) -> Any:
        """The seed, as text."""
        return self.options.get("seed", "")

    @property
    def model(self) -> tuple[tuple[str, str], ...]:
        """What makes it a run of this model and not of another: all options but the seed."""
        counted = {key: json.dumps(value) for key, value in self.options.items() if _is_compared(key)}
        return tuple(sorted(counted.items()))


@dataclass(frozen=True)
class Model:
    """The runs of one model, or rather of one training procedure, which differ in their seeds.

    Attributes:
        label: What tells it from the others.
        runs: Its runs.
    """

    label: str
    runs: tuple[Run, ...]


def _is_compared(key: str) -> bool:
    return key.split(".")[0] not in UNCOMPARED and key != SPLIT


def read_run(folder: Path) -> Run:
    """Read a finished run, which may be somebody else's.

    Raises:
        ConfigError: The folder is no run, or the run has not ended.
        DataError: It is damaged.
    """
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise ConfigError(f"compare: no such run. Received: '{printable(str(folder))}'.{nearest(folder.name, beside)}")
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"compare: {folder} is no run directory. Give directories such as runs/cnn-digits-20260131-120000")
    if not (folder / RESULT).exists():
        raise ConfigError(f"compare: the run in {folder} has not ended. Resume it, or leave it out")
    try:
        options = dict(flat(read_yaml(folder / "config.yaml", inside=folder)))
        facts = json.loads(read_file(folder, "data.json"))
        data, fingerprint, train = facts["name"], facts["fingerprint"], int(facts.get("train", 0))
        form = ", ".join(f"{name} {'x'.join(map(str, field['shape']))}" for name, field in facts.get("inputs", {}).items())
        classes = {name: (field["kind"], field["names"]) for name, field in facts.get("targets", {}).items()}
        sizes = [facts.get(key) for key in ("splits", "train", "validation", "test")]
        own = {key: value for key, value in options.items() if key.startswith("data.")}
        if not all(is_printable(text) for text in (data, fingerprint, form)):
            raise ValueError("invalid names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder}: is damaged: {' '.join(str(error).split())[:200]}") from None
    result = read_result(folder)
    if result.limited:
        raise ConfigError(f"compare: {folder} is limited to a part of the data ({result.limited}) and has no place in a table")
    parameters = int(read_metadata(folder, "parameters") or 0)
    basis = json.dumps([data, own, sizes, classes], sort_keys=True)
    return Run(folder, options, result, data, fingerprint, parameters, train, form, basis)


def models_of(runs: Sequence[Run]) -> list[Model]:
    """Return the models of runs on one data set, in the order of their first runs.

    Raises:
        ConfigError: Two runs of one model have the same seed.
    """
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        same = found.setdefault(run.model, [])
        if any(run.folder.resolve() == other.folder.resolve() for other in same):
            continue  # it was named twice
        if run.result.is_random and any(run.seed == other.seed for other in same):
            other = next(other for other in same if other.seed == run.seed)
            raise ConfigError(f"compare: {run.folder} and {other.folder} are the same model with the same seed. Leave one out")
        same.append(run)
    labels = _labels([same[0].options for same in found.values()])
    return [Model(label, tuple(same)) for label, same in zip(labels, found.values(), strict=True)]


def _labels(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the name of each model, with the options that tell it from others of that name."""
    names = [str(options.get("model.name", "model")) for options in models]
    labels = []
    for options, name in zip(models, names, strict=True):
        alike = [other for other, its in zip(models, names, strict=True) if its == name]
        keys = {key for other in alike for key in (*other, *options)}
        varied = sorted(key for key in keys if _is_compared(key) and len({str(o.get(key)) for o in alike}) > 1)
        # The name of a component says it without its options.
        chosen = {key.removesuffix(".name") for key in varied if key.endswith(".name")}
        varied = [key for key in varied if key.endswith(".name") or not any(key.startswith(f"{group}.") for group in chosen)]
        told = [f"{key.removesuffix('.name')}={options[key]}" for key in varied if key in options]
        labels.append(printable(" ".join([name, *told])))
    if repeated := [label for label, count in Counter(labels).items() if count > 1]:
        places = Counter[str]()
        for i, label in enumerate(labels):
            if label in repeated:
                places[label] += 1
                labels[i] = f"{label} ({places[label]})"
    return labels
