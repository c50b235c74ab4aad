"""A trained model from its folder, to predict with. `mlflow.pyfunc.load_model` comes here; nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlframe import checkpoint
from dlframe.config import load_saved
from dlframe.types import DataError, DataSpec

if TYPE_CHECKING:
    from dlframe.tasks.base import Task


class Predictor:
    """A trained model.

    Args:
        folder: An exported model: `config.yaml`, `spec.json` and `weights.safetensors`.

    Raises:
        DlframeError: A file is missing or damaged, or names what is not registered here.
    """

    def __init__(self, folder: Path) -> None:
        config = load_saved(folder / "config.yaml")
        try:
            facts: dict[str, Any] = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
            facts |= {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
            self.spec = DataSpec(**facts)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{folder / 'spec.json'}: cannot be read: {error}") from None
        model = config.build_model(self.spec, restored=True)
        self.task: Task = config.build("task", spec=self.spec, model=model).eval()
        weights = folder / "weights.safetensors"
        checkpoint.restore(self.task, checkpoint.load(weights)[0], weights)

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Predictions from raw inputs.

        Args:
            inputs: (samples, *spec.shape) as the data set holds them: uint8 for images.
            params: Not used; part of MLflow's interface.

        Raises:
            DataError: The inputs have another shape.
        """
        import torch

        array = np.asarray(inputs)
        if array.shape[1:] != self.spec.shape:
            raise DataError(
                f"inputs: must have shape (samples, {', '.join(map(str, self.spec.shape))}). Received: {array.shape}."
            )
        with torch.inference_mode():
            return self.task.predict(torch.from_numpy(np.ascontiguousarray(array))).numpy()


def _load_pyfunc(path: str) -> Predictor:
    return Predictor(Path(path))
