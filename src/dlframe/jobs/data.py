"""The data of a run: read, checked, and kept for the next run of the process."""

from __future__ import annotations

import copy
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.config import Config
from dlframe.config.settings import AUTO_BATCH
from dlframe.readers.splits import drop_labels, keep_normal, normal_classes
from dlframe.storage.stamps import below, stamps
from dlframe.types import DataError, Dataset, Lazy, OtherTaskError, Ragged, Split, check_dataset
from dlframe.types.columns import PARTS

LARGEST = 2**30
"""Bytes of all data sets that are kept."""

MOST = 8
"""Number of data sets that are kept."""

_kept: OrderedDict[Any, Dataset] = OrderedDict()
"""Data sets by options and stamps of files, the one used last at the end. Their arrays are read-only."""


def load_data(config: Config) -> Dataset:
    """The data of a run, checked against their own declaration, labels dropped as asked.

    Data whose entry states the options that name its `files` are kept for the next run with equal options, until one of these
    files changes. Their arrays are read-only, so that no run changes the data of another.

    Raises:
        DataError: They are not as declared, or their kinds do not fit the model or the task.
    """
    config = sized(config)
    key = _key(config)
    if key is None or key not in _kept:
        dataset = _read(config)
        if key is not None:
            _keep(key, dataset)
    if key in _kept:
        _kept.move_to_end(key)
        dataset = _own(_kept[key])
    _check_task(config, dataset)
    if config.entry("task").facts["trained_on"] == "normal":
        dataset = keep_normal(dataset, normal_classes(dataset.spec, config.values["task"].get("anomalies", ()))[0])
    if config.run.labels_per_class is not None:
        dataset = drop_labels(dataset, config.run.labels_per_class, seed=config.run.seed)
    return _overfit(config, dataset) if config.trainer.overfit_batches else dataset


def load_to_train(config: Config) -> Dataset:
    """The data of a run that trains, see `load_data`.

    Raises:
        DataError: As of `load_data`; or of `check_classes`.
    """
    dataset = load_data(config)
    check_classes(config, dataset)
    return dataset


def check_classes(config: Config, dataset: Dataset) -> None:
    """Refuse to train a classifier on one class, or to pick an epoch or a threshold by a validation split that has one of two.

    Raises:
        DataError: A split lacks a class that is needed.
    """
    task, (name, field) = config.values["task"], next(iter(dataset.spec.targets.items()))
    if config.entry("task").name != "classification" or field.kind != "class":
        return
    metric = config.monitor.removeprefix("val/")
    ranked = metric in ("average_precision", "auroc") or (
        task["average"] == "positive" and metric in ("f1", "precision", "recall")
    )
    rules = [f"the monitor {metric}"] * ranked + [f"task.threshold={task['threshold']}"] * (task["threshold"] != "argmax")
    needs = {"train": "a classifier", "validation": " and ".join(rules) if len(field.names) == 2 else ""}
    for part, rule in needs.items():
        split: Split = getattr(dataset, part)
        labels = np.asarray(split[name])
        found = np.unique(labels if split.labelled is None else labels[split.labelled])
        if rule and len(found) == 1 < len(field.names):
            raise DataError(
                f"data={config.entry('data').name}: the {part} split must have rows of two classes for {rule}. "
                f"Received: {len(labels):,} rows, all of '{field.names[found[0]]}'. Try more rows, or another split"
            )


def _overfit(config: Config, dataset: Dataset) -> Dataset:
    """Return data whose three splits have the same few training samples, drawn the same in every run."""
    train = dataset.train if dataset.train.labelled is None else dataset.train.take(np.flatnonzero(dataset.train.labelled))
    size = AUTO_BATCH if config.run.batch_size == "auto" else int(config.run.batch_size)
    chosen = np.random.default_rng(0).permutation(len(train))[: size * config.trainer.overfit_batches]
    few = train.take(np.sort(chosen))
    return replace(dataset, train=few, validation=few, test=few)


def sized(config: Config) -> Config:
    """Return the config with the size of images that the model expects, or its sub-words, where the data leave them open."""
    options = config.values["data"]
    if options.get("image_size", 0) is None and (size := config.input_size):
        return config.changed(data={"image_size": size})
    if "tokenizer" in options and (read := config.subwords):
        source, longest = read
        length = min(options["length"] or longest, longest)
        return config.changed(data={"tokenizer": options["tokenizer"] or source, "length": length})
    return config


def _read(config: Config) -> Dataset:
    dataset = check_dataset(config.build("data"))
    if dataset.refusal:
        raise DataError(dataset.refusal)
    spec = dataset.spec
    for role, fields in (("inputs", spec.inputs), ("targets", spec.targets)):
        promised = config.entry("data").facts[role]
        for name, field in fields.items():
            if field.kind not in promised:
                raise DataError(f"data={spec.name}: '{name}' must be {' or '.join(promised)}. Received: {field.kind}.")
    return dataset


def _check_task(config: Config, dataset: Dataset) -> None:
    """Raise if the data, which have a task for each kind of target, have another kind than the task takes."""
    data, task = config.entry("data"), config.entry("task")
    for field in dataset.spec.targets.values():
        preset = data.facts["tasks"].get(field.kind)
        if preset and field.kind not in task.facts["targets"]:
            raise OtherTaskError(
                f"data={data.name}: the target of {dataset.spec.name} is a {field.kind}, which task={task.name} does not take. "
                f"Try: task={preset}",
                preset,
            )


def _key(config: Config) -> Any:
    """Return what the data depend on: entry, options and stamps of files; None if unknown."""
    entry, options = config.entry("data"), config.values["data"]
    if not set(names := entry.facts["files"]) <= entry.parameters.keys():
        return None
    paths = [str(options[name]) for name in names if options.get(name) is not None]
    try:
        written = stamps(file for path in paths for file in below(Path(path).expanduser()))
    except (OSError, RuntimeError, ValueError):
        return None
    return None if written is None else (entry.where, repr(sorted(options.items())), os.environ.get("DLFRAME_DATA"), written)


def _keep(key: Any, dataset: Dataset) -> None:
    arrays = [*_arrays(dataset)]
    if (size := _size(dataset)) > LARGEST:
        return
    while _kept and (len(_kept) >= MOST or size + sum(map(_size, _kept.values())) > LARGEST):
        _kept.popitem(last=False)
    for array in arrays:
        array.flags.writeable = False
    _ = dataset.fingerprint  # computed once, for all copies
    _kept[key] = dataset


def _arrays(dataset: Dataset) -> Iterator[np.ndarray]:
    for part in PARTS:
        split: Split = getattr(dataset, part)
        for column in (*split.columns.values(), split.ids, split.labelled, split.groups):
            match column:
                case Ragged(values=values, offsets=offsets):
                    yield from (values, offsets)
                case Lazy(items=items, lengths=lengths):
                    yield from (items,) if lengths is None else (items, lengths)
                case np.ndarray():
                    yield column


def _size(dataset: Dataset) -> int:
    return sum(array.nbytes for array in _arrays(dataset))


def _own(dataset: Dataset) -> Dataset:
    """Return a data set with the same arrays, of which nothing else is shared."""
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # torch's tensors of them are not written to
    own = copy.copy(dataset)  # with the fingerprint
    own.spec = copy.deepcopy(dataset.spec)
    for part in PARTS:
        split: Split = getattr(dataset, part)
        setattr(own, part, replace(split, columns=dict(split.columns)))
    return own
