"""Trainings to be killed, ways to kill them, and a server that forks them with torch imported already.

`python -m tests.faults.matrix` is the server: one JSON object a line on standard input, one on standard output. A kill is
SIGKILL for a process group: at a moment of the clock, or at a call that touches the disk, before it, after it, or with half
of its bytes written.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlframe.config import load
from dlframe.jobs.verify_resume import compare
from dlframe.registry import GROUPS, plugins
from dlframe.runs import journal
from dlframe.runs.recorder import states
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError

ROOT = Path(__file__).parent.parent.parent
CALLS = {"write": "os", "fsync": "os", "replace": "os", "unlink": "os", "save_file": "safetensors.torch"}
"""Calls at which a training can be killed, and where they are."""
HALVES = ("write", "save_file")
"""Those that may be killed with half of the bytes on disk."""
ALWAYS = [
    "tracking=none",
    "epochs=4",
    "checkpoint.every_n_minutes=0",
    "checkpoint.every_n_steps=7",
    "checkpoint.max_to_keep=1000000",
]


@dataclass(frozen=True)
class Cell:
    """A kind of training.

    Attributes:
        name: Its name.
        arguments: Its command line, after `ALWAYS`.
        slow: Whether a trial takes more than a few seconds.
    """

    name: str
    arguments: tuple[str, ...]
    slow: bool = False


def cells() -> list[Cell]:
    """Every kind of training that the kills are tried on."""
    plugin = f"plugin_paths={Path(__file__).with_name('entries.py')}"
    foreign = Path(__file__).parent.parent / "foreign"
    boxes = f"plugin_paths={foreign / 'boxes'} task=boxes data=canvas model=grid_detector data.images=120 batch_size=16"
    tokens = f"plugin_paths={foreign / 'tokens'} task=tagging data=words batch_size=16"
    backbone = "model=backbone model.architecture=test_resnet"
    augmented = "augmentation=[crop,flip,affine,erasing,mixup]"
    mlp: dict[str, str] = {
        "mlp": "",
        "accumulate 3": "accumulate_grad_batches=3",
        "accumulate 3, epochs": "accumulate_grad_batches=3 checkpoint.every_n_steps=0 checkpoint.every_n_epochs=1",
        "accumulate 2, ema": "accumulate_grad_batches=2 callback=ema gradient_clip_val=0.5 checkpoint.every_n_steps=3",
        "augmentations": augmented,
        "augmentations, epochs": f"{augmented} checkpoint.every_n_steps=0 checkpoint.every_n_epochs=1",
        "rand_augment, cutmix": "augmentation=[rand_augment,cutmix]",
        "trivial_augment, accumulate 3": "augmentation=[trivial_augment] accumulate_grad_batches=3 checkpoint.every_n_steps=2",
        "chunk 1": "steps_per_execution=1 checkpoint.every_n_steps=1",
        "chunk 7": "steps_per_execution=7 checkpoint.every_n_steps=5 log_every_n_steps=3",
        "plateau": "scheduler=plateau scheduler.patience=0 optimizer.lr=0.05",
        "step": "scheduler=step",
        "warmup_cosine": "scheduler=warmup_cosine",
        "constant, sgd": "scheduler=constant optimizer=sgd",
        "early stopping": "callback=early_stopping callback.early_stopping.patience=1 optimizer.lr=1e-9 epochs=8",
        "ema": "callback=ema",
        "ema, early stopping": "callback=[ema,early_stopping] callback.early_stopping.patience=1 epochs=6",
        "labels per class": "labels_per_class=20 batch_size=16 checkpoint.every_n_steps=5",
        "validate every 3": "validate_every=3 epochs=7",
        "validate by steps": "validate_unit=steps validate_every=11 callback=[ema] scheduler=plateau",
        "limit steps": "trainer.limit_batches=5 epochs=6 checkpoint.every_n_steps=4",
        "epochs": "checkpoint.every_n_steps=0 checkpoint.every_n_epochs=1",
        "minutes": "checkpoint.every_n_steps=0 checkpoint.every_n_minutes=0.001 epochs=8",
        "three states": "checkpoint.max_to_keep=3 checkpoint.every_n_steps=2",
        "last state only": "checkpoint.every_n_steps=0",
        "bf16": "trainer.precision=bf16-mixed",
        "64 bits": "trainer.precision=64-true",
        "skips NaN": f"{plugin} augmentation=[broken] on_nan=skip checkpoint.every_n_steps=3",
        "skips NaN, accumulate 3": f"{plugin} augmentation=[broken] on_nan=skip accumulate_grad_batches=3",
        "every generator": f"{plugin} augmentation=[drawn]",
        "state of an augmentation": f"{plugin} augmentation=[told,mixup]",
        "NCHW": "trainer.channels_last=false",
        "lion": "optimizer=lion",
        "muon": "optimizer=muon",
        "adafactor": "optimizer=adafactor",
        "nadam": "optimizer=nadam",
        "workers": "trainer.num_workers=2 augmentation=[crop]",
        "batch_size=auto": "batch_size=auto accumulate_grad_batches=2",
        "small batches": "batch_size=7 trainer.limit_batches=40 epochs=2 checkpoint.every_n_steps=11",
    }
    other = {
        "cnn": "model=cnn model.width=8",
        "cnn, augmentations, ema": f"model=cnn model.width=4 {augmented} callback=ema",
        "resnet": "model=resnet model.depth=8 model.width=4 epochs=2",
        "rnn": "model=rnn",
        "vit": "model=vit epochs=2",
        "backbone, gradual": f"{backbone} model.trainable=gradual model.image_size=32 epochs=3",
        "gan": "model=gan epochs=2",
        "gan, accumulate 2": "model=gan epochs=3 accumulate_grad_batches=2 gradient_clip_val=1 labels_per_class=20",
        "gan, ema, augmentations": "model=gan epochs=2 callback=ema augmentation=[crop,flip] log_every_n_steps=3",
        "lda": "model=lda",
        "forecasting": "task=forecasting model=lstm epochs=2 trainer.limit_batches=20",
        "forecasting, dlinear": "task=forecasting epochs=3 optimizer=adan",
        "boxes, accumulate 3": f"{boxes} accumulate_grad_batches=3 checkpoint.every_n_steps=2",
        "boxes, ema": f"{boxes} callback=ema augmentation=[color_jitter]",
        "tokens, by elements": f"{tokens} model=tagger batch_elements=300 checkpoint.every_n_steps=3",
        "tokens, lazy": f"{tokens} model=tagger data.path=words trainer.num_workers=2",
        "tokens, a memory that grows": f"{tokens} model=letter_counts",
    }
    slow = {
        "tracked": "model=mlp tracking=mlflow",
        "two processes": "model=mlp trainer=ddp augmentation=[crop,flip] epochs=3",
        "two processes, gan": "model=gan trainer=ddp accumulate_grad_batches=2 callback=ema epochs=2",
    }
    quick = {name: f"model=mlp {text}" for name, text in mlp.items()} | other
    return [
        *(Cell(name, tuple(text.split())) for name, text in quick.items()),
        *(Cell(name, tuple(text.split()), slow=True) for name, text in slow.items()),
    ]


@dataclass(frozen=True)
class Fault:
    """A kill at a call: `when` is "before", "after" or "half"."""

    call: str
    number: int
    when: str


class Training:
    """A process that the server has forked: `python -m dlframe ...` in a session of its own."""

    def __init__(self, server: Server, pid: int, output: Path) -> None:
        self.server, self.pid, self.output = server, pid, output

    def send(self, number: int = signal.SIGKILL) -> None:
        """A signal for the process and all that it has started."""
        os.killpg(self.pid, number)

    def status(self, seconds: float = 120) -> int | None:
        """The exit status, less than 0 for a signal; None if the process goes on after so many seconds."""
        return self.server.ask(wait=self.pid, seconds=seconds)

    def said(self) -> str:
        """What it has written to its terminal."""
        return self.output.read_text(encoding="utf-8", errors="replace")


class Server:
    """The process that forks: its torch is imported once, and has started no thread."""

    def __init__(self) -> None:
        # One thread: the others would be missing in a forked process.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        environment = {**os.environ, **threads}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.matrix"],
            cwd=ROOT,
            env={name: value for name, value in environment.items() if not name.startswith("DLFRAME_RUN")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask(ready=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, arguments: Sequence[str], folder: Path, *, fault: Fault | None = None, clock: float = 0) -> Training:
        """Train in a folder; output.txt there has what is printed, counts.json how often each of the calls was made.

        Args:
            arguments: Command line.
            folder: Where to train.
            fault: Kill at a call.
            clock: Seconds that the clock of the training is ahead; less than 0 for one that was set back.
        """
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "output.txt"
        output.touch()
        pid = self.ask(start=list(arguments), folder=str(folder), fault=vars(fault) if fault else None, clock=clock)
        return Training(self, pid, output)


# --- kills


@dataclass(frozen=True)
class Reference:
    """A training that was left alone: its run folder, how long it took, how often it made each call."""

    folder: Path
    seconds: float
    counts: Mapping[str, int]


def reference(server: Server, cell: Cell, home: Path) -> Reference:
    """Train without interruption."""
    begun = time.monotonic()
    training = server.start([*ALWAYS, *cell.arguments], home)
    assert training.status() == 0, training.said()
    seconds = time.monotonic() - begun
    return Reference(the_run(home), seconds, json.loads((home / "counts.json").read_text()))


def the_run(home: Path) -> Path:
    """The one run that was begun. A kill in the first moments may leave a folder with no record of a beginning."""
    (folder,) = (path for path in (home / "runs").iterdir() if path.is_dir() and journal.read(path))
    return folder


@dataclass
class Trial:
    """A training that was killed, and what came of it.

    Attributes:
        kills: What killed it, each time.
        trouble: What was wrong after a kill or at the end; empty where nothing was.
    """

    kills: list[str]
    trouble: str = ""


def trial(server: Server, cell: Cell, whole: Reference, home: Path, chance: random.Random, kills: int) -> Trial:
    """Kill a training, once at least and up to `kills` times, continue it each time, and compare its end with the reference.

    Of several kills the first is at a checkpoint; the others, and a single one, may come at any moment.
    """
    result = Trial([])
    command = [*ALWAYS, *cell.arguments, "resume=auto"]
    while len(result.kills) < kills:
        fault, seconds = _at_a_checkpoint(whole, chance) if kills > 1 and not result.kills else _drawn(whole, chance)
        training = server.start(command, home, fault=fault)
        status = training.status(600 if fault else seconds)
        if status is None:
            training.send()
            status = training.status()
        if status == 0 and result.kills:
            break  # it ended before the moment came
        if status == 0:
            home = home / "again"
            continue
        if status != -signal.SIGKILL:
            return Trial(result.kills, f"exit status {status}: {training.said()[-2000:]}")
        result.kills.append(f"{fault.when} {fault.call} {fault.number}" if fault else f"after {seconds:.3f} s")
        if trouble := left_behind(home, halves=sum(kill.startswith("half write") for kill in result.kills)):
            return Trial(result.kills, trouble)
    training = server.start(command, home)
    if status := training.status(600):
        return Trial(result.kills, f"exit status {status}: {training.said()[-2000:]}")
    timed = any(text.startswith("checkpoint.every_n_minutes=") for text in cell.arguments)
    result.trouble = compare(whole.folder, the_run(home), every_state=not timed).difference or tracked_otherwise(home)
    return result


def tracked_otherwise(home: Path) -> str:
    """What is wrong with the tracking store, once the writer process has done its work; empty where a run is not tracked."""
    store = home / "runs" / "mlflow.db"
    own = {(name, *point) for name, curve in journal.history(the_run(home)).items() for point in curve}
    deadline = time.monotonic() + 60
    while store.exists():
        with contextlib.closing(sqlite3.connect(store, timeout=60)) as database:
            status = [status for (status,) in database.execute("select status from runs")]
            points = set(database.execute("select key, step, value from metrics"))
        if status == ["FINISHED"] and points == own:
            break
        if time.monotonic() > deadline:
            return f"MLflow has runs that are {status}, and other metrics: {sorted(own ^ points)[:3]}"
        time.sleep(0.5)
    return ""


def _at_a_checkpoint(whole: Reference, chance: random.Random) -> tuple[Fault, float]:
    """A kill at the second or a later checkpoint, so that the training goes on from the first."""
    return Fault("save_file", chance.randint(2, whole.counts["save_file"]), chance.choice(["before", "half", "after"])), 0.0


def _drawn(whole: Reference, chance: random.Random) -> tuple[Fault | None, float]:
    """A kill at a call, or the seconds to a kill by the clock: as many of the one as of the other."""
    if chance.random() < 0.5:
        return None, chance.uniform(0, whole.seconds)
    call = chance.choice([call for call in CALLS if whole.counts.get(call)])
    when = chance.choice(["before", "after", "half"] if call in HALVES else ["before", "after"])
    return Fault(call, chance.randint(1, whole.counts[call]), when), 0.0


def left_behind(home: Path, *, halves: int) -> str:
    """What is wrong with the files that a killed training has left: nothing may be but `halves` torn lines."""
    torn = 0
    for path in home.glob("runs/*/"):
        for state in states(path)[:2]:
            try:
                checkpoint.load(state)
            except CheckpointError as error:
                return str(error)
        file = path / journal.FILE
        lines = file.read_bytes().split(b"\n") if file.exists() else [b""]
        torn += sum(bool(line) and not _is_json(line) for line in lines)
    return f"{torn} lines of the journal are torn, by {halves} kills that tear" if torn > halves else ""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


# --- the server


def serve() -> None:
    """Fork and wait, as asked, until standard input ends."""
    _import_everything()
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "a forked process would lack the threads"
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = _fork(**request)
        else:
            answer = _status(request["wait"], request["seconds"]) if "wait" in request else "ready"
        print(json.dumps(answer), flush=True)


def _import_everything() -> None:
    ours = ("cli", "plots", "engine.fit", "jobs.train", "studies.grid", "studies.sweep")
    for module in (*(f"dlframe.{name}" for name in ours), "PIL.features", "pyarrow.parquet", "scipy.stats", "timm.optim"):
        importlib.import_module(module)
    # A figure takes longer than the training, and decides nothing.
    vars(importlib.import_module("dlframe.plots"))["save"] = lambda figure, path: path.write_bytes(b"\x89PNG\r\n\x1a\n")
    plugins.discover()
    for registry in GROUPS.values():
        for entry in registry:
            entry.load()
    load(["augmentation=[flip]"])


def _fork(start: list[str], folder: str, fault: dict[str, Any] | None, clock: float) -> int:
    if pid := os.fork():
        return pid
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        for target, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
            descriptor = os.open("output.txt" if target else os.devnull, flags, 0o644)
            os.dup2(descriptor, target)
        os.dup2(1, 2)
        # What Lightning starts a second process by.
        sys.argv = ["dlframe", *start]
        sys.modules["__main__"].__spec__ = importlib.util.find_spec("dlframe.__main__")
        if clock:
            now, now_ns = time.time, time.time_ns
            time.time, time.time_ns = (lambda: now() + clock), (lambda: now_ns() + int(clock * 1e9))
        counts = _install(Fault(**fault) if fault else None)
        from dlframe.cli import main

        status = main(start)
        Path("counts.json").write_text(json.dumps(counts), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _install(fault: Fault | None) -> dict[str, int]:
    """Count the calls, and die at that of the fault; the counts, which go on."""
    counts = dict.fromkeys(CALLS, 0)
    for name, module in CALLS.items():
        home = importlib.import_module(module)
        setattr(home, name, _counted(getattr(home, name), name, counts, fault))
    return counts


def _counted(function: Callable, name: str, counts: dict[str, int], fault: Fault | None) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        if name == "write" and not args[1]:
            return 0
        counts[name] += 1
        when = fault.when if fault and (fault.call, fault.number) == (name, counts[name]) else ""
        if when == "before":
            _die()
        if when == "half" and name == "write":
            function(args[0], args[1][: len(args[1]) // 2])
            _die()
        result = function(*args, **kwargs)
        if when == "half":
            os.truncate(args[1], os.stat(args[1]).st_size // 2)
        if when:
            _die()
        return result

    return call


def _die() -> None:
    os.killpg(0, signal.SIGKILL)


def _status(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


if __name__ == "__main__":
    serve()
