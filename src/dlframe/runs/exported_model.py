"""A trained model from its folder, to predict with. `mlflow.pyfunc.load_model` comes here; nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlframe.storage import checkpoint
from dlframe.config import load_saved
from dlframe.types import DataError, DataSpec, DlframeError

if TYPE_CHECKING:
    from dlframe.tasks.base import Task


SPEC: dict[str, type | tuple[type]] = {
    "name": str,
    "inputs": str,
    "target": str,
    "shape": (int,),
    "classes": (str,),
    "horizon": int,
    "mean": (float,),
    "std": (float,),
}
"""Types of a `DataSpec` in JSON; in a tuple, of each value in a list."""

LARGEST = 2**20
"""Longest side of an input."""


class Predictor:
    """A trained model.

    Args:
        folder: An exported model: `config.yaml`, `spec.json` and `weights.safetensors`.

    Raises:
        DlframeError: A file is missing or damaged, or names what is not registered here.
    """

    def __init__(self, folder: Path) -> None:
        config = load_saved(folder / "config.yaml")
        self.spec = read_spec(folder / "spec.json")
        weights = folder / "weights.safetensors"
        tensors, _ = checkpoint.load(weights)
        try:
            model = config.build_model(self.spec, restored=True)
            self.task: Task = config.build("task", spec=self.spec, model=model).eval()
        except DlframeError:
            raise
        except Exception as error:  # Whatever a model makes of sizes that it was never trained with.
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{folder}: no model can be built of it: {said}") from error
        checkpoint.restore(self.task, tensors, weights)

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Predictions from raw inputs.

        Args:
            inputs: (samples, *spec.shape) as the data set holds them: uint8 for images.
            params: Not used; part of MLflow's interface.

        Raises:
            DataError: The inputs have another shape, or are no numbers.
        """
        import torch

        try:
            array = np.asarray(inputs)
        except ValueError as error:
            raise DataError(f"inputs: must be one array. Received: {error}") from None
        if array.shape[1:] != self.spec.shape or array.dtype.kind not in "buif":
            shape = ", ".join(map(str, self.spec.shape))
            raise DataError(f"inputs: must be numbers (samples, {shape}). Received: {array.dtype} {array.shape}.")
        with torch.inference_mode():
            return self.task.predict(torch.from_numpy(np.ascontiguousarray(array))).numpy()


def read_spec(path: Path) -> DataSpec:
    """What a model was told of its data.

    Raises:
        DataError: The file cannot be read, or holds something else.
    """
    try:
        given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
        spec = DataSpec(**given)
        wrong = next((key for key, value in vars(spec).items() if not _fits(value, SPEC[key])), "")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if wrong or max(spec.shape, default=0) > LARGEST or spec.horizon > LARGEST:
        raise DataError(f"{path}: is no description of data{f', whose {wrong} is of another type' if wrong else ''}.")
    return spec


def _fits(value: Any, kind: type | tuple[type]) -> bool:
    if isinstance(kind, tuple):
        return isinstance(value, tuple) and all(_fits(item, kind[0]) for item in value)
    return type(value) is kind and (kind is not int or value >= 0)


def _load_pyfunc(path: str) -> Predictor:
    return Predictor(Path(path))
