"""Exported models, also for `mlflow.pyfunc.load_model`; nothing is unpickled.

config.yaml   spec.json   signature.json   weights.safetensors
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlframe.config import Config, load_saved
from dlframe.config.yaml_files import LARGEST as LARGEST_CONFIG
from dlframe.readers.arrays import columns_of, converted
from dlframe.registry import GROUPS
from dlframe.runs.recorder import read_metadata
from dlframe.storage import checkpoint
from dlframe.types import Batch, ConfigError, DataError, DataSpec, DlframeError, Field, Ragged, opened, read_text, replacing

if TYPE_CHECKING:
    from dlframe.tasks.base import Task

FILES = ("config.yaml", "spec.json", "signature.json", "weights.safetensors")
"""Files of an exported model, all of which are data."""

FORMAT = 2
"""Format of an exported model; 1 had one input and one target."""

NAMED = 10_000
"""Maximum number of classes that the signature names."""

LARGEST = 2**20
"""Maximum side of an input."""

BATCH = 256
"""Maximum batch size of predictions, as in a test."""

Columns = dict[str, Any]
"""Arrays (samples, ...) by column; `Ragged` for samples of varying length."""


def export(config: Config, spec: DataSpec, task: Task, weights: Path, folder: Path) -> None:
    """Write config, spec, weights and signature of a model."""
    run = folder.parent
    try:
        text = read_text(run / "config.yaml", LARGEST_CONFIG, inside=run)
    except (OSError, ValueError) as error:
        raise DataError(f"{run}: is damaged: {error}") from None
    with (
        replacing(folder / "weights.safetensors", run) as unfinished,
        opened(weights, run) as file,
        unfinished.open("wb") as copy,
    ):
        shutil.copyfileobj(file, copy)
    size = config.run.batch_size
    batch = size if isinstance(size, int) else read_metadata(run, "batch_size") or BATCH
    described = {"format": FORMAT, "plugins": _plugins(config), "batch": min(4 * batch, BATCH), **dataclasses.asdict(spec)}
    signature = {"inputs": _tensors(spec.inputs), "outputs": _tensors(task.outputs())}
    texts = {
        "config.yaml": text,
        "signature.json": json.dumps(signature, ensure_ascii=False),
        "spec.json": json.dumps(described, ensure_ascii=False),
    }
    for name, content in texts.items():
        with replacing(folder / name, run) as unfinished:
            unfinished.write_text(content, encoding="utf-8")


def _plugins(config: Config) -> dict[str, str]:
    """Return the components of plugins in the config -> the plugin."""
    entries = {f"{group}={name}": GROUPS[group].get(name) for group, name in config.chosen}
    return {choice: entry.origin for choice, entry in entries.items() if entry.origin != "dlframe"}


def _tensors(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    """Return name, type, shape and classes of each column; -1 for varying lengths."""
    return [
        {
            "name": name,
            "dtype": "str" if field.kind == "class" or field.is_text else field.dtype,
            "shape": [-1] if field.is_text else [-1, *(-1 if side is None else side for side in field.shape)],
            **({"classes": field.names} if field.names and not field.is_text and len(field.names) <= NAMED else {}),
        }
        for name, field in fields.items()
    ]


class Predictor:
    """Exported model for predictions.

    Args:
        folder: Folder of the exported model.
        plugin_paths: Required plugins besides ./plugins and installed ones.
        device: Device; "auto" for a GPU if the run used one and this machine has one.

    Raises:
        DlframeError: A file is missing or damaged, or a component is not registered.
    """

    def __init__(self, folder: Path, plugin_paths: Sequence[str] = (), *, device: Literal["cpu", "auto"] = "cpu") -> None:
        described = _read_description(folder / "spec.json")
        self.spec = described.spec
        self.batch = described.batch
        try:
            self.config = load_saved(folder / "config.yaml", plugin_paths)
        except ConfigError as error:
            missing = [
                f"{choice} of the plugin '{origin}'" for choice, origin in described.plugins.items() if not _known(choice)
            ]
            needs = f" The model requires {', '.join(missing)}. Copy it to ./plugins, or name it in plugin_paths." * bool(
                missing
            )
            raise ConfigError(f"{error}{needs}", error.key) from None
        weights = folder / "weights.safetensors"
        tensors, _ = checkpoint.load(weights, folder)
        try:
            model = self.config.build_model(self.spec, restored=True)
            self.task: Task = self.config.build("task", spec=self.spec, model=model).eval()
        except DlframeError:
            raise
        except Exception as error:  # Untrusted sizes can raise any error in a model.
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{folder}: cannot build the model: {said}") from error
        import torch

        own = "cuda" if self.config.trainer.accelerator == "gpu" and torch.cuda.is_available() else "cpu"
        self.device = own if device == "auto" else "cpu"
        dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(self.config.trainer.precision)
        self.task.to(device=self.device, dtype=dtype)
        checkpoint.restore(self.task, tensors, weights)  # in the precision of training
        # That of the run: another one may round differently.
        self._memory_format = self.task.memory_format(self.config.trainer.channels_last, self.config.trainer.accelerator)
        if self._memory_format == torch.channels_last:
            self.task.to(memory_format=torch.channels_last)
        with self._inference(torch):
            self.task.begin_scoring()

    @contextmanager
    def _inference(self, torch: Any) -> Iterator[None]:
        """Disable gradients and use the precision of the run."""
        mixed = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(self.config.trainer.precision)
        with torch.inference_mode(), torch.autocast(self.device, dtype=mixed, enabled=mixed is not None):
            yield

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> Columns:
        """Predict from arrays.

        Args:
            inputs: Array (samples, ...) as in the data set, uint8 for images; or a mapping of arrays by column. A list of
                arrays for samples of varying length.
            params: Unused; part of MLflow's interface.

        Returns:
            Arrays (samples, ...) by output, classes as names, letters as text; lists of arrays for samples of varying length.

        Raises:
            DataError: The inputs have another shape, or are not numbers.
        """
        given = columns_of(inputs, self.spec)
        columns = {
            name: column if isinstance(column, Ragged) else converted(column, self.spec.inputs[name], "inputs", name)
            for name, column in given.items()
        }
        if not len(next(iter(columns.values()))):
            raise DataError("inputs: must have at least one sample. Received: none.")
        parts = [*self.raw(columns)]
        return {name: _readable([part[name] for part in parts], field) for name, field in self.task.outputs().items()}

    def raw(self, columns: Columns) -> Iterator[dict[str, Any]]:
        """Yield the outputs of the task on the CPU, with the batch size of a test."""
        import torch

        def tensor(column: Any) -> Any:
            if isinstance(column, Ragged):
                return Ragged(tensor(column.values), torch.from_numpy(column.offsets).to(self.device))
            values = torch.from_numpy(np.ascontiguousarray(column)).to(self.device)
            return values.contiguous(memory_format=self._memory_format) if values.ndim == 4 else values

        def on_cpu(output: Any) -> Any:
            return Ragged(output.values.cpu(), output.offsets.cpu()) if isinstance(output, Ragged) else output.cpu()

        samples = len(next(iter(columns.values())))
        for start in range(0, samples, self.batch):
            index = np.arange(start, min(start + self.batch, samples))
            taken = {
                name: tensor(column.take(index) if isinstance(column, Ragged) else column[index])
                for name, column in columns.items()
            }
            with torch.inference_mode():  # without autocast, as in training
                batch = self.task.features(Batch(taken, torch.from_numpy(index).to(self.device), self.spec))
            with self._inference(torch):
                outputs = self.task.predict(batch)
            yield {name: on_cpu(output) for name, output in outputs.items()}


def _readable(parts: list[Any], field: Field) -> Any:
    """Join outputs; replace class indices by names and letters by text."""
    if isinstance(parts[0], Ragged):
        samples = [values.numpy() for part in parts for values in part]
        if field.is_text:
            return np.array(["".join(np.array(field.names)[values]) for values in samples], np.str_)
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
"""Types of a `Field` in JSON; a tuple is for the items of a list."""


@dataclasses.dataclass(frozen=True)
class Description:
    """Content of spec.json: data, required plugins and batch size."""

    spec: DataSpec
    plugins: dict[str, str]
    batch: int


def read_spec(path: Path) -> DataSpec:
    """Read the data specification of an exported model.

    Raises:
        DataError: The file is unreadable, invalid, or of another version.
    """
    return _read_description(path).spec


def _read_description(path: Path) -> Description:
    try:
        given: dict[str, Any] = json.loads(read_text(path, 2**24, inside=path.parent))
        if given.pop("format", 1) != FORMAT:
            raise DataError(
                f"{path}: exported by another version of dlframe, in another format. Train the model again: its "
                f"options are in overrides.txt of the run."
            )
        plugins, batch = given.pop("plugins"), given.pop("batch")
        fields = {role: {name: _field(values) for name, values in given.pop(role).items()} for role in ("inputs", "targets")}
        spec = DataSpec(given.pop("name"), **fields, fitted=given.pop("fitted"))
        names = [spec.name, *spec.fields, *plugins, *plugins.values()]
        if given or not all(isinstance(name, str) for name in names) or not spec.inputs or not isinstance(spec.fitted, dict):
            raise ValueError("not a description of data")
        if type(batch) is not int or not 1 <= batch <= BATCH:
            raise ValueError(f"batch must be from 1 to {BATCH}")
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return Description(spec, plugins, batch)


def _field(values: dict[str, Any]) -> Field:
    """Return a field from JSON; ValueError or TypeError if invalid."""
    for key, kinds in TYPES.items():
        value = values[key]
        listed = isinstance(kinds, tuple)
        fits = isinstance(value, list) and all(type(item) in kinds for item in value) if listed else type(value) is kinds
        if not fits:
            raise ValueError(f"'{key}' of a column has the wrong type")
    if any(side is not None and not 0 <= side <= LARGEST for side in values["shape"]):
        raise ValueError("a column is too large")
    if len(values["mean"]) != len(values["std"]):
        raise ValueError("a column must have equally many means and deviations")
    if np.dtype(values["dtype"]).kind not in "buif":
        raise ValueError("the type of a column must be numeric")
    checked: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Field(**checked)


def _load_pyfunc(path: str) -> Predictor:
    return Predictor(Path(path))
