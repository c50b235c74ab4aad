"""A trained model in a folder of its own: written here, read here. `mlflow.pyfunc.load_model` comes here; nothing is unpickled.

    config.yaml   spec.json   signature.json   weights.safetensors
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlframe.config import Config, load_saved
from dlframe.registry import GROUPS
from dlframe.storage import checkpoint
from dlframe.types import Batch, ConfigError, DataError, DataSpec, DlframeError, Field, Ragged

if TYPE_CHECKING:
    from dlframe.tasks.base import Task

FORMAT = 2
"""Of the folder; 1 had one input and one target."""

LARGEST = 2**20
"""Longest side of an input."""

BATCH = 256
"""Samples that are predicted at once at most, as many as in a test."""

Columns = dict[str, Any]
"""Arrays by column, (samples, ...); `Ragged` where samples differ in length."""


def export(config: Config, spec: DataSpec, task: Task, weights: Path, folder: Path) -> None:
    """Write what is needed to predict: config, spec, weights, signature."""
    folder.mkdir(exist_ok=True)
    shutil.copy(folder.parent / "config.yaml", folder)
    shutil.copy(weights, folder / "weights.safetensors")
    needed = {
        f"{group}={config.values[group]['name']}": entry.origin
        for group in ("task", "model")
        if (entry := config.entry(group)).origin != "dlframe"
    }
    described = {"format": FORMAT, "plugins": needed, **dataclasses.asdict(spec)}
    (folder / "spec.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    signature = {"inputs": _tensors(spec.inputs), "outputs": _tensors(task.outputs())}
    (folder / "signature.json").write_text(json.dumps(signature), encoding="utf-8")


def _tensors(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    """Name, type and shape of each column, -1 where a length varies; a class is told by its name."""
    return [
        {
            "name": name,
            "dtype": "str" if field.kind == "class" else field.dtype,
            "shape": [-1, *(-1 if side is None else side for side in field.shape)],
        }
        for name, field in fields.items()
    ]


class Predictor:
    """A trained model.

    Args:
        folder: An exported model.
        plugin_paths: Plugins that it needs, beside ./plugins and the installed ones.

    Raises:
        DlframeError: A file is missing or damaged, or names what is not registered here.
    """

    def __init__(self, folder: Path, plugin_paths: tuple[str, ...] = ()) -> None:
        self.spec, plugins = _read_spec(folder / "spec.json")
        try:
            self.config = load_saved(folder / "config.yaml", plugin_paths)
        except ConfigError as error:
            missing = [f"{choice} of the plugin '{origin}'" for choice, origin in plugins.items() if not _known(choice)]
            needs = f" The model needs {', '.join(missing)}: put it into ./plugins, or name it in plugin_paths." * bool(missing)
            raise ConfigError(f"{error}{needs}", error.key) from None
        weights = folder / "weights.safetensors"
        tensors, _ = checkpoint.load(weights)
        try:
            model = self.config.build_model(self.spec, restored=True)
            self.task: Task = self.config.build("task", spec=self.spec, model=model).eval()
        except DlframeError:
            raise
        except Exception as error:  # Whatever a model makes of sizes that it was never trained with.
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{folder}: no model can be built of it: {said}") from error
        checkpoint.restore(self.task, tensors, weights)
        size = self.config.run.batch_size
        self.batch = min(4 * size, BATCH) if isinstance(size, int) else BATCH
        import torch

        self.task.to(memory_format=self._memory_format(torch))
        with torch.inference_mode():
            self.task.begin_scoring()

    def _memory_format(self, torch: Any) -> Any:
        """That of the run: another one may round in another way."""
        return torch.channels_last if self.config.trainer.channels_last else torch.contiguous_format

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> Columns:
        """Predictions from raw inputs.

        Args:
            inputs: An array (samples, ...) as the data set holds them, uint8 for images; or a mapping of such arrays by
                column where there are several.
            params: Not used; part of MLflow's interface.

        Returns:
            By output, arrays (samples, ...): classes by their names; lists of arrays where samples differ in length.

        Raises:
            DataError: The inputs have another shape, or are not numbers.
        """
        columns = self._checked(inputs)
        outputs = self.task.outputs()
        parts = [*self.raw(columns)]
        return {name: _readable([part[name] for part in parts], field) for name, field in outputs.items()}

    def raw(self, columns: Columns) -> Iterator[dict[str, Any]]:
        """Outputs as the task gives them, on the CPU, a batch at a time."""
        import torch

        def tensor(column: Any) -> Any:
            if isinstance(column, Ragged):
                return Ragged(torch.from_numpy(column.values), torch.from_numpy(column.offsets))
            values = torch.from_numpy(np.ascontiguousarray(column))
            return values.contiguous(memory_format=self._memory_format(torch)) if values.ndim == 4 else values

        samples = len(next(iter(columns.values())))
        for start in range(0, samples, self.batch):
            index = np.arange(start, min(start + self.batch, samples))
            taken = {
                name: tensor(column.take(index) if isinstance(column, Ragged) else column[index])
                for name, column in columns.items()
            }
            with torch.inference_mode():
                batch = Batch(taken, torch.from_numpy(index), self.spec)
                yield self.task.predict(self.task.features(batch))

    def _checked(self, inputs: Any) -> Columns:
        if not isinstance(inputs, Mapping):
            if len(self.spec.inputs) != 1:
                raise DataError(f"inputs: must be a mapping of {', '.join(self.spec.inputs)}. Received: {type(inputs).__name__}.")
            inputs = {next(iter(self.spec.inputs)): inputs}
        if inputs.keys() != self.spec.inputs.keys():
            raise DataError(f"inputs: must be {', '.join(self.spec.inputs)}. Received: {', '.join(map(str, inputs)) or 'none'}.")
        columns = {name: _checked_column(name, inputs[name], field) for name, field in self.spec.inputs.items()}
        if len({len(column) for column in columns.values()}) > 1:
            sizes = ", ".join(f"{len(column)} of {name}" for name, column in columns.items())
            raise DataError(f"inputs: must have as many samples each. Received: {sizes}.")
        return columns


def _checked_column(name: str, given: Any, field: Field) -> Any:
    if field.ragged:
        if not isinstance(given, Ragged):
            try:
                given = Ragged.of([np.asarray(sample, dtype=field.dtype) for sample in given])
            except (ValueError, TypeError) as error:
                raise DataError(f"inputs: '{name}' must be arrays of {field.dtype}. Received: {error}") from None
        if given.values.shape[1:] != field.shape[1:]:
            raise DataError(f"inputs: '{name}' must have samples of shape {field.shape}. Received: {given.values.shape[1:]}.")
        return given
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise DataError(f"inputs: must be one array. Received: {error}") from None
    if array.shape[1:] != field.shape or array.dtype.kind not in "buif":
        shape = ", ".join(map(str, field.shape))
        raise DataError(f"inputs: must be numbers (samples, {shape}). Received: {array.dtype} {array.shape}.")
    return array


def _readable(parts: list[Any], field: Field) -> Any:
    """What a user reads: names in the place of class numbers."""
    if isinstance(parts[0], Ragged):
        samples = [values.numpy() for part in parts for values in part]
        return [np.array(field.names)[values] for values in samples] if field.kind == "class" else samples
    values = np.concatenate([part.numpy() for part in parts])
    return np.array(field.names)[values] if field.kind == "class" else values


def _known(choice: str) -> bool:
    group, _, name = choice.partition("=")
    return group in GROUPS and name in GROUPS[group].entries


TYPES: dict[str, Any] = {
    "kind": str,
    "dtype": str,
    "shape": (int, type(None)),
    "names": (str,),
    "mean": (float, int),
    "std": (float, int),
    "along": str,
}
"""Types of a `Field` in JSON; in a tuple, of each value in a list."""


def read_spec(path: Path) -> DataSpec:
    """What a model was told of its data.

    Raises:
        DataError: The file cannot be read, holds something else, or was written by another version.
    """
    return _read_spec(path)[0]


def _read_spec(path: Path) -> tuple[DataSpec, dict[str, str]]:
    try:
        given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if given.pop("format", 1) != FORMAT:
            raise DataError(
                f"{path}: was exported by another version of dlframe. Test the run again, which works, and train it anew "
                f"to export its model: python -m dlframe test RUN"
            )
        plugins = given.pop("plugins")
        fields = {role: {name: _field(values) for name, values in given.pop(role).items()} for role in ("inputs", "targets")}
        spec = DataSpec(given.pop("name"), **fields, fitted=given.pop("fitted"))
        names = [spec.name, *spec.fields, *plugins, *plugins.values()]
        if given or not all(isinstance(name, str) for name in names) or not spec.inputs or not isinstance(spec.fitted, dict):
            raise ValueError("it is no description of data")
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return spec, plugins


def _field(values: dict[str, Any]) -> Field:
    """A field from JSON; ValueError or TypeError for anything else."""
    for key, kinds in TYPES.items():
        value = values[key]
        listed = isinstance(kinds, tuple)
        fits = isinstance(value, list) and all(type(item) in kinds for item in value) if listed else type(value) is kinds
        if not fits:
            raise ValueError(f"'{key}' of a column is of another type")
    if any(side is not None and not 0 <= side <= LARGEST for side in values["shape"]):
        raise ValueError("a column is too large")
    if len(values["mean"]) != len(values["std"]):
        raise ValueError("a column has not as many means as deviations")
    if np.dtype(values["dtype"]).kind not in "buif":
        raise ValueError("the type of a column is no number")
    checked: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Field(**checked)


def _load_pyfunc(path: str) -> Predictor:
    return Predictor(Path(path))
