"""The LightningModule that trains any task. The task says what is learned; the learner says when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.engine import internals, training_state
from dlframe.engine.checks.callbacks import RecorderLogger
from dlframe.engine.checks.finite import BadLoss, FiniteLosses, advice, not_finite
from dlframe.engine.checks.profile import StepProfile
from dlframe.engine.evaluation import Evaluation
from dlframe.engine.loader import Step, laid_out
from dlframe.runs.continued.options import BATCHES, DEVICES, Changes, changes, is_among
from dlframe.runs.recorder import Recorder
from dlframe.storage import checkpoint
from dlframe.tasks.base import Task, Totals
from dlframe.types import Batch, TrainingError

CHUNK_SECONDS = 0.1
"""Work in one chunk: long against the Trainer's own cost of a step, short against a progress bar's patience."""

AGREE_STEPS = 16
"""Steps between two questions to all processes: on GPUs each makes them wait for one another."""


def own_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Return the groups of a network that has a say in learning rates, each with its `lr_scale`, or one of all parameters."""
    groups = getattr(network, "parameter_groups", lambda: [{"params": network.parameters()}])()
    return [{"lr_scale": 1.0, **group} for group in groups]


def parameter_groups(network: nn.Module, lr: float, decay: str) -> list[dict[str, Any]]:
    """Parameter groups of a network: its own, if it has a say in learning rates, split by what weight decay applies to.

    Args:
        network: May have `parameter_groups() -> [{"params": [...], "lr_scale": 0.1}, ...]`.
        lr: Learning rate of a group whose `lr_scale` is 1.
        decay: "all", or "weights": no decay for parameters with fewer than two dimensions (norms, biases).
    """
    groups = []
    for group in own_groups(network):
        params = list(group["params"])
        for decayed in (True, False):
            chosen = [p for p in params if (decay == "all" or p.ndim >= 2) == decayed]
            if chosen:
                extra = {} if decayed else {"weight_decay": 0.0}
                groups.append({"params": chosen, "lr": lr * group["lr_scale"], **extra})
    return groups


def averages_weights(optimizer: Any) -> bool:
    """Return whether an optimizer scores other weights than it trains: by `eval()`, until `train()`, as schedule-free ones."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


@dataclass
class TrainingProgress:
    """Training progress between two optimizer steps.

    Attributes:
        epoch: Whole epochs done.
        position: Steps done of the epoch that has begun.
        steps: Optimizer steps taken.
        best: The best value of the monitored metric so far; None before the first.
        top: Value and step of the best epochs so far, the best first; empty where only the best one is kept.
        metrics: Of the last validation.
        losses: By name, the samples since the training loss was last logged, and the sum of their losses.
        logged: Means of training losses that are not recorded yet, with their step.
        skipped: Batches left out because a loss was not finite.
        done: Whether the training has ended.
    """

    epoch: int = 0
    position: int = 0
    steps: int = 0
    best: float | None = None
    top: list[tuple[float, int]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    losses: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    logged: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    skipped: int = 0
    done: bool = False

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> TrainingProgress:
        """Return saved progress; ValueError if it can be none."""
        progress = cls(**saved)
        counts = (progress.epoch, progress.position, progress.steps, progress.skipped)
        if not all(type(count) is int and 0 <= count < 2**53 for count in counts):
            raise ValueError(f"epoch, position, steps and skipped must be counts. Received: {counts}")
        if not (isinstance(progress.metrics, dict) and isinstance(progress.losses, dict) and isinstance(progress.logged, list)):
            raise ValueError("metrics and losses must be dicts, and logged a list")
        if not (progress.best is None or type(progress.best) is float) or type(progress.done) is not bool:
            raise ValueError(f"best must be a number. Received: {progress.best!r}")
        progress.top = [(value, step) for value, step in progress.top]
        if not all(type(value) is float and type(step) is int and step >= 0 for value, step in progress.top):
            raise ValueError(f"top must hold values and steps. Received: {progress.top!r}")
        return progress

    def improves(self, value: float, mode: str) -> bool:
        """Whether a value of the monitored metric is better than the best so far; one that is undefined is not."""
        if not math.isfinite(value):
            return False
        return self.best is None or (value < self.best if mode == "min" else value > self.best)

    def enter(self, value: float, mode: str, places: int) -> bool:
        """Take a value of the monitored metric among the best ones; return whether it is one. Of equal ones the earlier are."""
        if not math.isfinite(value):
            return False
        self.top = sorted([*self.top, (value, self.steps)], key=lambda one: one[0] if mode == "min" else -one[0])[:places]
        return (value, self.steps) in self.top


class Learner(internals.QuickModule):
    """Trains the networks of a model for a task, step by step, and scores it.

    One step of the Trainer takes a chunk of optimizer steps, so that the Trainer's own cost is shared by the chunk; the
    numbers are the same for any chunk. Between any two optimizer steps the training can be saved, and resumes from there
    with the same numbers: the Trainer is told the epoch, the loader the position in it.

    A loss is a sum divided by the count of the whole optimizer step: all its batches, all processes, without skipped ones.
    The gradient is therefore the same however a step is cut into batches and processes.

    Args:
        task: What is learned.
        networks: The networks that the model declares, in the order in which they are updated; without any the task sees
            each batch in `partial_fit`.
        optimizer: Makes a network's optimizer.
        scheduler: Makes the schedule of an optimizer; stepped once an optimizer step; a `ReduceLROnPlateau` once a
            validation, with the monitored value.
        total_steps: Optimizer steps in so many epochs.
        augmentations: Applied in order to each training batch.
        seed: Seed of the augmentations, with the epoch and the rank.
        monitor: Metric that picks the best epoch: "val/accuracy".
        mode: "min" or "max".
        directions: Direction of each metric that is logged, by name, for callbacks: {"val/f1": "max"}.
        clip: Largest L2 norm of a network's gradient.
        chunk: Optimizer steps in a chunk; 0 measures the first ones and chooses.
        memory_format: Memory order of images, and of the weights that meet them.
        log_every: Optimizer steps between two logged training losses.
        top_k: Best epochs of which the recorder keeps the weights.
        on_nan: "raise" or "skip": what happens at a loss that is NaN or infinite. On a GPU "skip" waits for it at each batch,
            "raise" finds it within a chunk.
        recorder: Takes metrics, weights and checkpoints; says when to save and when to stop.
        initial: Loads the weights to begin with into the task, and says what it has loaded; not called where training resumes.
        options: What may change when the training continues, by name, see `runs.continued`.
        metrics: Metrics beside the task's, by name, each with the names of the scores that it sees.
        of_training: Metrics of a part of the training samples, which is a second split to validate; none without one.
    """

    def __init__(
        self,
        task: Task,
        *,
        networks: Sequence[str],
        optimizer: Callable[[str, nn.Module], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        total_steps: Callable[[int], int] | None = None,
        augmentations: Sequence[Callable[[Batch, torch.Generator], Batch]] = (),
        seed: int = 0,
        monitor: str = "val/loss",
        mode: str = "min",
        directions: Mapping[str, str] | None = None,
        clip: float | None = None,
        chunk: int = 0,
        memory_format: torch.memory_format = torch.channels_last,
        log_every: int = 50,
        top_k: int = 1,
        on_nan: Any = "raise",
        recorder: Recorder | None = None,
        initial: Callable[[Task], str] | None = None,
        options: Mapping[str, Any] | None = None,
        metrics: Mapping[str, tuple[Any, Sequence[str]]] | None = None,
        of_training: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # The weights too: an image with one channel is in both orders at once, and the weights then decide.
        self.task = task.to(memory_format=memory_format) if memory_format == torch.channels_last else task
        self.networks = tuple(networks)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.total_steps = total_steps
        self.augmentations = tuple(augmentations)
        self.seed = seed
        self.monitor = monitor
        self.mode = mode
        self.directions = {monitor: mode, **(directions or {})}
        self.clip = clip
        self.chunk = chunk
        self.memory_format = memory_format
        self._is_checked = False
        self.log_every = log_every
        self.top_k = top_k
        self.on_nan = on_nan
        self.recorder = recorder or Recorder()
        self.initial = initial
        self.options = dict(options or {})
        self.progress = TrainingProgress()
        self.validation_interval = Fraction(1)
        """Epochs between two validations."""
        self.round_steps = 0
        """Optimizer steps between two validations, where these count."""
        self.evaluation = Evaluation(self.task, metrics)
        self.of_training = tuple(of_training)
        self.training_part = Evaluation(self.task, metrics)
        self.finite = FiniteLosses(on_nan, several=False)
        self.schedulers: list[Any] = []
        self._rates: list[float] = []
        self._validated = False
        self._durations: list[float] = []
        self._resumed: Mapping[str, Any] | None = None
        self._several = False
        self._averaging: list[Any] = []

    def configure_optimizers(self) -> list[Optimizer]:
        assert self.make_optimizer, "a learner without optimizers can only be tested"
        assert self.make_scheduler, "an optimizer needs a schedule"
        optimizers = [self.make_optimizer(name, self.task.network(name)) for name in self.networks]
        self._averaging = [optimizer for optimizer in optimizers if averages_weights(optimizer)]
        self._show_weights("train")
        self.schedulers = [self.make_scheduler(optimizer) for optimizer in optimizers]
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):  # it counts validations, its option epochs
                scheduler.patience = int(scheduler.patience // self.validation_interval)
        if self.device.type == "cpu":
            for optimizer in optimizers:
                internals.skip_graph_capture_check(optimizer)
        return optimizers

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The loader gathers on the device already; walking through the chunk again would only cost time."""
        return batch

    # --- training

    def on_fit_start(self) -> None:
        """Resume from the checkpoint that the recorder has, the same in every process."""
        self.generator = torch.Generator(self.device)
        self._several = self.trainer.world_size > 1
        self.finite = FiniteLosses(self.on_nan, several=self._several)
        if self._several:
            # The weights were drawn alike in all processes; from here on dropout and the like must not be.
            torch.manual_seed(self.seed * self.trainer.world_size + self.global_rank)
        path = self.trainer.strategy.broadcast(str(self.recorder.latest_checkpoint() or ""))
        if not path:
            self._load_initial()
            return
        tree, facts = checkpoint.load(Path(path))
        with training_state.reading(Path(path)):
            changed = changes(dict(facts.get("options", self.options)), self.options)
            self.progress = TrainingProgress.of(tree["progress"])
            if changed:
                self._change(changed)
            training_state.restore(self, tree, changed)
            if has_same_devices := not any(is_among(key, DEVICES) for key in changed):
                training_state.restore_random(self, tree)  # and again where the epoch goes on
        internals.set_epoch(self.trainer, self.progress.epoch)
        if self.progress.done:
            self.trainer.should_stop = True
        elif has_same_devices:
            self._resumed = tree

    @property
    def passed(self) -> int:
        """Passes over the samples that were whole before the last step was taken: the number of its epoch, from 0."""
        return self._passes(-1 if self.progress.position else 0)

    def _passes(self, more: int) -> int:
        """Passes over the samples that are whole, `more` steps from here."""
        progress = self.progress
        if not self.round_steps:
            return progress.epoch
        loader: Any = self.trainer.train_dataloader
        return loader.passes(progress.epoch, progress.position + more, self.trainer.world_size)

    def _change(self, changed: Changes) -> None:
        """Set the progress to where a training goes on with other options: those of more epochs, of other batches."""
        progress, rounds = self.progress, self.round_steps
        if rounds:
            progress.epoch, progress.position = divmod(progress.steps, rounds)  # a last round was shorter
        if "epochs" in changed:
            progress.done = progress.epoch >= (self.trainer.max_epochs or 0)
        if progress.position and any(is_among(key, (*BATCHES, *DEVICES)) for key in changed):
            what = (
                "the steps since the last validation are taken again, as the"
                if rounds
                else f"epoch {progress.epoch + 1} begins again, as its"
            )
            self.recorder.tell(f"{what} batches are others now")
            progress.position, progress.losses = 0, {}

    def _load_initial(self) -> None:
        if self.initial:
            with internals.whole_weights(self.trainer):
                self.recorder.tell(self.initial(self.task))

    def on_train_epoch_start(self) -> None:
        resumed, self._resumed = self._resumed, None
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self.trainer.check_val_every_n_epoch = 1  # the last epoch can be the best
        if resumed and not self.progress.position:
            training_state.restore_random(self, resumed)  # before what an epoch begins with, as it was saved before
        self.generator.manual_seed(((self.seed << 20) + self.current_epoch) * self.trainer.world_size + self.global_rank)
        for module in (*self.task.modules(), *self.augmentations):
            if callable(hook := getattr(module, "start_epoch", None)):
                hook(self.current_epoch, self.trainer.max_epochs)
        if resumed and self.progress.position:
            training_state.restore_random(self, resumed)

    def training_step(self, chunk: list[Step], batch_idx: int) -> None:
        started = time.perf_counter()
        for number, step in enumerate(chunk):
            if number:
                self._save_or_stop()
            self.progress.position += 1
            if self.networks:
                self._optimize(step)
            else:
                self._partial_fit(step)
            self.progress.steps += 1
        if not self.chunk:
            self._choose_chunk((time.perf_counter() - started) / len(chunk))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save or stop after a chunk's last step, when all callbacks have seen it."""
        if bad := self.finite.check():
            self._raise_unless_told_later(bad)
        self._save_or_stop()

    def _optimize(self, step: Step) -> None:
        """One optimizer step of every network."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        totals = self._totals(step)
        # Several networks see the same augmented batches; one needs them one after the other only.
        batches: Iterable[Batch] = map(self._prepared, step.batches)
        if len(self.networks) > 1 or (self.on_nan == "skip" and len(step.batches) > 1):
            batches = [*batches]
        for number, optimizer in enumerate(optimizers):
            if len(self.networks) > 1:
                self.toggle_optimizer(optimizer)
            if self._accumulate(step, batches, number, totals):
                self._step(optimizer)
            if len(self.networks) > 1:
                self.untoggle_optimizer(optimizer)
        self._rates = [optimizer.param_groups[-1]["lr"] for optimizer in self.trainer.optimizers]
        for scheduler in self.schedulers:
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        if self.progress.position == 1:
            self._check_parameters()
        if (self.progress.steps + 1) % self.log_every == 0:
            self._log_losses(self.progress.steps + 1)

    def time_parts(self, profile: StepProfile) -> None:
        """Have the parts of each optimizer step measured."""
        self._optimize = profile.step(self._optimize, lambda: self.progress.position >= self._steps_in_epoch())
        self._prepared = profile.part("data", self._prepared)
        self._loss = profile.part("forward", self._loss)
        self.manual_backward = profile.part("backward", self.manual_backward)
        self._step = profile.part("optimizer", self._step)

    def _check_parameters(self) -> None:
        """Refuse parameters that get a gradient which no optimizer uses, and optimizers of parameters that are no more.

        Optimizers are made once; a layer that is made, replaced or unfrozen later would keep its values without a word.
        """
        if internals.is_sharded(self.trainer):
            return
        parameters = dict(self.task.named_parameters())
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        known = {id(parameter) for group in groups for parameter in group["params"]}
        late = [name for name, p in parameters.items() if p.grad is not None and id(p) not in known]
        if late or not known <= set(map(id, parameters.values())):
            what = f"no optimizer has {', '.join(late[:5])}" if late else "an optimizer has parameters that were replaced"
            rule = "make, replace and unfreeze parameters in the constructor or in the first forward pass"
            raise TrainingError(f"model: {what} (step {self.progress.steps + 1}): {rule}.")

    def _totals(self, step: Step) -> Totals:
        """What the losses of a step average over, over all its batches and all processes."""
        totals: Totals = {"samples": step.samples}
        if self.task.has_counts:
            for batch, own in zip(step.batches, step.own, strict=True):
                for name, count in self.task.counts(batch).items():
                    totals[name] = totals.get(name, 0) + (count if own else 0 * count)
            if self._several:
                names = [name for name in totals if name != "samples"]
                sums = torch.stack([torch.as_tensor(totals[n], dtype=torch.float64, device=self.device) for n in names])
                torch.distributed.all_reduce(sums)
                totals |= dict(zip(names, sums, strict=True))
        return totals

    def _accumulate(self, step: Step, batches: Iterable[Batch], number: int, totals: Totals) -> bool:
        """The gradient of a network's loss over all batches of a step, `batches` as the network sees them.

        Returns:
            Whether there is one to step by.
        """
        kept: list[int] = []
        step_loss: Any = 0
        optimizer = self.trainer.optimizers[number]
        # A batch that is left out leaves no trace in running statistics.
        before = [buffer.clone() for buffer in self.task.buffers()] if self.on_nan == "skip" else []
        for place, batch in enumerate(batches):
            loss = self._loss(batch, number, totals, step.own[place])
            if self.finite.usable(loss, number, self.progress.steps + 1):
                # DDP averages the gradients of processes; their sum is meant.
                self.manual_backward(loss * self.trainer.world_size if self._several else loss)
                if self.on_nan == "skip" and not self._scaled and not math.isfinite(_gradient_norm(optimizer)):
                    optimizer.zero_grad()  # of the batches before too: they are taken again below
                    continue
                step_loss = loss.detach() + step_loss
                kept.append(place)
            elif self.on_nan == "raise":
                self.manual_backward(loss)
                raise self._not_finite(self.finite.bad, _gradient_norm(optimizer))
        if skipped := len(step.batches) - len(kept):
            self.progress.skipped += skipped
            optimizer.zero_grad()
            for buffer, old in zip(self.task.buffers(), before, strict=True):
                buffer.copy_(old)
            if not kept:
                return False
            # The others again, as a step of their own: what they average over is less than was thought.
            shorter = step.of(kept)
            prepared = [batch for i, batch in enumerate(batches) if i in kept]
            return self._accumulate(shorter, prepared, number, self._totals(shorter))
        self._count_loss(number, step_loss, step.samples)
        return True

    def _loss(self, batch: Batch, number: int, totals: Totals, own: int) -> Tensor:
        """The batch's part of the loss of the whole step; `own` of its samples are this process's."""
        method = "task_loss"
        arguments = (batch, self.networks[number], totals, own)
        if internals.is_sharded(self.trainer):
            return internals.call_through_wrapper(self, method, *arguments)
        return self.task_loss(*arguments)

    def task_loss(self, batch: Batch, network: str, totals: Totals, own: int) -> Tensor:
        """`Task.loss_part`; a method of the learner, since a wrapper calls it in place of `forward`."""
        return self.task.loss_part(batch, network, totals, own)

    @torch.no_grad()
    def _partial_fit(self, step: Step) -> None:
        for batch in step.batches:
            self.task.partial_fit(self._prepared(batch))

    def _step(self, optimizer: Any) -> None:
        with internals.whole_precision(self.device):
            optimizer.step()
        optimizer.zero_grad()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient, which is whole by now: of all batches and processes, and not scaled."""
        if self.clip is None:
            return
        internals.unscale(self.trainer, optimizer)
        norm = internals.clip_gradient(self.trainer, optimizer, self.clip)
        if self.on_nan == "raise" and not norm.is_cuda and not self._scaled and not norm.isfinite():
            step = self.progress.steps + 1
            what = f"the gradient norm is {norm.item():g} at step {step} (epoch {self.passed + 1}), with a finite loss."
            raise TrainingError(f"{what} {advice(self.clip)} or on_nan=skip to leave such batches out.")

    @property
    def _scaled(self) -> bool:
        """Whether losses are scaled for float16; the scaler leaves out steps whose gradient is not finite."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def _prepared(self, batch: Batch) -> Batch:
        with internals.whole_precision(self.device):
            batch = self.task.features(batch)
            for augment in self.augmentations:
                batch = augment(batch, self.generator)
        return batch.replace(**{name: laid_out(column, self.memory_format) for name, column in batch.columns.items()})

    def _choose_chunk(self, seconds: float) -> None:
        """Set the chunk by the fastest of the first steps: the very first ones pay for what is made once."""
        self._durations.append(seconds)
        if len(self._durations) == 5:
            self.chunk = max(1, min(64, round(CHUNK_SECONDS / min(self._durations))))
            self.trainer.train_dataloader.chunk = self.chunk  # type: ignore[union-attr]

    # --- losses

    def _count_loss(self, number: int, loss: Tensor, samples: int) -> None:
        name = "train/loss" if len(self.networks) == 1 else f"train/loss/{self.networks[number]}"
        count, total = self.progress.losses.get(name, (0, None))
        loss = loss * samples
        self.progress.losses[name] = (count + samples, loss if total is None else total + loss)

    def _log_losses(self, step: int) -> None:
        """Keep the mean losses since the last call on the device: reading them now would wait for it."""
        if not self.progress.losses:
            return
        means = {name: total / count for name, (count, total) in self.progress.losses.items()}
        if self._several:  # each process has its part of every step's loss
            together = torch.stack(list(means.values()))
            torch.distributed.all_reduce(together)
            means = dict(zip(means, together, strict=True))
        self.progress.logged.append((step, means))
        self.progress.losses = {}

    def _raise_unless_told_later(self, bad: BadLoss) -> None:
        if not self._several:
            raise self._not_finite(bad)

    def _not_finite(self, bad: BadLoss | None, norm: float | None = None) -> TrainingError:
        """What is known of a loss that is not finite."""
        bad = bad or BadLoss(0, self.progress.steps, math.nan)
        rate = self.trainer.optimizers[bad.network].param_groups[-1]["lr"]
        where = f"(epoch {self.passed + 1}, learning rate {rate:.3g}{'' if norm is None else f', gradient norm {norm:g}'})"
        network = f" of the {self.networks[bad.network]}" if len(self.networks) > 1 else ""
        since = norm is not None and not self._finite_weights()
        return not_finite(bad, where, clip=self.clip, network=network, since=since)

    def _check_weights(self) -> None:
        """Raise where a step with a finite loss has led to weights that are not."""
        if self.networks and not self._finite_weights():
            what = f"weights or buffers are no longer finite after step {self.progress.steps} (epoch {self.passed + 1})."
            raise TrainingError(f"{what} {advice(self.clip).rstrip(',')}.")

    def _finite_weights(self) -> bool:
        """Whether all weights are finite, and no buffer has a NaN; infinite values of a buffer may be a mask."""
        buffers = [buffer.isnan().any() for buffer in self.task.buffers() if buffer.is_floating_point()]
        norm = nn.utils.get_total_norm(p.detach() for p in self.task.parameters())
        return bool(norm.isfinite()) and not (buffers and bool(torch.stack(buffers).any()))

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        """Have the run, and loggers that a user's callback has given the Trainer, keep values."""
        self.recorder.log_metrics(step, values)
        for logger in self.trainer.loggers:
            if not isinstance(logger, RecorderLogger):
                logger.log_metrics(dict(values), step)

    # --- saving

    def _save_or_stop(self) -> None:
        """Between two optimizer steps, or two epochs: save if it is time, stop if a signal asks for it.

        Between an epoch's last step and its validation, both wait.
        """
        progress = self.progress
        if not self._is_checked:
            self._is_checked = True
            checkpoint.check_types(training_state.capture(self))  # not found after an hour, when the first state is saved
        if self._several and self.device.type != "cpu" and progress.position and progress.steps % AGREE_STEPS:
            return
        number, due = self.recorder.signals.received, self.recorder.should_save(progress.steps, self._passes(0))
        if self._several:
            bad = self.finite.bad
            # What each process wants; of a bad loss its network, counted from 1, and its step.
            wishes = [number, due, bad.network + 1 if bad else 0, bad.step if bad else 0]
            agreed = torch.tensor(wishes, dtype=torch.int64, device=self.device)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
            number, due, network, step = agreed.tolist()
            if network:
                raise self._not_finite(BadLoss(network - 1, step, bad.value if bad else math.nan))
        if not (number or due or progress.done):
            return
        if progress.position and progress.position >= self._steps_in_epoch():
            return
        if bad := self.finite.check():
            raise self._not_finite(bad)
        self._check_weights()
        tree = {"progress": vars(progress), **training_state.capture(self)}
        facts = {"step": progress.steps, "epoch": self._passes(0), "averages": bool(self._averaging)}
        self.recorder.save(tree, facts)
        if number:
            self.recorder.signals.stop(number)

    def _steps_in_epoch(self) -> int:
        return self.trainer.train_dataloader.steps(self.current_epoch, self.trainer.world_size)  # type: ignore[union-attr]

    def on_train_epoch_end(self) -> None:
        progress = self.progress
        self._log_losses(progress.steps)
        for step, losses in progress.logged:
            self._record(step, {name: value.item() for name, value in losses.items()})
        progress.logged = []
        rates = self._rates
        names = ["lr"] if len(rates) == 1 else [f"lr/{name}" for name in self.networks]
        counts = {"epoch": float(self.passed)} | ({"train/skipped": float(progress.skipped)} if progress.skipped else {})
        self._record(progress.steps, {**counts, **dict(zip(names, rates, strict=True))})
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau) and self._validated:
                value = progress.metrics[self.monitor]
                scheduler.step(value if self.mode == "min" else -value)
        self._validated = False
        progress.epoch += 1
        progress.position = 0
        progress.done = self.trainer.should_stop or progress.epoch >= (self.trainer.max_epochs or 0)
        self._save_or_stop()

    # --- scoring

    def _show_weights(self, mode: str) -> None:
        """Have optimizers that average put in place the weights that are trained ("train"), or scored ("eval")."""
        for optimizer in self._averaging:
            getattr(optimizer, mode)()

    def on_validation_epoch_start(self) -> None:
        self._show_weights("eval")
        if self._several and not internals.is_sharded(self.trainer):
            # Running statistics are each process's own; what is scored and saved are those of the first.
            for buffer in self.task.buffers():
                torch.distributed.broadcast(buffer, 0)
        self.evaluation.begin()
        if self.of_training:
            self.training_part.begin()

    def on_test_epoch_start(self) -> None:
        self.evaluation.begin()

    def validation_step(self, chunk: list[Step], batch_idx: int, dataloader_idx: int = 0) -> None:
        evaluation = self.training_part if dataloader_idx else self.evaluation
        for step in chunk:
            for batch in step.batches:
                evaluation.add(batch)

    def test_step(self, chunk: list[Step], batch_idx: int) -> None:
        self.validation_step(chunk, batch_idx)

    def on_validation_epoch_end(self) -> None:
        progress = self.progress
        self._check_weights()
        self._finish(self.evaluation)
        self.task.calibrate(self.evaluation.scores)
        progress.metrics = self._metrics("val")
        self._validated = True
        self._record(progress.steps, progress.metrics)
        if self.of_training:
            self._finish(self.training_part)
            found = self.training_part.metrics()
            self._record(progress.steps, {f"train/{name}": found[name] for name in self.of_training})
        self.recorder.validated(self.current_epoch + 1, progress.metrics)
        value = progress.metrics[self.monitor]
        facts = {"epoch": self.passed, "step": progress.steps, self.monitor: value}
        # Weights are collective under a sharded strategy: every process takes part.
        if progress.improves(value, self.mode):
            progress.best = value
            self.recorder.save_best(training_state.weights(self), facts)
        if self.top_k > 1 and progress.enter(value, self.mode, self.top_k):
            self.recorder.save_top(training_state.weights(self), facts, [step for _, step in progress.top])
        self._show_weights("train")

    def on_test_epoch_end(self) -> None:
        self._finish(self.evaluation)
        self._metrics("test")

    def _finish(self, evaluation: Evaluation) -> None:
        def gather(tensor: Tensor) -> Tensor:
            return self.all_gather(tensor)  # type: ignore[return-value]

        evaluation.finish(self.trainer.world_size, gather)

    def _metrics(self, split: str) -> dict[str, float]:
        """The metrics of the split that has just been scored."""
        metrics = {f"{split}/{name}": value for name, value in self.evaluation.metrics().items()}
        internals.log_metrics(self.trainer, metrics)
        return metrics


def _gradient_norm(optimizer: Optimizer) -> float:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return nn.utils.get_total_norm(gradients).item() if gradients else math.nan
