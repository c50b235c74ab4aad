"""The one LightningModule. A task says what is learnt; this says when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch

CHUNK_SECONDS = 0.1
"""Work in one chunk: long against the Trainer's own cost of a step, short against a progress bar's patience."""


def parameter_groups(network: nn.Module, lr: float, decay: str) -> list[dict[str, Any]]:
    """Parameter groups of a network: its own, if it has a say in learning rates, split by what weight decay applies to.

    Args:
        network: May have `parameter_groups() -> [{"params": [...], "lr_scale": 0.1}, ...]`.
        lr: Learning rate of a group whose `lr_scale` is 1.
        decay: "all", or "weights": no decay for parameters with fewer than two dimensions (norms, biases).
    """
    own = getattr(network, "parameter_groups", lambda: [{"params": network.parameters(), "lr_scale": 1.0}])()
    groups = []
    for group in own:
        params = list(group["params"])
        for decayed in (True, False):
            chosen = [p for p in params if (decay == "all" or p.ndim >= 2) == decayed]
            if chosen:
                extra = {} if decayed else {"weight_decay": 0.0}
                groups.append({"params": chosen, "lr": lr * group["lr_scale"], **extra})
    return groups


class Learner(LightningModule):
    """Moves the players of a task, batch by batch, and keeps the score.

    One step of the Trainer takes a chunk of batches, so that the Trainer's own cost is shared by the chunk; the numbers
    are the same for any chunk.

    Args:
        task: What is learnt.
        players: Its players, in the order in which they move.
        optimizer: Makes a player's optimizer.
        scheduler: Makes the schedule of an optimizer; stepped once an optimizer step, or once an epoch with the monitored
            value where it is a `ReduceLROnPlateau`.
        augmentations: Applied in order to each training batch.
        seed: Seed of the augmentations, with the epoch and the rank.
        monitor: Metric that picks the best epoch: "val/accuracy".
        mode: "min" or "max".
        accumulate: Batches in one optimizer step.
        clip: Largest L2 norm of a player's gradient.
        chunk: Batches in a chunk; 0 measures the first steps and chooses.
        channels_last: Keep images in NHWC memory order.
        log_every: Optimizer steps between two logged training losses.
        report: Takes (optimizer step, metrics) for the journal.
        keep: Takes (state, facts) of an epoch that is the best so far.
    """

    def __init__(
        self,
        task: Task,
        *,
        players: Sequence[str],
        optimizer: Callable[[str, nn.Module], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        augmentations: Sequence[Callable[[Batch, torch.Generator], Batch]] = (),
        seed: int = 0,
        monitor: str = "val/loss",
        mode: str = "min",
        accumulate: int = 1,
        clip: float | None = None,
        chunk: int = 0,
        channels_last: bool = True,
        log_every: int = 50,
        report: Callable[[int, dict[str, float]], None] = lambda step, values: None,
        keep: Callable[[dict[str, Tensor], dict[str, Any]], None] = lambda state, facts: None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # The weights too: an image with one channel is in both orders at once, and the weights then decide.
        self.task = task.to(memory_format=torch.channels_last) if channels_last else task
        self.players = tuple(players)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.augmentations = tuple(augmentations)
        self.seed = seed
        self.monitor = monitor
        self.mode = mode
        self.accumulate = accumulate
        self.clip = clip
        self.chunk = chunk
        self.channels_last = channels_last
        self.log_every = log_every
        self.report = report
        self.keep = keep
        self.best = math.inf if mode == "min" else -math.inf
        self.steps = 0
        self.batches = 0
        self.scores: Scores = {}
        self.metrics: dict[str, float] = {}
        self._schedulers: list[Any] = []
        self._kept: list[Scores] = []
        self._losses: dict[str, Tensor] = {}
        self._logged: list[tuple[int, dict[str, Tensor]]] = []
        self._since_log = 0
        self._durations: list[float] = []

    def configure_optimizers(self) -> list[Optimizer]:
        assert self.make_optimizer, "a learner without optimizers can only be tested"
        assert self.make_scheduler, "an optimizer needs a schedule"
        optimizers = [self.make_optimizer(player, self.task.network(player)) for player in self.players]
        self._schedulers = [self.make_scheduler(optimizer) for optimizer in optimizers]
        if self.device.type == "cpu":
            for optimizer in optimizers:
                # Each step asks the driver whether a GPU graph is being captured. Here none can be, and with a CUDA
                # build of torch the question costs more than a fused step of a small model.
                optimizer._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]
        return optimizers

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The loader gathers on the device already; walking through the chunk again would only cost time."""
        return batch

    def on_train_epoch_start(self) -> None:
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(((self.seed << 20) + self.current_epoch) * self.trainer.world_size + self.global_rank)
        for module in self.task.modules():
            if callable(hook := getattr(module, "start_epoch", None)):
                hook(self.current_epoch, self.trainer.max_epochs)

    def training_step(self, chunk: list[Batch], batch_idx: int) -> None:
        started = time.perf_counter()
        for batch in chunk:
            self._move(self._prepared(batch))
        if not self.chunk:
            self._choose_chunk((time.perf_counter() - started) / len(chunk))

    def _move(self, batch: Batch) -> None:
        """One batch for every player."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        self.batches += 1
        full = self.batches % self.accumulate == 0
        for player, optimizer in zip(self.players, optimizers, strict=True):
            if len(self.players) > 1:
                self.toggle_optimizer(optimizer)
            loss = self.task.loss(batch, player)
            self.manual_backward(loss / self.accumulate if self.accumulate > 1 else loss)
            if full:
                self._step(optimizer)
            if len(self.players) > 1:
                self.untoggle_optimizer(optimizer)
            name = "train/loss" if len(self.players) == 1 else f"train/loss/{player}"
            loss = loss.detach()
            self._losses[name] = self._losses[name] + loss if name in self._losses else loss
        self._since_log += 1
        if full:
            self.steps += 1
            for scheduler in self._schedulers:
                if not isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step()
            if self.steps % self.log_every == 0:
                self._log_losses()

    def _step(self, optimizer: Any) -> None:
        if self.clip is not None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            self.clip_gradients(optimizer, self.clip, "norm")
        optimizer.step()
        optimizer.zero_grad()

    def _prepared(self, batch: Batch) -> Batch:
        if self.augmentations:
            if batch.inputs.dtype == torch.uint8:
                batch = self._laid_out(Batch(batch.inputs.float().div_(255), batch.targets, batch.index))
            for augment in self.augmentations:
                batch = augment(batch, self.generator)
        return self._laid_out(batch)

    def _laid_out(self, batch: Batch) -> Batch:
        if self.channels_last and batch.inputs.ndim == 4:
            return Batch(batch.inputs.contiguous(memory_format=torch.channels_last), batch.targets, batch.index)
        return batch

    def _choose_chunk(self, seconds: float) -> None:
        """Set the chunk by the fastest of the first steps: the very first ones pay for what is made once."""
        self._durations.append(seconds)
        if len(self._durations) == 5:
            self.chunk = max(1, min(64, round(CHUNK_SECONDS / min(self._durations))))
            self.trainer.train_dataloader.chunk = self.chunk  # type: ignore[union-attr]

    def _log_losses(self) -> None:
        """Keep the mean losses since the last call on the device: reading them now would wait for it."""
        self._logged.append((self.steps, {name: total / self._since_log for name, total in self._losses.items()}))
        self._losses, self._since_log = {}, 0

    def on_train_epoch_end(self) -> None:
        if self._since_log:
            self._log_losses()
        for step, losses in self._logged:
            self.report(step, {name: value.item() for name, value in losses.items()})
        self._logged = []
        rates = [optimizer.param_groups[-1]["lr"] for optimizer in self.trainer.optimizers]
        names = ["lr"] if len(rates) == 1 else [f"lr/{player}" for player in self.players]
        self.report(self.steps, {"epoch": float(self.current_epoch), **dict(zip(names, rates, strict=True))})
        for scheduler in self._schedulers:
            if isinstance(scheduler, ReduceLROnPlateau) and self.monitor in self.metrics:
                value = self.metrics[self.monitor]
                scheduler.step(value if self.mode == "min" else -value)

    def validation_step(self, chunk: list[Batch], batch_idx: int) -> None:
        self._kept += [self.task.score(self._laid_out(batch)) for batch in chunk]

    def test_step(self, chunk: list[Batch], batch_idx: int) -> None:
        self.validation_step(chunk, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")
        self.report(self.steps, self.metrics)
        value = self.metrics[self.monitor]
        if value < self.best if self.mode == "min" else value > self.best:
            self.best = value
            state = {
                name.removeprefix("task."): tensor
                for name, tensor in self.trainer.strategy.lightning_module_state_dict().items()
            }
            self.keep(state, {"epoch": self.current_epoch, "step": self.steps, self.monitor: value})

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def _finish_evaluation(self, split: str) -> None:
        self.scores = self._collected()
        self._kept = []
        self.metrics = {f"{split}/{name}": value for name, value in self.task.metrics(self.scores).items()}
        self.log_dict(self.metrics)

    def _collected(self) -> Scores:
        """The scores of all samples of the split, of all processes, in the split's order, on the CPU."""
        scores = {name: torch.cat([kept[name] for kept in self._kept]) for name in self._kept[0]}
        if self.trainer.world_size > 1:
            gathered_sizes = self.all_gather(torch.tensor(len(scores["index"]), device=self.device))
            assert isinstance(gathered_sizes, Tensor)
            sizes = gathered_sizes.tolist()
            missing = max(sizes) - len(scores["index"])
            padded = {name: torch.cat([s, s[:1].expand(missing, *s.shape[1:])]) for name, s in scores.items()}
            gathered = {name: self.all_gather(s) for name, s in padded.items()}
            scores = {
                name: torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
                for name, parts in gathered.items()
            }
        order = scores["index"].argsort()
        return {name: values[order].cpu() for name, values in scores.items()}
