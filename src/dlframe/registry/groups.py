"""Config groups, and the components that a source file registers."""

from __future__ import annotations

import math
from pathlib import Path

from dlframe.registry.entries import Entry, Registry
from dlframe.registry.sources import Call, Source
from dlframe.types import RegistrationError

tasks = Registry(
    "task",
    injected=("spec", "model"),
    facts={
        "targets": ("class",),
        "requires": (),
        "scores": (),
        "metrics": {"loss": {"better": "min"}},
        "headline": "loss",
        "monitor": "",
        "trained_on": "all",
        "extends": "",
        "scoring": (),
        "sample": {},
    },
)
models = Registry(
    "model",
    injected=("spec",),
    facts={
        "inputs": ("image",),
        "targets": ("class",),
        "requires": (),
        "task": "",
        "networks": ("model",),
        "unlabeled": False,
        "sized": False,
        "subwords": False,
        "scoring": (),
        "sample": {},
    },
)
data = Registry(
    "data",
    optional=("spec",),
    facts={"inputs": ("image",), "targets": ("class",), "files": ("any",), "tasks": {}, "sample": {}},
)
augmentations = Registry("augmentation", injected=("spec",), facts={"inputs": ("image",), "targets": (), "sample": {}})
optimizers = Registry("optimizer", injected=("params",), required=("lr",))
schedulers = Registry("scheduler", injected=("optimizer", "steps"))
callbacks = Registry("callback")
metrics = Registry(
    "metric",
    injected=("spec",),
    facts={"scores": (), "better": "max", "low": -math.inf, "high": math.inf, "unit": "", "form": ""},
)

samplers = Registry("sampler", injected=("seed", "number"), facts={"objectives": "one", "exhaustive": False})
pruners = Registry("pruner", injected=("epochs",))
executors = Registry("executor")

CHOICES = ("trainer", "tracking", "experiment")
"""Groups of a run that hold only YAML files."""
STUDY_CHOICES = ("search", "table")
"""Groups of a study that hold only YAML files."""

_VARIABLES: dict[str, Registry] = {
    "tasks": tasks,
    "models": models,
    "data": data,
    "augmentations": augmentations,
    "optimizers": optimizers,
    "schedulers": schedulers,
    "callbacks": callbacks,
    "metrics": metrics,
    "samplers": samplers,
    "pruners": pruners,
    "executors": executors,
}

STUDY_GROUPS: dict[str, Registry] = {registry.group: registry for registry in (samplers, pruners, executors)}
"""Groups of a study, which a run does not have."""
GROUPS: dict[str, Registry] = {r.group: r for r in _VARIABLES.values() if r.group not in STUDY_GROUPS}
"""Groups of a run."""
REGISTRIES = {**GROUPS, **STUDY_GROUPS}


def read_source(path: Path, *, brief: bool = False) -> list[tuple[Registry, Entry]]:
    """Parse a Python file for the components that it registers.

    Args:
        path: Python file.
        brief: Skip what registrations do not need, in a quarter of the time: for files that are known to be read alike so.

    Raises:
        RegistrationError: The file cannot be parsed, or components are invalid: all of them are named.
    """
    registrations, faults = Source(path, brief=brief).registrations(_VARIABLES)
    found = []
    for r in registrations:
        registry = _VARIABLES[r.variable]
        try:
            if isinstance(r, Call):
                entry = registry.read_adoption(*r.read(), r.where)
            else:
                entry = registry.read_registration(r)
        except RegistrationError as error:
            faults.append(str(error))
        else:
            found.append((registry, entry))
    if faults:
        raise RegistrationError("; ".join(faults))
    return found
