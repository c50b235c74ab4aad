"""Stops a run that no longer improves."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from dlframe.registry import Count, NonNegative, callbacks


@callbacks.register("early_stopping")
class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Stops when the monitored metric has not improved for some epochs.

    Lightning's, which also stops where the metric is no longer finite.

    Args:
        monitor: Metric such as "val/loss"; null for the one that picks the best epoch.
        patience: Epochs without improvement after which the run stops.
        min_delta: Smallest change, in the metric's own unit, that is an improvement.
        mode: Whether less or more is better; null for the task's own with its own metric, "min" with another.
    """

    def __init__(
        self,
        *,
        monitor: str | None = None,
        patience: Count = 10,
        min_delta: NonNegative = 0.0,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        self.options = {"patience": patience, "min_delta": min_delta, "check_on_train_epoch_end": False}
        self.asked = (monitor, mode)
        super().__init__(monitor or "", mode=mode or "min", **self.options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take over the learner's `monitor` and `mode`, which are not known before."""
        monitor, mode = self.asked
        if stage == "fit":
            own = str(pl_module.monitor)
            monitor = monitor or own
            default = str(pl_module.mode) if monitor == own else "min"
            super().__init__(monitor, mode=mode or default, **self.options)
        super().setup(trainer, pl_module, stage)
