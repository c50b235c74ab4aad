"""The course of a study: workers here or elsewhere, and what is shown of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from dlframe.config import Config
from dlframe.executors.base import Work
from dlframe.executors.base import Worker as Started
from dlframe.registry import REGISTRIES
from dlframe.registry.plugins import code_of
from dlframe.reports import description
from dlframe.reports.live import LiveTable
from dlframe.runs import run_directory
from dlframe.runs.environment import python
from dlframe.runs.run_directory import TABLE, check_writable, read_result
from dlframe.runs.signals import RunInterrupted
from dlframe.runs.study_journal import StudyJournal, trial_of
from dlframe.storage.known import is_known, remember, runs_of, stored_uri
from dlframe.studies import options, work
from dlframe.studies.space import Space
from dlframe.studies.study import FOLDER, NAME, Manifest, Study, check_name
from dlframe.types import ConfigError, DlframeError, TrialRecord, command_line, nearest, read_text, replacing, say, shortened

if TYPE_CHECKING:
    from dlframe.tracking import Tracker

WORKER = "DLFRAME_SWEEP_WORKER"
"""Environment variable of a process that a study has started: its number, and the trials that it may do."""
RESTARTS = 3
"""Restarts of killed workers, per worker."""


def is_worker() -> bool:
    """Return whether a study has started this process."""
    return WORKER in os.environ


def work_as_worker(study: Study, space: Space, chosen: options.Arguments) -> int:
    """Work as a process that a study has started; the exit status."""
    trials = int(os.environ[WORKER].partition(":")[2] or 0)
    return work.Worker(study, space, chosen, in_own_process=True).work(trials=trials)


@contextmanager
def tracked(study: Study, config: Config, running: Sequence[Tracker] = ()) -> Iterator[list[Tracker]]:
    """Have a study uploaded as the run to which its trials belong, where these are tracked; yield its tracker.

    Args:
        study: The study; has a journal while one is needed.
        config: Config of a trial.
        running: Trackers of this process, which take the study too.
    """
    from dlframe.jobs.train import tracking_uri_of

    uri = tracking_uri_of(config)
    trackers: list[Tracker] = [*running]
    if uri and is_known(study=study.folder.resolve()):
        study.journal = StudyJournal(study.folder, study.objectives, _beginning(study, config, uri))
        _tell(study, study.records_of_one_seed(), trackers)
    status, message = "FAILED", ""
    try:
        yield trackers
        complete = any(record.state == "complete" for record in study.records_of_one_seed())
        status, message = ("FINISHED", "") if complete else ("FAILED", "no trial is complete")
    except (KeyboardInterrupt, SystemExit, RunInterrupted):
        status, message = "KILLED", "interrupted"
        raise
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
        raise
    finally:
        if study.journal:
            _tell_table(study)
            study.journal.end(status, message)
        for tracker in trackers[len(running) :]:
            if late := tracker.wait():
                say(late, error=True)


def _tell_table(study: Study) -> None:
    """Have the table of all trials uploaded, as a file and in the description of the study."""
    assert study.journal
    records, results = study.records(), {}
    for record in records:
        if record.state == "complete":
            with contextlib.suppress(DlframeError):
                results[record.number] = read_result(Path(record.run))
    if not records:
        return
    try:
        with replacing(study.folder / TABLE, study.folder) as unfinished:
            text = description.study_csv(records, study.objectives, results)
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        study.journal.artifact(TABLE)
    except (DlframeError, OSError) as error:
        say(f"warning: {study.folder / TABLE}: cannot be written: {error}", error=True)
    title = f"{study.name}: {len(records)} of {study.manifest.trials} jobs; {'; '.join(study.manifest.space)}"
    study.journal.describe(description.of_study(title, records, study.objectives, results))


def _beginning(study: Study, config: Config, uri: str) -> dict[str, Any]:
    """Return the record that begins or continues the run of a study."""
    manifest, trial = study.manifest, trial_of(study.folder)
    return {
        "run_name": study.name,
        "experiment": config.experiment,
        "parameters": {
            "fixed": " ".join(manifest.fixed),
            "space": "; ".join(manifest.space),
            "objectives": ", ".join(f"{o.metric} ({o.better})" for o in study.objectives),
            **dict(run_directory.flat({"sampler": manifest.sampler, "pruner": manifest.pruner})),
            "search.seed": manifest.seed,
            "search.seeds": manifest.seeds,
        },
        "tags": {  # unlike a parameter, a tag may change when the study is continued
            "mlflow.source.name": "dlframe",
            "mlflow.source.type": "LOCAL",
            "run.folder": str(study.folder.resolve()),
            "dlframe.trials": manifest.trials,
            **trial.get("tags", {}),
        },
        "uri": stored_uri(uri, runs_of(study.folder.resolve())),
        **({"study": trial["study"]} if trial else {}),
    }


def _tell(study: Study, records: Sequence[TrialRecord], trackers: list[Tracker]) -> None:
    """Write what is new of a study, if this process does; it takes that over from one that has ended."""
    if not study.journal:
        return
    if study.journal.open():
        from dlframe.tracking import Tracker

        tracker = Tracker.start(study.folder, running=trackers)
        trackers += [tracker] if tracker not in trackers else []
    study.journal.update(records)


def tell_seeds(
    study: Study, place: int, label: str, runs: Sequence[Path], values: dict[str, float], trackers: list[Tracker]
) -> None:
    """Have the runs of one model, which differ in their seeds, uploaded as a run of the study with what they have together.

    Args:
        study: The study.
        place: Number of the model in the study.
        label: Name of the model.
        runs: Its runs.
        values: Metrics, such as the mean with the ends of its interval.
        trackers: Those of this process, which take the run too.
    """
    if not study.journal or not study.journal.journal:
        return
    folder = study.folder.with_name(f"{study.name}-seeds-{place:04d}")
    folder.mkdir(exist_ok=True)
    if remember(study=folder.resolve()):
        return  # it has been told for the study itself
    start = study.journal.start
    tags = {"run.folder": str(folder.resolve()), "dlframe.study": study.name, "dlframe.model": label}
    tags |= {
        "dlframe.seeds": " ".join(path.name for path in runs),
        "mlflow.source.name": "dlframe",
        "mlflow.source.type": "LOCAL",
    }
    mine = {"run_name": f"{label} · {len(runs)} seeds", "study": study.name, "parameters": {"model": label}, "tags": tags}
    journal = StudyJournal(folder, study.objectives, {**start, **mine})
    if journal.open():
        from dlframe.tracking import Tracker

        tracker = Tracker.start(folder, running=trackers)
        trackers += [tracker] if tracker not in trackers else []
        journal.metrics(values)
        journal.end("FINISHED")


def run(
    study: Study,
    space: Space,
    chosen: options.Arguments,
    command: str,
    main: Callable[[Sequence[str]], int],
    trackers: list[Tracker] | None = None,
) -> None:
    """Work on a study until no trial is left to begin.

    Args:
        study: The study.
        space: What its trials choose from.
        chosen: Its options.
        command: "sweep", or "-m".
        main: The command as a function, of its arguments.
        trackers: Those of this process, which take the runs of trials too.
    """
    shown = LiveTable(study.manifest.trials, study.objectives[0], before=study.records_of_one_seed())
    executor = chosen.components["executor"]
    trackers = [] if trackers is None else trackers

    def see() -> None:
        records = study.records_of_one_seed()
        shown.update(records)
        _tell(study, records, trackers)

    is_elsewhere = executor["name"] != "local" or executor["isolate"] or chosen.search.timeout
    try:
        while True:
            if chosen.options.workers > 1 or is_elsewhere:
                _drive(study, chosen, next(iter(space.configs.values())), command, main, see)
            else:
                work.Worker(study, space, chosen, running=trackers).work(lambda number: see())
            # Another process that was given the same command may still work on trials, or be killed while it does.
            while (running := study.trials(TrialState.RUNNING)) and not study.is_left():
                time.sleep(work.POLL_SECONDS)
                see()
            if not running:
                break
        if study.has_failed():
            failed = [record for record in study.records_of_one_seed() if record.state == "failed"]
            rule = f"more than search.max_failures={study.max_failures:g}"
            say(f"stopped: {len(failed)} trials have failed, {rule}; the last: {failed[-1].failure}", error=True)
    except (KeyboardInterrupt, SystemExit):
        shown.close()
        words = [text for text in (*chosen.overrides, *chosen.typed) if command != "-m" or not text.startswith("sampler=")]
        say(f"stopped; to continue all of it: {shlex.join(['python', '-m', 'dlframe', command, *words])}", error=True)
        raise
    finally:
        shown.close()


def _drive(
    study: Study,
    chosen: options.Arguments,
    config: Config,
    command: str,
    main: Callable[[Sequence[str]], int],
    see: Callable[[], None],
) -> None:
    """Have workers work, and fill the place of one that is killed."""
    executor = chosen.build("executor")
    workers = chosen.options.workers
    own = {"workers", "name", "extend", "retry", *(["sampler"] if command == "-m" else [])}
    arguments = [text for text in (*chosen.typed, *chosen.overrides) if text.partition("=")[0] not in own]
    arguments.append(f"name={study.name}")
    restarts = RESTARTS * workers
    reason = ""

    def worker(number: int) -> Work:
        return Work(
            number=number,
            workers=workers,
            command=python("-m", "dlframe", command, *arguments),
            run=main,
            arguments=arguments,
            environment={WORKER: f"{number}:{executor.trials_each}"},
            folder=Path.cwd(),
            log=(study.folder / f"worker-{number}.log").absolute(),
            accelerator=config.trainer.accelerator,
            devices=max(1, config.trainer.devices) * config.trainer.num_nodes,
        )

    running: dict[int, Started] = {}
    try:
        running = dict(enumerate(executor.start([worker(number) for number in range(workers)])))
        while running:
            time.sleep(work.POLL_SECONDS)
            see()
            for number, started in [*running.items()]:
                if (status := started.poll()) is None:
                    continue
                del running[number]
                again = status in (work.MORE, work.EXPIRED)
                if status < 0 and restarts:
                    restarts -= 1
                    again = True
                    say(f"worker {number} was killed (signal {-status}); started again", error=True)
                elif status and not again:
                    reason = f"worker {number} ended with status {status}: {last_line(worker(number).log)}"
                    say(reason, error=True)
                if again:
                    (running[number],) = executor.start([worker(number)])
        see()
        left = study.manifest.trials - sum(record.state != "running" for record in study.records_of_one_seed())
        if reason and left and not study.has_failed():
            raise ConfigError(f"{study.name}: {left} trials are left. {reason}. The same command continues: {study.folder}")
    finally:
        for started in running.values():
            started.stop()
        executor.close()


def last_line(log: Path) -> str:
    """Return the last line of a log, and where it is."""
    try:
        lines = read_text(log, 2**30, errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1].removeprefix('error: ')[:300] if lines else 'it has said nothing'} ({log})"


def plugins_of(config: Config) -> dict[str, str]:
    """Return the hashes of the files of the chosen plugins."""
    return {f"{plugin}: {name}": own for plugin, files in code_of(config.chosen).items() for name, own in files.items()}


def begin(space: Space, chosen: options.Arguments, *, trials: int, stem: str = "") -> Study:
    """Begin or continue a study.

    Args:
        space: What varies.
        chosen: Options of the study.
        trials: Number of trials.
        stem: Beginning of its name where components vary.

    Raises:
        DlframeError: The folder has another study.
    """
    configs = [*space.configs.values()]
    config = configs[0]
    say(*dict.fromkeys(note for c in configs for note in c.notes))
    check_writable(config.run.runs)
    if option := config.run.looks:
        raise ConfigError(f"{option}: tries one run. Received: several. Try one of the jobs, without -m.", option)
    if any(c.run.initial_checkpoint == "best" for c in configs):
        rule = "another run with each job that ends"
        raise ConfigError(f"initial_checkpoint=best: is {rule}. Name it: initial_checkpoint=RUN", "initial_checkpoint")
    if config.run.register:
        way = command_line("sync", "RUN", f"register={config.run.register}")
        raise ConfigError(
            f"register: registers the model of one run. Received: several. Register one of them: {way}", "register"
        )
    if chosen.components["pruner"]["name"] == "hyperband":
        _check_brackets(configs, [axis.key for axis in space.axes])
    manifest = Manifest(
        fixed=[*space.fixed],
        space=[*map(str, space.axes)],
        objectives=[[metric, *direction(metric, config)] for metric in chosen.search.objectives]
        or [_monitored(configs, chosen)],
        sampler=chosen.components["sampler"],
        pruner=chosen.components["pruner"],
        seed=chosen.search.seed,
        seeds=chosen.search.seeds,
        plugins={name: digest for c in configs for name, digest in plugins_of(c).items()},
        trials=trials,
        storage=chosen.options.storage,
    )
    text = json.dumps({key: value for key, value in manifest.facts.items() if key != "plugins"}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    title = stem if stem and len(configs) > 1 else run_directory.title(config)
    name = chosen.options.name or f"{shortened(title, NAME - 7)}-{digest}"
    check_name(name)
    study = Study.begin(
        Path(config.run.runs) / FOLDER / name,
        manifest,
        space=space,
        extend=chosen.options.extend,
        retry=chosen.options.retry,
        pruner=chosen.build("pruner", epochs=config.run.epochs),
    )
    study.max_failures = chosen.search.max_failures
    return study


def _check_brackets(configs: Sequence[Config], varied: Sequence[str]) -> None:
    """Refuse hyperband where `epochs`, from which it cuts its brackets, is not what trials are counted by."""
    rules = {
        "trainer.max_steps": any(c.trainer.max_steps for c in configs) and "trainer.max_steps replaces",
        "validate_unit": any(c.run.validate_unit == "steps" for c in configs) and "validate_unit=steps does not count",
        "epochs": "epochs" in varied and "varies",
    }
    for key, rule in rules.items():
        if rule or key in varied:
            told = f"its brackets are cut from `epochs`, which {rule or f'{key} replaces'}"
            raise ConfigError(
                f"pruner=hyperband: {told}. Try: pruner=halving, which counts the validations that come, or epochs=N", "pruner"
            )


FACTS = {"parameters": "", "latency": "ms", "seconds": "s"}
"""Objectives that are no metric, with their units; less is better."""


def _monitored(configs: Sequence[Config], chosen: options.Arguments) -> list[str]:
    """Return the metric that picks the best epoch as an objective; in a grid, it may be another one for each config.

    Raises:
        ConfigError: The metrics cannot be compared.
    """
    found = {config.monitor: direction(config.monitor, config) for config in configs}
    if len(found) == 1:
        (metric,) = found
        return [metric, *found[metric]]
    ways = {better for better, _ in found.values()}
    if is_exhaustive(chosen) and len(ways) == 1:
        units = {unit for _, unit in found.values()}
        return [work.MONITOR, ways.pop(), units.pop() if len(units) == 1 else ""]
    common = [metric for metric in found if all(metric.removeprefix("val/") in config.metrics for config in configs)]
    tasks = sorted({config.entry("task").name for config in configs})
    of = f", of the tasks {' and '.join(tasks)}" if len(tasks) > 1 else ""
    raise ConfigError(
        f"search.objectives: must be given where runs pick their epochs by different metrics. Received: "
        f"{', '.join(sorted(found))}{of}. Try: search.objectives=[{(*common, 'seconds')[0]}]",
        "search.objectives",
    )


def direction(metric: str, config: Config) -> tuple[str, str]:
    """Return "min" or "max" for an objective, and its unit.

    Raises:
        ConfigError: There is no such metric.
    """
    if metric in FACTS:
        return "min", FACTS[metric]
    known = config.metrics
    if metric.startswith("test/"):
        raise ConfigError(
            f"search.objectives: a search never looks at the test split. Received: {metric}.", "search.objectives"
        )
    if metric.removeprefix("val/") not in known or not metric.startswith("val/"):
        hint = nearest(metric, [*(f"val/{name}" for name in known), *FACTS])
        raise ConfigError(f"search.objectives: no such objective. Received: {metric}.{hint}", "search.objectives")
    read = known[metric.removeprefix("val/")]
    return read.better, read.unit


def is_exhaustive(chosen: options.Arguments) -> bool:
    """Return whether the sampler tries every point once."""
    return bool(REGISTRIES["sampler"].get(chosen.components["sampler"]["name"]).facts["exhaustive"])


def is_typed(chosen: options.Arguments, key: str) -> bool:
    """Return whether an option of the study was typed."""
    return any(text.partition("=")[0] == key for text in chosen.typed)
