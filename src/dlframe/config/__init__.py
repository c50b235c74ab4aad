"""Compose a config, check everything in it before anything is built, and say every error well.

Hydra composes the choices (YAML files and registered entries); values are then set and checked against the signatures.
Nothing in a config can name code: a key that no signature has is refused, wherever it came from.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlframe.config.devices import check_machine
from dlframe.config.settings import Checkpoint, Run, Tracking, Trainer, settings
from dlframe.registry import GROUPS, Entry, Registry, plugins
from dlframe.registry.parameters import REQUIRED, Parameter, parts
from dlframe.registry.renamed import new_name
from dlframe.types import ConfigError, DataSpec, Metric, declared, nearest

CHOICES = ("trainer", "tracking", "experiment")
"""Groups that hold only YAML files."""
VERBS = ("train", "test", "predict", "list", "show", "ui", "sync", "verify-resume")
LISTS = ("augmentation", "callback", "metric")
"""Groups of which a run takes any number, in order."""
OPTIONS = ("trainer", "tracking", "checkpoint")
"""Groups of options that belong to no entry."""
NESTED = (*GROUPS, *OPTIONS, "networks")
"""Keys that hold options."""


@dataclass(frozen=True)
class Config:
    """A checked config: plain values, defaults filled in."""

    values: dict[str, Any]
    run: Run
    trainer: Trainer
    tracking: Tracking
    checkpoint: Checkpoint
    overrides: tuple[str, ...] = ()

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
    def headline(self) -> str:
        """The metric that heads the table."""
        return self.values["task"].get("headline") or self.entry("task").facts["headline"]

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
            restored: A checkpoint follows, so an option `weights`, which says what to start from, is left at "none".
        """
        options = self.values["model"]
        if restored and "weights" in options:
            options = {**options, "weights": "none"}
        return GROUPS["model"].build(options, spec=spec)

    def build_list(self, group: str, **injected: Any) -> list[Any]:
        """The chosen entries of a group of many, built in order."""
        return [GROUPS[group].build(options, **injected) for options in self.values[group].values()]

    @property
    def title(self) -> str:
        """Model and data in a few words: the run's default name."""
        return self.run.name or f"{self.values['model']['name']}-{self.values['data']['name']}"

    @property
    def monitor(self) -> str:
        """The metric that picks the best epoch, as it is logged: "val/accuracy"."""
        return self.run.monitor or f"val/{self.entry('task').facts['monitor'] or self.headline}"


def folders() -> list[Path]:
    """Folders of YAML files, the user's first: it beats the packaged one."""
    package = Path(__file__).parent.parent
    packaged = package / "conf"
    if not packaged.is_dir():
        packaged = package.parent.parent / "conf"
    local = Path("conf")
    return [local, packaged] if local.is_dir() and local.resolve() != packaged.resolve() else [packaged]


def names(group: str) -> dict[str, str]:
    """The choices of a group: name -> where it comes from."""
    found = {}
    for folder in reversed(folders()):
        found |= {path.stem: str(path) for path in sorted((folder / group).glob("*.yaml")) if path.is_file()}
    if group == "task":  # a recipe comes before a class of its name
        return {entry.name: entry.origin for entry in GROUPS[group]} | found
    if group in GROUPS:
        found |= {entry.name: entry.origin for entry in GROUPS[group]}
    return found


LOCK = threading.RLock()
"""Held while a config is composed: Hydra and the registries are global to the process."""


def _alone(function: Callable[..., Config]) -> Callable[..., Config]:
    """Have one thread at a time load a config, so that each gets its own result and its own message."""

    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Config:
        with LOCK:
            return function(*args, **kwargs)

    return locked


@_alone
def load(overrides: Sequence[str]) -> Config:
    """The checked config of one run from command-line overrides ("model=cnn", "optimizer.lr=0.01"); of two of one key the last.

    Raises:
        ConfigError: An override or a YAML file names something unknown, or holds a value outside its range.
        RegistrationError: A plugin of `plugin_paths`, or one that the config chooses, is broken.
    """
    given = _given(overrides)
    plugins.discover(plugin_paths(given.get("plugin_paths", "null")))
    choices, assignments = _parse(given)
    for group, value in choices.items():
        for name in value if group in LISTS else [value]:
            if not (name is None and group == "experiment"):
                check_name(group, name, names(group))
    from dlframe.config.yaml_files import places

    try:
        values = _compose(choices)
        if "plugin_paths" in values:
            raise ConfigError("plugin_paths: code is named on the command line only, never in a file.", "plugin_paths")
        for key, value in assignments.items():
            _assign(values, key, value)
        config = check(_resolved(values), tuple(f"{key}={raw}" for key, raw in given.items()))
    except ConfigError as error:
        if error.key not in assignments and (place := places.get(error.key)):
            raise ConfigError(f"{place}: {error}", error.key) from None
        raise
    plugins.preload((group, config.values[group]["name"]) for group in GROUPS if group not in LISTS)
    plugins.preload((group, options["name"]) for group in LISTS for options in config.values[group].values())
    return config


@_alone
def load_saved(path: Path, plugin_paths: Sequence[str] = ()) -> Config:
    """The config that a run saved. It is data: plugins that it names are not loaded, those of `plugin_paths` are.

    Raises:
        ConfigError: There is none, it cannot be read, or this version of dlframe or its plugins do not know what it names.
    """
    from dlframe.config.yaml_files import read

    values = read(path)
    plugins.discover(plugin_paths)
    try:
        return check(values)
    except ConfigError as error:
        named = values.get("plugin_paths") if not plugin_paths else None
        hint = f" The run had plugins, which are code; if you trust them: plugin_paths={named}" if named else ""
        raise ConfigError(f"{path}: {error}{hint}", error.key) from None


def load_options(verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The checked options of a verb other than training, from "key=value" arguments.

    Raises:
        ConfigError: As `load`.
    """
    entry = settings.get(verb)
    values: dict[str, Any] = {}
    for text in arguments:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"{verb}: options are key=value. Received: {text!r}.")
        if key not in entry.parameters:
            raise _unknown(key, entry.parameters, verb)
        if key == "plugin_paths":
            values[key] = plugin_paths(raw)
        else:
            values[key] = _text(raw) if parts(entry.parameters[key].annotation)[0] is str else _value(key, raw)
    return {key: p.check(values.get(key, p.default), key) for key, p in entry.parameters.items()}


def store_uri(uri: str, runs: str) -> str:
    """The address of the tracking store: "sqlite" stands for a file in the folder of runs."""
    return f"sqlite:///{(Path(runs) / 'mlflow.db').resolve()}" if uri in ("", "sqlite") else uri


def _check_no_secret(uri: str) -> None:
    """Refuse an address that holds a user's secret, since a run keeps and shows its config."""
    scheme, _, rest = uri.lower().strip().partition("://")
    user, _, _ = rest.rpartition("@")
    rule = "tracking.uri: must hold no user name, password or token, as a run keeps its config."
    if scheme in ("http", "https") and re.search(r"[@?#]", rest):
        told = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise ConfigError(f"{rule} Set {told} in the environment.", "tracking.uri")
    if (":" in user and scheme != "sqlite") or re.search(r"[?&;#][^=]*(pass|pwd|token|secret|key|auth|cred)", rest):
        told = "from its own environment or file (PGPASSWORD, ~/.pgpass, ~/.my.cnf)"
        raise ConfigError(f"{rule} A database's driver reads the password {told}.", "tracking.uri")


def artifact_root(runs: str) -> str:
    """Where a store in the folder of runs keeps its artifacts."""
    return str((Path(runs) / "artifacts").resolve())


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The cells of a grid: the product of every override that lists several values ("model=cnn,rnn")."""
    given = _given(overrides)
    plugins.discover(plugin_paths(given.get("plugin_paths", "null")))
    axes = []
    for key, raw in given.items():
        text = f"{key}={raw}"
        if key == "plugin_paths":
            axes.append([text])
            continue
        try:
            override = _parser().parse_override(text)
        except Exception:
            if _is_text(key):
                axes.append([text])
                continue
            raise _unreadable(key, raw) from None
        if not override.is_sweep_override():
            axes.append([text])
            continue
        axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        if not axes[-1]:
            raise ConfigError(f"{text}: holds no value.", key)
    return [list(cell) for cell in itertools.product(*axes)]


def check(values: Mapping[str, Any], overrides: tuple[str, ...] = ()) -> Config:
    """A composed config, or one that was saved, checked whole: names, types, ranges, and what fits what.

    Raises:
        ConfigError: As `load`.
    """
    run_options = settings.get("run").parameters
    for key in values:
        if key not in (*run_options, *NESTED):
            raise _unknown(str(key), known_keys())
    for group in NESTED:
        if not isinstance(options := values.get(group, {}), Mapping):
            hint = (
                f" An entry is chosen in the defaults list: - override /{group}: {options}" if isinstance(options, str) else ""
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
                raise _unknown(f"{group}.{option}", entry.parameters, group)
        checked[group] = entry.check(options, group)
    _check_no_secret(checked["tracking"]["uri"])
    for group, registry in GROUPS.items():
        if group not in LISTS:
            own_task = GROUPS["model"].get(values["model"]["name"]).facts["task"] if group == "task" else ""
            entry = registry.get(own_task or values[group]["name"])
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
    config = Config(
        values=checked,
        run=Run(**{key: checked[key] for key in run_options}),
        trainer=Trainer(**checked["trainer"]),
        tracking=Tracking(**checked["tracking"]),
        checkpoint=Checkpoint(**checked["checkpoint"]),
        overrides=overrides,
    )
    _fits(config)
    return config


def _not_chosen(group: str, values: Mapping[str, Any]) -> ConfigError:
    """What to choose of a group that a task without a recipe leaves open."""
    task = values.get("task", {})
    entry = GROUPS["task"].entries.get(str(task.get("name"))) if isinstance(task, Mapping) else None
    known = [*GROUPS[group]] if group in GROUPS else []
    if entry and group in ("data", "model"):
        takes = set(entry.facts["targets"])
        known = [other for other in known if set(entry.facts["requires"]) <= set(other.facts["targets"]) & takes]
    fitting = sorted(other.name for other in known) or sorted(names(group))
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
    if config.run.batch_size == "auto" and (config.trainer.devices != 1 or config.trainer.num_nodes > 1):
        raise ConfigError(
            "batch_size: auto takes one process, as several would have to agree. Try: batch_size=64", "batch_size"
        )
    if not config.networks and config.trainer.devices != 1:
        raise ConfigError(f"trainer.devices: model={model.name} learns without gradients, in one process. Try: trainer=cpu")
    check_machine(config.trainer)


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
    """Refuse what does not take the data's kinds of columns: all of them, or for an augmentation of the inputs one."""
    for role in ("inputs", "targets"):
        if not (takes := entry.facts.get(role, ())):
            continue
        has = data.facts[role]
        some = entry.group == "augmentation" and role == "inputs"
        fits = bool(set(has) & set(takes)) if some else set(has) <= set(takes)
        if not fits or (role == "targets" and not set(entry.facts.get("requires", ())) <= set(has)):
            fitting = [other.name for other in GROUPS["data"] if set(other.facts[role]) <= set(takes)]
            raise ConfigError(
                f"{entry.group}={entry.name}: takes {' or '.join(takes)} {role}, but data={data.name} has "
                f"{' and '.join(has) or 'no'} {role}. Data that fit: {', '.join(fitting) or 'none'}."
            )


def _given(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value as it was typed, of several the last. Tells an unknown key before anything is read."""
    given: dict[str, str] = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            raise ConfigError(f"{text}: must be key=value, after the verb if there is one ({', '.join(VERBS)}).")
        if key.split(".")[0] not in (NESTED if "." in key else known_keys()):
            raise _unknown(key, known_keys())
        if re.search(r"[\x00-\x1f\x7f-\x9f]", raw):
            raise ConfigError(f"{key}: must hold no control characters. Received: {raw!r}.", key)
        given[key] = raw
    return given


def plugin_paths(raw: str) -> list[str]:
    """`plugin_paths`, which are needed before anything else can be understood. One may stand without brackets."""
    value = _value("plugin_paths", raw) if raw.startswith("[") else _text(raw)
    return [] if value is None else [str(item) for item in value] if isinstance(value, list) else [value]


def _parse(given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices of groups, and values by dotted key."""
    choices: dict[str, Any] = {}
    assignments: dict[str, Any] = {}
    for key, raw in given.items():
        if key in GROUPS or key in CHOICES:
            # What has none of these signs is a name, and Hydra's parser, which takes its time to load, is not needed.
            value = _value(key, raw) if set(raw) & set(",[]{}()") else _text(raw)
            choices[key] = _names(key, value) if key in LISTS else value
            if key not in LISTS and isinstance(value, list):
                hint = f" Try: {key}={value[0]}" if value else ""
                raise ConfigError(f"{key}: takes one entry, for all networks. Received: {raw}.{hint}", key)
        elif key == "plugin_paths":
            assignments[key] = plugin_paths(raw)
        else:
            assignments[key] = _text(raw) if _is_text(key) else _value(key, raw)
    return choices, assignments


def _names(group: str, value: Any) -> list[Any]:
    """The names that a list of entries is chosen by."""
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{group}: must be a list of names. Received: {value}.", group)
    if len(set(names)) < len(names):
        raise ConfigError(f"{group}: takes each name once. Received: [{', '.join(names)}].", group)
    return names


def _value(key: str, raw: str) -> Any:
    """What Hydra's grammar makes of a value: a number, a bool, null, a list, a text."""
    try:
        override = _parser().parse_override(f"{key}={raw}")
    except Exception:
        raise _unreadable(key, raw) from None
    if override.is_sweep_override():
        raise ConfigError(
            f"{key}={raw}: several values make a grid, which needs -m. Try: python -m dlframe -m {key}={raw}", key
        )
    value = override.value()
    return list(value) if isinstance(value, (list, tuple)) else value


def _unreadable(key: str, raw: str) -> ConfigError:
    hint = "Quote each text in a list" if raw.startswith("[") else f"To have it as text: {key}='\"{raw}\"'"
    return ConfigError(f"{key}: cannot be read as a value. Received: {raw}. {hint}", key)


@functools.cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _parameters(key: str) -> list[Parameter]:
    """Every option that `key` may stand for, whatever is chosen in its group."""
    *path, option = key.split(".")
    entries: list[Entry] = []
    if not path:
        entries = [settings.get("run")]
    elif path[0] in GROUPS:
        entries = list(GROUPS[path[0]])
    elif path[0] in OPTIONS:
        entries = [settings.get(path[0])]
    return [entry.parameters[option] for entry in entries if option in entry.parameters]


def _is_text(key: str) -> bool:
    """Whether a value of `key` is text, which is taken as it stands: paths with "=", spaces, quotes."""
    kinds = {parts(p.annotation)[0] for p in _parameters(key)}
    return kinds == {str}


def _text(raw: str) -> str | None:
    if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "'\"":
        return raw[1:-1]
    return None if raw == "null" else raw


def check_name(group: str, name: Any, among: Iterable[str], key: str = "") -> None:
    """Raises a `ConfigError` with the nearest where `name` is not among those of its group."""
    if isinstance(name, str) and name in among:
        return
    name = "null" if name is None else name
    hint = nearest(str(name), among)
    hint += "".join(f" Plugin '{plugin}' is left out: {why}." for plugin, why in plugins.broken.items())
    raise ConfigError(f"{group}={name}: no such {group}.{hint} See: python -m dlframe list {group}", key or group)


def _compose(choices: Mapping[str, Any]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from dlframe.config import yaml_files

    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        for entry in registry:
            folder = "task/class" if group == "task" else group
            store.store(group=folder, name=entry.name, node={"name": entry.name}, package=group)
    recipes = {path.stem for folder in folders() for path in (folder / "task").glob("*.yaml")}
    for task in GROUPS["task"]:
        if task.name in recipes:
            continue
        # A task without a recipe places itself; data and model are for the command line or an experiment to choose.
        placed = [{"/task/class@task": task.name}, {"/data": None}, {"/model": None}]
        store.store(group="task", name=task.name, node={"defaults": placed}, package="_global_")
    Plugins.instance().register(yaml_files.YamlFolder)
    Plugins.instance().register(yaml_files.SearchPath)
    yaml_files.SearchPath.folders = folders()
    yaml_files.places.clear()
    overrides = [f"{group}={_quoted(value)}" for group, value in choices.items() if group not in LISTS]
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings(), initialize_config_dir(config_dir=str(folders()[-1]), version_base="1.3"):
            warnings.simplefilter("ignore")  # Hydra's advice on `_self_`
            composed = compose("config", overrides=overrides)
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group in (*GROUPS, *CHOICES):
            check_name(group, name, names(group))
        hint = nearest(f"/{group.rpartition('/')[2]}", [f"/{known}" for known in (*GROUPS, *CHOICES)])
        raise ConfigError(f"/{group}: {name}: a defaults list names no such file or entry.{hint}", group) from None
    except RecursionError:
        raise ConfigError("conf: a defaults list leads back to its own file.") from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if (absent := re.match(r"Could not override '(\w+)'", str(error))) and absent[1] in choices:
            file = next(folder / "config.yaml" for folder in folders() if (folder / "config.yaml").is_file())
            raise ConfigError(f"{file}: its defaults list has no '{absent[1]}'. Add: - {absent[1]}: null") from None
        raise ConfigError(f"conf: {' '.join(str(error).split())}") from None
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    for group in LISTS:
        placed = values.get(group)
        options = placed if isinstance(placed, dict) else dict.fromkeys(_names(group, placed))
        chosen = {str(name): options.get(name) or {} for name in choices.get(group, options)}
        for name, given in chosen.items():
            if not isinstance(given, dict):
                raise ConfigError(f"{group}.{name}: must hold options. Received: {given!r}.", f"{group}.{name}")
        values[group] = {name: {"name": name, **given} for name, given in chosen.items()}
    return {str(key): value for key, value in values.items() if value is not None or key not in NESTED}


def _quoted(value: Any) -> str:
    return "null" if value is None else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted key. What no signature has is found when all is checked."""
    *path, last = key.split(".")
    if path and last == "name" and path[0] in GROUPS:
        raise ConfigError(f"{key}: an entry is chosen by its group. Try: {path[0]}={value}", key)
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: '{part}' holds no options.", key)
    values[last] = value


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """References between values (`${batch_size}`) replaced. Resolvers, which could read the environment, are refused."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def walk(node: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, str):
            yield key, node
        for name, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield from walk(child, f"{key}.{name}".lstrip("."))

    references = [(key, text) for key, text in walk(values, "") if "${" in text]
    if not references:
        return values
    from dlframe.config.yaml_files import REFERENCE, REFERENCES

    for key, text in references:
        if "${" in REFERENCE.sub("", text):
            raise ConfigError(f"{key}: a reference may name another option only. Received: {text!r}.", key)
    if (count := sum(text.count("${") for _, text in references)) > REFERENCES:
        key = references[0][0]
        raise ConfigError(f"{key}: a config may hold {REFERENCES} references. Received: {count}.", key)
    try:
        return OmegaConf.to_container(OmegaConf.create(_filled(values)), resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key, text = references[0]
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}. Received: {text!r}.", key) from None


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the defaults that the signatures hold, so that a reference may name one."""

    def over(registry: Registry, name: Any, options: Any) -> Any:
        known = registry.entries.get(name) if isinstance(name, str) else None
        if not known or not isinstance(options, Mapping):
            return options
        return {n: p.default for n, p in known.parameters.items() if p.default is not REQUIRED} | dict(options)

    filled = over(settings, "run", values)
    for group in (*GROUPS, *OPTIONS):
        options = values.get(group, {})
        if group in LISTS:
            filled[group] = {name: over(GROUPS[group], name, given) for name, given in options.items()}
        elif isinstance(options, Mapping):
            registry = GROUPS.get(group, settings)
            filled[group] = over(registry, options.get("name") if group in GROUPS else group, options)
    return filled


def known_keys() -> list[str]:
    """What the first part of a key can be."""
    return [*settings.get("run").parameters, *NESTED, "experiment"]


def _unknown(key: str, known: Iterable[str], verb: str = "") -> ConfigError:
    if key.split(".")[-1].startswith("_"):
        return ConfigError(f"{key}: is not supported: choose a registered entry, model=NAME.", key)
    sought = key.split(".")[-1 if verb else 0]
    if new := new_name("", verb or "run", sought):
        return ConfigError(f"{key}: is called '{new}' now.", key)
    see = f"show {verb}" if verb else "--help"
    return ConfigError(f"{key}: no such option.{nearest(sought, known)} See: python -m dlframe {see}", key)
