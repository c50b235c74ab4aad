"""A trained model, from its run directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlframe.config import Config
from dlframe.runs.exported_model import Predictor
from dlframe.runs.run_directory import read_result
from dlframe.serving.inputs import Inputs, Sample
from dlframe.types import ConfigError, DataError, DataSpec, Metric, Ragged

if TYPE_CHECKING:
    from dlframe.tasks.base import Task


class Model:
    """A trained model and what is known of it.

    Args:
        run: A run directory, or the `model` folder in one.
        plugin_paths: Plugins that it needs, beside ./plugins and the installed ones.

    Raises:
        DlframeError: There is no finished run, a file is damaged, or a plugin is missing.
    """

    def __init__(self, run: Path, plugin_paths: Sequence[str] = ()) -> None:
        folder = run if (run / "spec.json").is_file() else run / "model"
        if not (folder / "spec.json").is_file():
            if (run / "config.yaml").is_file():
                raise ConfigError(
                    f"'{run}' has no trained model yet: it is exported when the run ends. Continue it: resume={run}"
                )
            raise ConfigError(f"'{run}' has no trained model: it is not the directory of a finished run.")
        self.run = folder.parent
        self.predictor = Predictor(folder, tuple(plugin_paths), device="auto")

    @property
    def config(self) -> Config:
        """The config of the run."""
        return self.predictor.config

    @property
    def task(self) -> Task:
        """The task with the trained model, in evaluation mode; on a GPU where the run was and this machine has one."""
        return self.predictor.task

    @property
    def spec(self) -> DataSpec:
        """What the model takes and what it was trained to say."""
        return self.predictor.spec

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics of the test split."""
        return read_result(self.run).metrics

    @property
    def declared(self) -> dict[str, Metric]:
        """How each metric is read."""
        return self.config.metrics

    def predict(self, inputs: Any, *, on_error: Literal["raise", "skip"] = "raise", every: bool = False) -> dict[str, Any]:
        """Predictions by output, as arrays (samples, ...); classes by their names. Of files, "input" names them.

        Args:
            inputs: A path, or several, of files and folders; or arrays: (samples, ...) of the only input, or a mapping of
                them by column.
            on_error: Whether a file that cannot be read ends the prediction, or is named on stderr and left out.
            every: Of a series in a file, predict from every window instead of the last one.

        Raises:
            DataError: The inputs cannot be read, or are not what the model takes; or there is none.
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
        return {"input": [name for names, _ in parts for name in names], **outputs}

    def inputs(self, **options: Any) -> Inputs:
        """What reads files for this model."""
        return Inputs(self.spec, encode=self.task.encode, **options)

    def batches(self, samples: Iterable[Sample]) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Names and predictions, as many samples at a time as a test scores."""
        samples = iter(samples)
        while batch := [*islice(samples, self.predictor.batch)]:
            columns = {
                name: (Ragged.of if field.ragged else np.stack)([sample.columns[name] for sample in batch])
                for name, field in self.spec.inputs.items()
            }
            yield [sample.name for sample in batch], self.predictor.predict(columns)


def _paths(inputs: Any) -> list[Path] | None:
    if isinstance(inputs, (str, Path)):
        return [Path(inputs)]
    if isinstance(inputs, (list, tuple)) and inputs and all(isinstance(item, (str, Path)) for item in inputs):
        return [Path(item) for item in inputs]
    return None


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], list):
        return [item for part in parts for item in part]
    return np.concatenate(parts)
