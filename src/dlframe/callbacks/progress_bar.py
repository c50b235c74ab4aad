"""Progress of a training: a bar on terminals, occasional lines elsewhere, both with the remaining time."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from dlframe.types import duration, say

SECONDS = 30.0
"""Least time between two lines of progress."""

LONG = 300.0
"""Time after which another line comes within an epoch, too."""

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
"""Fits 80 columns with a metric and the best so far."""


class Progress(Callback):
    """Progress bar over all optimizer steps, with the last monitored metric and the best so far."""

    bar: tqdm | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.train_dataloader is not None:
            progress: Any = pl_module.progress
            total = trainer.train_dataloader.total_steps(trainer.max_epochs or 0, trainer.world_size)
            form = FORMAT.replace("{n_fmt}", f"{{n_fmt:>{len(str(total))}}}")
            self.bar = tqdm(initial=progress.steps, total=total, dynamic_ncols=True, leave=False, bar_format=form)
            self._show(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list, batch_idx: int
    ) -> None:
        if self.bar is not None:
            self.bar.update(len(batch))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set what stands beside the bar, always in as many columns, so that the bar does not jump."""
        if self.bar is None:
            return
        progress: Any = pl_module.progress
        monitor = str(pl_module.monitor)
        last = float(trainer.callback_metrics[monitor]) if monitor in trainer.callback_metrics else None
        values = [f"{value:<6.4g}" if isinstance(value, float) else f"{'-':<6}" for value in (last, progress.best)]
        number, epochs = _epochs(trainer, pl_module)
        self.bar.set_description_str(f"epoch {number:>{len(str(epochs))}}/{epochs}", refresh=False)
        self.bar.set_postfix_str(f"{monitor.removeprefix('val/')} {values[0]} best {values[1]}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)


def _epochs(trainer: Trainer, pl_module: LightningModule) -> tuple[int, int]:
    """Return the number of the pass over the samples that goes on, from 1, and how many there are."""
    loader: Any = trainer.train_dataloader
    steps = loader.steps((rounds := trainer.max_epochs or 1) - 1, trainer.world_size)
    passed: Any = getattr(pl_module, "passed", trainer.current_epoch)
    return passed + 1, loader.passes(rounds - 1, max(0, steps - 1), trainer.world_size) + 1


class ProgressLines(Callback):
    """A line after an epoch, with the last monitored metric and the remaining time, `SECONDS` apart at least.

    The first one comes as soon as the time is over, also within an epoch: it tells of a long training early. Within an epoch
    that is long, or where none is validated for long, they are `LONG` seconds apart.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress: Any = pl_module.progress
        loader: Any = trainer.train_dataloader
        self.started = self.told = time.monotonic()
        self.first = progress.steps
        self.done = progress.steps
        left = loader.total_steps(trainer.max_epochs or 0, trainer.world_size)
        left -= loader.total_steps(progress.epoch, trainer.world_size) + progress.position
        self.total = progress.steps + left
        self.metric = ""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list, batch_idx: int
    ) -> None:
        self.done += len(batch)
        if self.told == self.started or time.monotonic() - self.told >= LONG:
            self._tell(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name, progress = str(pl_module.monitor), pl_module.progress
        if name in trainer.callback_metrics:
            best = f", best {progress.best:.4g}" if isinstance(progress.best, float) else ""  # pyright: ignore[reportAttributeAccessIssue]
            self.metric = f", {name} {float(trainer.callback_metrics[name]):.4g}{best}"
        self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        if not trainer.is_global_zero or now - self.told < SECONDS or self.done == self.first:
            return
        left = duration((now - self.started) / (self.done - self.first) * (self.total - self.done))
        number, epochs = _epochs(trainer, pl_module)
        say(f"epoch {number} of {epochs}, step {self.done:,} of {self.total:,}{self.metric}; about {left} left", error=True)
        self.told = now
