"""Compose a config, check everything in it before anything is built, and say every error well.

Hydra composes the choices (YAML files and registered entries); values are then set and checked against the signatures.
Nothing in a config can name code: a key that no signature has is refused, wherever it came from.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from dlframe import plugins
from dlframe.registry import GROUPS, Count, Entry, Natural, Parameter, Positive, Registry, parts
from dlframe.types import ConfigError, nearest

settings = Registry("settings")


@settings.register("run")
@dataclass(frozen=True, kw_only=True)
class Run:
    """Options of a run that belong to no group.

    Args:
        seed: Seed of weights, order, augmentation and hidden labels. The split of the data does not depend on it.
        epochs: Passes over the training data.
        batch_size: Samples in one optimizer step over all devices, before `accumulate`.
        accumulate: Batches whose gradients are summed into one optimizer step.
        clip: Largest L2 norm of a player's gradient; null for no limit.
        decay: What weight decay applies to: every parameter, or only weight matrices and kernels (no norms, no biases).
        labels_per_class: Training labels kept of each class; the other samples count as unlabelled. null keeps all.
        monitor: Metric that picks the best epoch, such as val/accuracy; empty for the task's own.
        compile: Compile the model with torch.compile.
        chunk: Optimizer steps in one step of the Trainer; 0 measures the first steps and chooses. Results do not depend on it.
        log_every: Optimizer steps between two logged training losses.
        name: Name of the run in the tracker; empty for model and data.
        experiment_name: Experiment in the tracker; empty for the task.
        runs: Folder for run folders and the tracking store.
        plugin_paths: Files and folders of plugins, beside ./plugins and the installed ones.
    """

    seed: Natural = 0
    epochs: Count = 30
    batch_size: Count = 64
    accumulate: Count = 1
    clip: Positive | None = None
    decay: Literal["all", "weights"] = "weights"
    labels_per_class: Count | None = None
    monitor: str = ""
    compile: bool = False
    chunk: Natural = 0
    log_every: Count = 50
    name: str = ""
    experiment_name: str = ""
    runs: str = "runs"
    plugin_paths: tuple[str, ...] = ()


@settings.register("trainer")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Options of Lightning's Trainer.

    Args:
        accelerator: Kind of device.
        devices: Number of devices; -1 for all.
        num_nodes: Number of machines.
        strategy: How several devices share the work.
        precision: Number format of the forward pass and of the weights.
        deterministic: Use deterministic algorithms only, at some cost in speed.
        channels_last: Keep images in NHWC memory order, which is faster for convolutions.
        detect_anomaly: Say which operation made a NaN in the backward pass. Slow.
        limit_steps: Batches of each epoch, of validation and of the test; 0 for all of them.
        threads: CPU threads of one process; 0 leaves the choice to torch.
    """

    accelerator: Literal["cpu", "gpu", "tpu"] = "cpu"
    devices: Annotated[int, Interval(ge=-1)] = 1
    num_nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    deterministic: bool = False
    channels_last: bool = True
    detect_anomaly: bool = False
    limit_steps: Natural = 0
    threads: Natural = 0


@settings.register("tracking")
@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are tracked.

    Args:
        uri: "sqlite" for a file in the folder of runs, "none", a sqlite:/// URI or the http(s) address of an MLflow server.
    """

    uri: str = "sqlite"


@settings.register("test")
@dataclass(frozen=True, kw_only=True)
class Test:
    """Scoring a finished run again.

    Args:
        checkpoint: Another checkpoint than the run's best; empty for that.
    """

    checkpoint: str = ""


@settings.register("ui")
@dataclass(frozen=True, kw_only=True)
class UI:
    """The MLflow pages.

    Args:
        port: Port to serve them on.
        host: Address to serve them on; 0.0.0.0 shows them to other machines.
        runs: Folder of the runs.
        uri: Another store: a sqlite:/// URI, or the http(s) address of an MLflow server.
        open: Open them in the browser.
    """

    port: Annotated[int, Interval(ge=1, le=65535)] = 5000
    host: str = "127.0.0.1"
    runs: str = "runs"
    uri: str = ""
    open: bool = False


CHOICES = ("trainer", "tracking", "experiment")
"""Groups that hold only YAML files."""
VERBS = ("train", "test", "list", "show", "ui")
LISTS = ("augmentation", "callback")
"""Groups of which a run takes any number, in order."""


@dataclass(frozen=True)
class Config:
    """A checked config: plain values, defaults filled in."""

    values: dict[str, Any]
    run: Run
    trainer: Trainer
    tracking: Tracking
    overrides: tuple[str, ...] = ()

    def entry(self, group: str) -> Entry:
        """The chosen entry of a group that holds one."""
        return GROUPS[group].get(self.values[group]["name"])

    def build(self, group: str, **injected: Any) -> Any:
        """The chosen entry of a group, built."""
        return GROUPS[group].build(self.values[group], **injected)

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
        return self.run.monitor or f"val/{self.entry('task').facts['monitor']}"


def folders() -> list[Path]:
    """Folders of YAML files, the user's first: it beats the packaged one."""
    package = Path(__file__).parent
    packaged = package / "conf"
    if not packaged.is_dir():
        packaged = package.parent.parent / "conf"
    local = Path("conf").resolve()
    return [local, packaged] if local.is_dir() and local != packaged.resolve() else [packaged]


def names(group: str) -> dict[str, str]:
    """The choices of a group: name -> where it comes from."""
    found = {}
    for folder in reversed(folders()):
        for path in sorted((folder / group).glob("*.yaml")):
            found[path.stem] = str(path)
    if group in GROUPS and group != "task":
        found |= {entry.name: entry.origin for entry in GROUPS[group]}
    return found


def load(overrides: Sequence[str]) -> Config:
    """The checked config of one run from command-line overrides ("model=cnn", "optimizer.lr=0.01").

    Raises:
        ConfigError: An override or a YAML file names something unknown, or holds a value outside its range.
        RegistrationError: A plugin of `plugin_paths`, or one that the config chooses, is broken.
    """
    plugins.discover(_plugin_paths(overrides))
    choices, assignments = _parse(overrides)
    for group, value in choices.items():
        for name in value if group in LISTS else [value]:
            _known(group, name)
    values = _compose(choices)
    model = GROUPS["model"].get(values["model"]["name"])
    if model.facts["task"]:
        values["task"]["name"] = model.facts["task"]
    for key, value in assignments.items():
        _assign(values, key, value)
    try:
        config = check(_resolved(values), tuple(overrides))
    except ConfigError as error:
        if error.key and error.key not in assignments and (place := _place(error.key)):
            raise ConfigError(f"{place}: {error}", error.key) from None
        raise
    plugins.preload((group, config.values[group]["name"]) for group in GROUPS if group not in LISTS)
    plugins.preload((group, name) for group in LISTS for name in config.values[group])
    return config


def load_saved(path: Path) -> Config:
    """The config that a run saved.

    Raises:
        ConfigError: There is none, it cannot be read, or this version of dlframe or its plugins do not know what it names.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a config: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold the config of a run. Received: {values!r}.")
    plugins.discover(values.get("plugin_paths") or ())
    return check(values)


def load_options(verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The checked options of a verb other than training, from "key=value" arguments.

    Raises:
        ConfigError: As `load`.
    """
    values: dict[str, Any] = {}
    texts = {name for name, p in settings.get(verb).parameters.items() if parts(p.annotation)[0] is str}
    for text in arguments:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"{verb}: options are key=value. Received: {text!r}.")
        values[key] = _text(raw) if key in texts else _value(text)
    return settings.get(verb).check(values, verb)


def store_uri(uri: str, runs: str) -> str:
    """The address of the tracking store: "sqlite" stands for a file in the folder of runs."""
    return f"sqlite:///{(Path(runs) / 'mlflow.db').resolve()}" if uri in ("", "sqlite") else uri


def artifact_root(runs: str) -> str:
    """Where a store in the folder of runs keeps its artifacts."""
    return str((Path(runs) / "artifacts").resolve())


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The cells of a grid: the product of every override that lists several values ("model=cnn,rnn")."""
    plugins.discover(_plugin_paths(overrides))
    axes = []
    for text in overrides:
        try:
            override = _parser().parse_override(text)
        except Exception as error:
            if _is_text(text.partition("=")[0].lstrip("+")):
                axes.append([text])
                continue
            raise _syntax(text, error) from None
        key = override.get_key_element()
        if override.is_sweep_override():
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([text])
    return [list(cell) for cell in itertools.product(*axes)]


def check(values: Mapping[str, Any], overrides: tuple[str, ...] = ()) -> Config:
    """A composed config, or one that was saved, checked whole: names, types, ranges, and what fits what.

    Raises:
        ConfigError: As `load`.
    """
    run_options = settings.get("run").parameters
    nested = (*GROUPS, "trainer", "tracking")
    for key in values:
        if key not in (*run_options, *nested, "players"):
            raise _unknown(str(key))
    for group in nested:
        if not isinstance(values.get(group), Mapping):
            raise ConfigError(f"{group}: must hold options. Received: {values.get(group)!r}.", group)
    run = {key: value for key, value in values.items() if key in run_options}
    checked: dict[str, Any] = {key: p.check(run.get(key, p.default), key) for key, p in run_options.items()}
    for group in ("trainer", "tracking"):
        checked[group] = settings.get(group).check(values[group], group)
    for group, registry in GROUPS.items():
        if group not in LISTS:
            entry = registry.get(str(values[group].get("name")))
            checked[group] = {"name": entry.name} | entry.check(values[group], group)
            continue
        checked[group] = {}
        for name, options in values[group].items():
            if not isinstance(options, Mapping) or "name" not in options:
                chosen = ",".join(n for n, o in values[group].items() if isinstance(o, Mapping) and "name" in o)
                raise ConfigError(
                    f"{group}.{name}: '{name}' is not among the chosen: [{chosen}]. "
                    f"Try: {group}=[{','.join(filter(None, (chosen, name)))}]",
                    f"{group}.{name}",
                )
            entry = registry.get(str(options["name"]))
            checked[group][name] = {"name": entry.name} | entry.check(options, f"{group}.{name}")
    checked["players"] = _players(values.get("players") or {}, checked)
    config = Config(
        values=checked,
        run=Run(**{key: checked[key] for key in run_options}),
        trainer=Trainer(**checked["trainer"]),
        tracking=Tracking(**checked["tracking"]),
        overrides=overrides,
    )
    _fits(config)
    return config


def _players(players: Any, checked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    known = GROUPS["task"].get(checked["task"]["name"]).facts["players"]
    optimizer = GROUPS["optimizer"].get(checked["optimizer"]["name"])
    if not isinstance(players, Mapping):
        raise ConfigError(f"players: must hold options by player. Received: {players!r}.", "players")
    for player, options in players.items():
        key = f"players.{player}"
        if player not in known:
            count = "one player" if len(known) == 1 else f"{len(known)} players"
            raise ConfigError(
                f"{key}: model={checked['model']['name']} has {count}: {', '.join(known)}. Received: '{player}'.", key
            )
        if not isinstance(options, Mapping):
            raise ConfigError(f"{key}: must hold options of optimizer={optimizer.name}. Received: {options!r}.", key)
        optimizer.check({**checked["optimizer"], **options}, key)
    return {player: dict(options) for player, options in players.items()}


def _fits(config: Config) -> None:
    """What fits what: model, task, augmentations and monitors to the data; the trainer to the machine."""
    data, model, task = (config.entry(group) for group in ("data", "model", "task"))
    for taker, kind, takes in (
        (model, "inputs", model.facts["inputs"]),
        (model, "targets", model.facts["targets"]),
        (task, "targets", task.facts["targets"]),
        *((GROUPS["augmentation"].get(o["name"]), "inputs", None) for o in config.values["augmentation"].values()),
        *((GROUPS["augmentation"].get(o["name"]), "targets", None) for o in config.values["augmentation"].values()),
    ):
        takes = taker.facts[kind] if takes is None else takes
        has = data.facts["inputs" if kind == "inputs" else "target"]
        if takes and has not in takes:
            fitting = [e.name for e in GROUPS["data"] if e.facts["inputs" if kind == "inputs" else "target"] in takes]
            raise ConfigError(
                f"{taker.group}={taker.name}: takes {' or '.join(takes)} {kind}, but data={data.name} has {has} {kind}. "
                f"Data that fit: {', '.join(fitting) or 'none'}.",
                taker.group,
            )
    logged = [f"val/{metric}" for metric in task.facts["metrics"]]
    monitors = {"monitor": config.run.monitor} | {
        f"callback.{name}.monitor": options.get("monitor") for name, options in config.values["callback"].items()
    }
    for key, monitor in monitors.items():
        if monitor and monitor not in logged:
            hint = nearest(monitor, logged)
            raise ConfigError(f"{key}: must be a metric that task={task.name} logs. Received: '{monitor}'.{hint}", key)
    _machine(config.trainer)


def _machine(trainer: Trainer) -> None:
    if trainer.accelerator == "gpu" and not _has_gpu():
        raise ConfigError("trainer.accelerator: 'gpu' needs a GPU, and this machine shows none. Try: trainer=cpu")
    if trainer.accelerator == "tpu" and importlib.util.find_spec("torch_xla") is None:
        raise ConfigError(
            "trainer.accelerator: 'tpu' needs torch_xla on a TPU machine. Try: python -m pip install 'dlframe[tpu]'"
        )
    if trainer.strategy == "fsdp" and trainer.accelerator == "cpu":
        raise ConfigError("trainer.strategy: 'fsdp' needs GPUs. Try: trainer=fsdp, or trainer=ddp on a CPU")
    if trainer.num_nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            f"trainer.num_nodes: {trainer.num_nodes} machines need MASTER_ADDR, MASTER_PORT and NODE_RANK on each. "
            "Try: torchrun --nnodes=... -m dlframe ..."
        )


def _has_gpu() -> bool:
    """Whether a driver shows a GPU, asked without torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    for library, count in (
        ("libcuda.so.1", "cuDeviceGetCount"),
        ("nvcuda.dll", "cuDeviceGetCount"),
        ("libamdhip64.so", "hipGetDeviceCount"),
    ):
        with contextlib.suppress(OSError, AttributeError):
            driver, number = ctypes.CDLL(library), ctypes.c_int(0)
            if count.startswith("cu"):
                driver.cuInit(0)
            if getattr(driver, count)(ctypes.byref(number)) == 0 and number.value > 0:
                return True
    return False


def _plugin_paths(overrides: Sequence[str]) -> list[str]:
    """`plugin_paths` is needed before anything else can be understood."""
    for text in overrides:
        if text.lstrip("+").startswith("plugin_paths="):
            value = _value(text)
            return [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return []


def _parse(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices of groups, and values by dotted key."""
    choices: dict[str, Any] = {}
    assignments: dict[str, Any] = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip().lstrip("+")
        if not equals and not key.startswith("~"):
            raise ConfigError(f"{text}: must be key=value, or a verb: {', '.join(VERBS)}.{nearest(text, VERBS)}")
        if key in GROUPS or key in CHOICES:
            value = _value(text)
            choices[key] = value if key not in LISTS or isinstance(value, list) else [value]
            if key not in LISTS and isinstance(value, list):
                raise ConfigError(f"{key}: takes one entry, for all players. Received: {value}. Try: {key}={value[0]}", key)
        elif key == "plugin_paths":
            assignments[key] = _plugin_paths([text])
        else:
            assignments[key] = _text(raw) if _is_text(key) else _value(text)
    return choices, assignments


def _value(text: str) -> Any:
    try:
        override = _parser().parse_override(text)
    except Exception as error:
        raise _syntax(text, error) from None
    if override.is_sweep_override():
        raise ConfigError(f"{text}: several values make a grid, which needs -m. Try: python -m dlframe -m {text}")
    value = override.value()
    return list(value) if isinstance(value, (list, tuple)) else value


def _syntax(text: str, error: Exception) -> ConfigError:
    reason = str(error).split("\n")[0]
    return ConfigError(f"{text}: cannot be read: {reason}. Quote the value: {text.partition('=')[0]}='\"...\"'")


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
    elif path[0] in ("trainer", "tracking"):
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


def _known(group: str, name: Any) -> None:
    if name is None and group == "experiment":
        return
    if (known := names(group)) and name in known:
        return
    hint = nearest(str(name), known)
    if plugins.broken:
        hint += " Broken plugins: " + "; ".join(f"{plugin}: {why}" for plugin, why in plugins.broken.items())
    raise ConfigError(f"{group}={name}: no such {group}.{hint} See: python -m dlframe list {group}", group)


def _compose(choices: Mapping[str, Any]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        for entry in registry:
            folder = "task/class" if group == "task" else group
            store.store(group=folder, name=entry.name, node={"name": entry.name}, package=group)
    class UserFirst(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in folders()[:-1]:
                search_path.prepend("dlframe", f"file://{folder}", anchor="main")

    Plugins.instance().register(UserFirst)
    overrides = [f"{group}={_quoted(value)}" for group, value in choices.items() if group not in LISTS]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folders()[-1]), version_base="1.3"):
            composed = compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"conf: {' '.join(str(error).split())}") from None
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    for group in ("trainer", "tracking"):
        values[group] = values.get(group) or {}
    for group in LISTS:
        placed = values.get(group) or {}
        options = placed if isinstance(placed, dict) else {}
        chosen = choices.get(group, list(placed))
        values[group] = {name: {"name": name} | (options.get(name) or {}) for name in chosen}
    return {str(key): value for key, value in values.items() if key != "experiment"}


def _quoted(value: Any) -> str:
    return "null" if value is None else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted key. What no signature has is found when all is checked."""
    delete, key = key.startswith("~"), key.lstrip("~")
    *path, last = key.split(".")
    if path and last == "name" and path[0] in GROUPS:
        raise ConfigError(f"{key}: an entry is chosen by its group. Try: {path[0]}={value}", key)
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise _unknown(key)
    if delete:
        values.pop(last, None)
    else:
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
    for key, text in references:
        if re.search(r"\$\{[^}]*:", text):
            raise ConfigError(f"{key}: a reference may name another option only. Received: {text!r}.", key)
    if not references:
        return values
    try:
        return OmegaConf.to_container(OmegaConf.create(values), resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key, text = references[0]
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}. Received: {text!r}.", key) from None


def _unknown(key: str) -> ConfigError:
    if key.split(".")[-1].startswith("_"):
        return ConfigError(f"{key}: a config names registered entries, never code.", key)
    known = [*settings.get("run").parameters, *GROUPS, *CHOICES, "players"]
    return ConfigError(f"{key}: no such option.{nearest(key.split('.')[0], known)} See: python -m dlframe --help", key)


def _place(key: str) -> str:
    """ "file:line" of the YAML file that sets `key`, where one does."""
    import yaml

    path = key.split(".")
    for folder in folders():
        for file in sorted(folder.rglob("*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            try:
                node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
            except (OSError, ValueError, yaml.YAMLError):
                continue
            for sought in (path, path[1:] if path[0] == group else path):
                line = 0
                found = node
                for part in sought:
                    pairs = found.value if isinstance(found, yaml.MappingNode) else []
                    match = next(((k, v) for k, v in pairs if k.value == part), None)
                    if match is None:
                        break
                    line, found = match[0].start_mark.line + 1, match[1]
                else:
                    return f"{file}:{line}"
    return ""
