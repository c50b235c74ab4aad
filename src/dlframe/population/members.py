"""A run of a stack: its task, optimizer, schedule and random numbers, as a run alone has them, and its checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.config import Config
from dlframe.engine import training_state
from dlframe.engine.checks.finite import undefined
from dlframe.engine.evaluation import Evaluation
from dlframe.engine.fit import Scored, batches, build_optimizer, build_task, check_baseline, extra_metrics, memory_format_of
from dlframe.engine.learner import TrainingProgress
from dlframe.engine.loader import BatchLoader, ProcessContext
from dlframe.runs.recorder import Recorder
from dlframe.storage import checkpoint
from dlframe.tasks.base import Task
from dlframe.types import Dataset, Split

CPU = torch.device("cpu")


@dataclass(eq=False)
class Member:
    """A run of a stack. Between two saves its task, optimizer and schedule lag behind the stack.

    Attributes:
        config: Config of the run.
        dataset: Its data.
        task: Task with the model.
        optimizer: Optimizer of the model.
        scheduler: Schedule of the optimizer.
        augmentations: Applied in order to each training batch.
        loader: Training batches.
        evaluation: Scores a split.
        dropout: Random numbers of the dropout layers; those of the process in a run alone.
        augment: Random numbers of the augmentations.
        random: States of all generators after the model was built.
        recorder: Takes what training gives.
        progress: Progress of the training.
        failure: Why the run has ended before the others.
    """

    config: Config
    dataset: Dataset
    task: Task
    optimizer: Optimizer
    scheduler: Any
    augmentations: list[Any]
    loader: BatchLoader
    evaluation: Evaluation
    dropout: torch.Generator
    augment: torch.Generator
    random: dict[str, Tensor]
    recorder: Recorder = field(default_factory=Recorder)
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    failure: Exception | None = None

    @classmethod
    def build(cls, config: Config, dataset: Dataset) -> Member:
        """Build everything as the run alone would, the initial weights bitwise identical."""
        task = build_task(config, dataset)
        augment = torch.Generator()
        random = training_state.random_states(augment, CPU)
        check_baseline(task, dataset, config.headline)
        if config.trainer.precision == "64-true":
            task = task.double()
        if memory_format_of(config, task) == torch.channels_last:
            task = task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(config, "model", task.network("model"))
        loader = batches(
            config,
            dataset,
            dataset.train,
            task,
            lambda: ProcessContext(CPU),
            shuffle=True,
            unlabeled=config.entry("model").facts["unlabeled"],
        )
        steps = max(1, loader.total_steps(config.run.epochs))
        scheduler = config.build("scheduler", optimizer=optimizer, steps=steps)
        if isinstance(scheduler, ReduceLROnPlateau):  # it counts validations, its option epochs
            scheduler.patience //= min(config.run.validate_every, config.run.epochs)
        return cls(
            config=config,
            dataset=dataset,
            task=task.eval(),
            optimizer=optimizer,
            scheduler=scheduler,
            augmentations=config.build_list("augmentation", spec=dataset.spec),
            loader=loader,
            evaluation=Evaluation(task, extra_metrics(config, dataset)),
            dropout=torch.Generator().set_state(random["torch"]),
            augment=augment,
            random=random,
        )

    @property
    def mode(self) -> str:
        """Whether the monitored metric is to be "min" or "max"."""
        return self.config.metrics[self.config.monitor.removeprefix("val/")].better

    def state(self) -> dict[str, Any]:
        """Return the checkpoint, which is that of a run alone."""
        steps = self.progress.steps
        own = {**self.random, "torch": self.dropout.get_state(), "augmentation": self.augment.get_state()}
        return {
            "progress": vars(self.progress),
            "task": self.task.state_dict(),
            "optimizers": [self.optimizer.state_dict()],
            "schedulers": [self.scheduler.state_dict()],
            "callbacks": {},
            "augmentations": {str(i): a.state_dict() for i, a in enumerate(self.augmentations) if hasattr(a, "state_dict")},
            "precision": {},
            "global_step": {"ready": steps, "completed": steps},
            "random": {name: state.unsqueeze(0) for name, state in own.items()},
            "losses": {name: total.unsqueeze(0) for name, (_, total) in self.progress.losses.items()},
        }

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.progress = TrainingProgress(**tree["progress"])
        losses = self.progress.losses
        self.progress.losses = {name: (count, tree["losses"][name][0].clone()) for name, (count, _) in losses.items()}
        self.task.load_state_dict(tree["task"])
        self.optimizer.load_state_dict(tree["optimizers"][0])
        self.scheduler.load_state_dict(tree["schedulers"][0])
        for i, augmentation in enumerate(self.augmentations):
            if hasattr(augmentation, "state_dict"):
                augmentation.load_state_dict(tree["augmentations"][str(i)])
        self.random = {name: states[0].clone() for name, states in tree["random"].items()}
        self.dropout.set_state(self.random["torch"])
        self.augment.set_state(self.random["augmentation"])

    def evaluate(self, split: Split) -> None:
        """Score a split with the weights of the task, as a run alone does."""
        with torch.no_grad(), precision_of(self.config):
            self.evaluation.begin()
            for batch in evaluation_batches(self, split):
                self.evaluation.add(batch)
            self.evaluation.finish(1, lambda tensor: tensor.unsqueeze(0))

    def scored(self, best: Path) -> Scored:
        """Put the best epoch's weights back and score the test split.

        Args:
            best: File of the best weights.

        Raises:
            TrainingError: No epoch was the best.
        """
        if self.progress.best is None:
            raise undefined(self.config.monitor, self.progress.metrics)
        checkpoint.restore(self.task, self.recorder.best_weights() or checkpoint.weights(best), best)
        self.evaluate(self.dataset.test)
        evaluation = self.evaluation
        index = evaluation.index.numpy()
        return Scored(self.task.eval(), evaluation.scores, index, evaluation.metrics(), self.progress.steps)


def evaluation_batches(member: Member, split: Split) -> Iterator[Any]:
    """The batches in which a split is scored."""
    loader = batches(member.config, member.dataset, split, member.task, lambda: ProcessContext(CPU))
    return (batch for chunk in loader for step in chunk for batch in step.batches)


@contextlib.contextmanager
def precision_of(config: Config) -> Iterator[None]:
    """Make tensors in the number format of the run, as the Trainer does within a step."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if config.trainer.precision == "64-true" else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
