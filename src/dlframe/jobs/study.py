"""A search on disk: its manifest, its trials in Optuna's journal, and who works on which trial."""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from dlframe.jobs.space import Search
from dlframe.types import ConfigError, DataError, nearest, read_bytes, read_text

optuna.logging.set_verbosity(optuna.logging.ERROR)
FOLDER = "sweeps"
MANIFEST = "manifest.json"
LARGEST = 2**31
"""Bytes of Optuna's journal, of some million trials."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sweep is; the same command continues it.

    Attributes:
        fixed: Overrides of every trial.
        space: The options that vary, in words.
        monitor: The metric that is compared, of the validation split.
        better: "min" or "max".
        search: How trials are chosen.
        trials: Number of trials.
    """

    fixed: list[str]
    space: list[str]
    monitor: str
    better: str
    search: dict[str, Any]
    trials: int

    def difference(self, other: Manifest) -> str:
        """Describe the first difference besides the number of trials; empty without one."""
        for name, value in asdict(self).items():
            theirs = asdict(other)[name]
            if name != "trials" and value != theirs:
                return f"{name} was {_shown(theirs)} and is {_shown(value)}"
        return ""


def _shown(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else json.dumps(value)


class Study:
    """A sweep in its folder. Any number of processes may work on one; each trial has one of them.

    Args:
        folder: Folder of the sweep.
        manifest: What it is.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.name = folder.name
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / "lock")  # the kernel lets go of locks when a process is killed
        journal, lock = folder / "optuna.journal", FileLock(folder / "optuna.lock")
        with lock:
            _cut_unfinished_line(journal)
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]  # it has both methods
        direction = "maximize" if manifest.better == "max" else "minimize"
        with self.lock:
            self.optuna = optuna.create_study(
                study_name=self.name, storage=storage, direction=direction, load_if_exists=True, pruner=_pruner(manifest)
            )
        self._claims: dict[int, FileLock] = {}

    @classmethod
    def begin(cls, folder: Path, manifest: Manifest, *, extend: bool = False) -> Study:
        """Begin a sweep, or continue the one in the folder towards the number of trials.

        Raises:
            ConfigError: The folder has another sweep.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / MANIFEST
        if file.exists() and not extend:
            before = read_manifest(folder)
            if difference := manifest.difference(before):
                raise ConfigError(
                    f"sweep: '{folder.name}' has another manifest: {difference}. "
                    "Try: name=... for a new sweep, or extend=true to go on with the new one"
                )
        unfinished = folder / f".{MANIFEST}.{os.getpid()}"
        unfinished.write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
        unfinished.replace(file)
        return cls(folder, manifest)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in order."""
        return self.optuna.get_trials(deepcopy=False)

    def best(self) -> FrozenTrial | None:
        """Return the best complete trial."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        sign = 1 if self.manifest.better == "max" else -1
        return max(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def claim(self) -> Trial | None:
        """Return a trial to work on: one whose process is gone, else a new one; None if there is none to begin."""
        with self.lock:
            trials = self.trials()
            for trial in trials:
                if trial.state == TrialState.RUNNING and self._take(trial.number):
                    return Trial(self.optuna, trial._trial_id)
            failures = sum(trial.state == TrialState.FAIL for trial in trials)
            if len(trials) >= self.manifest.trials or failures > self.manifest.search["max_failures"]:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is experimental in Optuna
                self.optuna.sampler = _sampler(self.manifest, len(trials))
                trial = self.optuna.ask()
            assert self._take(trial.number)
            return trial

    def finish(self, trial: Trial, value: float | None, state: TrialState, **facts: Any) -> None:
        """Note the end of a trial, and let go of it."""
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)
        if self.manifest.search["sampler"] == "grid":
            self.optuna.sampler = optuna.samplers.RandomSampler()  # that of grids stops `optimize`, which is not used here
        self.optuna.tell(trial, value, state=state)
        self._claims.pop(trial.number).release()

    def _take(self, number: int) -> bool:
        """Take a trial, unless a process that lives has it."""
        if number in self._claims:
            return False
        lock = FileLock(self.folder / "trials" / f"{number:04d}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._claims[number] = lock
        return True


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a sweep.

    Raises:
        ConfigError: There is no such sweep.
        DataError: The manifest is damaged.
    """
    try:
        values = json.loads(read_text(folder / MANIFEST, 2**20, inside=folder))
        manifest = Manifest(**values)
    except FileNotFoundError:
        known = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise ConfigError(f"sweep: no sweep '{folder.name}' in {folder.parent}.{nearest(folder.name, known)}") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{folder / MANIFEST}: is damaged: {error}") from None
    return manifest


def check_name(name: str) -> None:
    """Check that a name is one of a folder.

    Raises:
        ConfigError: It is not.
    """
    if not re.fullmatch(r"[\w.=+-]{1,100}", name) or set(name) <= {"."}:
        raise ConfigError(f"name: must be letters, digits and . _ = + -. Received: {name!r}.", "name")


def _cut_unfinished_line(journal: Path) -> None:
    """Remove what a process that was killed wrote of its last line."""
    if journal.exists():
        content = read_bytes(journal, LARGEST, inside=journal.parent)
        os.truncate(journal, content.rfind(b"\n") + 1)


def _sampler(manifest: Manifest, number: int) -> Any:
    """Return the sampler of a trial, which depends on the trials before and on nothing else: a sweep can be continued."""
    from optuna import samplers

    search = Search(**manifest.search)
    seed, warmup = search.seed + number, max(1, search.warmup_trials)
    match search.sampler:
        case "tpe":
            options: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}
            return samplers.TPESampler(seed=seed, n_startup_trials=warmup, **options)
        case "qmc":
            return samplers.QMCSampler(seed=search.seed, scramble=True)
        case "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=warmup)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, n_startup_trials=warmup)
        case "nsga2":
            return samplers.NSGAIISampler(seed=seed)
        case "grid":
            return samplers.BruteForceSampler(seed=search.seed)
    return samplers.RandomSampler(seed=seed)


def _pruner(manifest: Manifest) -> Any:
    from optuna import pruners

    search = Search(**manifest.search)
    match search.pruner:
        case "median":
            return pruners.MedianPruner(n_startup_trials=search.warmup_trials, n_warmup_steps=search.warmup_epochs)
        case "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=max(1, search.warmup_epochs))
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=max(1, search.warmup_epochs))
    return pruners.NopPruner()
