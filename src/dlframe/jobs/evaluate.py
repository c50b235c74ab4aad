"""Command `test RUN`: the metrics of a finished run, computed again from its directory."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlframe.config import Config, load_options, load_saved
from dlframe.jobs.other_data import given_data
from dlframe.jobs.train import load_data, result_of
from dlframe.registry import Place
from dlframe.reports import terminal
from dlframe.runs import run_directory
from dlframe.runs.recorder import BEST, read_metadata, states
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, ConfigError, DataError, Dataset, Result, command_line, say, wrapped

if TYPE_CHECKING:
    from dlframe.engine.fit import Scored


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `test`.

    Args:
        checkpoint: The run's "best" weights, its "last" checkpoint, or the path of another one.
        split: What is scored: the test samples, or those of validation, by which to choose among options.
        plugin_paths: Files and folders of plugins that the run used. Its own config is data and has none loaded.
    """

    checkpoint: Place = "best"
    split: Literal["test", "validation"] = "test"
    plugin_paths: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Score a finished run again, from its directory alone: the metrics are bitwise identical to those of its end.

    RUN is the run directory. The data must be those of the training: their fingerprint is compared first. `data.path=NEW`
    names the place where they are now, or other data, which are scored with the classes of the run; their predictions are
    written beside those of the run. Metrics of each class are shown too. Options of task and model that only scoring reads,
    such as task.decoding of speech, may be others than those of the run; choose them by split=validation.

    Raises:
        DlframeError: There is no such run, or its data or checkpoint are not what they were.
    """
    runs = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    changed = [argument for argument in arguments if argument not in runs and argument.startswith(("data.", "task.", "model."))]
    options = load_options("test", Options, [argument for argument in arguments if argument not in (*runs, *changed)])
    if len(runs) != 1:
        received = f" Received: {', '.join(map(repr, runs))}." if runs else ""
        raise ConfigError(f"test: requires one run directory.{received} Try: {command_line('test', [*runs, 'runs/...'][0])}")
    evaluate_run(Path(runs[0]), options.checkpoint, options.plugin_paths, changed, split=options.split)
    return 0


def evaluate_run(
    folder: Path,
    weights: str = "",
    plugin_paths: Sequence[str] = (),
    changed: Sequence[str] = (),
    *,
    split: Literal["test", "validation"] = "test",
) -> Result:
    """Score a finished run again from its folder.

    Args:
        folder: The run's folder.
        weights: "best", which is the default, "last", or another checkpoint's path.
        plugin_paths: Plugins that the run used, beside ./plugins and the installed ones.
        changed: Options of the data set, as "data.path=FOLDER", where the data are elsewhere or others; and options that only
            scoring reads, as "task.decoding=beam".
        split: Samples that are scored.

    Raises:
        DlframeError: The folder holds no run, or its data or checkpoint are not what they were.
    """
    started = time.perf_counter()
    run = prepared(folder, weights, plugin_paths, changed=changed, split=split)
    say(*wrapped(terminal.header(run.config, run.dataset, None, others=run.others)), *run.notes)
    scored = run.score()
    result, _, table = result_of(run.config, run.dataset, scored, folder)
    result.seconds = time.perf_counter() - started
    result.overrides = run.overrides
    typed = [f"plugin_paths=[{','.join(plugin_paths)}]"] if plugin_paths else []
    classes = scored.task.by_class(scored.scores)
    say(*terminal.by_class(classes, result))
    say(*terminal.summary(result, typed, tested=split, tracked=run.config.tracking.uri != "none").split("\n"))
    if run.others:
        path = folder / f"predictions-{run.dataset.fingerprint}.parquet"
        run_directory.check_links(folder, "test")
        run_directory.write_predictions(table, path)
        say(f"predictions {path}")
        if classes:
            path = folder / f"classes-{run.dataset.fingerprint}.csv"
            run_directory.write_classes(classes, path)
            say(f"classes {path}")
    return result


@dataclass(frozen=True)
class Prepared:
    """A run whose directory has been checked, ready to be scored.

    Attributes:
        config: Config of the run, with the batch size that it found.
        dataset: Its data, unchanged since the run, or those that were given.
        overrides: What was typed.
        weights: The checkpoint that is scored.
        others: Whether the data are others than those of the run.
        notes: What is to be said about them.
    """

    config: Config
    dataset: Dataset
    overrides: tuple[str, ...]
    weights: Path
    others: bool = False
    notes: tuple[str, ...] = ()

    def score(self) -> Scored:
        """Score the test split; see `evaluate`."""
        from dlframe.engine.fit import evaluate

        return evaluate(self.config, self.dataset, self.weights, None if self.others else self.dataset.train)


def prepared(
    folder: Path,
    weights: str = "",
    plugin_paths: Sequence[str] = (),
    *,
    command: str = "test",
    changed: Sequence[str] = (),
    split: Literal["test", "validation"] = "test",
) -> Prepared:
    """Check the directory of a run before it is scored; arguments and errors as of `evaluate_run`."""
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{command}: '{folder}' is not a run directory (no config.yaml). Runs are in runs/.")
    data = [option for option in changed if option.startswith("data.")]
    config = load_saved(folder / "config.yaml", plugin_paths, changed)
    scoring = _scoring(config, [option for option in changed if option not in data])
    path = _weights_file(folder, weights)
    facts = checkpoint.read_facts(path, folder if path.is_relative_to(folder) else None)
    own, model = facts.get("model"), config.values["model"]["name"]
    if facts.get("averages") is True:
        say(f"note: {path.name} has the weights in training, not their averages, which are in checkpoint=best", error=True)
    if own != model:
        raise CheckpointError(f"{path}: is of another model: must be '{model}'. Received: '{own}'.")
    try:
        if config.run.batch_size == "auto":
            config = config.changed(batch_size=read_metadata(folder, "batch_size") or 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None
    if code := run_directory.changed_code(folder, config):
        say(f"warning: {'; '.join(code)}; results may differ", error=True)
    overrides = run_directory.read_overrides(folder)
    before = run_directory.read_data(folder)
    config = before.located(config) if not data else config
    if data:
        given = given_data(config, folder, before, data)
        if split == "validation" and not given.same:
            raise ConfigError("split: other data than the run's are all scored. Received: validation.", "split")
        return Prepared(config, _part(given.dataset, split), overrides, path, not given.same, (*given.notes, *scoring))
    try:
        dataset = load_data(config)
    except DataError as error:
        given = [config.values["data"].get(option) for option in config.entry("data").facts["files"]]
        if all(os.path.exists(os.path.expanduser(value)) for value in given if isinstance(value, str)):
            raise
        raise DataError(f"{error} If the data were moved: {command_line(command, folder, 'data.path=FOLDER')}") from None
    run_directory.check_data(folder, dataset)
    return Prepared(config, _part(dataset, split), overrides, path, notes=scoring)


def _part(dataset: Dataset, split: str) -> Dataset:
    """Return the data with the split that is scored as their test split."""
    return dataset if split == "test" else replace(dataset, test=dataset.validation)


def _scoring(config: Config, options: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be said about options of task and model that are others than those of the run.

    Raises:
        ConfigError: Training reads one of them.
    """
    for option in options:
        key = option.partition("=")[0]
        group, _, name = key.partition(".")
        entry = config.entry(group)
        if name not in (known := entry.facts["scoring"]):
            choice = (
                f"Of {group}={entry.name}, test takes {', '.join(known)}" if known else f"{group}={entry.name} has no others"
            )
            raise ConfigError(f"{key}: must be an option that only scoring reads. Received: {option}. {choice}", key)
    return (f"not as in training: {', '.join(options)}",) if options else ()


def _weights_file(folder: Path, checkpoint: str) -> Path:
    """Which file of a run, or elsewhere, is meant."""
    match checkpoint:
        case "" | "best":
            return folder / BEST
        case "last":
            if not (kept := states(folder)):
                raise CheckpointError(f"checkpoint: {folder} has no state of its training. Try: checkpoint=best")
            return kept[0]
    return Path(checkpoint)
