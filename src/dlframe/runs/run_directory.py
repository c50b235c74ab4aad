"""Files of a run directory: YAML, JSON, safetensors, Parquet, PNG."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config
from dlframe.registry.plugins import code_of
from dlframe.runs import environment, exported_model
from dlframe.runs.journal import Journal, history
from dlframe.runs.recorder import BEST
from dlframe.runs.study_journal import trial_of
from dlframe.storage import checkpoint
from dlframe.storage.known import runs_of, stored_uri
from dlframe.storage.stamps import extent
from dlframe.types import (
    PARTS,
    ConfigError,
    DataError,
    Dataset,
    DataSpec,
    Estimate,
    Lazy,
    Result,
    Split,
    command_line,
    declared,
    is_printable,
    normalized,
    printable,
    read_text,
    replacing,
    say,
    shortened,
)

if TYPE_CHECKING:
    from dlframe.tasks.base import Scores, Task

Columns = Mapping[str, Sequence[Any]]
"""Values by name of the column."""

RESULT = "result.json"
MODEL = "model"
FIGURES = "figures"
TRACE = "trace.json.gz"
"""Of some steps, with `profile=true`."""
FILES = (
    "config.yaml",
    "overrides.txt",
    "environment.json",
    "data.json",
    "changes.diff",
    "predictions.parquet",
    "classes.csv",
    RESULT,
    TRACE,
)
REPORT = "report.html"
"""Page of a study."""
TABLE = "table.csv"
"""Table of a study."""
FIGURE = re.compile(r"(figures)/\w[\w .+=-]*\.png")
LARGEST = 2**36
"""Bytes of a file that is uploaded: of weights 16 billion numbers."""
FOLDER_VARIABLE = "DLFRAME_RUN_FOLDER"
"""Environment variable: folder of the run, for a process that a study starts, and for those that Lightning starts."""
FREE = (
    "changed_code",
    "checkpoint",
    "dry_run",
    "figures",
    "find",
    "plugin_paths",
    "profile",
    "register",
    "resume",
    "runs",
    "steps_per_execution",
    "tracking",
)
"""Options that may change when a run is resumed; none affects the results."""


LIMITS = {"data.json": 2**24}
"""Bytes of a text file that is read; data.json names all classes, and has a hash of each training sample."""
HASH, HASHED = 8, 2**18
"""Bytes of a hash of a sample, and how many training samples have one at most."""


def read_file(folder: Path, name: str) -> str:
    """Read a text file of a run, which may be somebody else's: links, pipes, devices and large files are refused.

    Raises:
        OSError: There is no such file.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_text(folder / name, LIMITS.get(name, 2**20), inside=folder)


def check_writable(runs: str) -> None:
    """Check that run directories can be created, without creating one."""
    existing = next(path for path in (Path(runs), *Path(runs).absolute().parents) if os.path.exists(path))
    if not runs or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"runs: must be a writable folder. Received: {runs!r}.")


def artifact_folder(path: Any) -> str:
    """Return the folder in the store for an artifact of a run or a study: "figures", or empty for its root.

    Raises:
        ValueError: Neither writes such an artifact.
    """
    if isinstance(path, str):
        if path in FILES or path in (REPORT, TABLE):
            return ""
        if found := FIGURE.fullmatch(path):
            return found[1]
    raise ValueError(f"a run writes no artifact of this name. Received: {path!r}")


def check_links(folder: Path, key: str = "resume") -> None:
    """Check that a run directory holds files and folders only: no links, which writing in it would follow, pipes, devices.

    Args:
        folder: Run directory.
        key: Option or command that begins the message.

    Raises:
        ConfigError: It holds something else.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = os.lstat(path := os.path.join(place, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "links" if stat.S_ISLNK(mode) else "pipes or devices"
                raise ConfigError(f"{key}: {folder} must hold no {kind}. Received: {printable(path)}. Remove it.", key)


def artifact_root(runs: str | Path) -> str:
    """Where a store in the folder of runs keeps its artifacts."""
    return str((Path(runs) / "artifacts").resolve())


def title(config: Config) -> str:
    """Return the beginning of the name of a run directory."""
    return shortened(re.sub(r"[^\w.=+-]+", "_", normalized(config.title)), 100)


def label(config: Config, trial: Mapping[str, Any] | None = None, *, without: Sequence[str] = ()) -> str:
    """Return what tells a run from others in the tracker: "cnn · digits · lr=0.01 · seed=2".

    Args:
        config: Config of the run.
        trial: See `trial_of`: only what varies in its study is named, and no name of its folder.
        without: Options that are left out.
    """
    named = "" if trial else config.run.run_name
    hidden = {*without, "run_name", "experiment_name", "experiment", "model", "data", "task", "log_every_n_steps"}
    texts = () if named else config.overrides
    given = {key: value for key, _, value in (text.partition("=") for text in texts)}
    varied = str((trial or {}).get("tags", {}).get("dlframe.options", "")).split()
    if varied:
        given = {key: value for key, value in given.items() if key in {text.partition("=")[0] for text in varied}}
    typed = {key: value for key, value in given.items() if key not in hidden and key.split(".")[0] not in FREE}
    ends = [key.rpartition(".")[2] for key in typed]
    options = [f"{end if ends.count(end) == 1 else key}={value}" for (key, value), end in zip(typed.items(), ends, strict=True)]
    options.sort(key=lambda text: text.startswith("seed="))
    parts = [named] if named else [config.values["model"]["name"], config.values["data"]["name"]]
    return shortened(printable(normalized(" · ".join([*parts, *options]))), 250)


def new_folder(config: Config, folder: Path | None = None) -> Path:
    """Create a run directory: this one, which may be there and empty, or one named for model, data and time."""
    if folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"runs: cannot write to '{folder}': {getattr(error, 'strerror', error)}.") from None
        return folder
    root = Path(config.run.runs)
    stem = f"{title(config)}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1000):
        folder = root / (f"{stem}-{attempt}" if attempt else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(f"runs: cannot write to {config.run.runs!r}: {getattr(error, 'strerror', error)}.") from None
        return folder
    raise ConfigError(f"runs: no free name for a run directory in '{root}'.")


def write_beginning(
    config: Config,
    dataset: Dataset,
    folder: Path,
    journal: Journal,
    uri: str,
    *,
    origin: Mapping[str, Any] | None = None,
    continued: Mapping[str, Any] | None = None,
) -> None:
    """Write config, environment, data and the first record of the journal.

    A resumed run keeps its files.

    Args:
        config: Config of the run.
        dataset: Its data.
        folder: Run directory.
        journal: Journal of the run.
        uri: Store that tracks it; empty for none.
        origin: The checkpoint whose weights it begins with.
        continued: Tags of a run that is trained further with other options.
    """
    git = environment.git_state()
    if git.changes is None:
        say("note: git cannot tell what is changed in the repository: the run has no changes.diff", error=True)
    spec = dataset.spec
    origins = {"initial_checkpoint": dict(origin)} if origin else {}
    profile = {part: len(getattr(dataset, part)) for part in PARTS}
    facts = {
        "name": spec.name,
        "fingerprint": dataset.fingerprint,
        "source": dataset.source,
        "splits": dataset.splits,
        **profile,
        "inputs": {name: dataclasses.asdict(field) for name, field in spec.inputs.items()},
        "targets": {name: dataclasses.asdict(field) for name, field in spec.targets.items()},
        "files": (places := places_of(config)),
        "seen": b"".join(sample_hashes(dataset.train, spec) if places else ()).hex(),
    }
    files = {
        **_texts(config.values, config.overrides),
        "environment.json": json.dumps(environment.describe(git.described, code_of(config.chosen)) | origins, indent=1),
        "data.json": json.dumps(facts, indent=1, ensure_ascii=False),
    }
    if git.changes:
        files["changes.diff"] = git.changes
    changed = changed_code(folder, config) if (folder / "environment.json").exists() else []
    for name, content in files.items():
        if not os.path.lexists(folder / name):
            with replacing(folder / name, folder) as unfinished:
                # A path may hold bytes that are no text, which JSON writes so.
                unfinished.write_text(content, encoding="utf-8", errors="backslashreplace")
    trial = trial_of(folder)
    journal.write(
        "start",
        run_name=label(config, trial),
        experiment=config.experiment,
        identity=identity(config.values),
        host=platform.node(),
        parameters=dict(flat(config.values)),
        tags={
            "mlflow.source.name": "dlframe",
            "mlflow.source.type": "LOCAL",
            "data.fingerprint": dataset.fingerprint,
            "data.source": dataset.source,
            "run.folder": str(folder.resolve()),
            "dlframe.command": command_line(*(text for text in config.overrides if not text.startswith("run_name="))),
            "dlframe.group": label(config, trial, without=("seed",)),
            **({"limited": config.trainer.limited} if config.trainer.limited else {}),
            **({f"initial_checkpoint.{name}": origin[name] for name in ("file", "sha256")} if origin else {}),
            **{f"mlflow.source.git.{key}": git.described[key] for key in ("commit", "branch") if git.described.get(key)},
            **({"changed_code": "; ".join(changed)} if changed else {}),
            **(continued or {}),
            **trial.get("tags", {}),
        },
        data={"name": spec.name, "digest": dataset.fingerprint, "source": dataset.source, "profile": profile},
        uri=stored_uri(uri, runs_of(folder.resolve())),
        **({"system_metrics": True} if config.tracking.system_metrics else {}),
        **({"continued": dict(continued)} if continued else {}),
        **({"study": trial["study"]} if trial else {}),
    )
    for name in files:
        journal.write("artifact", path=name, to=artifact_folder(name))


def _texts(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    from dlframe.config.yaml_files import written

    return {"config.yaml": written(values), "overrides.txt": "\n".join(overrides)}


def write_config(values: Mapping[str, Any], overrides: Sequence[str], folder: Path) -> None:
    """Write another config into the directory of a run that is there."""
    for name, text in _texts(values, overrides).items():
        with replacing(folder / name, folder) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_overrides(folder: Path) -> tuple[str, ...]:
    """Read what was typed when a run began, which may be somebody else's.

    Raises:
        DataError: The file is damaged.
    """
    try:
        overrides = tuple(read_file(folder, "overrides.txt").splitlines())
        if not all(is_printable(text) and "=" in text for text in overrides):
            raise ValueError("overrides.txt holds something else than overrides")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None
    return overrides


def identity(values: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits, equal for configs that resume each other."""
    counted = {key: value for key, value in values.items() if key not in FREE}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]


def places_of(config: Config) -> dict[str, dict[str, Any]]:
    """Return where the files of the data are: option of the data set -> absolute path, number of files and their bytes."""
    found: dict[str, dict[str, Any]] = {}
    for option in config.entry("data").facts["files"]:
        value = config.values["data"].get(option)
        if isinstance(value, str) and os.path.exists(place := os.path.expanduser(value)):
            files, size = extent(Path(place)) or (None, None)
            found[option] = {"place": os.path.abspath(place), "files": files, "bytes": size}
    return found


def sample_hashes(split: Split, spec: DataSpec) -> list[bytes]:
    """Return a hash of `HASH` bytes of each sample's inputs; none of lazy columns or of more than `HASHED` samples."""
    columns = [split[name] for name in spec.inputs]
    if len(split) > HASHED or any(isinstance(column, Lazy) for column in columns):
        return []
    return [
        hashlib.blake2b(b"".join(column[i].tobytes() for column in columns), digest_size=HASH).digest()
        for i in range(len(split))
    ]


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a run says about its data.

    Attributes:
        fingerprint: Of all values.
        splits: Description of the split.
        samples: Split -> number of samples.
        files: Option of the data set -> path of its files when the run began, their number and bytes (None for many).
        seen: Hashes of the training samples; none where they were not written.
        classes: Target -> names of its classes.
    """

    fingerprint: str
    splits: str
    samples: dict[str, int]
    files: dict[str, tuple[Path, tuple[int, int] | None]]
    seen: frozenset[bytes]
    classes: dict[str, tuple[str, ...]]

    def located(self, config: Config) -> Config:
        """Return the config with relative paths as they were meant where the run began, if the files are still there."""
        given = config.values["data"]
        found = {
            option: str(place)
            for option, (place, _) in self.files.items()
            if isinstance(value := given.get(option), str)
            and not os.path.isabs(os.path.expanduser(value))
            and os.path.exists(place)
        }
        return config.changed(data=found) if found else config


def read_data(folder: Path) -> RunData:
    """Read data.json of a run, which may be somebody else's.

    Raises:
        DataError: It is damaged.
    """
    try:
        read = json.loads(read_file(folder, "data.json"))
        fingerprint, splits = read["fingerprint"], read.get("splits", "")
        if not re.fullmatch(r"[0-9a-f]{12}", fingerprint) or not isinstance(splits, str):
            raise ValueError("invalid fingerprint")
        samples = {part: int(read.get(part, 0)) for part in PARTS}
        files = {
            str(option): (
                _place(found["place"]),
                None if found["files"] is None else (int(found["files"]), int(found["bytes"])),
            )
            for option, found in read.get("files", {}).items()  # earlier versions did not write them
        }
        seen = bytes.fromhex(read.get("seen", ""))
        classes = {str(name): tuple(map(str, field["names"])) for name, field in read.get("targets", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None
    hashes = frozenset(seen[i : i + HASH] for i in range(0, len(seen), HASH))
    return RunData(fingerprint, splits, samples, files, hashes, classes)


def _place(text: Any) -> Path:
    if not isinstance(text, str) or not os.path.isabs(text) or "\0" in text:
        raise ValueError("a place of files must be an absolute path")
    return Path(text)


def check_data(folder: Path, dataset: Dataset) -> None:
    """Check that the data are unchanged since the start of the run.

    Raises:
        DataError: The data have changed, or data.json is damaged.
    """
    before = read_data(folder)
    if before.fingerprint != dataset.fingerprint:
        # Earlier versions drew the split of image folders by position.
        other = before.splits not in ("", dataset.splits)
        hint = f" The split was '{before.splits}', and is '{dataset.splits}'." if other else ""
        raise DataError(
            f"data={dataset.spec.name}: changed since the run: fingerprint must be {before.fingerprint}. "
            f"Received: {dataset.fingerprint}.{hint}"
        )


def has_same_versions(folder: Path) -> bool:
    """Return whether a run was trained with the packages that are installed now."""
    try:
        return json.loads(read_file(folder, "environment.json"))["packages"] == environment.versions()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def warn_of_versions(folder: Path) -> None:
    """Warn about package versions that changed since the start of the run."""
    try:
        before = json.loads(read_file(folder, "environment.json"))["packages"]
        now = environment.versions()
        changed = [f"{name} {before[name]} to {now.get(name)}" for name in sorted(before) if before[name] != now.get(name)]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if changed:
        say(f"warning: package versions changed; results may differ: {'; '.join(changed)}", error=True)


def changed_code(folder: Path, config: Config) -> list[str]:
    """Return how the code of the plugins of a config differs from that of a run, in words; nothing where it is the same.

    Raises:
        DataError: environment.json of the run is damaged.
    """
    try:
        noted = json.loads(read_file(folder, "environment.json"))
        before = {(p, str(f)): str(own) for p, files in noted.get("plugins", {}).items() for f, own in files.items()}
    except FileNotFoundError:
        return ["environment.json is missing, which has the code of plugins"] if code_of(config.chosen) else []
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None
    now = {(plugin, name): own for plugin, files in code_of(config.chosen).items() for name, own in files.items()}
    if now and "plugins" not in noted:
        return ["the run began with an earlier version of dlframe, which did not note the code of plugins"]
    told = []
    for plugin, name in sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        old, new = (values.get((plugin, name)) for values in (before, now))
        how = "is new" if old is None else "is missing" if new is None else "changed"
        versions = f" from {old} to {new}" if how == "changed" and not name.endswith(".py") else ""
        told.append(f"{name} of plugin '{plugin}' {how}{versions}")
    return told


def check_code(folder: Path, config: Config) -> None:
    """Check that the code of plugins is unchanged since the start of the run, or may have changed.

    Raises:
        ConfigError: It has changed, which `changed_code=accept` would allow.
    """
    if not (changed := changed_code(folder, config)):
        return
    if config.run.changed_code == "refuse":
        what = f"{'; '.join(changed[:5])}{f'; {len(changed) - 5} more' if len(changed) > 5 else ''}"
        raise ConfigError(
            f"resume: {folder} was begun with other code: {what}. To continue: changed_code=accept", "changed_code"
        )
    say(f"warning: {'; '.join(changed)}; results may differ", error=True)


def write_end(
    config: Config, dataset: Dataset, task: Task, table: Any, classes: Columns, folder: Path, journal: Journal
) -> None:
    """Write predictions, metrics of classes and the model after the test.

    Args:
        config: Config of the run.
        dataset: Data of the run; the test split has the scored samples only.
        task: Task with the best weights.
        table: Predictions of the test split, in its order.
        classes: Metrics of each class by column; empty for none.
        folder: Run directory.
        journal: Journal of the run.
    """
    write_predictions(table, folder / "predictions.parquet")
    journal.write("artifact", path="predictions.parquet", to="")
    if classes:
        write_classes(classes, folder / "classes.csv")
        journal.write("artifact", path="classes.csv", to="")
    exported_model.export(config, dataset.spec, task, folder / BEST, folder / MODEL)
    journal.write("model", path=MODEL, **({"register": config.run.register} if config.run.register else {}))


def predictions(dataset: Dataset, task: Task, scores: Scores) -> Any:
    """Return an Arrow table with a row per test sample; the values of a column with several are named in its metadata."""
    import pyarrow

    split = dataset.test
    columns = {"id": split.ids.tolist()} | ({} if split.groups is None else {"group": split.groups.tolist()})
    columns |= task.table(scores, split)
    if (baseline := task.baseline_predictions(dataset)) is not None:
        own = baseline if isinstance(baseline, dict) else {"prediction": baseline}
        columns |= {"baseline" if name == "prediction" else f"baseline_{name}": values for name, values in own.items()}
    table = pyarrow.table(columns)
    for name, field in task.outputs().items():
        if field.names and name in table.column_names and pyarrow.types.is_list(table.schema.field(name).type):
            named = table.schema.field(name).with_metadata({"names": json.dumps(field.names, ensure_ascii=False)})
            table = table.cast(table.schema.set(table.schema.get_field_index(name), named))
    return table


def write_predictions(table: Any, path: Path) -> None:
    """Write a table of predictions."""
    import pyarrow.parquet

    with replacing(path, path.parent) as unfinished:
        pyarrow.parquet.write_table(table, unfinished)


def write_classes(columns: Columns, path: Path) -> None:
    """Write metrics of classes, a row each, as CSV; undefined ones are empty."""
    shown = [["" if value != value else value for value in values] for values in columns.values()]
    with replacing(path, path.parent) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*shown, strict=True))


def write_figures(config: Config, dataset: Dataset, task: Task, scores: Scores, folder: Path, journal: Journal) -> list[str]:
    """Draw the figures of a run; arguments as of `write_end`, and the scores of the test split, in its order.

    Returns:
        Their names.
    """
    from dlframe import plots

    facts = checkpoint.read_facts(folder / BEST, folder)
    epoch, step = facts.get("epoch"), facts.get("step")
    best = (epoch + 1, step) if type(epoch) is int and type(step) is int else None
    shown = (config.headline, config.monitor.removeprefix("val/"))
    curve = plots.learning_curve(history(folder), metrics=shown, best=best)
    drawn = {"learning_curve": curve, **task.figures(scores, dataset)}
    for name, figure in drawn.items():
        path = f"{FIGURES}/{name}.png"
        with replacing(folder / path, folder) as unfinished:
            plots.save(figure, unfinished)
        journal.write("artifact", path=path, to=FIGURES)
    return [*drawn]


def read_result(folder: Path) -> Result:
    """Read the result of a finished run.

    Raises:
        DataError: The folder has no valid result.
    """
    try:
        values = json.loads(read_file(folder, RESULT))
        (baseline,) = values.pop("baseline").items()
        interval = Estimate(**values.pop("interval"))
        read = declared(values.pop("declared"))
        result = Result(folder=folder, baseline=baseline, interval=interval, declared=read, **values)
        if not _is_plain(result):
            raise ValueError("invalid values")
        return result
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder}: no result of a run: {error}") from None


def _is_plain(result: Result) -> bool:
    """Return whether names are printable and other values numbers."""
    name, baseline = result.baseline
    numbers = [*result.metrics.values(), *vars(result.interval).values(), *baseline.values(), result.samples, result.seconds]
    numbers += [bound for metric in result.declared.values() for bound in (metric.low, metric.high)]
    names = [result.headline, result.limited, name, *result.metrics, *baseline, *result.overrides]
    names += [*result.notes, *result.declared, *(metric.unit for metric in result.declared.values())]
    names += [text for name, form in result.forms.items() for text in (name, *form, *form.values())]
    counts = (result.interval.undefined, result.interval.resamples, result.blocks)
    return (
        isinstance(result.notes, list)
        and isinstance(result.is_random, bool)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(type(number) in (int, float) for number in numbers)
        and all(is_printable(text) for text in names)
        and result.headline in result.metrics
        and result.headline in baseline
    )


def write_result(result: Result, folder: Path, journal: Journal) -> None:
    """Write the result."""
    values = {
        "headline": result.headline,
        "metrics": result.metrics,
        "interval": vars(result.interval),
        "baseline": dict([result.baseline]),
        "samples": result.samples,
        "declared": {name: _finite(vars(metric)) for name, metric in result.declared.items()},
        "seconds": result.seconds,
        "overrides": result.overrides,
        "limited": result.limited,
        "notes": [*map(printable, result.notes)],
        "forms": result.forms,
        "blocks": result.blocks,
        "is_random": result.is_random,
    }
    with replacing(folder / RESULT, folder) as unfinished:
        unfinished.write_text(json.dumps(values, indent=1), encoding="utf-8")
    journal.write("artifact", path=RESULT, to="")


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove infinite bounds, which are defaults and not valid in JSON."""
    return {key: value for key, value in values.items() if not (isinstance(value, float) and math.isinf(value))}


def flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested options to dotted keys, "augmentation.crop.padding"."""
    if isinstance(values, dict) and values:
        return [pair for key, value in values.items() for pair in flat(value, f"{prefix}.{key}" if prefix else key)]
    return [(prefix, values if isinstance(values, (int, float, str)) else json.dumps(values))]
