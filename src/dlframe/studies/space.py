"""What a study chooses from: options that vary, in Hydra's grammar, checked before the first trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from dlframe.config import LISTS, Config, load
from dlframe.config.overrides import Sweep, given_keys, plugin_paths, sweep_of, typed, value_of
from dlframe.registry import CHOICES, GROUPS, plugins
from dlframe.registry.parameters import Parameter, parts
from dlframe.types import ConfigError, say

COMBINATIONS = 1000
"""Largest number of combinations of components, each of which is checked by composing its config."""
POINTS = 1_000_000
"""Largest number of points of a grid."""


class Trial(Protocol):
    """What chooses values, as Optuna's trials do."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Axis:
    """An option that varies.

    Attributes:
        key: The option.
        values: Values as one types them; empty for a range of numbers.
        low: Smallest number.
        high: Largest number.
        step: Distance of two numbers; 0 for any between.
        log: Whether ratios count, not differences.
        whole: Whether the numbers are integers.
    """

    key: str
    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    step: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def is_choice_of_components(self) -> bool:
        """Whether it decides which options there are."""
        return self.key in GROUPS or self.key in CHOICES

    def suggest(self, trial: Trial) -> str:
        """Return the value of a trial, as one types it."""
        if self.values:
            return self.text(trial.suggest_categorical(self.key, self.values))
        if self.whole:
            step = 1 if self.log else int(self.step) or 1
            return self.text(trial.suggest_int(self.key, int(self.low), int(self.high), step=step, log=self.log))
        return self.text(trial.suggest_float(self.key, self.low, self.high, step=self.step or None, log=self.log))

    def text(self, value: Any) -> str:
        """Return a value as one types it."""
        return str(value) if self.values else repr(int(value) if self.whole else float(value))

    def listed(self) -> Axis:
        """Return a range as a choice."""
        values = [self.low + i * (self.step or 1) for i in range(_points(self))]
        return Axis(self.key, tuple(self.text(round(value, 12)) for value in values))

    def samples(self) -> Iterator[str]:
        """Yield values that show whether all are valid: each choice, or the ends of a range."""
        yield from self.values or (repr(int(x) if self.whole else x) for x in (self.low, self.high))

    def __str__(self) -> str:
        if self.values:
            return f"{self.key}={','.join(self.values)}"
        bounds = ", ".join(repr(int(x) if self.whole else x) for x in (self.low, self.high))
        return f"{self.key} from {bounds}" + (f" by {self.step:g}" * bool(self.step)) + " (log)" * self.log


@dataclass(frozen=True)
class Space:
    """What stays and what varies.

    Attributes:
        fixed: Overrides of every trial.
        axes: Options that vary; those that choose components first.
        applies: By the values of the components, the keys of the other axes that these have: an option of one of several
            models is left out where another is chosen.
        order: The keys of the axes as they were typed.
        configs: By the values of the components, a config with them.
        is_default: Whether it comes from the chosen components, not from the command line.
    """

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    applies: dict[tuple[str, ...], frozenset[str]]
    order: tuple[str, ...]
    configs: dict[tuple[str, ...], Config]
    is_default: bool = False

    def suggest(self, trial: Trial) -> dict[str, str]:
        """Return the options of a trial that vary, as one types them."""
        chosen = {axis.key: axis.suggest(trial) for axis in self.axes if axis.is_choice_of_components}
        for axis in self.axes:
            if axis.key in self._keys(chosen):
                chosen[axis.key] = axis.suggest(trial)
        return chosen

    def listed(self) -> Space:
        """Return the space with all its values as choices, for a grid.

        Raises:
            ConfigError: An axis has infinitely many.
        """
        for axis in self.axes:
            if not axis.values and not _points(axis):
                raise ConfigError(
                    f"{axis.key}: a grid needs choices and ranges. Received: an interval. Try: sampler=tpe", axis.key
                )
        if self.points() > POINTS:
            raise ConfigError(f"a grid has at most {POINTS:,} jobs. Received: {self.points():,}. Try: sweep ... sampler=random")
        return replace(self, axes=tuple(axis if axis.values else axis.listed() for axis in self.axes))

    @cached_property
    def grid(self) -> list[dict[str, str]]:
        """The points of a listed space: the last option that was typed varies fastest."""
        axes = {axis.key: axis for axis in self.axes}
        found: dict[tuple[tuple[str, str], ...], None] = {}
        for values in itertools.product(*(axes[key].values for key in self.order)):
            chosen = dict(zip(self.order, values, strict=True))
            keys = self._keys(chosen)
            point = {k: v for k, v in chosen.items() if axes[k].is_choice_of_components or k in keys}
            found[tuple(point.items())] = None
        return [dict(point) for point in found]

    def _keys(self, chosen: Mapping[str, str]) -> frozenset[str]:
        return self.applies[tuple(chosen[axis.key] for axis in self.axes if axis.is_choice_of_components)]

    def points(self) -> int:
        """Return the number of points; 0 if it is infinite."""
        total = 0
        for keys in self.applies.values():
            sizes = [_points(axis) for axis in self.axes if axis.key in keys]
            if 0 in sizes:
                return 0
            total += math.prod(sizes)
        return total


def _points(axis: Axis) -> int:
    if axis.values:
        return len(axis.values)
    step = axis.step or (1 if axis.whole else 0)
    return int((axis.high - axis.low) / step + 1e-9) + 1 if step else 0


def space_of(overrides: Sequence[str], *, default: bool = True) -> Space:
    """Return the space of overrides such as "model.width=choice(16,32)" and "optimizer.lr=tag(log,interval(1e-4,1e-1))".

    Args:
        overrides: As they were typed.
        default: Whether the components say what varies if no override does.

    Raises:
        ConfigError: A value is outside an option's range, no chosen component has an option, or nothing varies.
    """
    given = given_keys(overrides)
    plugins.discover(plugin_paths(given.get("plugin_paths", "null")))
    sweeps = {key: sweep for key, raw in given.items() if key != "plugin_paths" and (sweep := sweep_of(key, raw))}
    is_default = not sweeps and default
    if is_default:
        sweeps = _default_space(load(overrides), given)
    fixed = tuple(f"{key}={raw}" for key, raw in given.items() if key not in sweeps)
    components = {key: sweep for key, sweep in sweeps.items() if key in GROUPS or key in CHOICES}
    axes, configs = _components(components, fixed)
    combinations = [*configs]
    parameters = {combination: _parameters(config) for combination, config in configs.items()}
    applies: dict[tuple[str, ...], set[str]] = {combination: set() for combination in combinations}
    for key, sweep in sweeps.items():
        if key in components:
            continue
        owners = [combination for combination in combinations if key in parameters[combination]]
        if not owners:  # says what is wrong
            load([*fixed, *_chosen(components, combinations[0]), f"{key}={next(iter(sweep.texts), sweep.low)}"])
            raise ConfigError(f"{key}: cannot vary. Try: {key}=VALUE", key)
        axis = axis_of(key, sweep, parameters[owners[0]][key])
        for combination in owners:
            applies[combination].add(key)
            for text in axis.samples():
                parameter = parameters[combination][key]
                parameter.check(value_of(key, text, [parameter]), key)
        axes.append(axis)
    order = tuple(key for key in sweeps if any(axis.key == key for axis in axes))
    applied = {combination: frozenset(keys) for combination, keys in applies.items()}
    return Space(fixed, tuple(axes), applied, order, configs, is_default)


def _default_space(config: Config, given: Mapping[str, str]) -> dict[str, Sweep]:
    """Return what the chosen components say is worth searching, without what is typed."""
    found = {}
    for group in GROUPS:
        if group not in LISTS and (config.networks or group not in ("optimizer", "scheduler")):
            entry = config.entry(group)
            for option, text in entry.facts["search"].items():
                key = f"{group}.{option}"
                if key not in given and option in entry.parameters and (sweep := sweep_of(key, text)):
                    found[key] = sweep
    if not found:
        raise ConfigError("sweep: no option varies. Try: python -m dlframe sweep 'optimizer.lr=tag(log,interval(1e-4,1e-1))'")
    return found


def _chosen(components: Sequence[str] | Mapping[str, Any], combination: Sequence[str]) -> list[str]:
    return [f"{key}={value}" for key, value in zip(components, combination, strict=True)]


def _components(components: Mapping[str, Sweep], fixed: Sequence[str]) -> tuple[list[Axis], dict[tuple[str, ...], Config]]:
    """Return the axes of the components that vary, and a config for each combination of them.

    A name that matches a pattern and fits no combination is left out, and told.

    Raises:
        ConfigError: There are too many combinations, or one is wrong.
    """
    axes = [_choices(key, sweep) for key, sweep in components.items()]
    if (count := math.prod(len(axis.values) for axis in axes)) > COMBINATIONS:
        raise ConfigError(f"{', '.join(components)}: at most {COMBINATIONS} combinations of components. Received: {count}.")
    configs, faults = {}, {}
    for combination in itertools.product(*(axis.values for axis in axes)):
        try:
            configs[combination] = load([*fixed, *_chosen(components, combination)])
        except ConfigError as error:
            faults[combination] = error
    for place, axis in enumerate(axes):
        fitting = {combination[place] for combination in configs}
        others = [value for value in axis.values if value not in fitting]
        if components[axis.key].pattern and others and fitting:
            say(
                f"note: {axis.key}={components[axis.key].pattern}: left out, as they do not fit: {', '.join(others)}",
                error=True,
            )
            axes[place] = replace(axis, values=tuple(value for value in axis.values if value in fitting))
            faults = {combination: error for combination, error in faults.items() if combination[place] in fitting}
    for error in faults.values():
        raise error
    return axes, configs


def _parameters(config: Config) -> dict[str, Parameter]:
    """Return the options of a config by key."""
    found = dict(config.options())
    for group, registry in GROUPS.items():
        if group in LISTS:
            for name, options in config.values[group].items():
                entry = registry.get(options["name"])
                found |= {f"{group}.{name}.{option}": p for option, p in entry.parameters.items()}
        else:
            found |= {f"{group}.{option}": p for option, p in config.entry(group).parameters.items()}
    optimizer = config.entry("optimizer").parameters
    return found | {f"networks.{name}.{option}": p for name in config.networks for option, p in optimizer.items()}


def _choices(key: str, sweep: Sweep, parameter: Parameter | None = None) -> Axis:
    """Return the axis of values that are listed, each once; of names without `parameter`."""
    if sweep.is_interval:
        rule = parameter.rule if parameter else "a choice of components"
        raise ConfigError(f"{key}: {rule} takes no interval. Try: {key}=choice(...)", key)
    found: dict[str, str] = {}
    for text in sweep.texts:
        value = value_of(key, text, [parameter] if parameter else [])
        same = parameter.check(value, key) if parameter else value
        found.setdefault(repr(same), text if isinstance(value, str) else typed(value))
    return Axis(key, tuple(found.values()))


def axis_of(key: str, sweep: Sweep, parameter: Parameter) -> Axis:
    """Return the axis of an option of known type."""
    kind = parts(parameter.annotation)[0]
    if kind not in (int, float) or not (sweep.is_interval or sweep.step is not None):
        return _choices(key, sweep, parameter)
    log = "log" in sweep.tags
    if unknown := sweep.tags - {"log"}:
        raise ConfigError(f"{key}: a tag must be log. Received: {', '.join(sorted(unknown))}.", key)
    low, high, step = sweep.low, sweep.high, 0.0
    if not sweep.is_interval:
        numbers = [*map(float, sweep.texts)]
        low, high, step = min(numbers), max(numbers), abs(sweep.step or 0.0) if len(numbers) > 1 else 0.0
    if kind is int and not all(number.is_integer() for number in (low, high, step)):
        raise ConfigError(f"{key}: must be {parameter.rule}: bounds must be integers. Received: {low:g} to {high:g}.", key)
    if not low <= high or not all(map(math.isfinite, (low, high))):
        raise ConfigError(f"{key}: the lower bound must be at most the upper one. Received: {low:g} to {high:g}.", key)
    if log and low <= 0:
        raise ConfigError(f"{key}: a logarithmic scale needs a lower bound above 0. Received: {low:g}.", key)
    return Axis(key, low=low, high=high, step=step, log=log, whole=kind is int)
