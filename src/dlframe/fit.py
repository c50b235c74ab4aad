"""Training and testing through Lightning's Trainer. The half of a run that needs torch."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlframe.slim  # isort: skip  # noqa: F401  # before torch and Lightning
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from dlframe import checkpoint
from dlframe.config import Config
from dlframe.learner import Learner, parameter_groups
from dlframe.loader import Batches, Place
from dlframe.progress import Progress
from dlframe.registry import GROUPS
from dlframe.tasks.base import Scores, Task
from dlframe.types import Dataset, Split

QUIET = (
    "The '.*_dataloader' does not have many workers",
    "It is recommended to use .*sync_dist=True",
    "Starting from v1.9.0, `tensorboardX` has been removed",
    "The number of training batches",
    ".*LeafSpec",
    "Found .* module.* in eval mode at the start of training",
    "torch.distributed.nn.functional.all_gather is deprecated",
)
"""Advice of Lightning's that does not apply: data are in memory, and every process computes the same metrics."""

EVALUATION_CHUNK = 16


@dataclass
class Fitted:
    """What training leaves: the task with its best weights, the scores of the test split, the optimizer steps taken."""

    task: Task
    scores: Scores
    steps: int


def build_task(config: Config, dataset: Dataset, *, restored: bool = False) -> Task:
    """The task with its model, weights from the run's seed; `restored` where a checkpoint follows."""
    seed_everything(config.run.seed, verbose=False)
    model = config.build_model(dataset.spec, restored=restored)
    return config.build("task", spec=dataset.spec, model=model)


def fit(
    config: Config,
    dataset: Dataset,
    best: Path,
    keep: Callable[[dict, dict], None],
    report: Callable[[int, dict[str, float]], None] | None,
) -> Fitted:
    """Train, put the best epoch's weights back, and score the test split."""
    _prepare(config)
    task = build_task(config, dataset)
    if config.run.compile:
        task.model.compile()
    facts = config.entry("task").facts
    options = config.values["optimizer"]

    def optimizer(player: str, network: torch.nn.Module) -> torch.optim.Optimizer:
        own = {**options, **config.values["players"].get(player, {})}
        decay = config.run.decay if own.get("weight_decay") else "all"
        groups = parameter_groups(network, own["lr"], decay)
        return GROUPS["optimizer"].build(own, params=groups)

    def scheduler(optimizer: torch.optim.Optimizer) -> Any:
        batches = loader.steps(trainer.world_size) * config.run.epochs
        return config.build("scheduler", optimizer=optimizer, steps=max(1, batches // config.run.accumulate))

    several = config.trainer.devices != 1 or config.trainer.num_nodes > 1
    learner = Learner(
        task,
        players=facts["players"],
        optimizer=optimizer,
        scheduler=scheduler,
        augmentations=config.build_list("augmentation", spec=dataset.spec),
        seed=config.run.seed,
        monitor=config.monitor,
        mode=facts["metrics"][config.monitor.removeprefix("val/")],
        accumulate=config.run.accumulate,
        clip=config.run.clip,
        chunk=1 if several else config.run.chunk,
        channels_last=config.trainer.channels_last,
        log_every=config.run.log_every,
        **({"report": report} if report else {}),
        keep=keep,
    )
    trainer = _trainer(config, learner)
    loader = _batches(config, dataset.train, learner, trainer, shuffle=True, unlabelled=facts["unlabelled"])
    loader.chunk = learner.chunk or 1
    trainer.fit(learner, loader, _batches(config, dataset.validation, learner, trainer))
    path = Path(trainer.strategy.broadcast(str(best)))
    trainer.strategy.barrier()
    checkpoint.restore(task, checkpoint.load(path)[0], path)
    trainer.test(learner, _batches(config, dataset.test, learner, trainer), verbose=False)
    return Fitted(task.cpu().eval(), learner.scores, learner.steps)


def evaluate(config: Config, dataset: Dataset, task: Task) -> Scores:
    """Score the test split."""
    _prepare(config)
    learner = Learner(task, players=(), channels_last=config.trainer.channels_last)
    trainer = _trainer(config, learner)
    trainer.test(learner, _batches(config, dataset.test, learner, trainer), verbose=False)
    task.cpu().eval()
    return learner.scores


def _prepare(config: Config) -> None:
    """Silence what says nothing to the user, and set what is global to the process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)


def _trainer(config: Config, learner: Learner) -> Trainer:
    options = config.trainer
    callbacks = config.build_list("callback")
    if sys.stderr.isatty():
        callbacks.append(Progress())
    return Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(config, learner),
        precision=options.precision,
        deterministic=options.deterministic or None,
        detect_anomaly=options.detect_anomaly,
        max_epochs=config.run.epochs,
        check_val_every_n_epoch=min(config.run.validate_every, config.run.epochs),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _strategy(config: Config, learner: Learner) -> str | Strategy:
    match config.trainer.strategy:
        case "ddp":
            return DDPStrategy(find_unused_parameters=len(learner.players) > 1)
        case "fsdp":
            return FSDPStrategy(state_dict_type="full")
    return "auto"


def _batches(
    config: Config, split: Split, learner: Learner, trainer: Trainer, *, shuffle: bool = False, unlabelled: bool = True
) -> Batches:
    def place() -> Place:
        return Place(learner.device, trainer.global_rank, trainer.world_size, trainer.current_epoch)

    return Batches(
        split,
        config.run.batch_size if shuffle else max(256, config.run.batch_size),
        place=place,
        seed=config.run.seed if shuffle else None,
        unlabelled=unlabelled,
        chunk=1 if shuffle else EVALUATION_CHUNK,
        limit=config.trainer.limit_steps,
    )
