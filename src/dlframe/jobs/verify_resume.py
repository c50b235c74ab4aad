"""Verify exact resume: a training that is killed at random moments and continued ends as one that is left alone, to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import Config, load, load_options
from dlframe.config.settings import AUTO_BATCH
from dlframe.jobs.train import load_data
from dlframe.registry import Count, Natural, plugins
from dlframe.reports import terminal
from dlframe.runs import journal
from dlframe.runs.environment import python
from dlframe.runs.recorder import BEST, states
from dlframe.runs.run_directory import RESULT, new_folder, read_file
from dlframe.runs.signals import Signals
from dlframe.storage import checkpoint
from dlframe.types import ConfigError, DlframeError, say

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "verify-resume"
STATES = 12
"""States that each of the two trainings leaves, about, unless the command says how often."""
EARLY = 5
"""Kills before the first state, for each kill that is asked for, after which no more are tried."""
OWN = ("resume", "checkpoint.max_to_keep")
"""Options of a training that are not the user's here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `verify-resume`.

    Args:
        kills: How often the training is killed.
        kill_seed: Seed of the moments.
    """

    kills: Count = 3
    kill_seed: Natural = 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two runs have in common.

    Attributes:
        states: The training states that were compared.
        difference: The first value in which the runs differ, in words; empty where they are identical.
    """

    states: int
    difference: str


class _Failed(Exception):
    """A training that ended with this exit status, and has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def main(arguments: Sequence[str]) -> int:
    """Check that killed and resumed training is bitwise identical: train once without interruption and once with.

    The second training is killed at random moments and resumed; then checkpoints, best weights, metrics and predictions
    of both are compared. Exit status 1 tells of a difference, which is named.

    Raises:
        DlframeError: The training is wrong, or it ended before it could be killed once.
    """
    names = [field.name for field in dataclasses.fields(Options)]
    own = [argument for argument in arguments if argument.partition("=")[0] in names]
    options = load_options("verify-resume", Options, own)
    plugins.discover()
    terminal.warn_of_plugins()
    return verify([a for a in arguments if a not in own], kills=options.kills, seed=options.kill_seed)


def verify(overrides: Sequence[str], *, kills: int, seed: int) -> int:
    """Train once without interruption and once with, and say whether the two are identical.

    Args:
        overrides: The command line of the training. Runs are not tracked unless it says so.
        kills: How often the second training is killed.
        seed: Decides the moments.

    Returns:
        The exit status: 0 where all is identical, 1 where something differs, or that of a training that failed.

    Raises:
        DlframeError: The training cannot be, or it ended before it could be killed once.
    """
    for text in overrides:
        if (key := text.partition("=")[0].strip()) in OWN:
            raise ConfigError(f"{key}: verify-resume sets it itself. Received: {text}.", key)
    config = load(["tracking=none", *overrides])
    root = new_folder(config.changed(runs=f"{config.run.runs}/{FOLDER}"))
    command = ["tracking=none", *_regular(config, overrides), *overrides, "checkpoint.max_to_keep=1000000"]
    try:
        with Signals():
            reference = _train([*command, f"runs={root / 'reference'}"], root / "reference")
            say(f"without kills: {reference}")
            moments = _interrupted(command, root / "killed", reference, kills, random.Random(seed))
    except _Failed as failed:
        return failed.status
    killed = _run_in(root / "killed")
    compared = compare(reference, killed, every_state=not config.checkpoint.every_n_minutes or not _given(overrides))
    report = {"identical": not compared.difference, "seed": seed, "killed_after_seconds": moments, **vars(compared)}
    (killed / "verify.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    count = f"{len(moments)} kill{'s' * (len(moments) != 1)}"
    if compared.difference:
        say(f"different: {compared.difference}, with {count}")
        say("What decides how a training goes on must be in the state: an entry that counts gives its count by state_dict().")
        say(f"kept {root}")
        return 1
    for path in (*states(reference), *states(killed)):
        path.unlink()
    say(f"identical: {count}, {compared.states} states, weights, metrics, predictions")
    say(f"run  {killed}")
    return 0


def _given(overrides: Sequence[str]) -> bool:
    """Whether the command says how often a state is kept."""
    return any(text.startswith("checkpoint.every_n_") for text in overrides)


def _regular(config: Config, overrides: Sequence[str]) -> list[str]:
    """Options for states at regular steps, unless the command has its own."""
    if _given(overrides):
        return []
    train = load_data(config).train
    unlabeled = config.entry("model").facts["unlabeled"]
    samples = len(train) if train.labelled is None or unlabeled else int(train.labelled.sum())
    size = config.run.batch_size
    batches = math.ceil(samples / (AUTO_BATCH if isinstance(size, str) else size))
    batches = min(batches, config.trainer.limit_batches or batches)
    steps = config.trainer.max_steps or math.ceil(batches / config.run.accumulate_grad_batches) * config.run.epochs
    return ["checkpoint.every_n_minutes=0", f"checkpoint.every_n_steps={max(1, steps // STATES)}"]


def _train(command: Sequence[str], runs: Path, *, kill_after: float | None = None) -> Path:
    """Train in a process of its own, which is killed so many seconds after its first line; the run's folder.

    Raises:
        TimeoutError: It was killed.
        _Failed: It ended by itself, and not well.
    """
    runs.mkdir(exist_ok=True)
    log = runs / "output.txt"
    with log.open("ab") as output:
        said = log.stat().st_size
        # A session of its own, so that a kill takes all processes of a distributed training.
        process = subprocess.Popen(python("-m", "dlframe", *command), stdout=output, start_new_session=True)
    try:
        while process.poll() is None and log.stat().st_size == said:
            time.sleep(0.01)
        process.wait(kill_after)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise _Failed(process.returncode)
    return _run_in(runs)


def _interrupted(command: Sequence[str], runs: Path, reference: Path, kills: int, chance: random.Random) -> list[float]:
    """Train, killed at random moments, to the end; the seconds after which each process was killed.

    Each kill falls into the share of the training that is left for it, by the times of the reference. A kill before the first
    state leaves nothing to continue from: it does not count.

    Raises:
        DlframeError: The training left no state, ended before a kill, or no kill left a state to continue from.
    """
    times = _times(reference)
    if not times:
        raise DlframeError("verify-resume: the training saved no state. Try checkpoint.every_n_steps=1.")
    before, end = min(times.values()), max(times.values())
    command = [*command, f"runs={runs}", "resume=auto"]
    moments: list[float] = []
    early = 0
    while len(moments) < kills and early < EARLY * kills:
        step = _step(runs)
        left = end - times.get(step, before)
        moment = round(chance.uniform(before / 2, before + left / (kills - len(moments))), 3)
        try:
            _train(command, runs, kill_after=moment)
        except TimeoutError:
            if not (reached := _step(runs)):
                early += 1
                say(f"killed {moment:.2f} s after the first line, before the first state: nothing to continue from")
                continue
            moments.append(moment)
            say(f"kill {len(moments)}: {moment:.2f} s after the first line, from step {step} to {reached}")
        else:
            break
    else:
        _train(command, runs)
    if not moments:
        told = "every kill came before the first state" if early else "the training ended before it could be killed"
        raise DlframeError(f"verify-resume: {told}, so nothing was continued. Try more epochs, or another kill_seed.")
    return moments


def _times(folder: Path) -> dict[int, float]:
    """The seconds from the beginning of a run to each of its states."""
    begun = journal.read(folder)[0]["time"] / 1000
    return {_number(path): path.stat().st_mtime - begun for path in states(folder)}


def _step(runs: Path) -> int:
    """The step of the newest state; 0 where there is none."""
    return max((_number(path) for folder in runs.glob("*/") for path in states(folder)), default=0)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("state-"))


def _run_in(runs: Path) -> Path:
    """The run that has ended. A kill in the first moments may have left the folder of another one, with nothing in it."""
    (folder,) = (folder for folder in runs.glob("*/") if journal.ended(folder) == "FINISHED")
    return folder


def compare(reference: Path, other: Path, *, every_state: bool = True) -> Comparison:
    """Look for the first value in which two runs of one config differ: states, best weights, metrics, predictions, result.

    Args:
        reference: A run's folder.
        other: The folder of the run that is to be like it.
        every_state: A state that only the reference has is a difference.
    """
    left, right = ({_number(path): path for path in states(folder)} for folder in (reference, other))
    if every_state and (missing := sorted(left.keys() - right.keys())):
        return Comparison(len(left.keys() & right.keys()), f"the state of step {missing[0]} is missing")
    both = sorted(left.keys() & right.keys())
    for name, expected, received in _pairs(reference, other, {f"step {n}": (left[n], right[n]) for n in both}):
        if found := difference(expected, received):
            path, one, two = found
            return Comparison(len(both), f"{name}, {path}: {one} without kills, {two}")
    return Comparison(len(both), "")


def _pairs(reference: Path, other: Path, checkpoints: Mapping[str, tuple[Path, Path]]) -> Iterator[tuple[str, Any, Any]]:
    """What is to be the same, in the order in which a difference would arise."""
    for name, (one, two) in {**checkpoints, "best weights": (reference / BEST, other / BEST)}.items():
        yield name, checkpoint.load(one)[0], checkpoint.load(two)[0]
    yield "metrics", journal.history(reference), journal.history(other)
    yield "predictions", _predictions(reference), _predictions(other)
    yield "result", _result(reference), _result(other)


def _predictions(folder: Path) -> dict[str, Any]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()


def _result(folder: Path) -> dict[str, Any]:
    values = json.loads(read_file(folder, RESULT))
    return {name: value for name, value in values.items() if name not in ("seconds", "overrides")}


Found = tuple[str, Any, Any] | None
"""The path of a leaf and its two values; None where all are the same."""


def difference(left: Any, right: Any, path: str = "") -> Found:
    """The first leaf of two trees, as a checkpoint holds them, whose bits differ."""
    import numpy as np
    import torch

    left, right = (torch.from_numpy(node) if isinstance(node, np.ndarray) else node for node in (left, right))
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return _of_tensors(left, right, path)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if alone := sorted(left.keys() ^ right.keys(), key=str):
            one, two = ("there" if alone[0] in node else "not there" for node in (left, right))
            return f"{path}/{alone[0]}".lstrip("/"), one, two
        pairs = [(key, left[key], right[key]) for key in left]
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        if len(left) != len(right):
            return path, f"{len(left)} values", f"{len(right)} values"
        pairs = [(i, one, two) for i, (one, two) in enumerate(zip(left, right, strict=True))]
    else:
        # Unlike ==, which NaN is not and -0.0 is.
        return (path, left, right) if repr(left) != repr(right) else None
    return next(filter(None, (difference(one, two, f"{path}/{key}".lstrip("/")) for key, one, two in pairs)), None)


def _of_tensors(left: Tensor, right: Tensor, path: str) -> Found:
    import numpy as np
    import torch

    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return path, f"{left.dtype} {tuple(left.shape)}", f"{right.dtype} {tuple(right.shape)}"
    one, two = (tensor.reshape(-1, 1).view(torch.uint8) for tensor in (left, right))
    if not (unlike := (one != two).any(1)).any():
        return None
    index = tuple(map(int, np.unravel_index(int(unlike.int().argmax()), left.shape)))
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return f"{path}{place}", left[index].item(), right[index].item()
