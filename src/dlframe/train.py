"""One run, from a checked config to a result: data, folder, journal, training, test."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlframe import checkpoint, report, run_folder
from dlframe.config import Config, load_saved, store_uri
from dlframe.data.splits import hide_labels
from dlframe.environment import is_main
from dlframe.journal import Journal
from dlframe.run_folder import BEST
from dlframe.types import UNLABELLED, CheckpointError, ConfigError, DataError, Dataset, Result

if TYPE_CHECKING:
    from dlframe.tasks.base import Scores, Task
    from dlframe.tracking import Tracker

FOLDER_VARIABLE = "DLFRAME_RUN_FOLDER"
"""Tells the processes that Lightning starts which folder the run has."""


def load_data(config: Config) -> Dataset:
    """The data of a run, labels hidden as asked."""
    dataset = config.build("data")
    for name in ("train", "validation", "test"):
        split, classes = getattr(dataset, name), dataset.spec.classes
        if not len(split):
            raise DataError(f"data={dataset.spec.name}: the {name} split is empty.")
        if classes and (wrong := split.targets[(split.targets < UNLABELLED) | (split.targets >= len(classes))]).size:
            raise DataError(
                f"data={dataset.spec.name}: a label must be 0 to {len(classes) - 1}, or {UNLABELLED} where hidden. "
                f"Received: {wrong[0]} in the {name} split."
            )
    if config.run.labels_per_class is not None:
        dataset = hide_labels(dataset, config.run.labels_per_class, seed=config.run.seed)
    return dataset


def run(config: Config, *, pending: list[Tracker] | None = None) -> Result:
    """Train, test, keep everything.

    Args:
        config: What to run.
        pending: Takes the tracker, to be waited for later, and keeps the last lines from the terminal: for a grid.

    Raises:
        DlframeError: Something that the user can mend.
    """
    started = time.perf_counter()
    run_folder.check_writable(config.run.runs)
    tracking_uri = _tracking_uri(config)
    dataset = load_data(config)
    if not is_main():
        return _train(config, dataset, Path(os.environ.get(FOLDER_VARIABLE, "")), None)
    folder = run_folder.new_folder(config)
    os.environ[FOLDER_VARIABLE] = str(folder)
    print(report.opening(config, dataset, folder), flush=True)
    journal = Journal(folder)
    run_folder.write_beginning(config, dataset, folder, journal, tracking_uri)
    tracker = None
    if tracking_uri:
        from dlframe.tracking import Tracker

        tracker = Tracker.start(folder)
    status, message = "FAILED", ""
    try:
        result = _train(config, dataset, folder, journal)
        result.seconds = time.perf_counter() - started
        result.overrides = config.overrides
        run_folder.write_result(result, folder, journal)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning leaves by SystemExit: after Ctrl-C with status 1, after SIGTERM with status 0.
        status, message = "KILLED", "interrupted"
        raise SystemExit(143) if "SIGTERM" in type(error).__name__ else KeyboardInterrupt from None
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, (MemoryError, RuntimeError)) and re.search("out of memory|t allocate memory|overflow", message):
            text = f"out of memory: {message.splitlines()[0]} Try a smaller batch_size or model."
            raise ConfigError(text) from error
        raise
    finally:
        del os.environ[FOLDER_VARIABLE]
        journal.write("end", status=status, message=message)
        journal.close()
        if tracker and pending is not None:
            pending.append(tracker)
        elif tracker and (late := tracker.wait()):
            print(late, file=sys.stderr)
    if pending is None:
        print(report.closing(result), flush=True)
    return result


def rescore(folder: Path, weights: Path | None = None, plugin_paths: Sequence[str] = ()) -> Result:
    """Score a finished run again from its folder.

    Args:
        folder: The run's folder.
        weights: Another checkpoint than the run's best.
        plugin_paths: Plugins that the run used, beside ./plugins and the installed ones.

    Raises:
        DlframeError: The folder holds no run, or its data or checkpoint are not what they were.
    """
    started = time.perf_counter()
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"test: {folder} is no run: it has no config.yaml. Runs are in runs/.")
    config = load_saved(folder / "config.yaml", plugin_paths)
    path = weights or folder / BEST
    own, model = checkpoint.read_facts(path).get("model"), config.values["model"]["name"]
    if own != model:
        raise CheckpointError(f"{path}: is of another model: must be '{model}'. Received: '{own}'.")
    try:
        fingerprint = json.loads((folder / "data.json").read_text(encoding="utf-8"))["fingerprint"]
        overrides = tuple((folder / "overrides.txt").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None
    dataset = load_data(config)
    if fingerprint != dataset.fingerprint:
        raise DataError(
            f"data={dataset.spec.name}: has changed since the run: fingerprint must be {fingerprint}. "
            f"Received: {dataset.fingerprint}."
        )
    print(report.opening(config, dataset, None), flush=True)
    from dlframe.fit import build_task, evaluate

    task = build_task(config, dataset, restored=True)
    checkpoint.restore(task, checkpoint.load(path)[0], path)
    scores = evaluate(config, dataset, task)
    result = _result(config, dataset, task, scores, folder)
    result.seconds = time.perf_counter() - started
    result.overrides = overrides
    print(report.closing(result), flush=True)
    return result


def _train(config: Config, dataset: Dataset, folder: Path, journal: Journal | None) -> Result:
    from dlframe.fit import fit

    def keep(state: dict, facts: dict) -> None:
        if journal:
            checkpoint.save(folder / BEST, state, {"model": config.values["model"]["name"], **facts})

    def note(step: int, metrics: dict[str, float]) -> None:
        if journal:
            journal.metrics(step, metrics)
        if any(math.isnan(value) for name, value in metrics.items() if name.startswith("train/loss")):
            rate = config.values["optimizer"]["lr"]
            raise ConfigError(f"optimizer.lr: the loss is no number at step {step}. Try less than {rate:g}, or clip=1.")

    fitted = fit(config, dataset, folder / BEST, keep, note if journal else None)
    result = _result(config, dataset, fitted.task, fitted.scores, folder)
    if journal:
        journal.metrics(fitted.steps, {f"test/{name}": value for name, value in result.metrics.items()})
        run_folder.write_end(config, dataset, fitted.task, fitted.scores, folder, journal)
    return result


def _result(config: Config, dataset: Dataset, task: Task, scores: Scores, folder: Path | None) -> Result:
    metrics = task.metrics(scores) | task.finish(dataset)
    headline = config.entry("task").facts["monitor"]
    return Result(
        folder=folder,
        headline=headline,
        metrics=metrics,
        interval=task.interval(headline, scores),
        baseline=task.baseline(dataset),
        samples=len(dataset.test),
    )


def _tracking_uri(config: Config) -> str:
    """The store's address, checked to answer; empty for none."""
    if config.tracking.uri == "none":
        return ""
    uri = store_uri(config.tracking.uri, config.run.runs)
    if is_main():
        from dlframe.tracking import reachable

        reachable(uri)
    return uri
