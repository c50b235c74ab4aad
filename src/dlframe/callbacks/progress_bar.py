"""Progress bar with the remaining time, on terminals only."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm


class Progress(Callback):
    """Progress bar over all optimizer steps, with the last monitored metric."""

    bar: tqdm | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.train_dataloader is not None:
            progress: Any = pl_module.progress
            total = trainer.train_dataloader.total_steps(trainer.max_epochs or 0, trainer.world_size)
            self.bar = tqdm(initial=progress.steps, total=total, unit=" steps", dynamic_ncols=True, leave=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list, batch_idx: int
    ) -> None:
        if self.bar is not None:
            self.bar.update(len(batch))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        monitor = str(pl_module.monitor)
        if self.bar is not None and monitor in trainer.callback_metrics:
            text = f"epoch {trainer.current_epoch + 1}, {monitor} {float(trainer.callback_metrics[monitor]):.4g}"
            self.bar.set_postfix_str(text)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
