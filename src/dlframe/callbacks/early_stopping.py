"""Early stopping."""

from __future__ import annotations

import math
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from dlframe.registry import Count, NonNegative, callbacks


@callbacks.register("early_stopping")
class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Stop of training when the monitored metric stops improving.

    Lightning's callback, which also stops on a non-finite metric.

    Args:
        monitor: Metric such as "val/loss"; null for the metric that selects the best epoch.
        patience: Epochs without improvement before training stops.
        min_delta: Minimum change, in the metric's unit, that counts as an improvement.
        mode: Direction of improvement; null for that of the metric.
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
        """Use the learner's monitor and the direction of its metrics, unknown until now."""
        monitor, mode = self.asked
        if stage == "fit":
            monitor = monitor or str(pl_module.monitor)
            # Lightning counts validations, the option epochs.
            interval = getattr(pl_module, "validation_interval", trainer.check_val_every_n_epoch or 1)
            patience = math.ceil(self.options["patience"] / interval)
            known = getattr(pl_module, "directions", {str(pl_module.monitor): str(pl_module.mode)})
            mode = mode or known.get(monitor, "min")
            super().__init__(monitor, mode=mode, **{**self.options, "patience": patience})
        super().setup(trainer, pl_module, stage)
