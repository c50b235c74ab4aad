"""One class for each sample, learnt without gradients."""

from __future__ import annotations

from typing import Any

from torch import nn

from dlframe.registry import tasks
from dlframe.tasks.classification import Classification
from dlframe.types import Batch, DataSpec


@tasks.register(
    "closed_form",
    players=(),
    metrics={"accuracy": "max", "f1": "max", "loss": "min", "calibration_error": "min"},
    monitor="accuracy",
)
class ClosedForm(Classification):
    """One class for each sample, of a model that sums up what it sees and solves for its weights.

    There is no player and no optimizer: the model has `observe(inputs, targets)`, and keeps what it learns in buffers. It
    is scored as the others are, so that it stands in their table.
    """

    model: Any

    def __init__(self, spec: DataSpec, model: nn.Module) -> None:
        super().__init__(spec, model)

    def observe(self, batch: Batch) -> None:
        self.model.observe(self.normalize(batch.inputs), batch.targets)
