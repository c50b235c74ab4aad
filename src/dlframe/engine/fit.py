"""Training and testing with Lightning's Trainer."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from dlframe.engine import internals  # isort: skip  # before torch and Lightning
import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import Strategy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from dlframe.callbacks.progress_bar import Progress, ProgressLines
from dlframe.config import Config
from dlframe.config.devices import slurm_tasks
from dlframe.config.settings import AUTO_BATCH
from dlframe.config.settings import Trainer as TrainerOptions
from dlframe.engine import initial_weights, memory
from dlframe.engine.checks.callbacks import RecorderLogger, check_callbacks
from dlframe.engine.checks.finite import undefined
from dlframe.engine.checks.first_samples import check_model, pass_first_samples
from dlframe.engine.checks.profile import StepProfile
from dlframe.engine.learner import Learner, averages_weights, own_groups, parameter_groups
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.registry import GROUPS
from dlframe.runs.continued.options import changeable
from dlframe.runs.recorder import Recorder
from dlframe.runs.run_directory import TRACE
from dlframe.storage import checkpoint
from dlframe.tasks.base import Scores, Task
from dlframe.types import (
    CheckpointError,
    ConfigError,
    DataError,
    Dataset,
    DlframeError,
    RegistrationError,
    Split,
    TrainingError,
    say,
)

THREADS = torch.get_num_threads()
"""CPU threads that torch chose."""

QUIET = (
    "The '.*_dataloader' does not have many workers",
    "It is recommended to use .*sync_dist=True",
    "Starting from v1.9.0, `tensorboardX` has been removed",
    "The number of training batches",
    ".*LeafSpec",
    "Found .* module.* in eval mode at the start of training",
    "torch.distributed.nn.functional.all_gather is deprecated",
    "The `srun` command is available on your system but is not used",
)
"""Advice of Lightning's that does not apply: data are in memory, and every process computes the same metrics."""

EVALUATION_BATCH = 256
"""Samples at most; with small training batches four times as many as in those, which without gradients need no more memory."""
EVALUATION_CHUNK = 16
SCORED_TRAINING = 1000
"""Training samples at most that are scored at each validation, for learning curves."""


@dataclass
class Scored:
    """A task with its best weights, and the scores of the test split.

    Attributes:
        task: On the CPU, in evaluation mode.
        scores: In the order of `index`.
        index: Which samples of the test split were scored, ascending: all, unless batches were limited.
        metrics: Of these samples.
        steps: Optimizer steps that training took.
    """

    task: Task
    scores: Scores
    index: np.ndarray
    metrics: dict[str, float]
    steps: int


def _scored(learner: Learner) -> Scored:
    evaluation, task = learner.evaluation, learner.task.cpu().eval()
    return Scored(task, evaluation.scores, evaluation.index.numpy(), evaluation.metrics(), learner.progress.steps)


def extra_metrics(config: Config, dataset: Dataset) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """The metrics that the config adds, each with the scores that it sees."""
    chosen = [options["name"] for options in config.values["metric"].values()]
    built = config.build_list("metric", spec=dataset.spec)
    return {name: (m, GROUPS["metric"].get(name).facts["scores"]) for name, m in zip(chosen, built, strict=True)}


def build_task(config: Config, dataset: Dataset, *, restored: bool = False) -> Task:
    """The task with its model, weights from the run's seed; `restored` where a checkpoint follows."""
    seed_everything(config.run.seed, verbose=False)
    model = config.build_model(dataset.spec, restored=restored)
    check_model(model, config.entry("model"))
    task = config.build("task", spec=dataset.spec, model=model)
    if not restored:
        task.prepare(dataset.train)
    elif config.trainer.precision == "64-true":
        task.double()  # as its weights are saved
    if config.networks:
        pass_first_samples(task, config, dataset, memory_format_of(config, task))
    if config.run.gradient_checkpointing and not restored:
        memory.recompute_blocks(task.model, config.values["model"]["name"])
    return task


def check_initial(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Check that the model can begin with the checkpoint that the config names; return what the run keeps of it.

    Raises:
        ConfigError: There is no such checkpoint.
        CheckpointError: It is damaged, or another model's.
    """
    source = initial_weights.Source.of(config)
    prepare_process(config)
    initial_weights.matched(build_task(config, dataset, restored=True), config, source)
    return source.described()


def fit(config: Config, dataset: Dataset, recorder: Recorder, best: Path, *, curves: bool = False) -> Scored:
    """Train, put the best epoch's weights back, and score the test split.

    Args:
        config: What to run.
        dataset: Its data.
        recorder: Takes what training gives, and says where to go on from.
        best: Where the recorder puts the best epoch's weights; told by the first process to the others.
        curves: Whether the primary metric of training samples is recorded at each validation too.

    Raises:
        TrainingError: A loss is not finite, or memory does not suffice.
    """
    prepare_process(config)
    if config.run.batch_size == "auto":
        config = fitted_batch(config, dataset, recorder)
    try:
        learner, trainer = train(config, dataset, recorder, curves=curves)
        _put_best_back(learner, trainer, best)
        return _tested(config, dataset, learner, trainer)
    except Exception as error:
        if "Expected more than 1 value per channel when training" in str(error):
            rule = "batch norm needs more than one sample per process in each batch"
            raise TrainingError(f"batch_size: {rule}. Received: {config.run.batch_size}. Try: batch_size=32") from error
        if not memory.ran_out(error):
            raise
        size = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        said = f" ({size[1]} more were wanted)" if size else ""
    # The error is gone, and with it the frames that held the memory.
    raise TrainingError(_too_large(config, dataset, said))


def train(config: Config, dataset: Dataset, recorder: Recorder, *, curves: bool = False) -> tuple[Learner, Trainer]:
    """Train and validate; see `fit`."""
    task = build_task(config, dataset)
    check_baseline(task, dataset, config.headline)
    if recorder.load_metadata("parameters") is None:
        recorder.save_metadata("parameters", sum(p.numel() for p in task.model.parameters() if p.requires_grad))
    if config.compiles:
        internals.check_kernels()
        task.model.compile()

    def total_steps(epochs: int) -> int:
        return loader.total_steps(epochs, trainer.world_size)

    def scheduler(optimizer: torch.optim.Optimizer) -> Any:
        return config.build("scheduler", optimizer=optimizer, steps=max(1, total_steps(trainer.max_epochs or 0)))

    def initial(task: Task) -> str:
        # Of initial_checkpoint=best, the first process alone has looked for the run.
        place = trainer.strategy.broadcast(config.run.initial_checkpoint)
        return initial_weights.load(task, config.changed(initial_checkpoint=place))

    scored = [dataset.validation]
    shown = [name for name in dict.fromkeys((config.headline, config.monitor.removeprefix("val/"))) if name != "loss"]
    if curves and task.scores_training and shown:
        scored.append(_training_part(dataset))
    callbacks = config.build_list("callback")
    check_callbacks(dict(zip(config.values["callback"], callbacks, strict=True)))
    several = config.trainer.devices != 1 or config.trainer.num_nodes > 1
    learner = Learner(
        task,
        networks=config.networks,
        optimizer=partial(build_optimizer, config),
        scheduler=scheduler,
        total_steps=total_steps,
        augmentations=config.build_list("augmentation", spec=dataset.spec),
        seed=config.run.seed,
        monitor=config.monitor,
        mode=config.metrics[config.monitor.removeprefix("val/")].better,
        directions={f"val/{name}": metric.better for name, metric in config.metrics.items()},
        clip=config.run.gradient_clip_val,
        chunk=1 if several or any(map(_sees_batches, callbacks)) else config.run.steps_per_execution,
        memory_format=memory_format_of(config, task),
        log_every=config.run.log_every_n_steps,
        top_k=config.checkpoint.top_k,
        on_nan=config.run.on_nan,
        recorder=recorder,
        options=changeable(config.values),
        initial=initial if config.run.initial_checkpoint else None,
        metrics=extra_metrics(config, dataset),
        of_training=shown if len(scored) > 1 else (),
    )
    trainer = _trainer(config, learner, callbacks)
    unlabeled = config.entry("model").facts["unlabeled"]
    loader = _batches(config, dataset, dataset.train, learner, trainer, shuffle=True, unlabeled=unlabeled)
    loader.chunk = learner.chunk or 1
    learner.validation_interval = Fraction(trainer.check_val_every_n_epoch or 1)
    if config.run.validate_unit == "steps":
        learner.round_steps = config.run.validate_every
        loader.validate_by_steps(learner.round_steps, config.run.epochs, trainer.world_size)
        learner.validation_interval = Fraction(learner.round_steps, loader.in_pass(trainer.world_size))
    trainer.fit_loop.max_epochs = loader.epochs(config.run.epochs, trainer.world_size)
    _check_batches(config, loader, trainer, recorder)
    profile = _profiled(config, learner, loader, trainer, recorder)
    in_epoch = min(loader.in_pass(trainer.world_size), total_steps(trainer.max_epochs or 0))
    recorder.show(size_of(task, config.networks, total_steps(trainer.max_epochs or 0), in_epoch))
    try:
        with recorder.signals.waiting():
            trainer.fit(learner, loader, [_batches(config, dataset, split, learner, trainer) for split in scored])
    except BaseException:
        internals.release(trainer, learner)
        raise
    finally:
        if profile:
            profile.close()
    if profile:
        recorder.keep(TRACE, profile.lines())
    return learner, trainer


def _training_part(dataset: Dataset) -> Split:
    """Return training samples with labels, drawn once, as many as there are to validate, or `SCORED_TRAINING` of them."""
    train = dataset.train
    labeled = np.arange(len(train)) if train.labelled is None else np.flatnonzero(train.labelled)
    count = min(len(labeled), len(dataset.validation), SCORED_TRAINING)
    return train.take(np.sort(np.random.default_rng(0).choice(labeled, count, replace=False)))


def _profiled(
    config: Config, learner: Learner, loader: BatchLoader, trainer: Trainer, recorder: Recorder
) -> StepProfile | None:
    """Have some steps of a run measured, where its config says so."""
    folder = recorder.folder
    if not (config.run.profile and folder):
        return None
    profile = StepProfile(
        folder / TRACE,
        lambda: loader.total_steps(trainer.max_epochs or 0) - learner.progress.steps + 1,
    )
    learner.chunk = loader.chunk = 1
    loader.gathered = profile.items(loader.gathered)
    learner.time_parts(profile)
    return profile


def size_of(task: Task, networks: Sequence[str], steps: int, in_epoch: int) -> str:
    """Say the number of parameters, and of optimizer steps of the whole training and of its first epoch."""
    parameters = sum(p.numel() for p in task.model.parameters())
    trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad) if networks else 0
    part = "" if trained == parameters else f", {f'{trained:,}' if trained else 'none'} of them trained by gradients"
    groups = [group for name in networks for group in own_groups(task.network(name))]
    scales = [group["lr_scale"] for group in groups]
    rates = f"; optimizer.lr times {min(scales):.2g} to {max(scales):.2g} in {len(groups)} groups" if len({*scales}) > 1 else ""
    return f"{parameters:,} parameters{part}; {steps:,} steps, {in_epoch:,} in an epoch{rates}"


def build_optimizer(config: Config, name: str, network: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a network of the model.

    Raises:
        ConfigError: It evaluates the loss itself.
    """
    own = {**config.values["optimizer"], **config.values["networks"].get(name, {})}
    decay = config.run.weight_decay_params if own.get("weight_decay") else "all"
    optimizer = GROUPS["optimizer"].build(own, params=parameter_groups(network, own["lr"], decay))
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optimizer={own['name']}: evaluates the loss itself, by a closure, which is not supported.")
    if averages_weights(optimizer):
        _check_averaging(config, own["name"], network)
    return optimizer


def _check_averaging(config: Config, name: str, network: torch.nn.Module) -> None:
    """Refuse what averages weights a second time; tell of statistics that are not of the averages."""
    for other, options in config.values["callback"].items():
        if options["name"] in ("ema", "look_ahead", "swa"):
            raise ConfigError(f"callback={other}: optimizer={name} averages weights itself. Leave one of them out.", "callback")
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        told = "the running statistics of batch normalization are those of the weights in training, not of their averages"
        say(f"note: optimizer={name} averages weights: {told}", error=True)


def _tested(config: Config, dataset: Dataset, learner: Learner, trainer: Trainer) -> Scored:
    """Score the test split; the learner and the Trainer are of no use afterwards."""
    try:
        trainer.test(learner, _batches(config, dataset, dataset.test, learner, trainer), verbose=False)
        return _scored(learner)
    finally:
        internals.release(trainer, learner)


def _check_batches(config: Config, loader: BatchLoader, trainer: Trainer, recorder: Recorder) -> None:
    """Refuse what leaves a process without samples; tell what becomes of a step that is longer than an epoch."""
    samples, processes, run = len(loader.indices), trainer.world_size, config.run
    assert isinstance(run.batch_size, int)
    if run.batch_size < processes:
        raise ConfigError(f"batch_size: must be at least {processes}, a sample per process. Received: {run.batch_size}.")
    if samples < processes:
        raise DataError(f"data: {processes} processes need at least {processes} training samples. Received: {samples}.")
    if run.batch_size > samples:
        recorder.tell(f"batch_size={run.batch_size} is more than the {samples:,} training samples: an epoch is one batch")
    batches = sum(map(len, loader.plan(0, processes))) if run.accumulate_grad_batches > 1 else 0
    if run.accumulate_grad_batches > batches > 1:
        option = f"accumulate_grad_batches={run.accumulate_grad_batches}"
        recorder.tell(f"{option} is more than the {batches} batches of an epoch: an epoch is one optimizer step")
    if left := loader.left_out(processes):
        rule = f"batch normalization needs {loader.order.least} of a batch in each process"
        recorder.tell(f"{left} of {samples:,} training samples left out of each epoch, others each time: {rule}")


def check_baseline(task: Task, dataset: Dataset, headline: str) -> None:
    """Refuse, before anything is trained, a task whose baseline lacks the metric that heads the table."""
    name, metrics = task.baseline(dataset)
    if headline not in metrics:
        raise DataError(f"task: the baseline '{name}' must have the headline '{headline}'. Received: {', '.join(metrics)}.")


def _attempt(config: Config, dataset: Dataset) -> Callable[[int], None]:
    """Two optimizer steps and one validation with a batch of the size that is given: what needs the most memory.

    Of samples of varying length, the longest ones.
    """

    def attempt(size: int) -> None:
        brief = {"batch_size": size, "accumulate_grad_batches": 1, "epochs": 1, "steps_per_execution": 1}
        short = config.changed(**brief, trainer={"limit_batches": 2, "max_steps": 0}, callback={})
        longest = BatchLoader(dataset.train, dataset.spec, Order(size), context=lambda: ProcessContext(torch.device("cpu")))
        few = replace(dataset, train=longest.longest(2 * size)) if longest.lengths is not None else dataset
        train(short, few, Recorder())

    return attempt


def fitted_batch(config: Config, dataset: Dataset, recorder: Recorder) -> Config:
    """`batch_size=auto` as numbers: those of the run's beginning, where it goes on."""
    whole = AUTO_BATCH * config.run.accumulate_grad_batches
    if not (size := recorder.load_metadata("batch_size")):
        size, too_large = memory.largest(_attempt(config, dataset), whole)
        if not size:
            raise TrainingError("out of memory with a batch of a single sample. Try a smaller model or data.size.")
        tried = f"; {', '.join(map(str, too_large))} ran out of memory" if too_large else ""
        say(f"batch_size=auto: batch_size={size} accumulate_grad_batches={whole // size}{tried}", error=True)
        recorder.save_metadata("batch_size", size)
    return config.changed(batch_size=size, accumulate_grad_batches=whole // size)


def _too_large(config: Config, dataset: Dataset, said: str) -> str:
    """What to say when memory was used up: what was tried, and what fits."""
    memory.release()
    size, accumulate = config.run.batch_size, config.run.accumulate_grad_batches
    assert isinstance(size, int)
    beginning = f"out of memory with batch_size={size}{said}."
    if config.trainer.devices != 1 or config.trainer.num_nodes > 1:
        return f"{beginning} Try: batch_size={max(1, size // 2)} accumulate_grad_batches={2 * accumulate}"
    fitting, too_large = memory.largest(_attempt(config, dataset), size // 2)
    whole = size * accumulate
    tried = f" Tried: {', '.join(map(str, too_large))}." if too_large else ""
    if not fitting:
        return f"{beginning}{tried} Not even one sample fits: try a smaller model or data.size."
    command = f"batch_size={fitting} accumulate_grad_batches={-(-whole // fitting)}"
    return f"{beginning}{tried} What fits, with as large an optimizer step: {command}"


def _put_best_back(learner: Learner, trainer: Trainer, best: Path) -> None:
    if learner.progress.best is None:
        raise undefined(learner.monitor, learner.progress.metrics)
    path = Path(trainer.strategy.broadcast(str(best)))
    in_memory = learner.recorder.best_weights()
    trainer.strategy.barrier()  # by now the first process has written them
    checkpoint.restore(learner.task, in_memory or checkpoint.weights(path), path)


def evaluate(config: Config, dataset: Dataset, path: Path, train: Split | None = None) -> Scored:
    """Score the test split with the weights of a checkpoint.

    Args:
        config: Of the run; options that only scoring reads may be others.
        dataset: The data.
        path: The checkpoint.
        train: Training split of the run; None if it is not at hand.

    Raises:
        CheckpointError: It is damaged, or another model's.
        TrainingError: Memory does not suffice.
    """
    prepare_process(config)
    tensors = checkpoint.weights(path)
    try:
        _check_model_size(config, dataset, tensors, path)
        task = build_task(config, dataset, restored=True)
        checkpoint.restore(task, task.refitted(tensors, train), path)
        learner = Learner(
            task, networks=(), memory_format=memory_format_of(config, task), metrics=extra_metrics(config, dataset)
        )
        return _tested(config, dataset, learner, _trainer(config, learner))
    except Exception as error:
        if not memory.ran_out(error):
            raise
        raise TrainingError(f"{path}: the model of this run does not fit into memory.") from error


SPARE = 2**24
"""Elements that a model may have beside those that are saved, such as masks."""


def _check_model_size(config: Config, dataset: Dataset, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Build the model of a run without memory; refuse one that is too large for its checkpoint: both may be a stranger's."""
    try:
        with torch.device("meta"):
            task = config.build("task", spec=dataset.spec, model=config.build_model(dataset.spec, restored=True))
        own = [tensor for tensor in (*task.parameters(), *task.buffers()) if not is_lazy(tensor)]
    except RegistrationError:  # To compute with its numbers, a plugin's model needs memory.
        return
    except DlframeError:
        raise
    except Exception:
        return
    size, saved = (sum(t.numel() for t in each) for each in (own, (t for t in tensors.values() if hasattr(t, "numel"))))
    if size > 2 * saved + SPARE:
        checkpoint.check(task, tensors, path)
        raise CheckpointError(f"{path}: does not match the model: must have {size:,} numbers. Received: {saved:,}.")


def prepare_process(config: Config) -> None:
    """Silence what says nothing to the user, and set what is global to the process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    torch.set_num_threads(config.trainer.num_threads or THREADS)
    torch.use_deterministic_algorithms(False)  # the Trainer switches it on; a job before may have done so


def _sees_batches(callback: Callback) -> bool:
    """Whether a callback is called at each batch, and so must not have several in one step of the Trainer."""
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_optimizer_step")
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


def _starts_all(trainer: TrainerOptions) -> bool:
    """Return whether a run has no process but those that it starts itself."""
    # One that was started tells its local rank alone; torchrun tells both.
    is_first_or_started = "WORLD_SIZE" not in os.environ or ("LOCAL_RANK" in os.environ and "RANK" not in os.environ)
    is_alone = slurm_tasks() == 1 and "SLURM_NTASKS" in os.environ and is_first_or_started
    return trainer.num_nodes == 1 and (trainer.devices == 1 or is_alone)


def _trainer(config: Config, learner: Learner, callbacks: Sequence[Callback] = ()) -> Trainer:
    options = config.trainer
    has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    shown = [] if has_bar else [Progress() if sys.stderr.isatty() else ProgressLines()]
    foreign = [callback for callback in callbacks if not type(callback).__module__.startswith("dlframe.")]
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(config, learner),
        precision=options.precision,
        deterministic=options.deterministic or None,
        detect_anomaly=options.detect_anomaly,
        max_epochs=config.run.epochs,
        check_val_every_n_epoch=config.run.rounds if options.max_steps else min(config.run.rounds, config.run.epochs),
        callbacks=[*callbacks, *shown],
        logger=RecorderLogger(learner.recorder, lambda: learner.progress.steps) if foreign else False,
        enable_checkpointing=False,
        enable_progress_bar=has_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # Not Lightning's guess: in a job of SLURM, a process that is alone starts the others itself.
        plugins=[LightningEnvironment()] if _starts_all(options) else None,
    )
    internals.leave_signals_alone(trainer)
    return trainer


def _strategy(config: Config, learner: Learner) -> str | Strategy:
    match config.trainer.strategy:
        case "ddp":
            return internals.LocalDDP(find_unused_parameters=len(learner.networks) > 1)
        case "fsdp":
            return internals.ManualFSDP(state_dict_type="full")
    return "auto"


def memory_format_of(config: Config, task: Task) -> torch.memory_format:
    return task.memory_format(config.trainer.channels_last, config.trainer.accelerator)


def _batches(
    config: Config,
    dataset: Dataset,
    split: Split,
    learner: Learner,
    trainer: Trainer,
    *,
    shuffle: bool = False,
    unlabeled: bool = True,
) -> BatchLoader:
    def context() -> ProcessContext:
        done = learner.progress.position if shuffle else 0
        return ProcessContext(learner.device, trainer.global_rank, trainer.world_size, trainer.current_epoch, done)

    return batches(config, dataset, split, learner.task, context, shuffle=shuffle, unlabeled=unlabeled)


def batches(
    config: Config,
    dataset: Dataset,
    split: Split,
    task: Task,
    context: Callable[[], ProcessContext],
    *,
    shuffle: bool = False,
    unlabeled: bool = True,
) -> BatchLoader:
    """The batches of a split: shuffled ones of training, or larger ones that are scored."""
    size = config.run.batch_size
    assert isinstance(size, int)
    order = Order(
        size if shuffle else min(4 * size, EVALUATION_BATCH),
        batch_elements=config.run.batch_elements,
        accumulate=config.run.accumulate_grad_batches if shuffle else 1,
        seed=config.run.seed if shuffle else None,
        max_steps=config.trainer.max_steps if shuffle else 0,
        limit=config.trainer.limit_batches,
        least=2 if any(isinstance(module, _BatchNorm) for module in task.modules()) else 1,
        weights=task.sampling_weights(split) if shuffle else None,
    )
    return BatchLoader(
        split,
        dataset.spec,
        order,
        context=context,
        unlabeled=unlabeled,
        chunk=1 if shuffle else EVALUATION_CHUNK,
        workers=config.trainer.num_workers,
        memory_format=memory_format_of(config, task),
        resident={"auto": None, "device": True, "host": False}[config.trainer.resident],
    )
