"""Data that a finished run is scored on by `test RUN data.path=NEW`: its own, from where they are now, or others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlframe.config import Config
from dlframe.jobs.data import load_data, sized
from dlframe.runs.exported_model import read_spec
from dlframe.runs.run_directory import MODEL, RunData, sample_hashes
from dlframe.storage.stamps import extent
from dlframe.types import ConfigError, DataError, Dataset, DataSpec, check_dataset, command_line, quoted


@dataclass(frozen=True)
class Given:
    """Data that were read.

    Attributes:
        dataset: The data; of other data than the run's, all three splits are the test split.
        same: Whether they are the run's own.
        notes: What differs.
    """

    dataset: Dataset
    same: bool
    notes: tuple[str, ...]


def given_data(config: Config, folder: Path, before: RunData, options: Sequence[str]) -> Given:
    """Read the data of a config that names others than its run, or the same in another place.

    They are the same if their fingerprint is that of the run: its test split is scored then. Else the data set reads them by
    the specification of the run, for which it takes the argument `spec`, and all of them are scored; those of data.test, where
    the data set has that option and it was given.

    Args:
        config: Config of the run, with the options of its data that were given.
        folder: Run directory.
        before: What the run says about its data.
        options: What was given, as "data.path=FOLDER".

    Raises:
        DataError: The data cannot be read, do not match the model, or the data set reads no others.
    """
    entry = config.entry("data")
    others = "spec" in entry.takes
    tried = not others or _as_large(config, before)
    if tried and (own := _own(config, before, required=not others)):
        return own
    if not others:
        raise DataError(
            f"data={entry.name}: reads no other data than those of its run: fingerprint must be {before.fingerprint}. Predict "
            f"from files: {command_line('predict', folder, 'FILE')}"
        )
    if not (folder / MODEL / "spec.json").is_file():
        raise ConfigError(
            f"'{folder}' has no trained model yet: the run has not ended. Resume it: {quoted(f'resume={folder}')}"
        )
    spec = read_spec(folder / MODEL / "spec.json")
    scored = (
        config.changed(data={"path": config.values["data"]["test"], "test": None}) if _given_option("test", options) else config
    )
    dataset = sized(scored).build("data", spec=spec)
    dataset = check_dataset(dataset if _extends(dataset.spec, spec) else replace(dataset, spec=spec))
    whole = sum(before.samples.values())
    # Files beside the data, such as a note, do not make them others.
    if not tried and len(dataset.test) in (whole, before.samples["test"]) and (own := _own(config, before, required=False)):
        return own
    if validation := _given_option("validation", options):
        raise ConfigError(
            f"data.validation: is not what is scored, where the data are others than the run's. Received: {validation}. "
            f"Try: {command_line('test', folder, validation.replace('validation', 'path', 1))}",
            "data.validation",
        )
    notes = [f"other data than the run's: fingerprint {dataset.fingerprint}, of the run {before.fingerprint}"]
    notes += [
        f"{len(dataset.test):,} samples, all scored; the run was trained on {before.samples['train']:,}; "
        f"the baseline is that of the scored samples"
    ]
    seen = sum(value in before.seen for value in sample_hashes(dataset.test, spec)) if before.seen else 0
    if seen:
        notes += [f"{seen:,} of {len(dataset.test):,} samples are training samples of the run: not unseen"]
    elif not before.seen:
        notes += ["whether the run was trained on some of these samples is not known: data.json has no hashes of its own"]
    return Given(dataset, False, tuple(notes))


def _extends(own: DataSpec, spec: DataSpec) -> bool:
    """Return whether a specification is another one with further names of classes, of anomalies that the run did not know."""
    known = {name: field.names for name, field in spec.targets.items()}
    if own.targets.keys() != known.keys():
        return False
    shorter = {name: replace(field, names=field.names[: len(known[name])]) for name, field in own.targets.items()}
    return own != spec and replace(own, targets=shorter) == spec


def _given_option(name: str, options: Sequence[str]) -> str:
    """Return what was given for an option of the data, as "data.test=FILE"; empty for nothing, and for null."""
    given = (option for option in options if option.partition("=")[0] == f"data.{name}" and not option.endswith("=null"))
    return next(given, "")


def _own(config: Config, before: RunData, *, required: bool) -> Given | None:
    """Return the data if they are those of the run."""
    try:
        dataset = load_data(config)
    except DataError:
        if required:
            raise
        return None
    if dataset.fingerprint != before.fingerprint:
        return None
    return Given(dataset, True, (f"the same data as the run's: fingerprint {dataset.fingerprint}",))


def _as_large(config: Config, before: RunData) -> bool:
    """Return whether the files are as many, of as many bytes, as those of the run."""
    options = config.values["data"]
    found = [
        (size, extent(Path(value).expanduser()))
        for option, (_, size) in before.files.items()
        if isinstance(value := options.get(option), str)
    ]
    return bool(found) and all(size is not None and size == now for size, now in found)
