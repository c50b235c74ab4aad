"""Everything that decides how a training goes on: weights, optimizers, schedules, callbacks, random numbers.

`capture` and `restore` are each called by every process of a run, since some of it lies in all of them.
"""

from __future__ import annotations

import contextlib
import math
import random
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.engine import internals
from dlframe.runs.continued.options import BATCHES, RATES, Changes, is_among
from dlframe.types import CheckpointError

if TYPE_CHECKING:
    from dlframe.engine.learner import Learner


def capture(learner: Learner) -> dict[str, Any]:
    """The state of a training between two batches, as a tree that a checkpoint holds."""
    trainer = learner.trainer
    return {
        "task": weights(learner),
        "optimizers": [trainer.strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in learner.schedulers],
        # Only those that have a state: the display of progress differs from one terminal to the next.
        "callbacks": {key: state for key, callback in _callbacks(learner).items() if (state := callback.state_dict())},
        "augmentations": {key: augmentation.state_dict() for key, augmentation in _augmentations(learner).items()},
        "precision": trainer.precision_plugin.state_dict(),
        "global_step": internals.optimizer_step_count(trainer),
        "random": _gathered(learner, random_states(learner.generator, learner.device)),
        # Of the losses that are not logged yet each process has its part.
        "losses": _gathered(learner, {name: total for name, (_, total) in learner.progress.losses.items()}),
    }


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what fails while a state is restored into a `CheckpointError`: it is another training's, or made by hand."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{path}: does not match this training: {told}. Try an earlier state, or resume=none for a new run"
        ) from error


def restore(learner: Learner, tree: Mapping[str, Any], changed: Changes | None = None) -> None:
    """Set everything as it was, except random numbers.

    Args:
        learner: What is trained.
        tree: What `capture` has returned.
        changed: Options that are others now; where the learning rate depends on them, the new schedule is entered at the place
            where the training is.
    """
    trainer = learner.trainer
    rates = _rates(learner)
    with internals.whole_weights(trainer):
        learner.task.load_state_dict(tree["task"])
    for optimizer, state in zip(trainer.optimizers, tree["optimizers"], strict=True):
        optimizer.load_state_dict(internals.own_optimizer_state(trainer, optimizer, state))
    for number, (scheduler, state) in enumerate(zip(learner.schedulers, tree["schedulers"], strict=True)):
        if _is_other_schedule(scheduler, changed or {}):
            _enter(scheduler, rates[number], _steps_done(learner))
        else:
            scheduler.load_state_dict(state)
    for key, callback in _callbacks(learner).items():
        callback.load_state_dict(tree["callbacks"].get(key, {}))
    for key, augmentation in _augmentations(learner).items():
        augmentation.load_state_dict(tree["augmentations"][key])
    trainer.precision_plugin.load_state_dict(tree["precision"])
    internals.optimizer_step_count(trainer).update(tree["global_step"])
    progress = learner.progress
    rank, device = learner.global_rank, learner.device
    progress.losses = {name: (n, tree["losses"][name][rank].clone().to(device)) for name, (n, _) in progress.losses.items()}


OF_SCHEDULE = ("lr", "initial_lr", "max_lr", "min_lr", "momentum", "base_momentum", "max_momentum", "betas")
"""What schedules set in a parameter group."""


def _rates(learner: Learner) -> list[list[dict[str, Any]]]:
    """What the schedule of each optimizer has set in each of its parameter groups."""
    groups = [optimizer.param_groups for optimizer in learner.trainer.optimizers]
    return [[{name: group[name] for name in OF_SCHEDULE if name in group} for group in each] for each in groups]


def _is_other_schedule(scheduler: Any, changed: Changes) -> bool:
    """Whether the learning rate of a step is another one with other options; `plateau` does not depend on their number."""
    keys = RATES if isinstance(scheduler, ReduceLROnPlateau) else ("epochs", *BATCHES, *RATES)
    return any(is_among(key, keys) for key in changed)


def _steps_done(learner: Learner) -> int:
    """Steps that the training would have behind it, had it had today's batches from the beginning."""
    assert learner.total_steps, "a schedule needs the number of steps"
    return learner.total_steps(learner.progress.epoch) + learner.progress.position


def _enter(scheduler: Any, rates: list[dict[str, Any]], steps: int) -> None:
    """Set a new schedule, and the learning rates of its optimizer, as after so many steps."""
    for group, own in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group.update(own)
    if isinstance(scheduler, ReduceLROnPlateau):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer has stepped in this process
        for _ in range(steps):
            scheduler.step()


def restore_random(learner: Learner, tree: Mapping[str, Any]) -> None:
    """Set this process's random numbers as they were: last, for an epoch begins with drawing some."""
    # Clones, since a generator takes its state from the beginning of a storage only.
    own = {name: states[learner.global_rank].clone() for name, states in tree["random"].items()}
    (gauss,) = own["python_gauss"].tolist()
    random.setstate((3, tuple(own["python"].tolist()), None if math.isnan(gauss) else gauss))
    position, has_gauss, gauss = own["numpy_rest"].tolist()
    np.random.set_state(("MT19937", own["numpy"].numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    torch.set_rng_state(own["torch"])
    learner.generator.set_state(own["augmentation"])
    if "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], learner.device)


def weights(learner: Learner) -> dict[str, Tensor]:
    """The task's weights and buffers, whole under any strategy."""
    state = learner.trainer.strategy.lightning_module_state_dict()
    return {name.removeprefix("task."): tensor for name, tensor in state.items()}


def _callbacks(learner: Learner) -> dict[str, Any]:
    callbacks: list[Any] = learner.trainer.callbacks  # type: ignore[attr-defined]  # set by one of its parts
    return {f"{i}.{type(callback).__name__}": callback for i, callback in enumerate(callbacks)}


def _augmentations(learner: Learner) -> dict[str, Any]:
    return {str(i): a for i, a in enumerate(learner.augmentations) if hasattr(a, "state_dict")}


def random_states(augmentation: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """The states of all generators of this process, as tensors whose shapes are the same in every process."""
    _, python, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state()
    states = {
        "python": torch.tensor(python),
        "python_gauss": torch.tensor([math.nan if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(key).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
        "augmentation": augmentation.get_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _gathered(learner: Learner, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name, the states of all processes: (processes, ...)."""
    if learner.trainer.world_size == 1:
        return {name: state.unsqueeze(0) for name, state in states.items()}
    return {name: learner.trainer.strategy.all_gather(state.to(learner.device)) for name, state in states.items()}
