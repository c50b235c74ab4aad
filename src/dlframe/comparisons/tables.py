"""The tables: for each task, the models that are declared for it, on its default data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlframe.config import check_name, load, names
from dlframe.config.yaml_files import read as read_yaml
from dlframe.registry import GROUPS, plugins
from dlframe.types import ConfigError, nearest

ALL = "all"
"""Every table."""
RUN = ("epochs", "batch_size")
"""Options of a run that a table may set, beside those of components."""


@dataclass(frozen=True)
class Table:
    """What a table compares.

    Attributes:
        name: Its name, of a task preset or a file `conf/table/NAME.yaml`.
        overrides: Options of its runs: the task, and the models, separated by commas.
        metrics: Metrics that it shows; the first one is tested. None for the headline of the runs.
    """

    name: str
    overrides: tuple[str, ...]
    metrics: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its name as words."""
        return self.name.replace("_", " ")


def known() -> list[str]:
    """Return the names of all tables: of the files `conf/table/NAME.yaml`, and the task presets whose data need no option."""
    plugins.discover()
    declared = names("table")
    return sorted({*declared, *(name for name in names("task", files_only=True) if name in declared or _is_complete(name))})


def chosen(asked: Sequence[str]) -> list[Table]:
    """Return the tables that are asked for; "all" stands for every one.

    Raises:
        ConfigError: There is no such table, one is named twice, or its file is wrong.
    """
    every = known()
    if ALL in asked and len(asked) > 1:
        raise ConfigError(f"tables: must be all, or names. Received both: {', '.join(asked)}.", "tables")
    for name in asked:
        if name not in (*every, ALL):
            raise ConfigError(f"tables: no such table. Received: {name!r}.{nearest(name, [*every, ALL])}", "tables")
        if asked.count(name) > 1:
            raise ConfigError(f"tables: must be given once. Received: {name} twice.", "tables")
    return [_read(name) for name in (every if ALL in asked else asked)]


def _is_complete(preset: str) -> bool:
    """Return whether a preset can be trained as it is; one that is broken is a table too, whose failure is told."""
    try:
        load([f"task={preset}"])
    except ConfigError as error:
        return not error.key.startswith("data")  # such as data.path, which is the user's
    return True


def _read(name: str) -> Table:
    """Read the file of a table; without one, its models are the preset's and those that train no network."""
    if name not in (files := names("table")):
        try:
            return Table(name, (f"task={name}", f"model={','.join(_models(name))}"))
        except ConfigError:  # told where it is trained
            return Table(name, (f"task={name}",))
    file = Path(files[name])
    values = read_yaml(file)
    metrics, rest = values.pop("metrics", []), {"task": name, **values}
    if not isinstance(metrics, list) or not all(isinstance(metric, str) for metric in metrics):
        raise ConfigError(f"{file}: metrics: must be names of metrics. Received: {metrics!r}.", "metrics")
    overrides = []
    for key, value in rest.items():
        if key.partition(".")[0] not in (*GROUPS, *RUN):
            # Places and code are for the command line to name.
            hint = nearest(key, [*GROUPS, *RUN, "metrics"])
            raise ConfigError(f"{file}: {key}: must be metrics, {', '.join(RUN)}, or of a component.{hint}", key)
        if isinstance(value, dict) or value is None or value == []:
            raise ConfigError(f"{file}: {key}: must be a value, or a list of values. Received: {value!r}.", key)
        listed = isinstance(value, list)
        texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in (value if listed else [value])]
        # A list with a single value varies too: an option that only one of the models has.
        overrides.append(f"{key}={','.join(texts)}" if len(texts) > 1 or not listed else f"{key}=choice({texts[0]})")
    for text in overrides:
        if text.startswith("task="):
            check_name("task", text.partition("=")[2], names("task"))
    return Table(name, tuple(overrides), tuple(metrics))


def _models(preset: str) -> list[str]:
    """Return the model of a preset, and those that fit and are rules or closed forms, which take little time."""
    config = load([f"task={preset}"])
    own = str(config.values["model"]["name"])
    found = [own]
    for entry in GROUPS["model"]:
        if not entry.facts["networks"] and entry.name != own:
            try:
                other = load([f"task={preset}", f"model={entry.name}"])
            except ConfigError:
                continue
            if other.values["task"]["name"] == config.values["task"]["name"]:  # not that of the model
                found.append(entry.name)
    return found


def overrides_of(table: Table, typed: Sequence[str]) -> list[str]:
    """Return the options of the runs of a table; those that are typed replace its own.

    Raises:
        ConfigError: Another task is typed.
    """
    keys = {key: value for key, _, value in (text.partition("=") for text in typed)}
    if "task" in keys:
        raise ConfigError(f"task: a table has its own. Received: {keys['task']}. Try: tables={keys['task']}", "task")
    return [*(text for text in table.overrides if text.partition("=")[0] not in keys), *typed]


def check_data(overrides: Sequence[str]) -> None:
    """Read the data of a table before its runs do, of which each would fail.

    Raises:
        DlframeError: They are missing, or a package that they need.
    """
    from dlframe.jobs.data import load_data
    from dlframe.studies import options
    from dlframe.studies.space import space_of

    typed = options.read("compare", overrides).overrides  # without those of the grid, such as workers
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, ImportError):  # told by the runs
        load_data(next(iter(space_of(typed, default=False).configs.values())))
