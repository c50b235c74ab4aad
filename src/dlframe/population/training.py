"""The training of a stack: what the learner and the Trainer do for one run, for N at once."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.engine.checks.finite import BadLoss, advice, not_finite
from dlframe.engine.fit import build_optimizer, prepare_process
from dlframe.population.members import Member, evaluation_batches, precision_of
from dlframe.population.optimizer import StackedOptimizer, StackedSchedule
from dlframe.population.stack import Columns, Mask, NotStackableError, Stack
from dlframe.runs.recorder import RunRecorder
from dlframe.tasks.base import Task
from dlframe.types import Batch, RunPruned, TrainingError

ROUNDS = 5
"""Steps that are timed, of the stack and of single models in turn."""
MARGIN = 1.1
"""Speed of a stack relative to single models from which on it is used."""


@dataclass(frozen=True)
class Speed:
    """Seconds of an optimizer step of all models.

    Attributes:
        stacked: As one.
        single: One after the other.
        tracing: Seconds to trace the stacked step.
        steps: Steps of the training.
    """

    stacked: float
    single: float
    tracing: float
    steps: int

    @property
    def ratio(self) -> float:
        """How many times as fast the stack is."""
        return self.single / self.stacked

    @property
    def pays(self) -> bool:
        """Whether the stack saves time, what is traced for the last batch and for validation included."""
        return self.ratio >= MARGIN and self.steps * (self.single - self.stacked) > self.tracing


class StackTraining:
    """Trains runs that differ in their seeds and in numbers of their optimizers as one stack.

    Args:
        members: The runs, at the same step.

    Raises:
        NotStackableError: The model or the task cannot be stacked.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        first = members[0]
        self.config = first.config
        self.dataset = first.dataset
        prepare_process(self.config)
        for name, column in self.dataset.train.columns.items():
            if not isinstance(column, np.ndarray):
                raise NotStackableError(f"samples of '{name}' vary in length or are read when needed")
        for module in (*first.task.modules(), *first.augmentations):
            if callable(getattr(module, "start_epoch", None)):
                raise NotStackableError(f"{type(module).__name__}.start_epoch changes the model in training")
            own = getattr(type(module), "get_extra_state", torch.nn.Module.get_extra_state)
            if own is not torch.nn.Module.get_extra_state:
                raise NotStackableError(f"{type(module).__name__} has state that is not a tensor")
        if not isinstance(first.optimizer, (Adam, SGD)):
            raise NotStackableError(f"the optimizer is a {type(first.optimizer).__name__}, not Adam, AdamW or SGD")
        self.epoch, self.position = first.progress.epoch, first.progress.position
        self.steps, self.done = first.progress.steps, first.progress.done
        self.ended: Callable[[Member], None] = lambda member: None
        self.saved = self.steps
        """Steps at the last checkpoint."""
        self._functions: dict[Any, Callable[..., Any]] = {}
        self._stacked_scores = type(first.task).begin_scoring is Task.begin_scoring
        self._assemble(members)

    def _assemble(self, members: Sequence[Member]) -> None:
        """Stack the weights and states that members have."""
        self.members = [*members]
        self._masks: dict[int, list[Mask]] = {}
        self.alive = [*range(len(members))]
        parameters = [dict(member.task.named_parameters()) for member in members]
        names = {id(parameter): name for name, parameter in parameters[0].items()}
        groups = [[names[id(p)] for p in group["params"]] for group in members[0].optimizer.param_groups]
        self.stack = Stack([member.task for member in members], groups, self.dataset.spec, self._functions)
        optimizers = [member.optimizer for member in members]
        self.optimizer = StackedOptimizer(self.stack, parameters, optimizers, self.steps)
        self.schedule = StackedSchedule([member.scheduler for member in members], optimizers)
        self.count = 0
        self.losses = torch.zeros(len(members))
        self.logged: list[tuple[int, Tensor]] = []
        losses = [member.progress.losses.get("train/loss") for member in members]
        if losses[0] is not None:
            self.count = losses[0][0]
            self.losses = torch.stack([total for _, total in losses])  # type: ignore[misc]

    # --- whether it pays

    def measure(self) -> Speed:
        """Time some steps of the stack and of single models, check that both agree, and forget them.

        Raises:
            NotStackableError: The stack computes other gradients than the models alone.
        """
        members = self.members
        states = [(member.dropout.get_state(), member.augment.get_state()) for member in members]
        index, sizes = self._plan(self.epoch)
        piece = index[:, : sizes[0]]
        with precision_of(self.config):
            started = time.perf_counter()
            self._check(piece)
            if sizes[-1] != sizes[0]:
                self._gradients(index[:, -sizes[-1] :])
            tracing = time.perf_counter() - started
            twin = copy.deepcopy(members[0].task).train()
            optimizer = build_optimizer(self.config, "model", twin.network("model"))
            times: list[tuple[float, float]] = []
            few = min(len(members), 4)
            for _ in range(ROUNDS):
                stacked = _timed(
                    lambda: self.optimizer.step(self._gradients(piece)[0], self.config.run.gradient_clip_val, self.alive)
                )
                single = _timed(lambda: [self._step_alone(members[0], twin, piece[0], optimizer) for _ in range(few)])
                times.append((stacked, single * len(members) / few))
        for member, (dropout, augment) in zip(members, states, strict=True):
            member.dropout.set_state(dropout)
            member.augment.set_state(augment)
        self._assemble(members)
        steps = members[0].loader.total_steps(self.config.run.epochs) - self.steps
        stacked, single = map(min, zip(*times, strict=True))  # other work on the machine only adds
        return Speed(stacked, single, tracing=tracing, steps=steps)

    def _check(self, piece: Tensor) -> None:
        """Compare losses and gradients with those of the models alone, which draw the same random numbers."""
        states = [(member.dropout.get_state(), member.augment.get_state()) for member in self.members]
        before = [rest.clone() for rest in self.stack.rest]
        gradients, losses = self._gradients(piece)
        torch._foreach_copy_(self.stack.rest, before)
        for i, (member, (dropout, augment)) in enumerate(zip(self.members, states, strict=True)):
            member.augment.set_state(augment)
            with torch.random.fork_rng(devices=()):
                torch.set_rng_state(dropout)
                twin = copy.deepcopy(member.task).train()
                loss = self._step_alone(member, twin, piece[i])
            parameters = dict(twin.named_parameters())
            names = [name for group in self.stack.groups for name in group]
            own = [torch.zeros_like(parameters[n]) if (g := parameters[n].grad) is None else g for n in names]
            pairs = [(loss.detach(), losses[i]), *zip(own, (gradient[i] for gradient in gradients), strict=True)]
            error = torch.stack([(a - b).norm() for a, b in pairs]).norm()
            scale = torch.stack([a.norm() for a, _ in pairs]).norm()
            if error > math.sqrt(torch.finfo(scale.dtype).eps) * scale:
                raise NotStackableError(
                    f"the stack computes another gradient than the model alone, by {error / scale:.2g} of it"
                )

    def _step_alone(self, member: Member, task: Task, indices: Tensor, optimizer: Optimizer | None = None) -> Tensor:
        """The loss and the gradient of a model alone, as the learner computes them, and a step of its optimizer."""
        raw = member.loader.batch(indices)
        totals = {"samples": len(raw), **task.counts(raw)}
        batch = self._augmented(member, raw)
        for parameter in task.parameters():
            parameter.grad = None
        loss = task.loss_part(batch, "model", totals)
        loss.backward()
        if optimizer:
            optimizer.step()
        return loss

    # --- training

    def run(self, ended: Callable[[Member], None] = lambda member: None) -> None:
        """Train to the end.

        Args:
            ended: Receives each member that ends before the others, with its `failure`.

        Raises:
            RunInterrupted: A signal; all members are saved.
        """
        self.ended = ended
        first = self.members[0]
        with first.recorder.signals.waiting():
            while not self.done and self.alive:
                with precision_of(self.config):
                    self._train_epoch()
                if (self.epoch + 1) % self._every == 0 or self.epoch + 1 == self.config.run.epochs:
                    self._validate()
                    validated = True
                else:
                    validated = False
                self._end_epoch(validated)
                self._save_or_stop()

    @property
    def _every(self) -> int:
        return min(self.config.run.validate_every, self.config.run.epochs)

    def _train_epoch(self) -> None:
        index, sizes = self._plan(self.epoch)
        if not self.position:
            for member in self.members:
                member.augment.manual_seed((member.config.run.seed << 20) + self.epoch)
        for place in range(self.position, len(sizes)):
            start = sum(sizes[:place])
            self._optimize(index[:, start : start + sizes[place]])
            if place + 1 == len(sizes):
                self.rates = [member.optimizer.param_groups[-1]["lr"] for member in self.members]
            self.schedule.step()
            self.steps += 1
            self.position += 1
            if self.steps % self.config.run.log_every_n_steps == 0:
                self._log_losses()
            if not self.alive:
                return
            if self.position < len(sizes):
                before = self.stack
                self._save_or_stop()
                if self.stack is not before:  # some rows are gone
                    index, sizes = self._plan(self.epoch)

    def _plan(self, epoch: int) -> tuple[Tensor, list[int]]:
        """The positions of the samples of an epoch, (N, samples), and the size of each batch."""
        plans = [[batch for step in member.loader.plan(epoch) for batch in step] for member in self.members]
        return torch.stack([torch.cat(plan) for plan in plans]), [len(batch) for batch in plans[0]]

    def _optimize(self, piece: Tensor) -> None:
        """One optimizer step of every model, with the samples at positions (N, batch)."""
        gradients, losses = self._gradients(piece)
        if not losses.isfinite().all():
            self._fail(gradients, losses)
        norms = self.optimizer.step(gradients, self.config.run.gradient_clip_val, self.alive)
        if norms is not None and not norms.isfinite().all():
            for i in [i for i in self.alive if not norms[i].isfinite()]:
                what = (
                    f"the gradient norm is {norms[i]:g} at step {self.steps + 1} (epoch {self.epoch + 1}), with a finite loss."
                )
                end = "or on_nan=skip to leave such batches out."
                self._end(i, TrainingError(f"{what} {advice(self.config.run.gradient_clip_val)} {end}"))
        count = piece.shape[1]
        self.losses = losses * count if not self.count else self.losses + losses * count
        self.count += count

    def _gradients(self, piece: Tensor) -> tuple[list[Tensor], Tensor]:
        models, count = piece.shape
        raw = self.members[0].loader.batch(piece.reshape(-1))
        columns: Columns = {name: values.unflatten(0, (models, count)) for name, values in raw.columns.items()}  # type: ignore[union-attr]
        labelled = None if raw.labelled is None else raw.labelled.view(models, count)
        prepared = self._prepared(columns, piece, labelled) if self.members[0].augmentations else None
        masks = self._draw_masks(columns, prepared, piece, labelled)
        return self.stack.gradients(columns, piece, prepared=prepared, labelled=labelled, masks=masks)

    def _prepared(self, columns: Columns, piece: Tensor, labelled: Tensor | None) -> Columns:
        """The features of all batches, augmented by each member's own random numbers."""
        found = []
        for i, member in enumerate(self.members):
            own = {name: values[i] for name, values in columns.items()}
            batch = Batch(own, piece[i], self.dataset.spec, None if labelled is None else labelled[i])
            found.append(self._augmented(member, batch).columns)
        return {name: torch.stack([own[name] for own in found]) for name in found[0]}

    def _augmented(self, member: Member, batch: Batch) -> Batch:
        batch = member.task.features(batch)
        for augment in member.augmentations:
            batch = augment(batch, member.augment)
        return batch

    def _draw_masks(self, raw: Columns, prepared: Columns | None, piece: Tensor, labelled: Tensor | None) -> list[Tensor]:
        """The dropout masks of a step, (N, ...): the numbers that the models draw alone, in the same order."""
        count = piece.shape[1]
        if count not in self._masks:
            batch = Batch({name: values[0] for name, values in raw.items()}, piece[0], self.dataset.spec)
            batch.labelled = None if labelled is None else labelled[0]
            own = None if prepared is None else batch.replace(**{name: values[0] for name, values in prepared.items()})
            self._masks[count] = self.stack.find_masks(batch, own)
        for mask in self._masks[count]:
            if mask.p < 1:  # else all zero, without drawing
                for row, member in zip(mask.rows, self.members, strict=True):
                    row.bernoulli_(1 - mask.p, generator=member.dropout)
                mask.values.div_(1 - mask.p)
        return [mask.values for mask in self._masks[count]]

    def _fail(self, gradients: list[Tensor], losses: Tensor) -> None:
        """End members whose loss is not finite."""
        for i in [i for i in self.alive if not losses[i].isfinite()]:
            norm = torch.stack([gradient[i].norm() for gradient in gradients]).norm()
            rate = self.members[i].optimizer.param_groups[-1]["lr"]
            where = f"(epoch {self.epoch + 1}, learning rate {rate:.3g}, gradient norm {norm:g})"
            bad = BadLoss(0, self.steps + 1, losses[i].item())
            since = not self.stack.finite()[i]
            self._end(i, not_finite(bad, where, clip=self.config.run.gradient_clip_val, since=since))

    def _end(self, number: int, failure: Exception) -> None:
        """Go on without a member; its row stays until the next save."""
        self.members[number].failure = failure
        self.alive.remove(number)
        self.ended(self.members[number])

    def _check_weights(self) -> None:
        for i, finite in enumerate(self.stack.finite()):
            if not finite and i in self.alive:
                what = f"weights or buffers are no longer finite after step {self.steps} (epoch {self.epoch + 1})."
                self._end(i, TrainingError(f"{what} {advice(self.config.run.gradient_clip_val).rstrip(',')}."))

    # --- epochs

    def _log_losses(self) -> None:
        if self.count:
            self.logged.append((self.steps, self.losses / self.count))
        self.count = 0

    def _end_epoch(self, validated: bool) -> None:
        self._log_losses()
        self._flush()
        for i in self.alive:
            member = self.members[i]
            for step, losses in member.progress.logged:
                member.recorder.log_metrics(step, {name: value.item() for name, value in losses.items()})
            member.progress.logged = []
            member.recorder.log_metrics(self.steps, {"epoch": float(self.epoch), "lr": self.rates[i]})
            if validated and isinstance(member.scheduler, ReduceLROnPlateau):
                value = member.progress.metrics[member.config.monitor]
                member.scheduler.step(value if member.mode == "min" else -value)
        self.epoch += 1
        self.position = 0
        self.done = self.epoch >= self.config.run.epochs

    def _flush(self) -> None:
        """Give each member its part of the losses."""
        for i, member in enumerate(self.members):
            member.progress.logged += [(step, {"train/loss": losses[i]}) for step, losses in self.logged]
            member.progress.losses = {"train/loss": (self.count, self.losses[i].clone())} if self.count else {}
        self.logged = []

    def _validate(self) -> None:
        self._check_weights()
        self._score()
        for i in [*self.alive]:
            member = self.members[i]
            progress, evaluation = member.progress, member.evaluation
            self.stack.unload_buffers(i)
            member.task.calibrate(evaluation.scores)
            progress.metrics = {f"val/{name}": value for name, value in evaluation.metrics().items()}
            member.recorder.log_metrics(self.steps, progress.metrics)
            try:
                member.recorder.validated(self.epoch + 1, progress.metrics)
            except RunPruned as error:
                self._end(i, error)
                continue
            value = progress.metrics[member.config.monitor]
            if progress.improves(value, member.mode):
                progress.best = value
                self.stack.unload(i, buffers=False)
                facts = {"epoch": self.epoch, "step": self.steps, member.config.monitor: value}
                member.recorder.save_best(member.task.state_dict(), facts)
        self.stack.load_buffers()

    def _score(self) -> None:
        """Score the validation split by all models at once; one by one if the task cannot."""
        split = self.dataset.validation
        first = self.members[0]
        if self._stacked_scores:
            try:
                with torch.no_grad(), precision_of(self.config):
                    parts = []
                    for batch in evaluation_batches(first, split):
                        parts.append((self.stack.scores(batch), batch.index))
            except NotStackableError:
                self._stacked_scores = False
            else:
                index = torch.cat([index for _, index in parts])
                order = index.argsort(stable=True)
                for i in self.alive:
                    evaluation = self.members[i].evaluation
                    evaluation.index = index[order]
                    scores = {name: torch.cat([scores[name][i] for scores, _ in parts]) for name in parts[0][0]}
                    evaluation.scores = {name: score[order] for name, score in scores.items()}
                return
        for i in self.alive:
            self.stack.unload(i)
            self.members[i].evaluate(split)

    # --- saving

    def _save_or_stop(self) -> None:
        """Between two optimizer steps: save if it is time, stop if a signal asks for it."""
        if not self.alive:
            return
        recorder = self.members[self.alive[0]].recorder
        number, due = recorder.signals.received, recorder.should_save(self.steps, self.epoch)
        if not (number or due or self.done):
            return
        self._check_weights()
        if self.alive:
            self.save()
        if number:
            recorder.signals.stop(number)

    def save(self) -> None:
        """Save all members that are alive; earlier checkpoints are removed when all are written."""
        self._unload()
        if len(self.alive) < len(self.members):
            # What goes on is what a training that is continued from here has.
            self._assemble([self.members[i] for i in self.alive])
        facts = {"step": self.steps, "epoch": self.epoch, "stack": len(self.members)}
        written = []
        for member in self.members:
            if isinstance(member.recorder, RunRecorder):
                written.append(member.recorder.write(member.state(), facts))
            else:
                member.recorder.save(member.state(), facts)
        self.saved = self.steps
        if all(written):
            for member in self.members:
                if isinstance(member.recorder, RunRecorder):
                    member.recorder.prune()

    def _unload(self) -> None:
        """Bring all members that are alive up to date."""
        self._flush()
        self.schedule.unload()
        for i in self.alive:
            progress = self.members[i].progress
            progress.epoch, progress.position, progress.steps, progress.done = self.epoch, self.position, self.steps, self.done
            self.stack.unload(i)
            self.optimizer.unload(i)


def _timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
