"""One run, from a checked config to a result: data, folder, journal, training, test."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.analysis.predictions import estimate
from dlframe.config import EXPERIMENT_VARIABLE, Config, check_no_secret, load
from dlframe.config.run_config import STORE_VARIABLE
from dlframe.config.settings import Run as Options
from dlframe.jobs.data import load_data, load_to_train
from dlframe.registry import GROUPS
from dlframe.reports import description, terminal
from dlframe.runs import resume, run_directory
from dlframe.runs.continued.changes import Continuation, overrides
from dlframe.runs.continued.options import described
from dlframe.runs.environment import is_main
from dlframe.runs.journal import Journal, ended
from dlframe.runs.recorder import BEST, Recorder, RunRecorder, Watch
from dlframe.runs.signals import RunInterrupted, Signals, exit_with_parent
from dlframe.storage.known import remember, store_uri
from dlframe.types import (
    ConfigError,
    DataError,
    Dataset,
    Estimate,
    Metric,
    OtherTaskError,
    Result,
    RunPruned,
    Split,
    TrackingError,
    command_line,
    no_room,
    say,
    wrapped,
    written,
)

if TYPE_CHECKING:
    from dlframe.engine.fit import Scored
    from dlframe.tasks.base import Scores, Task
    from dlframe.tracking import Tracker

__all__ = ["Options", "load_data", "main", "result_of", "run"]


def main(arguments: Sequence[str]) -> int:
    """Train a model, test it and save the run: config, checkpoints, metrics, predictions and figures, in one directory.

    Options are given as key=value: a group chooses a component (model=rnn), and a dotted key sets an option of what is
    chosen (model.width=64). `resume=auto` continues a run that was interrupted.

    Raises:
        DlframeError: The config is wrong, or the training cannot continue.
    """
    config = load(arguments)
    terminal.warn_of_plugins()
    trains = {"find": find_lr, "dry_run": dry_run}.get(config.run.looks, run)
    given = os.environ.get(run_directory.FOLDER_VARIABLE) if is_main() else None
    folder = Path(given) if given else None
    try:
        trains(config, folder=folder)
    except OtherTaskError as error:
        if any(argument.startswith(("task=", "experiment=")) for argument in arguments):
            raise
        # No task was named, and what the file holds is known only now.
        trains(load([*arguments, f"task={error.preset}"]), folder=folder)
    return 0


def dry_run(config: Config, *, folder: Path | None = None) -> None:
    """Try one batch of a run and say what the run would cost; nothing is written.

    Raises:
        DlframeError: What the run would end with at its beginning.
    """
    if config.run.resume not in ("none", ""):
        raise ConfigError(f"dry_run: tries a new run. Received: resume={config.run.resume}. Leave one of them out.", "dry_run")
    run_directory.check_writable(config.run.runs)
    config = resume.begins_with(config)
    dataset = load_to_train(config)
    say(*wrapped(terminal.header(config, dataset, folder)), *config.notes)
    origin = _origin(config, dataset)
    from dlframe.engine.checks.dry_run import dry_run as tried

    say(*wrapped(f"dry run: {tried(config, dataset)}; nothing was written"))
    if origin:
        say(f"         begins with {origin['file']}")


def find_lr(config: Config, *, folder: Path | None = None) -> None:
    """Try growing learning rates on a model that is thrown away; draw the losses, and suggest a rate.

    Raises:
        ConfigError: There is no optimizer, or one for each of several networks, or numbers of mixed precision.
        DlframeError: What a run would end with at its beginning.
    """
    for key, chosen in (("dry_run", config.run.dry_run), ("resume", config.run.resume not in ("none", ""))):
        if chosen:
            raise ConfigError(f"find: tries a new run. Received: {key}. Leave one of them out.", "find")
    if len(config.networks) != 1:
        has = f"{len(config.networks)} networks, each with its optimizer" if config.networks else "no optimizer"
        raise ConfigError(f"find: model={config.values['model']['name']} has {has}: there is not one rate to find.", "find")
    if config.trainer.precision not in ("32-true", "64-true"):
        rule = "trains with 32-true and 64-true"
        raise ConfigError(f"find: {rule}. Received: trainer.precision={config.trainer.precision}", "find")
    run_directory.check_writable(config.run.runs)
    config = resume.begins_with(config)
    dataset = load_to_train(config)
    say(*wrapped(terminal.header(config, dataset, folder)))
    from dlframe import plots
    from dlframe.engine.checks.lr_range import range_test

    found = range_test(config, dataset)
    path = Path(config.run.runs, f"lr-range-{run_directory.title(config)}-{datetime.now():%Y%m%d-%H%M%S}.png")
    if len(found.rates):
        with written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            plots.save(plots.lr_range(found.rates, found.losses, found.smooth, found.suggested), path)
        say(f"range  {len(found.rates)} steps, learning rate {found.rates[0]:.2g} to {found.rates[-1]:.2g}", f"figure {path}")
    if found.suggested is None:
        say("found  no learning rate that lowers the loss: nothing is suggested")
        return
    kept = [text for text in config.overrides if not text.startswith(("find=", "optimizer.lr="))]
    say(f"found  optimizer.lr={found.suggested:g}, where the loss falls steepest: a first guess")
    say(f"next   {command_line(*kept, f'optimizer.lr={found.suggested:g}')}")


def run(
    config: Config, *, pending: list[Tracker] | None = None, watch: Watch | None = None, folder: Path | None = None
) -> Result:
    """Train, test, keep everything; or go on with a run that was stopped, where `config.run.resume` says so.

    Args:
        config: What to run.
        pending: Takes the tracker, which following runs share, to be waited for later: for a grid or a sweep. The last lines
            are not printed then, and figures with `figures=auto` not drawn.
        watch: Sees the metrics of each validation; may end the run by `RunPruned`.
        folder: Folder of the run, which goes on where there is one in it; None for what `config.run.resume` says.

    Raises:
        DlframeError: Something that the user can mend.
        RunInterrupted: Ctrl-C or SIGTERM. The state of the training is saved.
    """
    if option := config.run.looks:
        raise ConfigError(f"{option}: is a choice of the command that trains one run.", option)
    if config.run.profile and not config.networks:
        raise ConfigError(f"profile: model={config.values['model']['name']} has no steps by gradients to measure.", "profile")
    if config.run.profile and (config.trainer.devices != 1 or config.trainer.num_nodes != 1):
        raise ConfigError("profile: measures one process. Try: trainer.devices=1 trainer.num_nodes=1", "profile")
    run_directory.check_writable(config.run.runs)
    before = None
    if is_main():
        config = resume.begins_with(config)
        before = resume.at(config, folder) if folder else resume.find(config)
    continued = Continuation.of(config, before) if before else None
    if before and not continued and ended(before) == "FINISHED" and (before / run_directory.RESULT).is_file():
        result = _summarized(config, run_directory.read_result(before), pending)
        _deliver(config, before, pending)
        return result
    tracking_uri = tracking_uri_of(config)
    dataset = load_to_train(run_directory.read_data(before).located(config) if before else config)
    with Signals() as signals:
        if not is_main():
            exit_with_parent()
            folder = Path(os.environ.get(run_directory.FOLDER_VARIABLE, ""))
            return _train(config, dataset, folder, Recorder(signals), draw=_draws(config, pending))
        origin = _origin(config, dataset) if not before else None
        folder = before or run_directory.new_folder(config, folder)
        again = bool(before)
        recorder = begin(config, dataset, folder, tracking_uri, signals, watch, again=again, origin=origin, continued=continued)
        tracker = result = None
        status, message, state = "FAILED", "", {}
        try:
            if tracking_uri:
                from dlframe.tracking import Tracker

                tracker = Tracker.start(recorder.folder, running=pending or ())
            result = _train(config, dataset, recorder.folder, recorder, draw=_draws(config, pending))
            status = "FINISHED"
        except (KeyboardInterrupt, RunInterrupted):
            status, message = "KILLED", "interrupted"
            if pending is None:  # a study says how all of it goes on
                say(terminal.stopped(config, recorder.step), error=True)
            raise
        except RunPruned as error:
            status, message, state = "KILLED", str(error), {"state": "pruned"}
            raise
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            if why := no_room(error):
                told = f"{recorder.folder}: cannot be written: {why}"
                raise DataError(f"{told}. Make room; {terminal.stopped(config, recorder.step)}") from error
            raise
        finally:
            os.environ.pop(run_directory.FOLDER_VARIABLE, None)
            recorder.write_best()
            recorder.journal.write("end", status=status, message=message, **state)
            if lost := recorder.journal.close():
                say(f"warning: {lost}", error=True)
            if status == "FINISHED" and result:
                _summarized(config, result, pending)  # before the tracker, which may take longer than somebody waits
            if tracker:
                _await(tracker, pending)
    assert result  # whatever else happens has left
    return result


def _deliver(config: Config, folder: Path, pending: list[Tracker] | None) -> None:
    """Upload what MLflow lacks of a run that has ended."""
    if config.tracking.uri != "none":
        from dlframe.tracking import Tracker, has_pending

        if has_pending(folder):
            _await(Tracker.start(folder, running=pending or ()), pending)


def _await(tracker: Tracker, pending: list[Tracker] | None) -> None:
    """Wait for a tracker, or leave that to the caller."""
    if pending is not None:
        pending += [tracker] if tracker not in pending else []
    elif late := tracker.wait():
        say(late, error=True)


def _origin(config: Config, dataset: Dataset) -> dict[str, Any] | None:
    """The checkpoint that a new run begins with, checked before the run has a folder; None for random weights."""
    if not config.run.initial_checkpoint:
        return None
    from dlframe.engine.fit import check_initial

    return check_initial(config, dataset)


def begin(
    config: Config,
    dataset: Dataset,
    folder: Path,
    tracking_uri: str,
    signals: Signals,
    watch: Watch | None,
    *,
    again: bool,
    origin: Mapping[str, Any] | None = None,
    continued: Continuation | None = None,
) -> RunRecorder:
    """A new run in its folder, of which nothing is left where it cannot begin; or the one that is there again.

    A new one may begin with the weights of `origin`.
    """
    if again:
        run_directory.check_code(folder, config)
        run_directory.check_data(folder, dataset)
        run_directory.warn_of_versions(folder)
    if failed := remember(run=folder) or remember(runs=folder.parent):
        say(f"warning: {failed}; resume=auto will not find this run", error=True)
    try:
        journal = Journal(folder)
    except DataError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty: another process may be at work in it
        raise
    os.environ[run_directory.FOLDER_VARIABLE] = str(folder)
    say(*wrapped(terminal.header(config, dataset, folder, again=again, store=_surroundings(config))), *config.notes)
    tags = continued.tags if continued else None
    try:
        if continued:
            say(f"continues after epoch {continued.epochs}, step {continued.step:,}, with {described(continued.changes)}")
            continued.write(config, folder)
        run_directory.write_beginning(config, dataset, folder, journal, tracking_uri, origin=origin, continued=tags)
    except BaseException:
        os.environ.pop(run_directory.FOLDER_VARIABLE, None)
        journal.close()
        if not again:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return RunRecorder(config, folder, journal, signals, watch)


def _summarized(config: Config, result: Result, pending: list[Tracker] | None) -> Result:
    """The result, also in the terminal, unless it is one of a grid's."""
    if pending is None:
        say(*terminal.summary(result, config.overrides, tracked=config.tracking.uri != "none").split("\n"))
    return result


def _draws(config: Config, pending: list[Tracker] | None) -> bool:
    """Return whether figures are drawn before the run ends."""
    return config.run.figures == "now" or (config.run.figures == "auto" and pending is None)


def _train(config: Config, dataset: Dataset, folder: Path, recorder: Recorder, *, draw: bool = False) -> Result:
    from dlframe.engine.fit import fit

    scored = fit(config, dataset, recorder, folder / BEST, curves=draw)
    return finish(config, dataset, scored, folder, recorder, draw=draw)


def finish(config: Config, dataset: Dataset, scored: Scored, folder: Path, recorder: Recorder, *, draw: bool = False) -> Result:
    """Write what a run has at its end, with its figures if asked, and return its result."""
    result, dataset, table = result_of(config, dataset, scored, folder)
    recorder.log_metrics(scored.steps, {f"test/{name}": value for name, value in result.metrics.items()} | bounds_of(result))
    if isinstance(recorder, RunRecorder):
        recorder.write_best(is_last=True)
        classes = scored.task.by_class(scored.scores)
        run_directory.write_end(config, dataset, scored.task, table, classes, folder, recorder.journal)
        if draw:
            run_directory.write_figures(config, dataset, scored.task, scored.scores, folder, recorder.journal)
        result.seconds = recorder.seconds
        result.overrides = overrides(config, folder)
        run_directory.write_result(result, folder, recorder.journal)
        recorder.journal.write("description", text=description.of_run(result, config))
    return result


def bounds_of(result: Result) -> dict[str, float]:
    """The interval of the primary metric, the number of samples and the baseline, as metrics; undefined ones are left out."""
    name, interval, (_, baseline) = f"test/{result.headline}", result.interval, result.baseline
    ends = {"low": interval.low, "high": interval.high, "baseline": baseline[result.headline]}
    found = {f"{name}/{end}": value for end, value in ends.items()} | {"test/samples": float(result.samples)}
    return {metric: value for metric, value in found.items() if math.isfinite(value)}


def result_of(config: Config, dataset: Dataset, scored: Scored, folder: Path | None) -> tuple[Result, Dataset, Any]:
    """The result, the data that it describes, and the table of predictions: of the test samples that were scored."""
    limited, samples = "", f"{len(scored.index):,} of {len(dataset.test):,} test samples"
    if config.trainer.limited:
        limited = f"{config.trainer.limited}, {samples}"
    dataset = scored_part(dataset, scored)
    task, headline, metrics = scored.task, config.headline, config.metrics
    forms, blocks = task.forms() | _forms(config), task.blocks(len(dataset.test))
    found = scored.metrics | task.final_metrics(dataset)
    table = run_directory.predictions(dataset, task, scored.scores)
    interval = interval_of(
        task,
        metric=headline,
        value=found[headline],
        scores=scored.scores,
        split=dataset.test,
        table=table,
        forms=forms,
        read=metrics[headline],
    )
    result = Result(
        folder=folder,
        headline=headline,
        metrics=found,
        interval=metrics[headline].clipped(interval),
        baseline=task.baseline(dataset),
        samples=len(dataset.test),
        declared=metrics,
        limited=limited,
        notes=task.notes(scored.scores),
        forms=forms,
        blocks=blocks,
        is_random=bool(config.networks),
    )
    return result, dataset, table


def interval_of(
    task: Task,
    *,
    metric: str,
    value: float,
    scores: Scores,
    split: Split,
    table: Any,
    forms: Mapping[str, Mapping[str, Any]],
    read: Metric,
) -> Estimate:
    """A metric of scored test samples with its interval: by its form, as in comparisons, or else by the task.

    Args:
        task: The task.
        metric: Name of the metric.
        value: The metric.
        scores: Of the samples.
        split: The samples.
        table: Their predictions.
        forms: How metrics follow from the table.
        read: How the metric is read.
    """
    if metric not in forms:
        return task.interval(metric, scores, split.groups)
    return estimate(table, forms[metric], value=value, read=read, blocks=task.blocks(len(split)))


def _forms(config: Config) -> dict[str, dict[str, Any]]:
    """Return how the further metrics follow from the table of predictions, as far as they do."""
    found = {}
    for name, options in config.values["metric"].items():
        if form := GROUPS["metric"].get(options["name"]).facts["form"]:
            found[name] = {"form": form, **{key: str(value) for key, value in options.items() if key != "name"}}
    return found


def scored_part(dataset: Dataset, scored: Scored) -> Dataset:
    """The data whose test split has the samples that were scored only."""
    if len(scored.index) < len(dataset.test):
        return replace(dataset, test=dataset.test.take(scored.index))
    return dataset


def tracking_uri_of(config: Config) -> str:
    """The store's address, checked to answer; empty for none."""
    uri = config.tracking.uri
    if uri == "none":
        return ""
    named = os.environ.get(STORE_VARIABLE, "") if uri == "auto" else ""
    if named:
        check_no_secret(named, STORE_VARIABLE)
    uri = store_uri(named or ("sqlite" if uri == "auto" else uri), config.run.runs)
    if is_main():
        from dlframe.tracking import reachable

        try:
            reachable(uri)
        except TrackingError as error:
            way_out = f" {STORE_VARIABLE} names it; for a file in the folder of runs: tracking.uri=sqlite" if named else ""
            raise TrackingError(f"{error}{way_out}") from None
        if named or "tracking.uri" in config.typed:
            remember(store=uri)
    return uri


def _surroundings(config: Config) -> str:
    """Say which store and experiment variables of the environment choose."""
    if config.tracking.uri == "none":
        return ""
    named = os.environ.get(STORE_VARIABLE) if config.tracking.uri == "auto" else None
    told = [f"tracked in {named} ({STORE_VARIABLE})"] if named else []
    experiment = os.environ.get(EXPERIMENT_VARIABLE) if not config.run.experiment_name else None
    return ", ".join(told + ([f"experiment {experiment} ({EXPERIMENT_VARIABLE})"] if experiment else []))
