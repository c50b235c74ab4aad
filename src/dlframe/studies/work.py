"""The work on a study: one trial after the other, until none is left to begin."""

from __future__ import annotations

import contextlib
import io
import math
import os
import subprocess
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import Trial, TrialState

from dlframe.config import Config, load
from dlframe.runs.environment import python
from dlframe.runs.journal import FILE, ended, history
from dlframe.runs.recorder import Watch, read_metadata
from dlframe.runs.resume import Finished
from dlframe.runs.run_directory import FOLDER_VARIABLE, read_result
from dlframe.runs.study_journal import write_trial
from dlframe.studies import options
from dlframe.studies.space import Space
from dlframe.studies.study import Study, claim_of_seed, key_of_seed
from dlframe.types import ConfigError, DataError, DlframeError, RunPruned, TrialRecord, WorkerError, no_room, say

if TYPE_CHECKING:
    from dlframe.tracking import Tracker

EXPIRED = 75
"""Exit status of a worker whose trial has taken too long."""
MORE = 76
"""Exit status of a worker that has done the trials it may, and leaves others."""
POLL_SECONDS = 0.2
MONITOR = "monitor"
"""Objective of a grid whose runs pick their epochs by different metrics: each has its own."""


class Worker:
    """Works on a study in this process.

    Args:
        study: The study.
        space: What its trials choose from.
        chosen: The options of the study.
        in_own_process: Whether the process may be ended with a trial that takes too long.
        running: Trackers that take the runs of the trials too, and for which the caller waits.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        chosen: options.Arguments,
        *,
        in_own_process: bool = False,
        running: Sequence[Tracker] = (),
    ) -> None:
        self.study = study
        self.space = space
        self.chosen = chosen
        self.timeout = chosen.search.timeout if in_own_process else 0.0
        self.shared = running
        self.pending: list[Tracker] = [*running]
        self.finished: Finished | None = None

    def sampler(self, number: int) -> Any:
        """Return the sampler of a trial, which depends on the trials before and on nothing else."""
        return self.chosen.build("sampler", seed=self.chosen.search.seed, number=number)

    def work(self, ended: Callable[[int], None] = lambda number: None, trials: int = 0) -> int:
        """Work until no trial is left to begin, or for a number of trials.

        Args:
            ended: Is told the number of each trial that has ended.
            trials: Number of trials; 0 for no limit.

        Returns:
            Exit status of a worker.

        Raises:
            WorkerError: This process cannot go on, as its machine lacks something; another one may.
        """
        try:
            return self._work(ended, trials)
        except WorkerError:
            self.study.storage.close()
            raise

    def _work(self, ended: Callable[[int], None], trials: int) -> int:
        done = 0
        while claimed := self._claim(min(self.chosen.options.vectorize, trials - done if trials else 2**31)):
            self._trial(claimed[0]) if len(claimed) == 1 else self._stack(claimed)
            for trial in claimed:
                ended(trial.number)
            done += len(claimed)
            if done == trials:
                break
        else:
            self._race(ended)
        for tracker in self.pending[len(self.shared) :]:
            if late := tracker.wait():
                say(late, error=True)
        return MORE if done and done == trials else 0

    def _claim(self, count: int) -> list[Trial]:
        """Return up to so many trials to work on."""
        claimed: list[Trial] = []
        while len(claimed) < count and (trial := self.study.claim(self.sampler, self.space)):
            claimed.append(trial)
            if count > 1:
                self.space.suggest(trial)  # before the next one is chosen
        return claimed

    def _race(self, ended: Callable[[int], None]) -> None:
        """Train the trials that may be the best with further seeds, until the race is over."""
        while self.study.manifest.seeds > 1:
            records = self.study.records_of_one_seed()
            if any(record.state == "running" for record in records):
                if trial := self.study.claim(self.sampler, self.space):  # its process is gone
                    self._trial(trial)
                    ended(trial.number)
                else:
                    time.sleep(POLL_SECONDS)
                continue
            complete = {record.number: record for record in records if record.state == "complete"}
            if not complete or not (wanted := self.study.wanted_seeds([*complete.values()])):
                return
            mine = next((pair for pair in wanted if self.study.storage.take(claim_of_seed(*pair))), None)
            if mine is None:
                time.sleep(POLL_SECONDS)
                continue
            number, seed = mine
            try:
                # Another one may have finished it since.
                if key_of_seed(number, seed) not in self.study.optuna.user_attrs:
                    self.study.optuna.set_user_attr(key_of_seed(number, seed), self._further_seed(complete[number], seed))
            finally:
                self.study.storage.release(claim_of_seed(number, seed))
            ended(number)

    def _further_seed(self, record: TrialRecord, seed: int) -> float | None:
        """Train a trial with a further seed, and return its value; None if it fails."""
        folder = self.study.run_folder(record.number, seed)
        config = load([f"run_name={folder.name}", *self.space.fixed, *record.overrides])
        overrides = [*config.overrides, f"seed={config.run.seed + seed}"]
        try:
            config = load(overrides)
            write_trial(folder, study=self.study.name, trial=record.number, options=record.overrides)
            self._train(config, folder, None)
            return objective_value(config, folder, self.study.objectives[0].metric)
        except Exception as error:
            _, failure = outcome_of(error)
            say(f"trial {record.number}, seed {seed}: {failure}", error=True)
            return None

    def _trial(self, trial: Trial) -> None:
        """Work on a trial to its end, whatever that is."""
        started = time.perf_counter()
        with self._limited([trial], started):
            try:
                config, folder = self._config(trial)
                if other := self._finished(config, folder):
                    self._tell(trial, started, config, other, run=str(other))
                    return
                self._begin(trial, folder)
                self._train(config, folder, trial)
                self._tell(trial, started, config, folder)
            except Exception as error:
                self._tell_failure(trial, started, error)

    def _stack(self, trials: Sequence[Trial]) -> None:
        """Work on several trials, of which those that differ in seeds and rates only train as one model, where that pays."""
        from dlframe.jobs.stack import run_stack, stackable

        started = time.perf_counter()
        groups: list[list[tuple[Trial, Config, Path]]] = []
        with self._limited(trials, started):
            for trial in trials:
                try:
                    config, folder = self._config(trial)
                    if other := self._finished(config, folder):
                        self._tell(trial, started, config, other, run=str(other))
                        continue
                    self._begin(trial, folder)
                except DlframeError as error:
                    self._tell_failure(trial, started, error)
                    continue
                own = next((group for group in groups if not stackable([group[0][1], config])), None)
                if own is None:
                    groups.append([(trial, config, folder)])
                else:
                    own.append((trial, config, folder))
            for group in groups:
                configs, folders = [config for _, config, _ in group], [folder for _, _, folder in group]
                with contextlib.redirect_stdout(io.StringIO()):
                    watches = [self._watch(trial) for trial, _, _ in group]
                    found = run_stack(configs, pending=self.pending, watches=watches, folders=folders)
                for (trial, config, folder), result in zip(group, found, strict=True):
                    if isinstance(result, Exception):
                        self._tell_failure(trial, started, result)
                        continue
                    try:
                        self._tell(trial, started, config, folder)
                    except DlframeError as error:
                        self._tell_failure(trial, started, error)

    def _config(self, trial: Trial) -> tuple[Config, Path]:
        """Return the config of a trial, and the folder of its run."""
        folder = self.study.run_folder(trial.number)
        return load([f"run_name={folder.name}", *self.space.fixed, *self._varied(trial)]), folder

    def _varied(self, trial: Trial) -> list[str]:
        """Return the overrides that tell a trial from others."""
        return [f"{key}={text}" for key, text in self.space.suggest(trial).items()]

    def _begin(self, trial: Trial, folder: Path) -> None:
        """Note in the folder of a run of which study it is a trial."""
        write_trial(folder, study=self.study.name, trial=trial.number, options=self._varied(trial))

    def _finished(self, config: Config, folder: Path) -> Path | None:
        """Return a finished run that can stand for a trial which has not begun."""
        if not self.chosen.options.reuse or (folder / FILE).exists():
            return None
        from dlframe.jobs.train import load_data

        self.finished = self.finished or Finished(config.run.runs)
        return self.finished.find(config, load_data(config).fingerprint)

    def _tell(self, trial: Trial, started: float, config: Config, folder: Path, **facts: Any) -> None:
        """Tell the study the values of a trial, and facts of it.

        Raises:
            DlframeError: It has no finite one.
        """
        values = [objective_value(config, folder, objective.metric) for objective in self.study.objectives]
        self.study.finish(trial, values, TrialState.COMPLETE, seconds=time.perf_counter() - started, **facts)

    def _tell_failure(self, trial: Trial, started: float, error: Exception) -> None:
        state, failure = outcome_of(error)
        told = {"failure": failure} if failure else {}
        self.study.finish(trial, None, state, seconds=time.perf_counter() - started, **told)

    @contextlib.contextmanager
    def _limited(self, trials: Sequence[Trial], started: float) -> Iterator[None]:
        """End this process, and the trials as failed, if they take too long: nothing else stops a call that hangs."""
        if not self.timeout:
            yield
            return

        def expire() -> None:
            error = DataError(f"took longer than search.timeout={self.timeout:g} seconds")
            for trial in trials:
                self._tell_failure(trial, started, error)
                say(f"trial {trial.number}: {error}", error=True)
            os._exit(EXPIRED)

        timer = threading.Timer(self.timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _watch(self, trial: Trial | None, unit: str = "epoch") -> Watch:
        """Return what sees the validations of a trial; None for a further seed, which is not ended early.

        Args:
            trial: The trial.
            unit: What is counted from one validation to the next.
        """
        metric = self.study.objectives[0].metric
        is_pruned = trial is not None and len(self.study.objectives) == 1 and metric.startswith("val/")

        def watch(epoch: int, metrics: Mapping[str, float]) -> None:
            if trial is None or not is_pruned or metric not in metrics:
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a trial that goes on tells an epoch twice
                trial.report(metrics[metric], epoch)
            if trial.should_prune():
                raise RunPruned(f"pruned after {unit} {epoch}: {metric} {metrics[metric]:.4g}")

        return watch

    def _train(self, config: Config, folder: Path, trial: Trial | None) -> None:
        """Train a trial, or go on with it.

        Raises:
            RunPruned: It is worse than others.
            DlframeError: It fails.
        """
        from dlframe.jobs.data import load_data, sized
        from dlframe.jobs.train import run

        watch = self._watch(trial, "epoch" if config.run.validate_unit == "epochs" else "validation")
        key = data_key(sized(config))
        try:
            fingerprint = load_data(config).fingerprint
        except DataError as error:
            if self.study.has_data(key):
                raise WorkerError(f"data that an earlier trial had cannot be read here: {error}") from error
            raise
        self.study.check_data(key, fingerprint)
        if config.trainer.devices != 1 or config.trainer.num_nodes > 1:
            self._train_apart(config, folder, watch)
            return
        with contextlib.redirect_stdout(io.StringIO()):
            run(config, pending=self.pending, watch=watch, folder=folder)

    def _train_apart(self, config: Config, folder: Path, watch: Callable[[int, Any], None]) -> None:
        """Train on several devices: Lightning's processes repeat the command line, so that it must be the trial's alone."""
        environment = {**os.environ, FOLDER_VARIABLE: str(folder.absolute())}
        process = subprocess.Popen(
            python("-m", "dlframe", *config.overrides),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        metric, seen, lines = self.study.objectives[0].metric, 0, []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                values = history(folder).get(metric, []) if (folder / "journal.jsonl").exists() else []
                for _, value in values[seen:]:
                    seen += 1
                    watch(seen * config.run.rounds, {metric: value})
        except BaseException:
            process.terminate()
            process.wait()
            raise
        reader.join()
        say(*(line.rstrip("\n") for line in lines), error=True)
        if process.returncode or ended(folder) != "FINISHED":
            told = (lines or [f"exit status {process.returncode}"])[-1]
            raise DataError(told.strip().removeprefix("error: "))


def outcome_of(error: Exception) -> tuple[TrialState, str]:
    """Return the state of a trial that has ended with an error, and why.

    Raises:
        WorkerError: It is no failure of the trial.
    """
    if isinstance(error, WorkerError):
        raise error
    if why := no_room(error):  # not of this trial only
        raise WorkerError(f"the runs cannot be written: {why}. Make room; the same command continues") from error
    if isinstance(error, RunPruned):
        return TrialState.PRUNED, ""
    if isinstance(error, DlframeError):
        # Too large is a value of the space: as bad as can be, and no failure.
        return TrialState.PRUNED if str(error).startswith("out of memory") else TrialState.FAIL, str(error)
    say(*"".join(traceback.format_exception(error)).splitlines(), error=True)
    return TrialState.FAIL, f"{type(error).__name__}: {error}"


def data_key(config: Config) -> str:
    """Return what tells the data of a trial from those of others."""
    found = sorted((key, str(value)) for key, value in config.values["data"].items())
    if config.entry("task").facts["trained_on"] == "normal":
        found.append(("without", str(config.values["task"].get("anomalies", ()))))
    if few := config.trainer.overfit_batches:
        found.append(("batches", f"{few} of {config.run.batch_size}"))
    return str(found)


def objective_value(config: Config, folder: Path, metric: str) -> float:
    """Return the value of an objective for a run that has ended.

    Of metrics of the validation split, that of the best epoch; of `MONITOR`, of the metric that picks it.

    Raises:
        ConfigError: It has no finite value.
    """
    if metric == "seconds":
        return read_result(folder).seconds
    if metric == "parameters":
        return float(read_metadata(folder, "parameters") or 0)
    if metric == "latency":
        from dlframe.jobs.latency import latency_ms

        return latency_ms(config, folder)
    metric = config.monitor if metric == MONITOR else metric
    curves = history(folder)
    steps = {step: value for step, value in curves.get(config.monitor, ()) if math.isfinite(value)}
    values = {step: value for step, value in curves.get(metric, ()) if step in steps and math.isfinite(value)}
    if not values:
        raise ConfigError(f"{metric}: was undefined in every epoch.")
    sign = 1 if config.metrics[config.monitor.removeprefix("val/")].better == "max" else -1
    return values[max(values, key=lambda step: sign * steps[step])]
