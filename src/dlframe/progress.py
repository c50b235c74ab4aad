"""A progress bar with the time left; only shown on a terminal."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm


class Progress(Callback):
    """One bar over all optimizer steps of a run, with the last validation metrics beside it."""

    bar: tqdm | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.bar = tqdm(unit="step", dynamic_ncols=True, leave=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None and trainer.train_dataloader is not None and trainer.max_epochs:
            self.bar.reset(trainer.train_dataloader.steps(trainer.world_size) * trainer.max_epochs)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list, batch_idx: int
    ) -> None:
        if self.bar is not None:
            self.bar.update(len(batch))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            metrics = {name: f"{float(value):.4g}" for name, value in trainer.callback_metrics.items()}
            self.bar.set_postfix({"epoch": trainer.current_epoch + 1, **metrics}, refresh=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_fit_end(trainer, pl_module)
