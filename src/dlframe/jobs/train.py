"""One run, from a checked config to a result: data, folder, journal, training, test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.analysis.predictions import estimate
from dlframe.config import Config, load
from dlframe.config.settings import Run as Options
from dlframe.jobs.data import load_data
from dlframe.registry import GROUPS
from dlframe.reports import terminal
from dlframe.runs import resume, run_directory
from dlframe.runs.environment import is_main
from dlframe.runs.journal import Journal, ended
from dlframe.runs.recorder import BEST, Recorder, RunRecorder, Watch
from dlframe.runs.signals import RunInterrupted, Signals, exit_with_parent
from dlframe.storage.known import remember, store_uri
from dlframe.types import DataError, Dataset, Estimate, Metric, OtherTaskError, Result, RunPruned, Split, no_room, say

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
    given = os.environ.get(run_directory.FOLDER_VARIABLE) if is_main() else None
    folder = Path(given) if given else None
    try:
        run(config, folder=folder)
    except OtherTaskError as error:
        if any(argument.startswith(("task=", "experiment=")) for argument in arguments):
            raise
        # No task was named, and what the file holds is known only now.
        run(load([*arguments, f"task={error.preset}"]), folder=folder)
    return 0


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
    run_directory.check_writable(config.run.runs)
    before = None
    if is_main():
        before = resume.at(config, folder) if folder else resume.find(config)
    if before and ended(before) == "FINISHED" and (before / run_directory.RESULT).is_file():
        return _summarized(run_directory.read_result(before), pending)
    tracking_uri = tracking_uri_of(config)
    dataset = load_data(run_directory.read_data(before).located(config) if before else config)
    with Signals() as signals:
        if not is_main():
            exit_with_parent()
            return _train(config, dataset, Path(os.environ.get(run_directory.FOLDER_VARIABLE, "")), Recorder(signals))
        folder = before or run_directory.new_folder(config, folder)
        recorder = begin(config, dataset, folder, tracking_uri, signals, watch, again=bool(before))
        tracker = None
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
            if tracker and pending is not None:
                pending += [tracker] if tracker not in pending else []
            elif tracker and (late := tracker.wait()):
                say(late, error=True)
    return _summarized(result, pending)


def begin(
    config: Config, dataset: Dataset, folder: Path, tracking_uri: str, signals: Signals, watch: Watch | None, *, again: bool
) -> RunRecorder:
    """A new run in its folder, or the one that is there again."""
    if again:
        run_directory.check_data(folder, dataset)
        run_directory.warn_of_versions(folder)
    if failed := remember(run=folder) or remember(runs=folder.parent):
        say(f"warning: {failed}; resume=auto will not find this run", error=True)
    journal = Journal(folder)
    os.environ[run_directory.FOLDER_VARIABLE] = str(folder)
    say(terminal.header(config, dataset, folder, again=again))
    run_directory.write_beginning(config, dataset, folder, journal, tracking_uri)
    return RunRecorder(config, folder, journal, signals, watch)


def _summarized(result: Result, pending: list[Tracker] | None) -> Result:
    """The result, also in the terminal, unless it is one of a grid's."""
    if pending is None:
        say(*terminal.summary(result).split("\n"))
    return result


def _draws(config: Config, pending: list[Tracker] | None) -> bool:
    """Return whether figures are drawn before the run ends."""
    return config.run.figures == "now" or (config.run.figures == "auto" and pending is None)


def _train(config: Config, dataset: Dataset, folder: Path, recorder: Recorder, *, draw: bool = False) -> Result:
    from dlframe.engine.fit import fit

    return finish(config, dataset, fit(config, dataset, recorder, folder / BEST), folder, recorder, draw=draw)


def finish(config: Config, dataset: Dataset, scored: Scored, folder: Path, recorder: Recorder, *, draw: bool = False) -> Result:
    """Write what a run has at its end, with its figures if asked, and return its result."""
    result, dataset, table = result_of(config, dataset, scored, folder)
    recorder.log_metrics(scored.steps, {f"test/{name}": value for name, value in result.metrics.items()})
    if isinstance(recorder, RunRecorder):
        recorder.write_best(is_last=True)
        run_directory.write_end(config, dataset, scored.task, table, folder, recorder.journal)
        if draw:
            run_directory.write_figures(dataset, scored.task, scored.scores, folder, recorder.journal)
        result.seconds = recorder.seconds
        result.overrides = config.overrides
        run_directory.write_result(result, folder, recorder.journal)
    return result


def result_of(config: Config, dataset: Dataset, scored: Scored, folder: Path | None) -> tuple[Result, Dataset, Any]:
    """The result, the data that it describes, and the table of predictions: of the test samples that were scored."""
    limited, samples = "", f"{len(scored.index):,} of {len(dataset.test):,} test samples"
    if config.trainer.limit_batches:
        limited = f"trainer.limit_batches={config.trainer.limit_batches}, {samples}"
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
    if config.tracking.uri == "none":
        return ""
    uri = store_uri(config.tracking.uri, config.run.runs)
    if is_main():
        from dlframe.tracking import reachable

        reachable(uri)
        if "tracking.uri" in config.typed:
            remember(store=uri)
    return uri
