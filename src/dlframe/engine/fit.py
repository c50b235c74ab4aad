"""Training and testing through Lightning's Trainer. The half of a run that needs torch."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dlframe.engine.import_setup  # isort: skip  # noqa: F401  # before torch and Lightning
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from dlframe.config import Config
from dlframe.config.settings import AUTO_BATCH
from dlframe.engine import memory
from dlframe.engine.learner import Learner, parameter_groups
from dlframe.engine.loader import Batches, Place
from dlframe.engine.progress import Progress
from dlframe.registry import GROUPS
from dlframe.runs.recorder import Keeper
from dlframe.storage import checkpoint
from dlframe.tasks.base import Scores, Task
from dlframe.types import Dataset, Split, TrainingError

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

EVALUATION_BATCH = 256
"""Samples at most; with small training batches four times as many as in those, which without gradients need no more memory."""
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


def fit(config: Config, dataset: Dataset, keeper: Keeper, best: Path) -> Fitted:
    """Train, put the best epoch's weights back, and score the test split.

    Args:
        config: What to run.
        dataset: Its data.
        keeper: Takes what training gives, and says where to go on from.
        best: Where the keeper puts the best epoch's weights; told by the first process to the others.

    Raises:
        TrainingError: A loss is not finite, or memory does not suffice.
    """
    _prepare(config)
    if config.run.batch_size == "auto":
        config = _fitted_batch(config, dataset, keeper)
    try:
        learner, trainer = _train(config, dataset, keeper)
        _put_best_back(learner, trainer, best)
        trainer.test(learner, _batches(config, dataset.test, learner, trainer), verbose=False)
        return Fitted(learner.task.cpu().eval(), learner.scores, learner.at.steps)
    except Exception as error:
        if not memory.ran_out(error):
            raise
        size = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        said = f" ({size[1]} more were wanted)" if size else ""
    # The error is gone, and with it the frames that held the memory.
    raise TrainingError(_too_large(config, dataset, said))


def _train(config: Config, dataset: Dataset, keeper: Keeper) -> tuple[Learner, Trainer]:
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

    callbacks = config.build_list("callback")
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
        chunk=1 if several or any(map(_sees_batches, callbacks)) else config.run.chunk,
        channels_last=config.trainer.channels_last,
        log_every=config.run.log_every,
        on_nan=config.run.on_nan,
        keeper=keeper,
    )
    trainer = _trainer(config, learner, callbacks)
    loader = _batches(config, dataset.train, learner, trainer, shuffle=True, unlabelled=facts["unlabelled"])
    loader.chunk = learner.chunk or 1
    with keeper.signals.waiting():
        trainer.fit(learner, loader, _batches(config, dataset.validation, learner, trainer))
    return learner, trainer


def _attempt(config: Config, dataset: Dataset) -> Callable[[int], None]:
    """Two optimizer steps and one validation with a batch of the size that is given: what needs the most memory."""

    def attempt(size: int) -> None:
        short = replace(
            config,
            values={**config.values, "callback": {}},
            run=replace(config.run, batch_size=size, accumulate=1, epochs=1, chunk=1),
            trainer=replace(config.trainer, limit_steps=2),
        )
        _train(short, dataset, Keeper())

    return attempt


def _fitted_batch(config: Config, dataset: Dataset, keeper: Keeper) -> Config:
    """`batch_size=auto` as numbers: those of the run's beginning, where it goes on."""
    whole = AUTO_BATCH * config.run.accumulate
    if not (size := keeper.recall("batch_size")):
        size, too_large = memory.largest(_attempt(config, dataset), whole)
        if not size:
            raise TrainingError("out of memory with a batch of a single sample. Try a smaller model or data.size.")
        tried = f"; {', '.join(map(str, too_large))} ran out of memory" if too_large else ""
        print(f"batch_size=auto: batch_size={size} accumulate={whole // size}{tried}", file=sys.stderr, flush=True)
        keeper.note("batch_size", size)
    return replace(config, run=replace(config.run, batch_size=size, accumulate=whole // size))


def _too_large(config: Config, dataset: Dataset, said: str) -> str:
    """What to say when memory was used up: what was tried, and what fits."""
    memory.release()
    size, accumulate = config.run.batch_size, config.run.accumulate
    assert isinstance(size, int)
    beginning = f"out of memory with batch_size={size}{said}."
    if config.trainer.devices != 1 or config.trainer.num_nodes > 1:
        return f"{beginning} Try: batch_size={max(1, size // 2)} accumulate={2 * accumulate}"
    fitting, too_large = memory.largest(_attempt(config, dataset), size // 2)
    whole = size * accumulate
    tried = f" Tried: {', '.join(map(str, too_large))}." if too_large else ""
    if not fitting:
        return f"{beginning}{tried} Not even one sample fits: try a smaller model or data.size."
    command = f"batch_size={fitting} accumulate={-(-whole // fitting)}"
    return f"{beginning}{tried} What fits, with as large an optimizer step: {command}"


def _put_best_back(learner: Learner, trainer: Trainer, best: Path) -> None:
    if learner.at.best is None:
        raise TrainingError(
            "the validation's scores were NaN in every epoch, so none was the best. Try a smaller optimizer.lr."
        )
    path = Path(trainer.strategy.broadcast(str(best)))
    held = learner.keeper.held()
    trainer.strategy.barrier()  # by now the first process has written them
    checkpoint.restore(learner.task, held or checkpoint.weights(path), path)


def evaluate(config: Config, dataset: Dataset, path: Path) -> tuple[Task, Scores]:
    """Score the test split with the weights of a checkpoint.

    Raises:
        CheckpointError: It is damaged, or another model's.
        TrainingError: Memory does not suffice.
    """
    _prepare(config)
    tensors = checkpoint.weights(path)
    try:
        task = build_task(config, dataset, restored=True)
        checkpoint.restore(task, tensors, path)
        learner = Learner(task, players=(), channels_last=config.trainer.channels_last)
        trainer = _trainer(config, learner)
        trainer.test(learner, _batches(config, dataset.test, learner, trainer), verbose=False)
    except Exception as error:
        if not memory.ran_out(error):
            raise
        raise TrainingError(f"{path}: the model of this run does not fit into memory.") from error
    return task.cpu().eval(), learner.scores


def _prepare(config: Config) -> None:
    """Silence what says nothing to the user, and set what is global to the process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)


def _sees_batches(callback: Callback) -> bool:
    """Whether a callback is called at each batch, and so must not have several in one step of the Trainer."""
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_optimizer_step")
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


def _trainer(config: Config, learner: Learner, callbacks: Sequence[Callback] = ()) -> Trainer:
    options = config.trainer
    shown = [Progress()] if sys.stderr.isatty() else []
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(config, learner),
        precision=options.precision,
        deterministic=options.deterministic or None,
        detect_anomaly=options.detect_anomaly,
        max_epochs=config.run.epochs,
        check_val_every_n_epoch=min(config.run.validate_every, config.run.epochs),
        callbacks=[*callbacks, *shown],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    # Signals are ours: Lightning's handler starts a collective in the middle of whatever runs and leaves with status 0, and
    # asking all processes about it costs each step.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


class Sharded(FSDPStrategy):
    """FSDP for a learner that steps by itself: a backward pass may not lie within the wrapper's forward pass.

    So the step is not called through the wrapper; the learner calls the loss through it.
    """

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self.precision_plugin.train_step_context():
            assert self.lightning_module
            return self.lightning_module.training_step(*args, **kwargs)


def _strategy(config: Config, learner: Learner) -> str | Strategy:
    match config.trainer.strategy:
        case "ddp":
            return DDPStrategy(find_unused_parameters=len(learner.players) > 1)
        case "fsdp":
            return Sharded(state_dict_type="full")
    return "auto"


def _batches(
    config: Config, split: Split, learner: Learner, trainer: Trainer, *, shuffle: bool = False, unlabelled: bool = True
) -> Batches:
    def place() -> Place:
        done = learner.at.position if shuffle else 0
        return Place(learner.device, trainer.global_rank, trainer.world_size, trainer.current_epoch, done)

    size = config.run.batch_size
    assert isinstance(size, int)
    return Batches(
        split,
        size if shuffle else min(4 * size, EVALUATION_BATCH),
        place=place,
        seed=config.run.seed if shuffle else None,
        unlabelled=unlabelled,
        chunk=1 if shuffle else EVALUATION_CHUNK,
        limit=config.trainer.limit_steps,
        workers=config.trainer.workers,
    )
