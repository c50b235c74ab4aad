"""Several runs as one stacked training: each with its own folder, journal, checkpoints and result."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config
from dlframe.jobs.data import load_to_train
from dlframe.jobs.train import begin, finish, run, tracking_uri_of
from dlframe.runs import resume, run_directory
from dlframe.runs.journal import ended
from dlframe.runs.recorder import BEST, RunRecorder, Watch, state_of, states, step_of
from dlframe.runs.signals import RunInterrupted, Signals
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, DataError, DlframeError, Result, RunPruned, no_room, say

if TYPE_CHECKING:
    from dlframe.population.members import Member
    from dlframe.tracking import Tracker

VARIED = {
    "adam": ("lr", "weight_decay", "betas", "eps"),
    "adamw": ("lr", "weight_decay", "betas", "eps"),
    "sgd": ("lr", "weight_decay", "momentum"),
}
"""Options of an optimizer in which the runs of a stack may differ."""
OWN = ("seed", "run_name", "experiment_name", "resume")
"""Other options in which they may differ."""


def stackable(configs: Sequence[Config]) -> str:
    """Return why runs cannot be trained as one stack; empty if their configs allow it.

    Whether the model can be stacked, and whether it pays, is found out by a measurement, in `run_stack`.
    """
    first = configs[0]
    run, trainer, optimizer = first.run, first.trainer, first.values["optimizer"]
    if optimizer["name"] not in VARIED:
        return f"optimizer={optimizer['name']}: a stack has adam, adamw and sgd"
    if first.networks != ("model",):
        return f"model={first.values['model']['name']}: has {len(first.networks)} networks, must have one"
    ours: dict[str, tuple[Any, Any]] = {
        "callback": ([*first.values["callback"]], []),
        "trainer.accelerator": (trainer.accelerator, "cpu"),
        "trainer.devices": (trainer.devices, 1),
        "trainer.num_nodes": (trainer.num_nodes, 1),
        "trainer.max_steps": (trainer.max_steps, 0),
        "trainer.deterministic": (trainer.deterministic, False),
        "trainer.detect_anomaly": (trainer.detect_anomaly, False),
        "accumulate_grad_batches": (run.accumulate_grad_batches, 1),
        "compile": (first.compiles, False),
        "validate_unit": (run.validate_unit, "epochs"),
        "gradient_checkpointing": (run.gradient_checkpointing, False),
        "profile": (run.profile, False),
        "on_nan": (run.on_nan, "raise"),
        "checkpoint.top_k": (first.checkpoint.top_k, 1),
        "initial_checkpoint": (run.initial_checkpoint, ""),
    }
    for key, (value, needed) in ours.items():
        if value != needed:
            return f"{key}: a stack has {needed}. Received: {value}"
    if trainer.precision not in ("32-true", "64-true"):
        return f"trainer.precision: a stack has 32-true and 64-true. Received: {trainer.precision}"
    if run.batch_size == "auto":
        return "batch_size: a stack has a number. Received: auto"
    if run.labels_per_class is not None and len({config.run.seed for config in configs}) > 1:
        return "labels_per_class: seeds choose other labels"
    values = [dict(run_directory.flat(config.values)) for config in configs]
    varied = {*OWN, *(f"optimizer.{name}" for name in VARIED[optimizer["name"]])}
    for key in sorted(set().union(*values)):
        found = {str(own.get(key)) for own in values}
        if len(found) > 1 and key not in varied:
            return f"{key}: must be the same in all runs of a stack. Received: {', '.join(sorted(found))}"
        if len({own.get(key) == 0 for own in values}) > 1 and key in ("optimizer.weight_decay", "optimizer.momentum"):
            return f"{key}: must be zero in all runs of a stack or in none"
    return ""


def run_stack(
    configs: Sequence[Config],
    *,
    pending: list[Tracker] | None = None,
    watches: Sequence[Watch | None] | None = None,
    folders: Sequence[Path] | None = None,
    always: bool = False,
) -> list[Result | Exception]:
    """Train runs as one stack if that can be done and pays, else one after the other; a line says which, and why.

    Each run has its own folder, as if it had been alone; uploads to the tracker begin when it has ended. With `resume`, runs
    that were stacked continue from their last common checkpoint.

    Args:
        configs: What to run.
        pending: Takes the trackers, to be waited for later.
        watches: Of each run, sees the metrics of each validation; may end the run by `RunPruned`.
        folders: Folder of each run, which goes on where there is one in it; None for what `config.run.resume` says.
        always: Stack them if that can be done, even if it takes longer.

    Returns:
        Of each run its result, or the error with which it ended.

    Raises:
        DlframeError: The data cannot be read, or the folder of runs cannot be written.
        RunInterrupted: Ctrl-C or SIGTERM. The state of all runs is saved.
    """
    trackers: list[Tracker] = [] if pending is None else pending
    watches = watches or [None] * len(configs)
    for config in configs:
        run_directory.check_writable(config.run.runs)
    found: dict[int, Result | Exception] = {}
    before: dict[int, Path | None] = {}
    reason = stackable(configs) if len(configs) > 1 else "one run"
    if not reason:
        for i, config in enumerate(configs):
            before[i] = resume.at(config, folders[i]) if folders else resume.find(config)
            if (folder := before[i]) and ended(folder) == "FINISHED" and (folder / run_directory.RESULT).is_file():
                found[i] = run_directory.read_result(folder)
        for step, numbers in _groups({i: folder for i, folder in before.items() if i not in found}):
            runs = [_Run(i, configs[i], before[i], watches[i], folders[i] if folders else None) for i in numbers]
            reason = _train(runs, step, trackers, always=always)
            found |= {run.number: run.outcome for run in runs if run.outcome is not None}
            if reason:
                break
    rest = [i for i in range(len(configs)) if i not in found]
    if reason and len(configs) > 1 and rest:
        say(f"note: not stacked, but one after the other: {reason}", error=True)
    for i in rest:
        try:
            found[i] = run(configs[i], pending=trackers, watch=watches[i], folder=folders[i] if folders else None)
        except Exception as error:
            found[i] = error
    if pending is None:
        for late in filter(None, [tracker.wait() for tracker in trackers]):
            say(late, error=True)
    return [found[i] for i in range(len(configs))]


@dataclass(eq=False)
class _Run:
    """One of the runs: its folder if it is continued, the place for a new one, and what became of it."""

    number: int
    config: Config
    folder: Path | None
    watch: Watch | None
    place: Path | None = None
    uri: str = ""
    recorder: RunRecorder | None = None
    outcome: Result | Exception | None = None


def _groups(folders: dict[int, Path | None]) -> list[tuple[int, list[int]]]:
    """Return which runs are one stack, each with the step of their checkpoints; 0 for those that begin.

    Of the steps of which many runs have a checkpoint, the latest: a training that was killed while it saved has some runs
    with a later one. Runs that failed while others did not are not stacked again.
    """
    kept = {i: {step_of(path): path for path in states(folder)} for i, folder in folders.items() if folder}
    held = {i: own for i, own in kept.items() if own}
    held = {i: own for i, own in held.items() if ended(folders[i] or Path()) != "FAILED"} or held
    count = Counter(step for own in held.values() for step in own)
    groups = []
    for step in sorted(count, key=lambda step: (count[step], step), reverse=True):
        numbers = [i for i, own in held.items() if step in own and _is_valid(own[step])]
        if len(numbers) == count[step] and len(numbers) > 1:
            groups.append((step, numbers))
            break
    fresh = [i for i in folders if not kept.get(i)]
    return groups + ([(0, fresh)] if len(fresh) > 1 else [])


def _is_valid(path: Path) -> bool:
    try:
        checkpoint.load(path)
    except CheckpointError:
        return False
    return True


def _train(runs: Sequence[_Run], step: int, trackers: list[Tracker], *, always: bool) -> str:
    """Train runs as one stack; return why not, before a folder is made, or an empty text.

    Args:
        runs: The runs, which receive their outcomes.
        step: Of the checkpoints from which they continue; 0 to begin.
        trackers: Takes those of the runs.
        always: Even if it takes longer.
    """
    from dlframe.engine import memory
    from dlframe.population.members import Member
    from dlframe.population.training import StackTraining

    try:
        for run in runs:
            run.uri = tracking_uri_of(run.config)
        dataset = load_to_train(runs[0].config)
        members = [Member.build(run.config, dataset) for run in runs]
        for run, member in zip(runs if step else (), members, strict=False):
            member.restore(checkpoint.load(state_of(run.folder or Path(), step))[0])
        training = StackTraining(members)
        if not step:
            speed = training.measure()
            times = f"a step of {len(runs)} runs takes {1000 * speed.single:.3g} ms, {1000 * speed.stacked:.3g} ms as one"
            if not (speed.pays or always):
                return times
            say(f"note: stacked: {times}: {speed.ratio:.1f} times as fast", error=True)
    except DlframeError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        return "they do not fit into memory together"
    with Signals() as signals:
        runs_of = dict(zip(members, runs, strict=True))
        status, message = "FAILED", ""
        try:
            for member, run in runs_of.items():
                folder = run.folder or run_directory.new_folder(run.config, run.place)
                again = bool(run.folder)
                recorder = begin(run.config, dataset, folder, run.uri, signals, run.watch, again=again)
                run.recorder = member.recorder = recorder
                os.environ.pop(run_directory.FOLDER_VARIABLE, None)
                if step:
                    recorder.latest_checkpoint(step)
            training.run(lambda member: _fail(runs_of[member], member.failure, trackers))
            for member, run in runs_of.items():
                if not member.failure:
                    _finish(run, member, trackers)
        except (KeyboardInterrupt, RunInterrupted):
            status, message = "KILLED", "interrupted"
            where = f"after step {training.saved:,}" if training.saved else "before the first checkpoint"
            say(f"stopped {where}; the same command with resume=auto continues", error=True)
            raise
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            raise
        finally:
            for run in runs:
                if run.outcome is None and run.recorder:
                    _end(run, status, message, trackers)
    return ""


def _finish(run: _Run, member: Member, trackers: list[Tracker]) -> None:
    """Test a member and write its results."""
    recorder = run.recorder
    assert recorder
    try:
        scored = member.scored(recorder.folder / BEST)
        result = finish(run.config, member.dataset, scored, recorder.folder, recorder)
    except Exception as error:
        if why := no_room(error):
            error = DataError(f"{recorder.folder}: cannot be written: {why}. Make room; resume=auto continues")
        _fail(run, error, trackers)
        return
    run.outcome = result
    _end(run, "FINISHED", "", trackers)


def _fail(run: _Run, error: Exception | None, trackers: list[Tracker]) -> None:
    assert run.recorder
    assert error
    run.outcome = error
    if isinstance(error, RunPruned):
        _end(run, "KILLED", str(error), trackers, state="pruned")
    else:
        _end(run, "FAILED", f"{type(error).__name__}: {error}", trackers)


def _end(run: _Run, status: str, message: str, trackers: list[Tracker], **facts: str) -> None:
    """End a run as one alone ends; its upload begins now, since a process for each run would slow the training down."""
    recorder = run.recorder
    assert recorder
    recorder.write_best()
    recorder.journal.write("end", status=status, message=message, **facts)
    if lost := recorder.journal.close():
        say(f"warning: {lost}", error=True)
    if run.uri:
        from dlframe.tracking import Tracker

        tracker = Tracker.start(recorder.folder, running=trackers)
        trackers += [tracker] if tracker not in trackers else []
