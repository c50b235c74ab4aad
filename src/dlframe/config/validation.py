"""A config checked whole before anything is built: names, types, ranges, and what fits what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlframe.config.choices import LISTS, NESTED, OPTIONS, check_name, known_keys, names, unknown
from dlframe.config.devices import check_machine, gpus_here
from dlframe.config.run_config import Config
from dlframe.config.settings import settings
from dlframe.registry import CHOICES, GROUPS, Entry
from dlframe.registry.parameters import place
from dlframe.storage.known import is_known, sqlite_file, store_uri
from dlframe.types import ConfigError, command_line, nearest, shortened


def check(values: Mapping[str, Any], overrides: tuple[str, ...] = ()) -> Config:
    """A composed config, or one that was saved, checked whole: names, types, ranges, and what fits what.

    Raises:
        ConfigError: As `load`.
    """
    run_options = settings.get("run").parameters
    for key in values:
        if key not in (*run_options, *NESTED):
            raise unknown(str(key), known_keys())
    for group in NESTED:
        if not isinstance(options := values.get(group, {}), Mapping):
            hint = (
                f" An entry is chosen in the defaults list: - override /{group}: {options}"
                if isinstance(options, str) and group in (*GROUPS, *CHOICES)
                else ""
            )
            raise ConfigError(f"{group}: must hold options. Received: {options!r}.{hint}", group)
        if group in GROUPS and group not in LISTS:
            if "name" not in options:
                raise _not_chosen(group, values)
            check_name(group, options["name"], GROUPS[group].entries)
    run = {key: value for key, value in values.items() if key in run_options}
    checked: dict[str, Any] = {key: p.check(run.get(key, p.default), key) for key, p in run_options.items()}
    for group in OPTIONS:
        entry, options = settings.get(group), values.get(group, {})
        for option in options:
            if option not in entry.parameters:
                raise unknown(f"{group}.{option}", entry.parameters, group)
        checked[group] = entry.check(options, group)
    check_no_secret(checked["tracking"]["uri"])
    check_registered(checked["register"], tracked=checked["tracking"]["uri"] != "none")
    if checked["trainer"]["accelerator"] == "auto":
        checked["trainer"]["accelerator"] = "gpu" if gpus_here() else "cpu"
    for group, registry in GROUPS.items():
        if group not in LISTS:
            entry = registry.get(values[group]["name"])
            own_task = GROUPS["model"].get(values["model"]["name"]).facts["task"] if group == "task" else ""
            if own_task and own_task not in (entry.name, entry.facts["extends"]):
                entry = registry.get(own_task)
            checked[group] = {"name": entry.name} | entry.check(values[group], group)
            continue
        checked[group] = {}
        for name, options in values.get(group, {}).items():
            if not isinstance(options, Mapping) or "name" not in options:
                name = str(name)  # in a stranger's file it may be anything
                chosen = ",".join(str(n) for n, o in values[group].items() if isinstance(o, Mapping) and "name" in o)
                raise ConfigError(
                    f"{group}.{name}: '{name}' is not among the chosen: [{chosen}]. "
                    f"Try: {group}=[{','.join(filter(None, (chosen, name)))}]",
                    f"{group}.{name}",
                )
            check_name(group, options["name"], registry.entries, f"{group}.{name}")
            entry = registry.get(options["name"])
            checked[group][name] = {"name": entry.name} | entry.check(options, f"{group}.{name}")
    checked["networks"] = _networks(values.get("networks", {}), checked)
    data = checked["data"]
    for option in GROUPS["data"].get(data["name"]).facts["files"]:
        if isinstance(data.get(option), str):
            data[option] = _place(f"data.{option}", data[option])
    config = Config(checked, overrides)
    _fits(config)
    return config


def _place(key: str, path: str) -> str:
    """Return a path in the one form in which configs have it, see `place`."""
    try:
        return place(path)
    except ValueError as error:
        raise ConfigError(f"{key}: must be {error}. Received: {shortened(path, 100)!r}.", key) from None


def _not_chosen(group: str, values: Mapping[str, Any]) -> ConfigError:
    """What to choose of a group that a task without a recipe leaves open."""
    task = values.get("task", {})
    entry = GROUPS["task"].entries.get(str(task.get("name"))) if isinstance(task, Mapping) else None
    known = [*GROUPS[group]] if group in GROUPS else []
    if entry and group in ("data", "model"):
        takes = set(entry.facts["targets"])
        known = [other for other in known if set(entry.facts["requires"]) <= set(other.facts["targets"]) & takes]
    known.sort(key=lambda other: (other.facts.get("trained_on", "all") != "all", other.name))  # the usual ones first
    fitting = [other.name for other in known] or sorted(names(group))
    what = f" task={entry.name} takes: {', '.join(fitting)}." if entry and group in ("data", "model") else ""
    return ConfigError(f"{group}: none is chosen.{what} Try: {group}={fitting[0]}", group)


def _networks(networks: Mapping[str, Any], checked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of the optimizer for one network of the model each."""
    model = checked["model"]["name"]
    known = GROUPS["model"].get(model).facts["networks"]
    optimizer = GROUPS["optimizer"].get(checked["optimizer"]["name"])
    for name, options in networks.items():
        key = f"networks.{name}"
        if name not in known:
            has = f"the networks {', '.join(known)}" if known else "no network that is trained by gradients"
            raise ConfigError(f"{key}: model={model} has {has}. Received: '{name}'.{nearest(str(name), known)}", key)
        if not isinstance(options, Mapping):
            raise ConfigError(f"{key}: must hold options of optimizer={optimizer.name}. Received: {options!r}.", key)
        if "name" in options:
            raise ConfigError(f"{key}.name: all networks have one optimizer. Try: optimizer={options['name']}", f"{key}.name")
        optimizer.check({**checked["optimizer"], **options}, key)
    return {name: dict(options) for name, options in networks.items()}


def check_no_secret(uri: str, key: str = "tracking.uri") -> None:
    """Refuse an address that holds a user's secret, since a run keeps and shows its config; `key` says where it was given."""
    scheme, _, rest = uri.lower().strip().partition("://")
    user, _, _ = rest.rpartition("@")
    rule = f"{key}: must hold no user name, password or token, as a run keeps its config."
    if scheme in ("http", "https") and re.search(r"[@?#]", rest):
        told = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise ConfigError(f"{rule} Set {told} in the environment.", key)
    if (":" in user and scheme != "sqlite") or re.search(r"[?&;#][^=]*(pass|pwd|token|secret|key|auth|cred)", rest):
        told = "from its own environment or file (PGPASSWORD, ~/.pgpass, ~/.my.cnf)"
        raise ConfigError(f"{rule} A database's driver reads the password {told}.", key)


def check_registered(name: str, *, tracked: bool = True) -> None:
    """Refuse a name of a registered model that MLflow does not take, NAME or NAME@ALIAS, and one without a tracker.

    Raises:
        ConfigError: See above.
    """
    own, at, alias = name.partition("@")
    if name and (not re.fullmatch(r"\w([\w .+=-]{0,198}[\w.+=-])?", own)):
        rule = "a name begins with a letter or digit, and has these, spaces and '_.+=-'"
        raise ConfigError(f"register: must be NAME or NAME@ALIAS; {rule}. Received: {name!r}.", "register")
    if at and (not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE)):
        rule = "an alias has letters, digits, '_' and '-', and is not 'latest' or like 'v1'"
        raise ConfigError(f"register: {rule}. Received: {name!r}.", "register")
    if name and not tracked:
        raise ConfigError("register: requires a tracker. Received: tracking.uri=none.", "register")


def check_places(config: Config, packaged: str) -> None:
    """Refuse a store or a folder that only a file names: known ones and those in the current folder count.

    Args:
        config: A composed config.
        packaged: The store of a file of dlframe that was typed; empty where the store is none or in the folder of runs.

    Raises:
        ConfigError: A place is neither typed, nor known, nor in the current folder.
    """
    uri, runs, resume, typed = config.tracking.uri, config.run.runs, config.run.resume, config.typed
    database = sqlite_file(store_uri(uri))
    known = {
        "tracking.uri": uri in ("auto", "sqlite", "none", "", packaged)
        or is_known(store=store_uri(uri))
        or bool(database and _is_here(database)),
        "runs": runs == settings.get("run").parameters["runs"].default or _is_here(Path(runs)) or is_known(runs=runs),
        "resume": resume in ("none", "auto", "") or is_known(run=resume),
    }
    for key, value in {"tracking.uri": uri, "runs": runs, "resume": resume}.items():
        if not known[key] and key not in typed:
            command = command_line(*config.overrides, f"{key}={value}")
            where = "one that you have used" if key == "resume" else "one that you have used, or one in the current folder"
            what = {"tracking.uri": "store", "runs": "folder of runs", "resume": "run"}[key]
            raise ConfigError(f"{key}: of a file must be a {what} that you know: {where}. If you trust it: {command}", key)


def _is_here(path: Path) -> bool:
    """Return whether a path, without its links, is in the current folder."""
    try:
        return path.resolve().is_relative_to(Path.cwd().resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _fits(config: Config) -> None:
    """What fits what: model, task, augmentations and monitors to the data; the trainer to the machine."""
    data, model, task = (config.entry(group) for group in ("data", "model", "task"))
    augmentations = [GROUPS["augmentation"].get(options["name"]) for options in config.values["augmentation"].values()]
    for entry in (model, task, *augmentations):
        _fits_data(entry, data)
    if config.run.labels_per_class is not None and data.facts["targets"].count("class") != 1:
        has = ", ".join(data.facts["targets"]) or "no"
        raise ConfigError(
            f"labels_per_class: data={data.name} has {has} targets, and labels are kept of classes only.", "labels_per_class"
        )
    _check_metrics(config, task)
    logged = [f"val/{metric}" for metric in config.metrics]
    monitors = {"monitor": config.run.monitor} | {
        f"callback.{name}.monitor": options.get("monitor") for name, options in config.values["callback"].items()
    }
    for key, monitor in monitors.items():
        if monitor and monitor not in logged:
            hint = nearest(monitor, logged)
            raise ConfigError(f"{key}: must be a metric that task={task.name} logs. Received: '{monitor}'.{hint}", key)
    for name, options in config.values["callback"].items():
        metric = config.metrics.get(str(options.get("monitor") or config.monitor).removeprefix("val/"))
        if metric and options.get("mode") not in (None, metric.better):
            key = f"callback.{name}.mode"
            raise ConfigError(f"{key}: the metric is better at its {metric.better}. Received: '{options['mode']}'.", key)
    if config.run.batch_size == "auto" and (config.trainer.devices != 1 or config.trainer.num_nodes > 1):
        raise ConfigError(
            "batch_size: auto takes one process, as several would have to agree. Try: batch_size=64", "batch_size"
        )
    if config.trainer.max_steps:
        _check_max_steps(config)
    if not config.networks and config.trainer.devices != 1:
        raise ConfigError(f"trainer.devices: model={model.name} learns without gradients, in one process. Try: trainer=cpu")
    check_machine(config.trainer)


def _check_max_steps(config: Config) -> None:
    """Refuse a number of steps beside a number of epochs, or where epochs differ in length."""
    key = "trainer.max_steps"
    if "epochs" in config.typed:
        raise ConfigError(f"{key}: steps or epochs decide how long a run is. Leave one of them out: epochs or {key}.", key)
    if config.run.batch_elements:
        raise ConfigError(f"{key}: needs epochs of equal length, and batch_elements makes them differ. Try: epochs=N", key)


def _check_metrics(config: Config, task: Entry) -> None:
    """Refuse metrics that the task has, or that see scores which it does not give."""
    for name, options in config.values["metric"].items():
        key = f"metric.{name}"
        if name in task.facts["metrics"]:
            raise ConfigError(f"{key}: task={task.name} has this metric already.", key)
        needed = GROUPS["metric"].get(options["name"]).facts["scores"]
        if missing := [score for score in needed if score not in task.facts["scores"]]:
            has = ", ".join(task.facts["scores"]) or "none"
            raise ConfigError(f"{key}: needs the scores {', '.join(missing)}. task={task.name} gives: {has}.", key)


def _fits_data(entry: Entry, data: Entry) -> None:
    """Refuse what does not take the data's kinds of columns."""
    for role in ("inputs", "targets"):
        if not _takes(entry, data, role):
            fitting = [
                other.name for other in GROUPS["data"] if _takes(entry, other, "inputs") and _takes(entry, other, "targets")
            ]
            raise ConfigError(
                f"{entry.group}={entry.name}: takes {' or '.join(entry.facts[role])} {role}, but data={data.name} has "
                f"{' and '.join(data.facts[role]) or 'no'} {role}. Data that fit: {', '.join(fitting) or 'none'}."
            )


def _takes(entry: Entry, data: Entry, role: str) -> bool:
    """Whether an entry takes the data's kinds of columns: all of them, or for an augmentation of the inputs one."""
    if not (takes := set(entry.facts.get(role, ()))):
        return True
    has = set(data.facts[role])
    # Data with tasks by kind of target have one of the kinds, which only their file tells.
    some = (entry.group == "augmentation" and role == "inputs") or (role == "targets" and data.facts["tasks"])
    needs = set(entry.facts.get("requires", ())) if role == "targets" else set()
    return (bool(has & takes) if some else has <= takes) and needs <= has
