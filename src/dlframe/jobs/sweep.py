"""Command `sweep`: a search for hyperparameters that can be stopped, continued, and shared by processes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shlex
import signal
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config, load, load_options
from dlframe.jobs.space import Search, Space, space_of
from dlframe.registry import Count
from dlframe.runs.environment import python
from dlframe.runs.journal import history
from dlframe.runs.run_directory import check_writable
from dlframe.types import ConfigError, DlframeError, Result, RunPruned, nearest, say

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from dlframe.jobs.study import Study
    from dlframe.tracking import Tracker

WORKER = "DLFRAME_SWEEP_WORKER"
"""Environment variable of a process that a sweep has started."""
RESTARTS = 3
"""Restarts of killed workers, per worker."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep, beside those of its runs and `search.*`.

    Args:
        trials: Number of trials, those of earlier calls included.
        workers: Processes that work at the same time.
        name: Name of the sweep; empty for one that follows from what is searched.
        extend: Go on with a sweep whose space or search has changed.
    """

    trials: Count = 20
    workers: Count = 1
    name: str = ""
    extend: bool = False


SECTIONS = {"search.": Search}
"""Further options, by the beginning of their keys."""


def main(arguments: Sequence[str]) -> int:
    """Search for the best options: `model.width=choice(16,32)`, `optimizer.lr=tag(log,interval(1e-4,1e-1))`, `trials=50`.

    The metric that selects the best epoch of a run is compared, of the validation split; the test split plays no part. The same
    command continues a sweep that was stopped or killed, and started a second time it helps the first. `sweep status NAME`
    shows the trials, `sweep best NAME` the best one, `sweep export NAME` writes it to conf/experiment/NAME.yaml, and
    `sweep importance NAME` ranks the options.

    Raises:
        DlframeError: The space or an option is wrong, or the sweep has another manifest.
    """
    if arguments and "=" not in arguments[0]:
        return _look(arguments)
    from dlframe.jobs.study import Manifest, Study, check_name

    own = {field.name for field in fields(Options)}
    options = load_options("sweep", Options, [text for text in arguments if text.partition("=")[0] in own])
    search = load_options("sweep", Search, [text for text in arguments if text.startswith("search.")], "search.")
    space = space_of([t for t in arguments if t.partition("=")[0] not in own and not t.startswith("search.")])
    if search.sampler == "grid" and not space.points():
        raise ConfigError("search.sampler: 'grid' needs choices and ranges. Received an interval. Try: search.sampler=tpe")
    config = load([*space.fixed, *space.suggest(First())])
    check_writable(config.run.runs)
    manifest = Manifest(
        fixed=[*space.fixed],
        space=[*map(str, space.axes)],
        monitor=config.monitor,
        better=config.metrics[config.monitor.removeprefix("val/")].better,
        search=asdict(search),
        trials=min(options.trials, space.points() or options.trials) if search.sampler == "grid" else options.trials,
    )
    digest = hashlib.sha256(json.dumps({**asdict(manifest), "trials": 0}, sort_keys=True).encode()).hexdigest()[:6]
    name = options.name or f"{config.title}-{digest}"
    check_name(name)
    study = Study.begin(_folder(config.run.runs, name), manifest, extend=options.extend)
    if WORKER in os.environ:
        return _work(study, space, lambda trial: None)
    say(_header(study))
    shown = Shown(study)
    try:
        if options.workers > 1:
            _drive(study, arguments, options.workers, shown)
        else:
            _work(study, space, lambda trial: shown.update())
    except (KeyboardInterrupt, SystemExit):
        say(f"stopped; the same command continues the sweep: {study.folder}", error=True)
        raise
    return _summarize(study)


class First:
    """Chooses the first value of each axis, to look at a config before there are trials."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return low

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return low


def _folder(runs: str, name: str) -> Path:
    from dlframe.jobs.study import FOLDER

    return Path(runs) / FOLDER / name


# --- work


def _work(study: Study, space: Space, ended: Callable[[Trial], None]) -> int:
    """Work on trials until none is left to begin."""
    from optuna.trial import TrialState

    pending: list[Tracker] = []
    while trial := study.claim():
        started = time.perf_counter()
        facts: dict[str, Any] = {}
        value, state = None, TrialState.FAIL
        try:
            overrides = space.suggest(trial)
            trial.set_user_attr("overrides", overrides)
            value = _train(study, space, trial, overrides, pending)
            state = TrialState.COMPLETE
        except RunPruned:
            state = TrialState.PRUNED
        except DlframeError as error:
            facts["failure"] = str(error)
        except Exception as error:
            say(*traceback.format_exc().splitlines(), error=True)
            facts["failure"] = f"{type(error).__name__}: {error}"
        study.finish(trial, value, state, seconds=time.perf_counter() - started, **facts)
        ended(trial)
    for tracker in pending:
        if late := tracker.wait():
            say(late, error=True)
    return 0


def _train(study: Study, space: Space, trial: Trial, overrides: list[str], pending: list[Tracker]) -> float:
    """Train a trial, or go on with it, and return its best value of the validation split.

    Raises:
        RunPruned: It is worse than others.
        DlframeError: It fails, or has no finite value.
    """
    from dlframe.jobs.train import run

    monitor = study.manifest.monitor
    name = f"{study.name}-{trial.number:04d}"
    mine = [] if any(text.startswith("experiment_name=") for text in space.fixed) else [f"experiment_name={study.name}"]
    config = load([*space.fixed, *overrides, f"run_name={name}", *mine, "resume=auto"])

    def watch(epoch: int, metrics: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial that goes on tells an epoch twice
            trial.report(metrics[monitor], epoch)
        if trial.should_prune():
            raise RunPruned(f"pruned after epoch {epoch}: {monitor} {metrics[monitor]:.4g}")

    with contextlib.redirect_stdout(io.StringIO()):
        result = run(config, pending=pending, watch=watch)
    assert result.folder
    trial.set_user_attr("run", str(result.folder))
    return _value(config, result, monitor, study.manifest.better)


def _value(config: Config, result: Result, monitor: str, better: str) -> float:
    assert result.folder
    values = [value for _, value in history(result.folder)[monitor] if math.isfinite(value)]
    if not values:
        raise ConfigError(f"{monitor}: was undefined in every epoch.")
    return max(values) if better == "max" else min(values)


def _drive(study: Study, arguments: Sequence[str], workers: int, shown: Shown) -> None:
    """Have processes work, and fill the place of one that is killed."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    command = python("-m", "dlframe", "sweep", *(t for t in arguments if not t.startswith("workers=")))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    restarts = RESTARTS * workers

    def start(number: int) -> subprocess.Popen:
        with (study.folder / f"worker-{number}.log").open("ab") as log:
            return subprocess.Popen(command, env={**environment, WORKER: str(number)}, stdout=log, stderr=log)

    running = {number: start(number) for number in range(workers)}
    try:
        while running:
            time.sleep(0.2)
            shown.update()
            for number, process in [*running.items()]:
                if process.poll() is None:
                    continue
                if process.returncode < 0 and restarts:
                    restarts -= 1
                    say(f"worker {number} was killed (signal {-process.returncode}); started again", error=True)
                    running[number] = start(number)
                    continue
                del running[number]
                if process.returncode:
                    log = study.folder / f"worker-{number}.log"
                    say(f"worker {number} ended with status {process.returncode}; see {log}", error=True)
    except (KeyboardInterrupt, SystemExit):
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            process.wait()
        raise


# --- look


class Shown:
    """Prints each trial that has ended, once."""

    def __init__(self, study: Study) -> None:
        from dlframe.jobs.study import ENDED

        self.study = study
        self.ended = ENDED
        self.known = {trial.number for trial in study.trials() if trial.state in ENDED}
        self.started, self.before = time.monotonic(), len(self.known)

    def update(self) -> None:
        """Print the trials that have ended since the last call."""
        total = self.study.manifest.trials
        for trial in self.study.trials():
            if trial.state in self.ended and trial.number not in self.known:
                self.known.add(trial.number)
                done = len(self.known)
                left = (time.monotonic() - self.started) / (done - self.before) * (total - done)
                best = self.study.best()
                said = f", best {best.value:.4g} (trial {best.number})" if best else ""
                say(f"[{done}/{total}] {_line(trial)}{said}" + f"; about {left:.0f} s left" * (left >= 1))


def _line(trial: FrozenTrial) -> str:
    """Describe a trial."""
    what = {"COMPLETE": f"{trial.value or 0:.4g}", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running")
    failure = f": {trial.user_attrs['failure']}" if "failure" in trial.user_attrs else ""
    return f"trial {trial.number}: {' '.join(trial.user_attrs.get('overrides', []))}: {what}{failure}"


def _header(study: Study) -> str:
    manifest, before = study.manifest, len(study.trials())
    sampler, pruner = manifest.search["sampler"], manifest.search["pruner"]
    what = f"{sampler} over {'; '.join(manifest.space)}" + (f"; pruner {pruner}" if pruner != "none" else "")
    done = f", {before} begun before" if before else ""
    return (
        f"sweep {study.name}: {manifest.trials} trials{done}; {manifest.monitor} ({manifest.better}); {what}; in {study.folder}"
    )


def _summarize(study: Study) -> int:
    """Print the best trial and what one would type next; the exit status."""
    from optuna.trial import TrialState

    trials = study.trials()
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    said = [f"{counts[TrialState.COMPLETE]} complete"]
    others = ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed"))
    said += [f"{counts[state]} {word}" for state, word in others if counts[state]]
    say(", ".join(said))
    if best := study.best():
        overrides = shlex.join([*study.manifest.fixed, *best.user_attrs["overrides"]])
        say(f"best trial {best.number}: {study.manifest.monitor} {best.value:.4g}: {' '.join(best.user_attrs['overrides'])}")
        complete = counts[TrialState.COMPLETE]
        say(f"     the best value of {complete} trials is too good on average: train it with new seeds")
        say(f"run  {best.user_attrs['run']}")
        say(f"next python -m dlframe -m {overrides} seed=1001,1002,1003", f"     python -m dlframe sweep export {study.name}")
    return int(bool(counts[TrialState.FAIL]) or not best)


def _look(arguments: Sequence[str]) -> int:
    """Show a sweep, or take its best trial on."""
    views = {"status": _status, "best": _best, "export": _export, "importance": _importance}
    view, *rest = arguments
    if view not in views:
        raise ConfigError(f"sweep: must be key=value or a view.{nearest(view, views)}")
    names = [text for text in rest if "=" not in text]
    options = load_options("sweep", Views, [text for text in rest if "=" in text])
    if len(names) != 1:
        from dlframe.jobs.study import FOLDER

        known = sorted(path.name for path in (Path(options.runs) / FOLDER).glob("*/"))
        raise ConfigError(f"sweep {view}: requires the name of a sweep. In {options.runs}: {', '.join(known) or 'none'}.")
    from dlframe.jobs.study import Study, check_name, read_manifest

    check_name(names[0])
    folder = _folder(options.runs, names[0])
    return views[view](Study(folder, read_manifest(folder)))


@dataclass(frozen=True, kw_only=True)
class Views:
    """Options of `sweep status` and the like.

    Args:
        runs: Folder of the runs.
    """

    runs: str = "runs"


def _status(study: Study) -> int:
    say(_header(study))
    for trial in study.trials():
        say(_line(trial))
    return 0


def _best_of(study: Study) -> FrozenTrial:
    if not (best := study.best()):
        raise ConfigError(f"sweep: '{study.name}' has no complete trial yet.")
    return best


def _best(study: Study) -> int:
    best = _best_of(study)
    say(_line(best))
    say(f"run  {best.user_attrs['run']}")
    return 0


def _importance(study: Study) -> int:
    from optuna.importance import get_param_importances

    try:
        found = get_param_importances(study.optuna)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"sweep: the importance cannot be told: {error}") from None
    for key, share in found.items():
        say(f"{share:6.1%}  {key}")
    return 0


def _export(study: Study) -> int:
    """Write the best trial as an experiment."""
    import yaml

    from dlframe.config import LISTS
    from dlframe.config.compose import assign
    from dlframe.config.overrides import given_keys, parse

    best = _best_of(study)
    choices, assignments = parse(given_keys([*study.manifest.fixed, *best.user_attrs["overrides"]]))
    assignments.pop("plugin_paths", None)
    values: dict[str, Any] = {}
    for key, value in assignments.items():
        assign(values, key, value)
    for key in LISTS:
        if key in choices:
            values[key] = {name: values.get(key, {}).get(name, {}) for name in choices.pop(key)}
    defaults = [{f"override /{group}": name} for group, name in choices.items()]
    path = Path("conf") / "experiment" / f"{study.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"defaults": [*defaults, "_self_"], **values}
    head = f"# @package _global_\n# Trial {best.number} of the sweep {study.name}: {study.manifest.monitor} {best.value:.6g}\n"
    path.write_text(head + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    say(f"written: {path}", f"next python -m dlframe experiment={study.name}")
    return 0
