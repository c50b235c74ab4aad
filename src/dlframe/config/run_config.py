"""The checked config of one run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlframe.config.choices import LISTS, OPTIONS
from dlframe.config.settings import Checkpoint, Run, Tracking, Trainer, settings
from dlframe.registry import GROUPS, Entry
from dlframe.registry.parameters import Parameter
from dlframe.types import DataSpec, Metric, declared

STORE_VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's environment variable of a store, which counts where no option names one."""
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
"""MLflow's environment variable of an experiment, which counts where no option names one."""


@dataclass(frozen=True)
class Config:
    """The checked config of a run.

    Attributes:
        values: Plain values, defaults filled in; all else is read from them.
        overrides: What was typed, as "key=value".
        notes: What was left out, in sentences.
    """

    values: dict[str, Any]
    overrides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def typed(self) -> set[str]:
        """The keys whose values were typed: one that refers to another option may have its value from a file."""
        return {text.partition("=")[0] for text in self.overrides if "${" not in text}

    @cached_property
    def run(self) -> Run:
        """Options of the run that belong to no group."""
        return Run(**{key: self.values[key] for key in settings.get("run").parameters})

    @cached_property
    def trainer(self) -> Trainer:
        """Options of Lightning's Trainer."""
        return Trainer(**self.values["trainer"])

    @cached_property
    def tracking(self) -> Tracking:
        """Where the run is tracked."""
        return Tracking(**self.values["tracking"])

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """When the training is saved."""
        return Checkpoint(**self.values["checkpoint"])

    def changed(self, **values: Any) -> Config:
        """The same config with other values: of an option, of some options of a group (`trainer={"devices": 2}`), of a list."""
        for key, new in values.items():
            if isinstance(new, Mapping) and key not in LISTS:
                values[key] = {**self.values[key], **new}
        return Config({**self.values, **values}, self.overrides, self.notes)

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """(group, name) of each chosen component, in the order of the groups."""
        several = {group: self.values[group].values() for group in LISTS}
        return [(group, own["name"]) for group in GROUPS for own in several.get(group, [self.values.get(group)]) if own]

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the model declares, in the order in which they are updated."""
        return self.entry("model").facts["networks"]

    @property
    def metrics(self) -> dict[str, Metric]:
        """How each metric of the task is read, and each that was added."""
        added = [GROUPS["metric"].get(options["name"]) for options in self.values["metric"].values()]
        keys = ("better", "low", "high", "unit")
        return declared(self.entry("task").facts["metrics"] | {e.name: {key: e.facts[key] for key in keys} for e in added})

    @property
    def compiles(self) -> bool:
        """Whether the model is compiled: with `compile=auto` on GPUs only."""
        return self.trainer.accelerator == "gpu" if self.run.compile == "auto" else self.run.compile

    @property
    def experiment(self) -> str:
        """The experiment in the tracker."""
        return self.run.experiment_name or os.environ.get(EXPERIMENT_VARIABLE) or self.values["task"]["name"]

    @property
    def headline(self) -> str:
        """The metric that heads the table."""
        return self.values["task"].get("headline") or self.entry("task").facts["headline"]

    def options(self) -> dict[str, Parameter]:
        """The options of the run, the trainer, ..., that belong to no component, by key."""
        own = settings.get("run").parameters
        return own | {f"{group}.{name}": p for group in OPTIONS for name, p in settings.get(group).parameters.items()}

    def entry(self, group: str) -> Entry:
        """The chosen entry of a group that holds one."""
        return GROUPS[group].get(self.values[group]["name"])

    def build(self, group: str, **injected: Any) -> Any:
        """The chosen entry of a group, built."""
        return GROUPS[group].build(self.values[group], **injected)

    def build_model(self, spec: DataSpec, *, restored: bool = False) -> Any:
        """The chosen model.

        Args:
            spec: What the data is like.
            restored: A checkpoint follows, so options `weights` and `vectors`, which say what to start from, are "none".
        """
        options = self.values["model"]
        if restored and "vectors" in options:
            options = {**options, "vectors": "none"}
        if restored and "weights" in options:
            size = {"image_size": size} if (size := self.input_size) else {}  # which may depend on the weights
            options = {**options, **size, "weights": "none"}
        task: Any = GROUPS["task"].factory(self.values["task"]["name"])
        if hasattr(task, "model_spec"):
            chosen = {name: value for name, value in self.values["task"].items() if name != "name"}
            spec = task.model_spec(spec, networks=self.networks, **chosen)
        return GROUPS["model"].build(options, spec=spec)

    @property
    def input_size(self) -> int | None:
        """Height and width of the images that the model expects; None if it takes any.

        A model that states `sized=True` has an option `image_size`, and a static method `input_size(**options)`.
        """
        if not self.entry("model").facts["sized"]:
            return None
        return GROUPS["model"].factory(self.values["model"]["name"]).input_size(**self.values["model"])  # type: ignore[attr-defined]

    @property
    def subwords(self) -> tuple[str, int] | None:
        """Source of the sub-words that the model reads, and the most of a text; None if it reads any tokens.

        A model that states `subwords=True` has a static method `reads(**options)`.
        """
        if not self.entry("model").facts["subwords"]:
            return None
        return GROUPS["model"].factory(self.values["model"]["name"]).reads(**self.values["model"])  # type: ignore[attr-defined]

    def build_list(self, group: str, **injected: Any) -> list[Any]:
        """The chosen entries of a group of many, built in order."""
        return [GROUPS[group].build(options, **injected) for options in self.values[group].values()]

    @property
    def title(self) -> str:
        """Model and data in a few words: the run's default name."""
        return self.run.run_name or f"{self.values['model']['name']}-{self.values['data']['name']}"

    @property
    def monitor(self) -> str:
        """The metric that picks the best epoch, as it is logged: "val/accuracy"."""
        return self.run.monitor or f"val/{self.entry('task').facts['monitor'] or self.headline}"
