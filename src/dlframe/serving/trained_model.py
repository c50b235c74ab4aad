"""A trained model for use from Python: raw things in, readable things out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlframe.readers.encoding import shown
from dlframe.readers.samples import Reading, Sample
from dlframe.runs.exported_model import Predictor
from dlframe.runs.recorder import states
from dlframe.runs.run_directory import read_result
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError, ConfigError, DataError, DataSpec, DlframeError, Field, Ragged

if TYPE_CHECKING:
    from dlframe.config import Config
    from dlframe.tasks.base import Task

IGNORED = ("thumbs.db", "desktop.ini")
"""What systems put into folders, beside hidden files."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for samples, in the order of the inputs.

    Attributes:
        inputs: Names of the samples: paths, "prices.csv to 2018-12-28", "images.npy[3]".
        outputs: By output of the task, an array (samples, ...), or a list of arrays where lengths vary.
        fields: What the outputs are.
        skipped: Inputs that could not be read, with the reason.
        assumed: What was changed while reading, a line each.
    """

    inputs: list[str]
    outputs: dict[str, Any]
    fields: dict[str, Field]
    skipped: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, output: str) -> Any:
        """The output of that name: "prediction", and "probabilities" of a classification."""
        return self.outputs[output]

    def rows(self, *, top: int = 1) -> list[dict[str, Any]]:
        """A dictionary for each sample: input, prediction, score.

        Several values, such as the steps of a forecast, have a column each. The probabilities of classes become the score
        of the predicted class.

        Args:
            top: Most probable classes to list: prediction_2 with score_2, prediction_3 ...
        """
        columns: dict[str, list[Any]] = {"input": self.inputs}
        labels = {name: declared for name, declared in self.fields.items() if declared.kind == "class"}
        for name, declared in self.fields.items():
            values = self.outputs[name]
            if name not in labels and any(_scores(declared, label) for label in labels.values()):
                columns |= _ranked(values, declared.names, top)
            elif isinstance(values, list):
                columns[name] = [value.tolist() for value in values]
            elif values.ndim == 2 and values.shape[1] > 1 and len(declared.names) in (0, values.shape[1]):
                parts = declared.names or range(1, values.shape[1] + 1)
                columns |= {f"{name}_{part}": values[:, i].tolist() for i, part in enumerate(parts)}
            else:
                columns[name] = (values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values).tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _scores(declared: Field, label: Field) -> bool:
    """Whether a field holds a number for each class of another one."""
    return declared.kind == "value" and declared.names == label.names and declared.shape == (len(label.names),)


def _ranked(values: np.ndarray, names: tuple[str, ...], top: int) -> dict[str, list[Any]]:
    order = np.argsort(-values, axis=1, kind="stable")[:, : min(top, len(names))]
    columns: dict[str, list[Any]] = {}
    for place in range(order.shape[1]):
        chosen, suffix = order[:, place], f"_{place + 1}" if place else ""
        if place:
            columns[f"prediction{suffix}"] = [names[i] for i in chosen]
        columns[f"score{suffix}"] = values[np.arange(len(values)), chosen].tolist()
    return columns


class TrainedModel:
    """A trained model, from a run directory or from the folder of an exported model.

    Args:
        run: A run directory, or an exported model such as `runs/cnn-digits-20261123-075006/model`.
        checkpoint: "best", the exported weights; "last", or the path of another checkpoint of the run.
        plugin_paths: Plugins that the run used, beside ./plugins and the installed ones. Its own config is data and has none
            loaded.

    Raises:
        DlframeError: The folder holds no model, or one of another version, or one that needs a plugin.
    """

    def __init__(self, run: str | Path, *, checkpoint: str = "best", plugin_paths: Sequence[str] = ()) -> None:
        self.folder = Path(run)
        exported = find_model(self.folder)
        weights = _weights(self.folder, checkpoint) if checkpoint not in ("", "best") else None
        self._predictor = Predictor(exported, tuple(plugin_paths), weights=weights, device="auto")
        if weights:
            _check_model(weights, self.config)

    @property
    def config(self) -> Config:
        """The config of the run."""
        return self._predictor.config

    @property
    def task(self) -> Task:
        """The task with its model, a torch module, ready to score."""
        return self._predictor.task

    @property
    def spec(self) -> DataSpec:
        """What the data were like: inputs, targets, classes."""
        return self._predictor.spec

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics of the test split.

        Raises:
            DataError: The model stands alone, without its run.
        """
        return read_result(self.folder).metrics

    def predict(self, inputs: Any, *, on_error: Literal["raise", "skip"] = "raise", every: bool = False) -> Predictions:
        """Predict from files, folders or arrays.

        Args:
            inputs: A path or a list of paths: image files, tables (CSV, Parquet) of a series, arrays (.npy, .npz), folders of
                these; or an array (samples, ...) as the data set holds them, a list of such samples, or a mapping of arrays
                where the data have several inputs.
            on_error: What an input that cannot be read does: raise, or be left out and named in `skipped`.
            every: Of a series, predict from every window of it, not only from the last.

        Raises:
            DataError: An input is missing, cannot be read or is of another kind; or there is none.
        """
        parts = [*self.stream(inputs, on_error=on_error, every=every)]
        fields = self.task.outputs()
        outputs = {name: _joined([part[name] for part in parts]) for name in fields}
        names = [name for part in parts for name in part.inputs]
        return Predictions(names, outputs, fields, parts[-1].skipped, parts[-1].assumed)

    def stream(
        self, inputs: Any, *, on_error: Literal["raise", "skip"] = "raise", every: bool = False
    ) -> Iterator[Predictions]:
        """As `predict`, a batch at a time, for more inputs than fit into memory.

        `skipped` and `assumed` grow from batch to batch.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error: must be 'raise' or 'skip'. Received: {on_error!r}.")
        skipped: list[str] = []
        reading = Reading(every=every)
        samples = self._samples(listing(inputs), reading, skipped if on_error == "skip" else None)
        found = False
        while batch := [*itertools.islice(samples, self._predictor.batch)]:
            found = True
            columns = {
                name: (Ragged.of if declared.ragged else np.stack)([sample.columns[name] for sample in batch])
                for name, declared in self.spec.inputs.items()
            }
            outputs = self._predictor.readable([*self._predictor.raw(columns)])
            names = [sample.name for sample in batch]
            yield Predictions(names, outputs, self.task.outputs(), skipped, reading.lines())
        if not found:
            why = f"none could be read: {'; '.join(skipped[:3])}{' ...' * (len(skipped) > 3)}" if skipped else "there is none"
            raise DataError(f"inputs: {why.rstrip('.')}.")

    def _samples(self, items: Iterable[Any], reading: Reading, skipped: list[str] | None) -> Iterator[Sample]:
        for item in items:
            try:
                yield from self.task.encode(item, reading)
            except DlframeError as error:
                if skipped is None:
                    raise
                skipped.append(str(error))


def find_model(folder: Path) -> Path:
    """The folder of the exported model that a run directory holds, or is.

    Raises:
        ConfigError: There is none.
    """
    for exported in (folder, folder / "model"):
        if (exported / "spec.json").is_file():
            return exported
    if not folder.exists():
        raise ConfigError(f"predict: there is no folder {folder}. Runs are in runs/.")
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"predict: {folder} is neither a run directory nor an exported model. Runs are in runs/.")
    raise ConfigError(f"predict: {folder} has no model yet: it is exported when the run ends. Continue the run: resume=auto")


def _weights(folder: Path, choice: str) -> Path:
    if choice != "last":
        return Path(choice)
    if not (kept := states(folder)):
        raise CheckpointError(f"checkpoint: {folder} has no state of its training. Try: checkpoint=best")
    return kept[0]


def _check_model(weights: Path, config: Config) -> None:
    own, model = checkpoint.read_facts(weights).get("model"), config.values["model"]["name"]
    if own != model:
        raise CheckpointError(f"{weights}: is of another model: must be '{model}'. Received: '{own}'.")


def listing(inputs: Any) -> Iterator[Any]:
    """The single inputs: folders as the files in them, in the order of their paths; arrays as they are.

    Raises:
        DataError: A path leads nowhere.
    """
    if isinstance(inputs, (str, os.PathLike)):
        yield from _files(Path(inputs))
    elif isinstance(inputs, Sequence) and any(isinstance(item, (str, os.PathLike)) for item in inputs):
        for item in inputs:
            yield from listing(item)
    else:
        yield inputs


def _files(path: Path) -> Iterator[Path]:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte
        raise DataError(f"{shown(path)}: is no path: {error}") from None
    if not exists:
        raise DataError(f"{shown(path)}: there is no such file or folder.")
    if not is_folder:
        yield path
        return
    for place, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower() not in IGNORED:
                yield Path(place, name)


def _joined(parts: list[Any]) -> Any:
    return [value for part in parts for value in part] if isinstance(parts[0], list) else np.concatenate(parts)
