"""What a run's folder holds, at its beginning and at its end. Everything is data: YAML, JSON, safetensors, Parquet, PNG."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config
from dlframe.runs import environment, exported_model
from dlframe.runs.journal import Journal, history
from dlframe.runs.recorder import BEST
from dlframe.types import ConfigError, DataError, Dataset, Estimate, Result, declared

if TYPE_CHECKING:
    from dlframe.tasks.base import Scores, Task

RESULT = "result.json"
NOTE_VARIABLE = "DLFRAME_RUN_NOTE"
"""Environment variable: the file in which a process tells its parent the directory of its run."""
FREE = ("resume", "runs", "plugin_paths", "checkpoint", "tracking", "chunk")
"""Options that change no number: a run may be continued with others."""


def check_writable(runs: str) -> None:
    """That run folders can be made, before anything is read: what can be told without making one."""
    existing = next(path for path in (Path(runs), *Path(runs).absolute().parents) if os.path.exists(path))
    if not runs or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"runs: must be a folder that can be written. Received: {runs!r}.")


def store_uri(uri: str, runs: str) -> str:
    """The address of the tracking store: "sqlite" stands for a file in the folder of runs."""
    return f"sqlite:///{(Path(runs) / 'mlflow.db').resolve()}" if uri in ("", "sqlite") else uri


def artifact_root(runs: str) -> str:
    """Where a store in the folder of runs keeps its artifacts."""
    return str((Path(runs) / "artifacts").resolve())


def title(config: Config) -> str:
    """What a run is, as the beginning of its folder's name."""
    return re.sub(r"[^\w.=+-]+", "_", config.title)[:100]


def new_folder(config: Config) -> Path:
    """A folder of its own for a run, named for what it is and when it began."""
    root = Path(config.run.runs)
    stem = f"{title(config)}-{datetime.now():%Y%m%d-%H%M%S}"
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


def write_beginning(config: Config, dataset: Dataset, folder: Path, journal: Journal, uri: str) -> None:
    """What is known before training: the config, the environment, the data; and the journal's first record.

    Of a run that goes on, what is there already stays.
    """
    import yaml

    changes = environment.changes()
    surroundings = environment.describe(changed=bool(changes))
    spec = dataset.spec
    facts = {
        "name": spec.name,
        "fingerprint": dataset.fingerprint,
        "source": dataset.source,
        "splits": dataset.splits,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "inputs": {name: dataclasses.asdict(field) for name, field in spec.inputs.items()},
        "targets": {name: dataclasses.asdict(field) for name, field in spec.targets.items()},
    }
    text = yaml.safe_dump(_lists(config.values), sort_keys=False, allow_unicode=True)
    files = {
        "config.yaml": text,
        "overrides.txt": "\n".join(config.overrides),
        "environment.json": json.dumps(surroundings, indent=1),
        "data.json": json.dumps(facts, indent=1, ensure_ascii=False),
    }
    if changes:
        files["changes.diff"] = changes
    for name, content in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(content, encoding="utf-8")
    journal.write(
        "start",
        run_name=folder.name,
        experiment=config.run.experiment_name or config.values["task"]["name"],
        identity=identity(config.values),
        host=platform.node(),
        parameters=dict(flat(config.values)),
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


def identity(values: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that two configs share if a run of one can be continued with the other."""
    counted = {key: value for key, value in values.items() if key not in FREE}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]


def check_data(folder: Path, dataset: Dataset) -> None:
    """That data are what they were when the run began.

    Raises:
        DataError: They have changed, or the folder does not tell.
    """
    try:
        fingerprint = json.loads((folder / "data.json").read_text(encoding="utf-8"))["fingerprint"]
        if not re.fullmatch(r"[0-9a-f]{12}", fingerprint):
            raise ValueError("the fingerprint of its data is none")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None
    if fingerprint != dataset.fingerprint:
        raise DataError(
            f"data={dataset.spec.name}: has changed since the run: fingerprint must be {fingerprint}. "
            f"Received: {dataset.fingerprint}."
        )


def warn_of_versions(folder: Path) -> None:
    """Say on stderr which packages are not those with which a run began: its numbers may then differ."""
    try:
        before = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["packages"]
        now = environment.versions()
        changed = [f"{name} {before[name]} then, {now[name]} now" for name in sorted(before) if before[name] != now.get(name)]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if changed:
        print(f"warning: other versions than when the run began, numbers may differ: {'; '.join(changed)}", file=sys.stderr)


def write_end(config: Config, dataset: Dataset, task: Task, scores: Scores, folder: Path, journal: Journal) -> None:
    """What the test gave: predictions, figures, the model.

    Args:
        config: What ran.
        dataset: Its data, the test split cut to the samples that were scored.
        task: With its best weights.
        scores: Of the test split, in its order.
        folder: The run directory.
        journal: Its journal.
    """
    import pyarrow
    import pyarrow.parquet

    from dlframe import plots

    split = dataset.test
    columns = {"id": split.ids.tolist()} | ({} if split.groups is None else {"group": split.groups.tolist()})
    with _replacing(folder / "predictions.parquet") as unfinished:
        pyarrow.parquet.write_table(pyarrow.table({**columns, **task.table(scores, split)}), unfinished)
    journal.write("artifact", path="predictions.parquet", to="")
    (folder / "figures").mkdir(exist_ok=True)
    drawn = {"learning_curve": plots.learning_curve(history(folder)), **task.figures(scores, dataset)}
    for name, figure in drawn.items():
        plots.save(figure, folder / "figures" / f"{name}.png")
        journal.write("artifact", path=f"figures/{name}.png", to="figures")
    exported_model.export(config, dataset.spec, task, folder / BEST, folder / "model")
    journal.write("model", path="model")


def read_result(folder: Path) -> Result:
    """The result that a finished run left in its folder.

    Raises:
        DataError: The folder holds none.
    """
    try:
        values = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        (baseline,) = values.pop("baseline").items()
        interval = Estimate(**values.pop("interval"))
        read = declared(values.pop("declared"))
        result = Result(folder=folder, baseline=baseline, interval=interval, declared=read, **values)
        if not _is_plain(result):
            raise ValueError("its values are of other kinds than a run leaves")
        return result
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder}: holds no result of a run: {error}") from None


def _is_plain(result: Result) -> bool:
    """Whether names are texts that can be shown and the rest numbers: a stranger's file may hold anything."""
    name, baseline = result.baseline
    numbers = [*result.metrics.values(), *vars(result.interval).values(), *baseline.values(), result.samples, result.seconds]
    numbers += [bound for metric in result.declared.values() for bound in (metric.low, metric.high)]
    names = [result.headline, name, *result.metrics, *baseline, *result.overrides]
    names += [*result.declared, *(metric.unit for metric in result.declared.values())]
    return (
        all(type(number) in (int, float) for number in numbers)
        and all(isinstance(text, str) and text.isprintable() for text in names)
        and result.headline in result.metrics
        and result.headline in baseline
    )


def write_result(result: Result, folder: Path, journal: Journal) -> None:
    """Keep the result itself."""
    values = {
        "headline": result.headline,
        "metrics": result.metrics,
        "interval": vars(result.interval),
        "baseline": dict([result.baseline]),
        "samples": result.samples,
        "declared": {name: _finite(vars(metric)) for name, metric in result.declared.items()},
        "seconds": result.seconds,
        "overrides": result.overrides,
    }
    with _replacing(folder / RESULT) as unfinished:
        unfinished.write_text(json.dumps(values, indent=1), encoding="utf-8")
    journal.write("artifact", path=RESULT, to="")


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without bounds that are infinite, which JSON lacks and which are the defaults."""
    return {key: value for key, value in values.items() if not (isinstance(value, float) and math.isinf(value))}


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when all is written."""
    unfinished = path.with_name(f".{path.name}.part")
    yield unfinished
    unfinished.replace(path)


def flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested options as dotted keys, "augmentation.crop.padding"."""
    if isinstance(values, dict) and values:
        return [pair for key, value in values.items() for pair in flat(value, f"{prefix}.{key}" if prefix else key)]
    return [(prefix, values if isinstance(values, (int, float, str)) else json.dumps(values))]


def _lists(value: Any) -> Any:
    """Tuples as lists, all the way down, as YAML knows no tuples."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
