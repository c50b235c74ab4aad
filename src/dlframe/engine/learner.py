"""The one LightningModule. A task says what is learnt; this says when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.engine import training_state
from dlframe.runs.recorder import Keeper
from dlframe.storage import checkpoint
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, TrainingError

CHUNK_SECONDS = 0.1
"""Work in one chunk: long against the Trainer's own cost of a step, short against a progress bar's patience."""

AGREE_BATCHES = 16
"""Batches between two questions to all processes: on GPUs each makes them wait for one another."""


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


@dataclass
class Standing:
    """Where a training stands, between two batches.

    Attributes:
        epoch: Whole epochs done.
        position: Batches done of the epoch that has begun.
        batches: Batches done in all.
        steps: Optimizer steps taken.
        best: The best value of the monitored metric so far; None before the first.
        metrics: Of the last validation.
        losses: By name, the number of training losses since they were last logged, and their sum.
        logged: Means of training losses that are not reported yet, with their step.
        skipped: Batches left out because a loss was not finite.
        done: Whether the training has ended.
    """

    epoch: int = 0
    position: int = 0
    batches: int = 0
    steps: int = 0
    best: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    losses: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    logged: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    skipped: int = 0
    done: bool = False


class Learner(LightningModule):
    """Moves the players of a task, batch by batch, and keeps the score.

    One step of the Trainer takes a chunk of batches, so that the Trainer's own cost is shared by the chunk; the numbers
    are the same for any chunk. Between any two batches the training can be saved, and goes on from there with the same
    numbers: the Trainer is told the epoch, the loader the position in it.

    Args:
        task: What is learnt.
        players: Its players, in the order in which they move; without any the task observes each batch.
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
        on_nan: "stop" or "skip": what happens at a loss that is NaN or infinite. On a GPU "skip" waits for it at each batch,
            "stop" finds it within a chunk.
        keeper: Takes metrics, weights and states; says when to save and when to stop.
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
        on_nan: str = "stop",
        keeper: Keeper | None = None,
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
        self.on_nan = on_nan
        self.keeper = keeper or Keeper()
        self.at = Standing()
        self.schedulers: list[Any] = []
        self.scores: Scores = {}
        self._kept: list[Scores] = []
        self._unchecked: list[tuple[int, int, Tensor]] = []
        self._bad_player = 0
        self._durations: list[float] = []
        self._resumed: Mapping[str, Any] | None = None
        self._several = False
        self._sharded = False

    def configure_optimizers(self) -> list[Optimizer]:
        assert self.make_optimizer, "a learner without optimizers can only be tested"
        assert self.make_scheduler, "an optimizer needs a schedule"
        optimizers = [self.make_optimizer(player, self.task.network(player)) for player in self.players]
        self.schedulers = [self.make_scheduler(optimizer) for optimizer in optimizers]
        if self.device.type == "cpu":
            for optimizer in optimizers:
                # Each step asks the driver whether a GPU graph is being captured. Here none can be, and with a CUDA
                # build of torch the question costs more than a fused step of a small model.
                optimizer._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]
        return optimizers

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The loader gathers on the device already; walking through the chunk again would only cost time."""
        return batch

    def on_fit_start(self) -> None:
        """Go on from the state that the keeper has, the same in every process."""
        self.generator = torch.Generator(self.device)
        self._several = self.trainer.world_size > 1
        self._sharded = isinstance(self.trainer.strategy, FSDPStrategy)
        if self._several:
            # The weights were drawn alike in all processes; from here on dropout and the like must not be.
            torch.manual_seed(self.seed * self.trainer.world_size + self.global_rank)
        path = self.trainer.strategy.broadcast(str(self.keeper.newest() or ""))
        if not path:
            return
        tree = checkpoint.load(Path(path))[0]
        self.at = Standing(**tree["standing"])
        training_state.put_back(self, tree)
        progress = self.trainer.fit_loop.epoch_progress.current
        vars(progress).update(dict.fromkeys(("ready", "started", "processed", "completed"), self.at.epoch))
        if self.at.done:
            self.trainer.should_stop = True
            training_state.put_back_late(self, tree)
        else:
            self._resumed = tree

    def on_train_epoch_start(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed and not self.at.position:
            training_state.put_back_late(self, resumed)  # before what an epoch begins with, as it was saved before
        self.generator.manual_seed(((self.seed << 20) + self.current_epoch) * self.trainer.world_size + self.global_rank)
        for module in self.task.modules():
            if callable(hook := getattr(module, "start_epoch", None)):
                hook(self.current_epoch, self.trainer.max_epochs)
        if resumed and self.at.position:
            training_state.put_back_late(self, resumed)

    def training_step(self, chunk: list[Batch], batch_idx: int) -> None:
        started = time.perf_counter()
        for number, batch in enumerate(chunk):
            if number:
                self._pause()
            batch = self._prepared(batch)
            self.at.batches += 1
            self.at.position += 1
            if self.players:
                self._move(batch)
            else:
                self._observe(batch)
        if not self.chunk:
            self._choose_chunk((time.perf_counter() - started) / len(chunk))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The pause after a chunk's last batch, when all callbacks have seen it."""
        self._check_losses()
        self._pause()

    def _move(self, batch: Batch) -> None:
        """One batch for every player."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        at = self.at
        full = at.batches % self.accumulate == 0
        for number, (player, optimizer) in enumerate(zip(self.players, optimizers, strict=True)):
            if len(self.players) > 1:
                self.toggle_optimizer(optimizer)
            loss = self._loss(batch, player)
            usable = self._usable(loss, number, optimizer)
            if usable:
                self.manual_backward(loss / self.accumulate if self.accumulate > 1 else loss)
                self._count_loss("train/loss" if len(self.players) == 1 else f"train/loss/{player}", loss.detach())
            if full and (usable or any(p.grad is not None for group in optimizer.param_groups for p in group["params"])):
                self._step(optimizer)
            if len(self.players) > 1:
                self.untoggle_optimizer(optimizer)
        if full:
            at.steps += 1
            for scheduler in self.schedulers:
                if not isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step()
            if at.steps % self.log_every == 0:
                self._log_losses()

    def _count_loss(self, name: str, loss: Tensor) -> None:
        count, total = self.at.losses.get(name, (0, None))
        self.at.losses[name] = (count + 1, loss if total is None else total + loss)

    def _loss(self, batch: Batch, player: str) -> Tensor:
        if not self._sharded:
            return self.task.loss(batch, player)
        strategy: Any = self.trainer.strategy
        # Through the wrapper, which gathers the weights.
        return strategy._forward_redirection(strategy.model, self, "task_loss", batch, player)

    def task_loss(self, batch: Batch, player: str) -> Tensor:
        """The task's own, as a method that a wrapper can call in the place of `forward`."""
        return self.task.loss(batch, player)

    @torch.no_grad()
    def _observe(self, batch: Batch) -> None:
        """One batch for a task without players."""
        self.at.steps += 1
        self.task.observe(batch)

    def _step(self, optimizer: Any) -> None:
        if self.clip is not None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            self.clip_gradients(optimizer, self.clip, "norm")
        optimizer.step()
        optimizer.zero_grad()

    def _usable(self, loss: Tensor, number: int, optimizer: Any) -> bool:
        """Whether a player is to learn from its loss: a finite one, or one that will be looked at later.

        Raises:
            TrainingError: It is not finite, and the run stops at that.
        """
        if self.on_nan == "stop" and loss.is_cuda:
            self._unchecked.append((self.at.steps + 1, number, loss.detach()))
            return True
        finite = math.isfinite(loss.item())
        if self._several and self.on_nan == "skip":
            everywhere = torch.tensor(finite, dtype=torch.uint8, device=self.device)
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
            finite = bool(everywhere)
        if finite:
            return True
        if self.on_nan == "skip":
            self.at.skipped += 1
            return False
        if self._several:
            # The others wait for this gradient, and hear of it in the pause.
            self._bad_player = number + 1
            return True
        self.manual_backward(loss)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item() if gradients else math.nan
        raise self._not_finite(number, self.at.steps + 1, loss.item(), norm)

    def _check_losses(self) -> None:
        """Look at the losses that were left on the device."""
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        finite = torch.stack([loss for _, _, loss in unchecked]).isfinite().tolist()
        for (step, number, loss), good in zip(unchecked, finite, strict=True):
            if not good and self._several:
                self._bad_player = number + 1
            elif not good:
                raise self._not_finite(number, step, loss.item())

    def _not_finite(self, number: int, step: int, loss: float = math.nan, norm: float | None = None) -> TrainingError:
        """What is known of a loss that is not finite."""
        rate = self.trainer.optimizers[number].param_groups[-1]["lr"]
        player = f" of the {self.players[number]}" if len(self.players) > 1 else ""
        gradient = "" if norm is None else f", gradient norm {norm:g}"
        what = (
            f"the loss{player} is {loss:g} at step {step} (epoch {self.current_epoch + 1}, learning rate {rate:.3g}{gradient})."
        )
        return TrainingError(f"{what} {self._advice()} or on_nan=skip to leave such batches out.")

    def _check_weights(self) -> None:
        """Raise where a step with a finite loss has led to weights that are not."""
        if self.players and not nn.utils.get_total_norm(p.detach() for p in self.task.parameters()).isfinite():
            what = f"the weights are no longer finite after step {self.at.steps} (epoch {self.current_epoch + 1})."
            raise TrainingError(f"{what} {self._advice().rstrip(',')}.")

    def _advice(self) -> str:
        return "The checkpoints before are kept. Try a smaller optimizer.lr," + ("" if self.clip else " clip=1,")

    def _pause(self) -> None:
        """Between two batches, or two epochs: save if it is time, stop if a signal asks for it.

        In the middle of an accumulation, and between an epoch's last batch and its validation, both wait.
        """
        at = self.at
        if self._several and self.device.type != "cpu" and at.position and at.batches % AGREE_BATCHES:
            return
        number, due = self.keeper.signals.received, self.keeper.due(at.steps, at.epoch)
        if self._several:
            wishes = torch.tensor([number, due, self._bad_player], device=self.device)
            torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
            number, due, bad = wishes.tolist()
            if bad:
                raise self._not_finite(bad - 1, at.steps)
        if not (number or due or at.done):
            return
        accumulates = at.batches % self.accumulate > 0
        if at.position and (accumulates or at.position >= self._batches_in_epoch()):
            return
        if accumulates and self._sharded:
            return  # each process has a part of the gradients only
        self._check_losses()
        self._check_weights()
        tree = {"standing": vars(at), **training_state.take(self)}
        self.keeper.save(tree, {"step": at.steps, "epoch": at.epoch})
        if number:
            self.keeper.signals.stop(number)

    def _batches_in_epoch(self) -> int:
        return self.trainer.train_dataloader.steps(self.trainer.world_size)  # type: ignore[union-attr]

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
        if self.at.losses:
            self.at.logged.append((self.at.steps, {name: total / n for name, (n, total) in self.at.losses.items()}))
            self.at.losses = {}

    def on_train_epoch_end(self) -> None:
        at = self.at
        self._log_losses()
        for step, losses in at.logged:
            self.keeper.report(step, {name: value.item() for name, value in losses.items()})
        at.logged = []
        rates = [optimizer.param_groups[-1]["lr"] for optimizer in self.trainer.optimizers]
        names = ["lr"] if len(rates) == 1 else [f"lr/{player}" for player in self.players]
        counts = {"epoch": float(self.current_epoch)} | ({"train/skipped": float(at.skipped)} if at.skipped else {})
        self.keeper.report(at.steps, {**counts, **dict(zip(names, rates, strict=True))})
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau) and self.monitor in at.metrics:
                value = at.metrics[self.monitor]
                scheduler.step(value if self.mode == "min" else -value)
        at.epoch += 1
        at.position = 0
        at.done = self.trainer.should_stop or at.epoch >= (self.trainer.max_epochs or 0)
        self._pause()

    def validation_step(self, chunk: list[Batch], batch_idx: int) -> None:
        self._kept += [self.task.score(self._laid_out(batch)) for batch in chunk]

    def test_step(self, chunk: list[Batch], batch_idx: int) -> None:
        self.validation_step(chunk, batch_idx)

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients of an accumulation that goes on over the end of an epoch."""

    def on_validation_epoch_end(self) -> None:
        at = self.at
        self._check_weights()
        at.metrics = self._evaluated("val")
        self.keeper.report(at.steps, at.metrics)
        value = at.metrics[self.monitor]
        better = at.best is None or (value < at.best if self.mode == "min" else value > at.best)
        sound = math.isfinite(value) and not any(s.is_floating_point() and s.isnan().any() for s in self.scores.values())
        if sound and better:
            at.best = value
            # Collective under a sharded strategy: every process takes part.
            self.keeper.keep_best(
                training_state.weights(self), {"epoch": self.current_epoch, "step": at.steps, self.monitor: value}
            )

    def on_test_epoch_end(self) -> None:
        self._evaluated("test")

    def _evaluated(self, split: str) -> dict[str, float]:
        """The metrics of the split that has just been scored."""
        self.scores = self._collected()
        self._kept = []
        metrics = {f"{split}/{name}": value for name, value in self.task.metrics(self.scores).items()}
        self.log_dict(metrics)
        return metrics

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
