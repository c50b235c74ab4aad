"""What a search chooses from, and how: options that vary, in Hydra's grammar, checked before the first trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Interval

from dlframe.config import LISTS, load
from dlframe.config.overrides import given_keys, parse, plugin_paths, sweep_of
from dlframe.registry import CHOICES, GROUPS, Natural, plugins
from dlframe.registry.parameters import Parameter, parts
from dlframe.types import ConfigError

COMBINATIONS = 64
"""Largest number of combinations of components, each of which is checked by composing its config."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a sweep chooses its trials.

    Args:
        sampler: Choice of the next point: tree-structured Parzen estimator (tpe; Bergstra et al. 2011), at random, from a
            low-discrepancy sequence (qmc), by a Gaussian process (gp), by covariance matrix adaptation (cmaes), by a genetic
            algorithm (nsga2), or every point once (grid).
        pruner: Trials that are ended early: none, those worse than the median of the others at the same epoch (median), all
            but a fraction at each rung (halving; Jamieson and Talwalkar 2016; hyperband: Li et al. 2018).
        warmup_epochs: Epochs in which no trial is ended.
        warmup_trials: Trials before any is ended, and before tpe, gp and cmaes leave random points.
        seed: Seed of the sampler.
        max_failures: Failed trials after which the sweep stops.
    """

    sampler: Literal["tpe", "random", "qmc", "gp", "cmaes", "nsga2", "grid"] = "tpe"
    pruner: Literal["none", "median", "halving", "hyperband"] = "none"
    warmup_epochs: Natural = 3
    warmup_trials: Natural = 10
    seed: Annotated[int, Interval(ge=0, le=2147483647)] = 0
    max_failures: Natural = 10


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
            return str(trial.suggest_categorical(self.key, self.values))
        if self.whole:
            step = int(self.step) or 1
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), step=1 if self.log else step, log=self.log))
        return repr(float(trial.suggest_float(self.key, self.low, self.high, step=self.step or None, log=self.log)))

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
    """

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    applies: dict[tuple[str, ...], frozenset[str]]

    def suggest(self, trial: Trial) -> list[str]:
        """Return the overrides of a trial: those that vary."""
        chosen = {axis.key: axis.suggest(trial) for axis in self.axes if axis.is_choice_of_components}
        for axis in self.axes:
            if axis.key in self.applies[tuple(chosen[a.key] for a in self.axes if a.is_choice_of_components)]:
                chosen[axis.key] = axis.suggest(trial)
        return [f"{key}={value}" for key, value in chosen.items()]

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


def space_of(overrides: Sequence[str]) -> Space:
    """Return the space of overrides such as "model.width=choice(16,32)" and "optimizer.lr=tag(log,interval(1e-4,1e-1))".

    Raises:
        ConfigError: A value is outside an option's range, or no chosen component has an option.
    """
    given = given_keys(overrides)
    plugins.discover(plugin_paths(given.get("plugin_paths", "null")))
    sweeps = {key: sweep for key, raw in given.items() if (sweep := sweep_of(key, raw))}
    fixed = tuple(f"{key}={raw}" for key, raw in given.items() if key not in sweeps)
    components = {key: sweep for key, sweep in sweeps.items() if key in GROUPS or key in CHOICES}
    axes = [_choices(key, sweep) for key, sweep in components.items()]
    combinations = [*itertools.product(*(axis.values for axis in axes))]
    if len(combinations) > COMBINATIONS:
        keys = ", ".join(components)
        raise ConfigError(f"{keys}: at most {COMBINATIONS} combinations of components. Received: {len(combinations)}.")
    parameters = {combination: _parameters(fixed, [*components], combination) for combination in combinations}
    applies: dict[tuple[str, ...], set[str]] = {combination: set() for combination in combinations}
    for key, sweep in sweeps.items():
        if key in components:
            continue
        owners = [combination for combination in combinations if key in parameters[combination]]
        if not owners:
            first = [f"{k}={v}" for k, v in zip(components, combinations[0], strict=True)]
            load([*fixed, *first, f"{key}={next(iter(_texts(key, sweep)))}"])  # says what is wrong with the key
            raise ConfigError(f"{key}: cannot vary.", key)
        axis = _axis(key, sweep, parameters[owners[0]][key])
        for combination in owners:
            applies[combination].add(key)
            for text in axis.samples():
                parameters[combination][key].check(parse({key: text})[1][key], key)
        axes.append(axis)
    if not axes:
        raise ConfigError("sweep: no option varies. Try: python -m dlframe sweep 'optimizer.lr=tag(log,interval(1e-4,1e-1))'")
    return Space(fixed, tuple(axes), {combination: frozenset(keys) for combination, keys in applies.items()})


def _parameters(fixed: Sequence[str], components: Sequence[str], combination: Sequence[str]) -> dict[str, Parameter]:
    """Return the options of a config by key."""
    config = load([*fixed, *(f"{key}={value}" for key, value in zip(components, combination, strict=True))])
    found = dict(config.options())
    for group, registry in GROUPS.items():
        if group in LISTS:
            for name, options in config.values[group].items():
                entry = registry.get(options["name"])
                found |= {f"{group}.{name}.{option}": p for option, p in entry.parameters.items()}
        else:
            found |= {f"{group}.{option}": p for option, p in config.entry(group).parameters.items()}
    return found


def _choices(key: str, sweep: Any) -> Axis:
    values = tuple(dict.fromkeys(_texts(key, sweep)))
    if not values:
        raise ConfigError(f"{key}: must have a value.", key)
    return Axis(key, values)


def _texts(key: str, sweep: Any) -> list[str]:
    """Return the values of a choice or a range, or the lower end of an interval, as one types them."""
    if sweep.is_interval_sweep():
        return [repr(sweep.value().start)]
    try:
        return [*sweep.sweep_string_iterator()]
    except Exception as error:
        raise ConfigError(f"{key}: cannot be read: {error}", key) from None


def _axis(key: str, sweep: Any, parameter: Parameter) -> Axis:
    """Return the axis of an option of known type."""
    value = sweep.value()
    kind = parts(parameter.annotation)[0]
    if not (sweep.is_interval_sweep() or (sweep.is_range_sweep() and kind in (int, float))):
        return _choices(key, sweep)
    log = "log" in value.tags
    if unknown := value.tags - {"log"}:
        raise ConfigError(f"{key}: a tag must be log. Received: {', '.join(sorted(unknown))}.", key)
    if kind not in (int, float):
        raise ConfigError(f"{key}: {parameter.rule} takes no interval. Try: {key}=choice(...)", key)
    if sweep.is_interval_sweep():
        low, high, step = float(value.start), float(value.end), 0.0
    else:
        texts = [*map(float, sweep.sweep_string_iterator())]
        if not texts:
            raise ConfigError(f"{key}: must have a value. Received: no number.", key)
        low, high, step = min(texts), max(texts), abs(float(value.step)) if len(texts) > 1 else 0.0
    if kind is int and not all(number.is_integer() for number in (low, high, step)):
        raise ConfigError(f"{key}: must be {parameter.rule}: bounds must be integers. Received: {low:g} to {high:g}.", key)
    if not low <= high or not all(map(math.isfinite, (low, high))):
        raise ConfigError(f"{key}: the lower bound must be at most the upper one. Received: {low:g} to {high:g}.", key)
    if log and low <= 0:
        raise ConfigError(f"{key}: a logarithmic scale needs a lower bound above 0. Received: {low:g}.", key)
    return Axis(key, low=low, high=high, step=step, log=log, whole=kind is int)
