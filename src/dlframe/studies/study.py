"""A study on disk: its manifest, its trials with their seeds, and who works on which."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dlframe.registry import REGISTRIES
from dlframe.runs.environment import versions
from dlframe.runs.study_journal import StudyJournal
from dlframe.statistics.racing import Race, race
from dlframe.storage.known import STUDIES, is_known, remember
from dlframe.storage.trials import open_storage
from dlframe.studies.space import Axis, Space
from dlframe.types import (
    ConfigError,
    DataError,
    DlframeError,
    Objective,
    TrialRecord,
    best_of,
    command_line,
    nearest,
    read_text,
    say,
    shortened,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)
FOLDER = STUDIES
MANIFEST = "manifest.json"
NAMES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
NAME = 100
"""Most bytes of a name; those of runs and pages are longer."""
FREE = ("trials", "storage", "generation", "packages")
"""What may change when a study is continued."""
FIRST_CLAIM = 1_000_000
"""Number of the claim on the second seed of trial 0, beyond those of trials."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a study is; the same command continues it.

    Attributes:
        fixed: Overrides of every trial.
        space: The options that vary, in words.
        objectives: What is compared: metric, direction and unit of each.
        sampler: Name and options of the sampler.
        pruner: Name and options of the pruner.
        seed: Seed of the sampler.
        seeds: Seeds of a trial.
        plugins: File of a plugin -> hash, or its distribution -> version.
        packages: Versions when it began.
        trials: Number of trials.
        storage: Address of the trials.
        generation: How often the space was changed.
    """

    fixed: list[str]
    space: list[str]
    objectives: list[list[str]]
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    seed: int
    seeds: int
    plugins: dict[str, str]
    packages: dict[str, str | None] = field(default_factory=versions)
    trials: int
    storage: str
    generation: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What makes it another study."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}

    def difference(self, other: Manifest) -> str:
        """Describe the first difference to an earlier manifest; empty without one."""
        for name, value in self.facts.items():
            if value != (theirs := other.facts[name]):
                return f"{name} was {_shown(theirs)} and is {_shown(value)}"
        return ""


def _shown(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)


class Study:
    """A study in its folder. Any number of processes may work on one; each trial has one of them.

    Args:
        folder: Folder of the study.
        manifest: What it is.
        pruner: What ends its trials early; None in a process that only looks.
        space: What its trials choose from, for one that has changed; None in a process that only looks.
        retry: Whether failed trials are chosen again, in a study that is extended.

    Raises:
        DataError: Its journal is damaged.
        ConfigError: Its storage cannot be reached.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, pruner: Any = None, *, space: Space | None = None, retry: bool = False
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.name = folder.name
        self.runs = folder.parent.parent
        self.objectives = [Objective(metric=m, better=better, unit=unit) for m, better, unit in manifest.objectives]  # type: ignore[arg-type]
        self._ended: dict[int, TrialRecord] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(manifest.storage, folder)
        with self.storage.alone():
            self.optuna = self._open(manifest.generation, pruner)
            if space and manifest.generation and not self.optuna.user_attrs.get("copied"):
                self._copy(manifest.generation, space, retry=retry)

    def _open(self, generation: int, pruner: Any = None) -> optuna.Study:
        name = f"{self.name}#{generation}" if generation else self.name
        try:
            return optuna.create_study(
                study_name=name,
                storage=self.storage.optuna,
                directions=["maximize" if o.better == "max" else "minimize" for o in self.objectives],
                load_if_exists=True,
                pruner=pruner,
            )
        except DlframeError:
            raise
        except Exception as error:  # whatever Optuna makes of a damaged journal
            raise DataError(f"{self.folder}: its trials cannot be read: {type(error).__name__}: {error}") from None

    def _copy(self, generation: int, space: Space, *, retry: bool) -> None:
        """Take the trials before over, by number: those in flight, or to be tried again, are chosen again, as they were."""
        known = {axis.key: distribution(axis) for axis in space.axes}
        for trial in self._open(generation - 1).get_trials(deepcopy=False):
            waits = not trial.state.is_finished() or (retry and trial.state == TrialState.FAIL)
            params = {key: value for key, value in trial.params.items() if key in known and _holds(known[key], value)}
            if waits:
                self.optuna.add_trial(create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params}))
                continue
            # The space may no longer have what it was tried with.
            left_out = {key: _typed(value) for key, value in trial.params.items() if key not in params}
            self.optuna.add_trial(
                create_trial(
                    state=trial.state,
                    values=trial.values if trial.state == TrialState.COMPLETE else None,
                    params=params,
                    distributions={key: known[key] for key in params},
                    user_attrs={**trial.user_attrs, "left out": {**trial.user_attrs.get("left out", {}), **left_out}},
                    intermediate_values=trial.intermediate_values,
                )
            )
        self.optuna.set_user_attr("data", self._open(generation - 1).user_attrs.get("data", {}))
        self.optuna.set_user_attr("copied", True)

    @classmethod
    def begin(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        space: Space | None = None,
        extend: bool = False,
        retry: bool = False,
        pruner: Any = None,
    ) -> Study:
        """Begin a study, or continue the one in the folder towards the number of trials.

        Raises:
            ConfigError: The folder has another study, or one that this user has not begun.
        """
        if os.path.lexists(folder / MANIFEST):
            check_own(folder)
            before = read_manifest(folder)
            generation = before.generation
            if (difference := manifest.difference(before)) and not extend:
                raise ConfigError(
                    f"sweep: '{folder.name}' has another manifest: {difference}. "
                    "Try: name=... for a new sweep, or extend=true to go on with the new one"
                )
            generation += manifest.space != before.space or retry
            changed = [
                f"{n} {v} to {manifest.packages.get(n)}" for n, v in before.packages.items() if v != manifest.packages.get(n)
            ]
            if changed:
                say(f"warning: package versions changed since the first trial: {'; '.join(changed)}", error=True)
            facts = asdict(manifest) | {"generation": generation, "packages": before.packages}
            manifest = Manifest(**facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f".{MANIFEST}.{os.getpid()}"
            unfinished.write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
            unfinished.replace(folder / MANIFEST)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}.") from None
        if failed := remember(study=folder.resolve()):
            say(f"warning: {failed}; this sweep cannot be continued", error=True)
        return cls(folder, manifest, pruner, space=space, retry=retry)

    def has_data(self, key: str) -> bool:
        """Return whether a trial has had these data."""
        return key in self.optuna.user_attrs.get("data", {})

    def check_data(self, key: str, fingerprint: str) -> None:
        """Check that the data of a trial are those of the trials before.

        Raises:
            DataError: They have changed.
        """
        known = self.optuna.user_attrs.get("data", {})
        if known.setdefault(key, fingerprint) != fingerprint:
            raise DataError(
                f"data of '{self.name}' changed since its first trial: fingerprint must be {known[key]}. "
                f"Received: {fingerprint}. Try: name=... for a new sweep"
            )
        if known != self.optuna.user_attrs.get("data"):
            self.optuna.set_user_attr("data", known)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return all trials in order, or those in some states."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def records(self) -> list[TrialRecord]:
        """Return all trials in order, as plain values: the mean over seeds, where a race has been run."""
        records = self.records_of_one_seed()
        return self._raced(records) if self.manifest.seeds > 1 else records

    def records_of_one_seed(self) -> list[TrialRecord]:
        """Return all trials in order, with the values of their first seed."""
        trials = [trial for trial in self.trials() if trial.state != TrialState.WAITING]
        for trial in trials:
            if trial.number not in self._ended and trial.state.is_finished():
                self._ended[trial.number] = self._record(trial)
        return [self._ended.get(trial.number) or self._record(trial) for trial in trials]

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        attributes = trial.user_attrs
        return TrialRecord(
            number=trial.number,
            state=NAMES.get(trial.state.name, "running"),  # type: ignore[arg-type]
            options={key: _typed(value) for key, value in (attributes.get("left out", {}) | trial.params).items()},
            values=tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else (),
            reported=tuple(sorted(trial.intermediate_values.items())),
            seconds=float(attributes.get("seconds", 0.0)),
            run=str(attributes.get("run") or self.run_folder(trial.number)),
            failure=str(attributes.get("failure", "")),
        )

    def values_by_seed(self, record: TrialRecord) -> list[float]:
        """Return the values of a complete trial by seed, as far as they are there without a gap."""
        known = self.optuna.user_attrs
        values = [record.values[0]]
        while len(values) < self.manifest.seeds and (key := key_of_seed(record.number, len(values))) in known:
            values.append(float(known[key]) if known[key] is not None else math.nan)
        return values

    def _race(self, complete: Sequence[TrialRecord]) -> tuple[Race, list[list[float]]]:
        """Return the state of the race over seeds, and the values of each complete trial by seed."""
        values = [self.values_by_seed(record) for record in complete]
        return race(values, seeds=self.manifest.seeds, better=self.objectives[0].better), values

    def wanted_seeds(self, complete: Sequence[TrialRecord]) -> list[tuple[int, int]]:
        """Return the trials and seeds that the race needs before it can go on; none at its end."""
        found, values = self._race(complete)
        rows = zip(complete, values, found.wanted, found.alive, strict=True)
        return [(record.number, seed) for record, own, count, alive in rows if alive for seed in range(len(own), count)]

    def _raced(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the trials with their means over seeds; those that have left the race as pruned."""
        complete = [record for record in records if record.state == "complete" and record.values]
        if not complete or any(record.state == "running" for record in records):
            return [*records]
        found, values = self._race(complete)
        changed = {}
        for record, own in zip(complete, values, strict=True):
            changed[record.number] = replace(record, values=(sum(own) / len(own),))
        for left in found.eliminations:
            number = complete[left.candidate].number
            if left.by is None:
                why = f"undefined with seed {left.seeds - 1}"
            else:
                than = f"trial {complete[left.by].number} is better by {left.difference:.4g} (p = {left.p_value:.2g})"
                why = f"left the race after {left.seeds} seeds: {than}"
            changed[number] = replace(changed[number], state="pruned", failure=why)
        return [changed.get(record.number, record) for record in records]

    def importance(self) -> dict[str, float]:
        """Return the fraction of the variance of the first objective that each option explains, by fANOVA.

        Raises:
            DataError: There are too few trials, or their values are equal.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        if len({trial.values[0] for trial in self.trials(TrialState.COMPLETE)}) < 2:
            raise DataError("sweep: the importance cannot be told: it takes two complete trials with different values.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is experimental in Optuna
            try:
                evaluator = FanovaImportanceEvaluator(seed=0)
                found = get_param_importances(self.optuna, evaluator=evaluator, target=lambda trial: trial.values[0])
            except (ValueError, RuntimeError) as error:
                raise DataError(f"sweep: the importance cannot be told: {error}") from None
        return found

    def run_folder(self, number: int, seed: int = 0) -> Path:
        """Return the folder of the run of a trial with its first seed, or a further one."""
        return self.runs / f"{self.name}-{number:04d}{f'-seed{seed}' if seed else ''}"

    def best(self, records: Sequence[TrialRecord] | None = None) -> TrialRecord | None:
        """Return the complete trial that is best in the first objective."""
        return best_of(self.records() if records is None else records, self.objectives[0])

    def front(self) -> list[TrialRecord]:
        """Return the complete trials that no other one beats in all objectives."""
        return [self._record(trial) for trial in self.optuna.best_trials if trial.state == TrialState.COMPLETE]

    def claim(self, sampler: Any, space: Space) -> Trial | None:
        """Return a trial to work on: one whose process is gone, else a new one; None if there is none to begin.

        Args:
            sampler: Sampler of a trial, by its number.
            space: Its points are the trials, if the sampler is a grid.
        """
        with self.storage.alone():
            for trial in self.trials(TrialState.RUNNING):
                if self.storage.take(trial.number):
                    self.optuna.sampler = sampler(trial.number)  # it may have been killed before it had chosen
                    return Trial(self.optuna, trial._trial_id)
            waiting = self.trials(TrialState.WAITING)
            number = waiting[0].number if waiting else len(self.trials())
            if number >= self.manifest.trials or self.has_failed():
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is experimental in Optuna
                self.optuna.sampler = sampler(number)
                if REGISTRIES["sampler"].get(self.manifest.sampler["name"]).facts["exhaustive"] and not waiting:
                    self.optuna.enqueue_trial(space.grid[number])
                trial = self.optuna.ask()
            assert self.storage.take(trial.number)
            return trial

    def is_left(self) -> bool:
        """Return whether the process of a trial is gone before the trial has ended."""
        with self.storage.alone():
            for trial in self.trials(TrialState.RUNNING):
                if self.storage.take(trial.number):
                    self.storage.release(trial.number)
                    if self.trials()[trial.number].state == TrialState.RUNNING:  # it has not ended since
                        return True
        return False

    def has_failed(self) -> bool:
        """Return whether too many trials have failed."""
        return len(self.trials(TrialState.FAIL)) > self.max_failures

    max_failures: float = math.inf
    """Failed trials after which none is begun."""
    journal: StudyJournal | None = None
    """What is uploaded of the study, in the process that tells of it."""

    def finish(self, trial: Trial, values: Sequence[float] | None, state: TrialState, **facts: Any) -> None:
        """Note the end of a trial, and let go of it; where the server was lost and another process has it, that one will."""
        if self.storage.is_lost(trial.number):
            say(f"trial {trial.number}: another process took it while the server was lost", error=True)
            self.storage.release(trial.number)
            return
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is experimental in Optuna
            self.optuna.tell(trial, list(values) if values else None, state=state)
        self.storage.release(trial.number)


def claim_of_seed(number: int, seed: int) -> int:
    """Return the number of the claim on a further seed of a trial."""
    return FIRST_CLAIM + 100 * number + seed


def key_of_seed(number: int, seed: int) -> str:
    """Return the key of the value of a further seed in the study's attributes."""
    return f"trial {number} seed {seed}"


def distribution(axis: Axis) -> BaseDistribution:
    """Return an axis as Optuna has it."""
    if axis.values:
        return CategoricalDistribution(axis.values)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=1 if axis.log else int(axis.step) or 1)
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step or None)


def _holds(known: BaseDistribution, value: Any) -> bool:
    """Return whether a value of an earlier trial is one of the space."""
    try:
        return known._contains(known.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def _typed(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def check_own(folder: Path) -> None:
    """Check that this user has begun a study: its files say what is run.

    Raises:
        ConfigError: Somebody else has.
    """
    if not is_known(study=folder.resolve()):
        raise ConfigError(
            f"sweep: {folder} was not begun by you in this place. Look at it: {command_line('sweep', 'status', folder.name)}. "
            "Try: name=... for a new sweep"
        )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a study.

    Raises:
        ConfigError: There is no such study.
        DataError: The manifest is damaged.
    """
    try:
        values = json.loads(read_text(folder / MANIFEST, 2**20, inside=folder))
        manifest = Manifest(**values)
        if not _is_plain(manifest):
            raise ValueError("invalid values")
    except FileNotFoundError:
        known = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise ConfigError(f"sweep: no sweep '{folder.name}' in {folder.parent}.{nearest(folder.name, known)}") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{folder / MANIFEST}: is damaged: {error}") from None
    return manifest


def _is_plain(manifest: Manifest) -> bool:
    """Return whether the values of a manifest have the types that they should."""
    texts = [*manifest.fixed, *manifest.space, *manifest.plugins, *manifest.plugins.values(), manifest.storage]
    counts = (manifest.trials, manifest.generation, manifest.seed, manifest.seeds)
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(m, str) and better in ("min", "max") and isinstance(u, str) for m, better, u in manifest.objectives)
        and bool(manifest.objectives)
        and all(isinstance(options.get("name"), str) for options in (manifest.sampler, manifest.pruner))
        and isinstance(manifest.packages, dict)
    )


def check_name(name: str) -> None:
    """Check that a name is one of a folder.

    Raises:
        ConfigError: It is not.
    """
    if not re.fullmatch(r"[\w.=+-]+", name) or set(name) <= {"."}:
        raise ConfigError(f"name: must be letters, digits and . _ = + -. Received: {name!r}.", "name")
    if shortened(name, NAME) != name:
        raise ConfigError(f"name: must have at most {NAME} bytes. Received: {len(name.encode()):,}.", "name")
