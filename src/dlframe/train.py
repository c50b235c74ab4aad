"""One run, from a checked config to a result: data, folder, journal, training, test."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe import checkpoint, environment, report
from dlframe.config import Config, artifact_root, load_saved, store_uri
from dlframe.data.splits import hide_labels
from dlframe.journal import Journal
from dlframe.types import UNLABELLED, CheckpointError, ConfigError, DataError, Dataset, Estimate, Result

if TYPE_CHECKING:
    from dlframe.tasks.base import Scores, Task
    from dlframe.tracking import Tracker

BEST = Path("checkpoints", "best.safetensors")
FOLDER_VARIABLE = "DLFRAME_RUN_FOLDER"
"""Tells the processes that Lightning starts which folder the run has."""


def is_main() -> bool:
    """Whether this is the one process of a run that speaks and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


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
    _check_runs(config.run.runs)
    tracking_uri = _tracking_uri(config)
    dataset = load_data(config)
    if not is_main():
        return _train(config, dataset, Path(os.environ.get(FOLDER_VARIABLE, "")), None)
    folder = _new_folder(config)
    os.environ[FOLDER_VARIABLE] = str(folder)
    print(report.opening(config, dataset, folder), flush=True)
    journal = Journal(folder)
    _write_beginning(config, dataset, folder, journal, tracking_uri)
    tracker = None
    if tracking_uri:
        from dlframe.tracking import Tracker

        tracker = Tracker.start(folder)
    status, message = "FAILED", ""
    try:
        result = _train(config, dataset, folder, journal)
        result.seconds = time.perf_counter() - started
        result.overrides = config.overrides
        (folder / "result.json").write_text(json.dumps(_plain(result), indent=1), encoding="utf-8")
        journal.write("artifact", path="result.json", to="")
        status = "FINISHED"
    except KeyboardInterrupt:
        status, message = "KILLED", "interrupted"
        raise
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

    task = build_task(config, dataset)
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
        _write_end(config, dataset, fitted.task, fitted.scores, folder, journal)
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


def _check_runs(runs: str) -> None:
    """That run folders can be made, before anything is read: what can be told without making one."""
    existing = next(path for path in (Path(runs), *Path(runs).absolute().parents) if os.path.exists(path))
    if not runs or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"runs: must be a folder that can be written. Received: {runs!r}.")


def _new_folder(config: Config) -> Path:
    """A folder of its own for a run, named for what it is and when it began."""
    root = Path(config.run.runs)
    title = re.sub(r"[^\w.=+-]+", "_", config.title)[:100]
    stem = f"{title}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1000):
        folder = root / (f"{stem}-{attempt}" if attempt else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(f"runs: {config.run.runs!r} cannot be written: {getattr(error, 'strerror', error)}.") from None
        return folder
    raise ConfigError(f"runs: no free name for a run in '{root}'.")


def _write_beginning(config: Config, dataset: Dataset, folder: Path, journal: Journal, uri: str) -> None:
    import yaml

    surroundings = environment.describe()
    spec = dataset.spec
    facts = {
        "name": spec.name,
        "fingerprint": dataset.fingerprint,
        "source": dataset.source,
        "splits": dataset.splits,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "shape": spec.shape,
        "classes": spec.classes,
    }
    text = yaml.safe_dump(_lists(config.values), sort_keys=False, allow_unicode=True)
    files = {
        "config.yaml": text,
        "overrides.txt": "\n".join(config.overrides),
        "environment.json": json.dumps(surroundings, indent=1),
        "data.json": json.dumps(facts, indent=1, ensure_ascii=False),
    }
    if surroundings["git"].get("changed"):
        files["changes.diff"] = environment.changes()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    journal.write(
        "start",
        run_name=folder.name,
        experiment=config.run.experiment_name or config.values["task"]["name"],
        parameters=dict(_flat(config.values)),
        tags={
            "mlflow.source.name": "dlframe",
            "mlflow.source.type": "LOCAL",
            "data.fingerprint": dataset.fingerprint,
            "data.source": dataset.source,
            "run.folder": str(folder.resolve()),
            **({"mlflow.source.git.commit": surroundings["git"]["commit"]} if surroundings["git"] else {}),
        },
        uri=uri,
        artifact_root=artifact_root(config.run.runs),
    )
    for name in files:
        journal.write("artifact", path=name, to="")


def _write_end(config: Config, dataset: Dataset, task: Task, scores: Scores, folder: Path, journal: Journal) -> None:
    import pyarrow
    import pyarrow.parquet

    from dlframe import figures
    from dlframe.journal import read

    columns = {"id": dataset.test.ids[scores["index"].numpy()].tolist(), **task.table(scores, dataset)}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "predictions.parquet")
    journal.write("artifact", path="predictions.parquet", to="")
    (folder / "figures").mkdir()
    records = [record for record in read(folder) if record["kind"] == "metrics"]
    drawn = {"learning_curve": figures.learning_curve(records), **task.figures(scores, dataset)}
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
        journal.write("artifact", path=f"figures/{name}.png", to="figures")
    _export(config, dataset, task, folder / "model")
    journal.write("model", path="model")


def _export(config: Config, dataset: Dataset, task: Task, folder: Path) -> None:
    """What `mlflow.pyfunc.load_model` needs to predict: config, spec, weights, signature."""
    import torch

    folder.mkdir()
    shutil.copy(folder.parent / "config.yaml", folder)
    shutil.copy(folder.parent / BEST, folder / "weights.safetensors")
    spec = dataset.spec
    (folder / "spec.json").write_text(json.dumps(vars(spec), ensure_ascii=False), encoding="utf-8")
    sample = torch.from_numpy(dataset.test.inputs[:1].copy())
    with torch.inference_mode():
        output = task.predict(sample)
    signature = {
        "inputs": {"dtype": str(dataset.test.inputs.dtype), "shape": [-1, *spec.shape]},
        "outputs": {"dtype": "float32", "shape": [-1, *output.shape[1:]]},
    }
    (folder / "signature.json").write_text(json.dumps(signature), encoding="utf-8")


def _flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested options as dotted keys, "augmentation.crop.padding"."""
    if isinstance(values, dict) and values:
        return [pair for key, value in values.items() for pair in _flat(value, f"{prefix}.{key}" if prefix else key)]
    return [(prefix, values if isinstance(values, (int, float, str)) else json.dumps(values))]


def _lists(value: Any) -> Any:
    """Tuples as lists, all the way down, as YAML knows no tuples."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_result(folder: Path) -> Result:
    """The result that a finished run left in its folder.

    Raises:
        DataError: The folder holds none.
    """
    try:
        values = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        (baseline,) = values.pop("baseline").items()
        interval = Estimate(**values.pop("interval"))
        return Result(folder=folder, baseline=baseline, interval=interval, **values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: holds no result of a run: {error}") from None


def _plain(result: Result) -> dict[str, Any]:
    return {
        "headline": result.headline,
        "metrics": result.metrics,
        "interval": vars(result.interval),
        "baseline": dict([result.baseline]),
        "samples": result.samples,
        "seconds": result.seconds,
        "overrides": result.overrides,
    }
