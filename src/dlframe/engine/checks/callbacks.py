"""Callbacks of Lightning: those that dlframe does itself are refused, what the others log reaches the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger

from dlframe.runs.recorder import Recorder
from dlframe.types import ConfigError

INSTEAD = {
    "Checkpoint": "checkpoint.every_n_epochs=1 or checkpoint.every_n_steps=N",
    "StochasticWeightAveraging": "callback=swa",
    "WeightAveraging": "callback=ema",
    "GradientAccumulationScheduler": "accumulate_grad_batches=N",
    "BatchSizeFinder": "batch_size=auto",
    "LearningRateFinder": "find=lr",
}
"""Class of Lightning -> what does its work here, where it would have no effect or a wrong one."""


def check_callbacks(names: Mapping[str, Callback]) -> None:
    """Refuse callbacks of Lightning that do not go with this training.

    Args:
        names: Callback by the name it is selected by.

    Raises:
        ConfigError: One would have no effect, or a wrong one.
    """
    for name, callback in names.items():
        for kind in type(callback).__mro__:
            if kind.__module__.startswith("lightning.") and kind.__name__ in INSTEAD:
                fault = f"Lightning's {type(callback).__name__} has no effect here"
                raise ConfigError(f"callback={name}: {fault}. Try: {INSTEAD[kind.__name__]}", "callback")


class RecorderLogger(Logger):
    """Lightning's logger of a run: what callbacks log goes to the journal, and from there to MLflow.

    Args:
        recorder: Takes the metrics.
        steps: Function that returns the optimizer steps so far; a step of the Trainer may have several.
    """

    def __init__(self, recorder: Recorder, steps: Callable[[], int]) -> None:
        super().__init__()
        self.recorder, self.steps = recorder, steps

    @property
    def name(self) -> str:
        return "dlframe"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has its config."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at the current optimizer step."""
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if values:
            self.recorder.log_metrics(self.steps(), values)
