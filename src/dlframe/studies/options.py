"""Options of a study: how trials are chosen, ended early and run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from dlframe.config import check_name, load_options, names, plugin_paths
from dlframe.config.overrides import typed_values
from dlframe.registry import REGISTRIES, STUDY_GROUPS, Count, Natural, NonNegative, plugins
from dlframe.storage import trials as storage
from dlframe.types import ConfigError, nearest

DEFAULTS = {"sampler": "tpe", "pruner": "none", "executor": "local"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep, beside those of its runs and of its sampler, pruner and executor.

    Args:
        trials: Number of trials, those of earlier calls included.
        workers: Processes that work at the same time.
        name: Name of the sweep; empty for one that follows from what is searched.
        vectorize: Trials that one worker takes at a time. Those that differ only in the seed and in numbers of the optimizer
            train as one stacked model, if a measurement at their start says that it is faster.
        extend: Go on with a sweep whose space, search or plugins have changed.
        retry: Run failed trials again.
        reuse: Take a finished run of the same config, data and packages from the folder of runs, instead of training it again.
        storage: "journal" for a file in the folder of the sweep, or postgresql://USER@HOST:PORT/DATABASE for machines that
            share no storage fit for locks. The password is read from PGPASSWORD or the file that PGPASSFILE names.
    """

    trials: Count = 20
    workers: Count = 1
    name: str = ""
    vectorize: Count = 1
    extend: bool = False
    retry: bool = False
    reuse: bool = False
    storage: str = storage.JOURNAL


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a sweep searches, whatever its sampler.

    Args:
        objectives: What is compared: metrics of the validation split (val/accuracy), `parameters` (trainable ones), `latency`
            (milliseconds for one sample) or `seconds` (of the run); empty for the metric that selects the best epoch. Several
            give the trials that no other one beats in all of them.
        seed: Seed of the sampler.
        seeds: Seeds of a trial: further ones are trained only while the trial can still be the best.
        fresh_seeds: Seeds with which the best trial is trained again at the end. The best of many values is too good on
            average; that of fresh seeds is not.
        max_failures: Failed trials after which the sweep stops.
        timeout: Seconds after which a trial is ended as failed; 0 for none. Trials then run in worker processes.
    """

    objectives: tuple[str, ...] = ()
    seed: Annotated[int, Interval(ge=0, le=2147483647)] = 0
    seeds: Annotated[int, Interval(ge=1, le=100)] = 1
    fresh_seeds: Annotated[int, Interval(ge=0, le=100)] = 3
    max_failures: Natural = 10
    timeout: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a command that runs a study was given: the options of the study, and those of its runs.

    Attributes:
        options: Of the study.
        search: Of the search.
        components: Group -> name and options of its sampler, pruner and executor.
        overrides: The other arguments: of the runs.
        typed: The study's own arguments, as they were typed.
    """

    options: Options
    search: Search
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()

    def build(self, group: str, **injected: Any) -> Any:
        """Build the chosen sampler, pruner or executor."""
        return REGISTRIES[group].build(self.components[group], **injected)


def read(command: str, arguments: Sequence[str]) -> Arguments:
    """Read the options of a study from the arguments of a command.

    Raises:
        ConfigError: An option is unknown or invalid.
    """
    plugins.discover(plugin_paths(next((t.partition("=")[2] for t in arguments if _key(t) == "plugin_paths"), "null")))
    own = {f.name for f in fields(Options)}
    typed = [text for text in arguments if _part(text) in (*own, *STUDY_GROUPS, "search")]
    texts = [*_preset([text for text in typed if _key(text) == "search"], typed), *typed]
    components = {}
    for group, registry in STUDY_GROUPS.items():
        name = next((t.partition("=")[2] for t in reversed(texts) if _key(t) == group), DEFAULTS[group])
        check_name(group, name, registry.entries)
        parameters = {f"{group}.{option}": p for option, p in registry.get(name).parameters.items()}
        values = typed_values(command, parameters, [t for t in texts if _key(t).startswith(f"{group}.")])
        components[group] = {"name": name, **{key.partition(".")[2]: value for key, value in values.items()}}
    given = Arguments(
        options=load_options(command, Options, [t for t in texts if _key(t) in own]),
        search=load_options(command, Search, [t for t in texts if _key(t).startswith("search.")], "search."),
        components=components,
        overrides=tuple(text for text in arguments if text not in typed),
        typed=tuple(typed),
    )
    storage.check(given.options.storage)
    several = len(given.search.objectives) > 1
    if several and given.components["pruner"]["name"] != "none":
        raise ConfigError("pruner: must be none where search.objectives names several.", "pruner")
    if several and given.search.seeds > 1:
        raise ConfigError("search.seeds: must be 1 where search.objectives names several.", "search.seeds")
    facts = REGISTRIES["sampler"].get(components["sampler"]["name"]).facts
    if several and facts["objectives"] != "many":
        fitting = [entry.name for entry in REGISTRIES["sampler"] if entry.facts["objectives"] == "many"]
        name = components["sampler"]["name"]
        raise ConfigError(f"sampler={name}: takes one objective. Choose from: {', '.join(fitting)}.", "sampler")
    return given


def _key(text: str) -> str:
    return text.partition("=")[0].strip()


def _part(text: str) -> str:
    return _key(text).partition(".")[0]


def _preset(chosen: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Return the options of `search=NAME`, a YAML file, that are not typed as well."""
    from dlframe.config.yaml_files import read as read_yaml

    if not chosen:
        return []
    name = chosen[-1].partition("=")[2]
    check_name("search", name, names("search"))
    file = Path(names("search")[name])
    keys = {_key(text) for text in typed}
    found = []
    for group, content in read_yaml(file).items():
        if group not in ("sampler", "pruner", "search"):
            # An executor or a storage has an address, which is for the command line to name.
            hint = nearest(group, ["sampler", "pruner", "search"])
            raise ConfigError(f"{file}: {group}: must be sampler, pruner or search.{hint}", group)
        options = content if isinstance(content, dict) else {"name": content}
        if group in keys and group != "search":
            continue
        for option, value in options.items():
            key = group if option == "name" and group != "search" else f"{group}.{option}"
            text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
            found += [f"{key}={text}"] if key not in keys else []
    return found
