"""Trained models of run directories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlframe.config import Config
from dlframe.readers.boxes.frames import frame_of, original
from dlframe.readers.modes import Decoding
from dlframe.runs.exported_model import Predictor
from dlframe.runs.run_directory import read_result
from dlframe.serving.inputs import Inputs, Sample
from dlframe.types import ConfigError, DataError, DataSpec, Metric, Ragged, opened, quoted

if TYPE_CHECKING:
    from dlframe.tasks.base import Task


LARGEST = 2**26
"""Numbers in the inputs of a batch that vary in length, beyond which it is closed."""


class Model:
    """Trained model with its config and metrics.

    Args:
        run: Run directory, or its `model` folder.
        plugin_paths: Required plugins besides ./plugins and installed ones.

    Raises:
        DlframeError: The run is not finished, a file is damaged, or a plugin is missing.
    """

    def __init__(self, run: Path, plugin_paths: Sequence[str] = ()) -> None:
        folder = run if (run / "spec.json").is_file() else run / "model"
        if not (folder / "spec.json").is_file():
            if (run / "config.yaml").is_file():
                raise ConfigError(
                    f"'{run}' has no trained model yet: the run has not ended. Resume it: {quoted(f'resume={run}')}"
                )
            raise ConfigError(f"'{run}' has no trained model (not the directory of a finished run).")
        try:
            opened(folder / "spec.json", inside=run).close()
        except OSError as error:
            raise DataError(str(error)) from None
        self.run = folder.parent
        self.predictor = Predictor(folder, tuple(plugin_paths), device="auto")

    @property
    def config(self) -> Config:
        """Config of the run."""
        return self.predictor.config

    @property
    def task(self) -> Task:
        """Task with the trained model, in evaluation mode."""
        return self.predictor.task

    @property
    def spec(self) -> DataSpec:
        """Data specification: inputs and targets."""
        return self.predictor.spec

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Metrics of the test split."""
        return read_result(self.run).metrics

    @property
    def declared(self) -> dict[str, Metric]:
        """Metadata of each metric."""
        return self.config.metrics

    def predict(self, inputs: Any, *, on_error: Literal["raise", "skip"] = "raise", every: bool = False) -> dict[str, Any]:
        """Return predictions by output, as arrays (samples, ...), classes as names.

        For files, the output "input" has their names.

        Args:
            inputs: Path or paths of files and folders, or texts for a model of texts; or arrays: (samples, ...) of the only
                input, or a mapping by column.
            on_error: Action on an unreadable file: raise, or skip and report the file on stderr.
            every: Predict from every window of a series in a file instead of the last one.

        Raises:
            DataError: The inputs are missing, unreadable, or do not match the model.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error: must be 'raise' or 'skip'. Received: {on_error!r}.")
        paths = _paths(inputs)
        if paths is None:
            return self.predictor.predict(inputs)
        parts = [*self.batches(self.inputs(on_error=on_error, every=every).read(paths))]
        if not parts:
            raise DataError(f"predict: nothing to predict in {', '.join(map(str, paths))}.")
        outputs = {name: _joined([columns[name] for _, columns in parts]) for name in self.task.outputs()}
        return {"input": [sample.name for samples, _ in parts for sample in samples], **outputs}

    def inputs(self, **options: Any) -> Inputs:
        """Return a reader of files for this model."""
        return Inputs(self.spec, encode=self.task.encode, lookup=self.task.lookup, stream=self.task.stream, **options)

    def batches(self, samples: Iterable[Sample]) -> Iterator[tuple[list[Sample], dict[str, Any]]]:
        """Yield samples and predictions, with the batch size of a test; boxes are in pixels of the image files."""
        for batch in self._gathered(samples):
            columns = {
                name: (Ragged.of if field.ragged else np.stack)([sample.columns[name] for sample in batch])
                for name, field in self.spec.inputs.items()
            }
            outputs = self.predictor.predict(columns)
            fields = self.task.outputs()
            for name in [name for name, field in fields.items() if field.kind == "box" and field.ragged]:
                boxes = [self._in_file(*row) for row in zip(outputs[name], batch, strict=True)]
                outputs[name] = boxes
                # What was found in the margins is nowhere in the file.
                kept = [(own[:, 2:] > own[:, :2]).all(1) for own in boxes]
                for along in [name, *(other for other, field in fields.items() if field.along == name)]:
                    outputs[along] = [own[keep] for own, keep in zip(outputs[along], kept, strict=True)]
            yield batch, outputs

    def _gathered(self, samples: Iterable[Sample]) -> Iterator[list[Sample]]:
        """Yield batches of samples; long ones and those of a pipe make smaller batches."""
        batch: list[Sample] = []
        size = 0
        for sample in samples:
            batch.append(sample)
            size += sum(column.size for name, column in sample.columns.items() if self.spec.inputs[name].ragged)
            if len(batch) == self.predictor.batch or size > LARGEST or sample.at_once:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _in_file(self, boxes: np.ndarray, sample: Sample) -> np.ndarray:
        """Return boxes in pixels of an image file, as displayed; of an array, as they are."""
        if sample.size is None:
            return boxes
        _, height, width = self.spec.input.shape
        assert height is not None
        assert width is not None
        return original(boxes, frame_of(sample.size, (height, width), Decoding.of(self.spec.fitted).fit))


def _paths(inputs: Any) -> list[Path | str] | None:
    if isinstance(inputs, (str, Path)):
        return [inputs]
    if isinstance(inputs, (list, tuple)) and inputs and all(isinstance(item, (str, Path)) for item in inputs):
        return list(inputs)
    return None


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], list):
        return [item for part in parts for item in part]
    return np.concatenate(parts)
