"""Studies to be killed, and what must hold when the same command has continued them to their end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState
from tests.faults.matrix import Server, Training

from dlframe.runs import journal
from dlframe.studies.study import Study, read_manifest

EPOCHS = 4
ALWAYS = [
    *("model=mlp", "tracking=none", f"epochs={EPOCHS}", "name=try"),
    *("checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=7", "checkpoint.max_to_keep=3"),
]
LR = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
SWEEP = ["sweep", *ALWAYS, "search.fresh_seeds=0"]


@dataclass(frozen=True)
class Kind:
    """A kind of study.

    Attributes:
        name: Its name.
        arguments: Its command line.
        trials: Number of its trials.
        workers: Number of its workers.
        is_fixed: Whether the choices do not depend on the order in which trials end.
    """

    name: str
    arguments: tuple[str, ...]
    trials: int
    workers: int = 1
    is_fixed: bool = True

    @property
    def command(self) -> list[str]:
        return [*self.arguments, *([f"workers={self.workers}"] if self.workers > 1 else [])]


def _kinds() -> list[Kind]:
    rows = [
        ("random", (*SWEEP, "sampler=random", "trials=4", LR, "model.width=choice(4,8)"), 4, True),
        ("tpe", (*SWEEP, "sampler=tpe", "sampler.warmup_trials=2", "trials=5", LR), 5, False),
        ("grid", (*SWEEP, "sampler=grid", "model.width=choice(4,8)", "optimizer.lr=choice(0.01,0.03)"), 4, True),
        ("-m", ("-m", *ALWAYS, "model.width=4,8", "seed=0,1"), 4, True),
        ("race", (*SWEEP, "sampler=random", "trials=3", "search.seeds=3", LR), 3, True),
        (
            "median",
            (*SWEEP, "sampler=random", "trials=4", "pruner=median", "pruner.warmup_trials=1", "pruner.warmup_epochs=1", LR),
            4,
            False,
        ),
    ]
    found = []
    for name, arguments, trials, is_fixed in rows:
        for workers in (1, 2):
            found.append(Kind(f"{name}, {workers} workers", arguments, trials, workers, is_fixed or workers == 1))
    return found


KINDS = _kinds()


@dataclass(frozen=True)
class Reference:
    """A study that was left alone: its trials, the values of further seeds, and how long it took."""

    trials: list[tuple]
    further: dict[str, float]
    seconds: float


@dataclass
class Outcome:
    """A study that was killed, and what came of it.

    Attributes:
        kills: What was killed, and when.
        trouble: What was wrong; empty where nothing was.
    """

    kills: list[str] = field(default_factory=list)
    trouble: str = ""


def open_study(home: Path) -> Study:
    folder = home / "runs" / "sweeps" / "try"
    return Study(folder, read_manifest(folder))


def seen(study: Study) -> list[tuple]:
    """Number, state, choices and values of each trial."""
    return [(t.number, t.state.name, t.params, t.values) for t in study.trials()]


def further(study: Study) -> dict[str, float]:
    """The values of further seeds."""
    return {key: value for key, value in study.optuna.user_attrs.items() if key.startswith("trial ")}


def reference(server: Server, kind: Kind, home: Path) -> Reference:
    """Run a study without interruption."""
    begun = time.monotonic()
    training = server.start(kind.command, home)
    assert training.status(600) == 0, training.said()
    seconds = time.monotonic() - begun
    study = open_study(home)
    return Reference(seen(study), further(study), seconds)


def killed(server: Server, kind: Kind, whole: Reference, home: Path, chance: random.Random, kills: int) -> Outcome:
    """Kill a study so many times at random, continue it by the same command, and say what is wrong then."""
    outcome = Outcome()
    ended: dict[int, tuple] = {}
    left: dict[int, psutil.Process] = {}
    training, status = server.start(kind.command, home), None
    while len(outcome.kills) < kills:
        seconds = chance.uniform(0, whole.seconds)
        status = training.status(seconds)
        if status is None:
            victim = chance.choice(["driver", "worker", "both"]) if kind.workers > 1 else "driver"
            status = _kill(training, victim, chance, left)
            outcome.kills.append(f"{victim} after {seconds:.2f} s")
            if (home / "runs" / "sweeps" / "try" / "manifest.json").exists():
                for trial in open_study(home).trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
                    ended.setdefault(trial.number, (trial.params, trial.values, trial.datetime_complete))
        elif outcome.kills:
            break  # it ended before the moment came
        if status == -signal.SIGKILL or not outcome.kills:
            home = home if outcome.kills else home / "again"
            training, status = server.start(kind.command, home), None
        elif status is not None:
            break
    if status is None:
        status = training.status(600)
    if status:
        return Outcome(outcome.kills, f"exit status {status}: {training.said()[-2000:]}")
    _, alive = psutil.wait_procs(left.values(), timeout=120)  # workers whose driver was killed
    if alive:
        return Outcome(outcome.kills, f"{len(alive)} workers do not end")
    outcome.trouble = trouble(kind, whole, home, ended)
    return outcome


def _kill(training: Training, victim: str, chance: random.Random, left: dict[int, psutil.Process]) -> int | None:
    """Kill; the exit status of the driver, None if it goes on. What it leaves behind is added to `left`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        workers = psutil.Process(training.pid).children()
        left.update({worker.pid: worker for worker in workers})
        if victim != "driver" and workers:
            for worker in workers if victim == "both" else [chance.choice(workers)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
    if victim == "worker":
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(training.pid, signal.SIGKILL)
    return training.status(60)


def trouble(kind: Kind, whole: Reference, home: Path, ended: dict[int, tuple]) -> str:
    """What is wrong with a study at its end; empty where nothing is."""
    study = open_study(home)
    trials = study.trials()
    if [trial.number for trial in trials] != [*range(kind.trials)]:
        return f"the numbers are {[trial.number for trial in trials]}"
    if any(trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials):
        return f"states: {[trial.state.name for trial in trials]}"
    for number, before in ended.items():
        trial = trials[number]
        if before != (trial.params, trial.values, trial.datetime_complete):
            return f"trial {number}, which had ended, has changed"
    if kind.is_fixed and (seen(study), further(study)) != (whole.trials, whole.further):
        return f"trials differ: {seen(study)} {further(study)}; without a kill: {whole.trials} {whole.further}"
    told = Counter(_told(home))
    if told != Counter(range(kind.trials)):
        return f"ends told in the journal: {told}"
    states = {study.run_folder(trial.number): trial.state for trial in trials}
    for key in further(study):
        _, number, _, seed = key.split()
        states[study.run_folder(int(number), int(seed))] = TrialState.COMPLETE
    runs = {path for path in study.runs.iterdir() if path.is_dir() and path.name != "sweeps"}
    if runs != states.keys():
        return f"runs: {sorted(path.name for path in runs ^ states.keys())}"
    return next((f"{run.name}: {why}" for run, state in states.items() if (why := _run_trouble(run, state))), "")


def _told(home: Path) -> list[int]:
    """The trials whose ends are in the journal, as often as they are."""
    lines = (home / "runs" / "sweeps" / "try" / "optuna.journal").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    ends = [r for r in records if r["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES]
    return [r["trial_id"] for r in ends if TrialState(r["state"]).is_finished()]


def _run_trouble(run: Path, state: TrialState) -> str:
    records = journal.read(run)
    ends = [record for record in records if record["kind"] == "end" and record["status"] == "FINISHED"]
    epochs = [step for step, _ in journal.history(run)["val/accuracy"]]
    if epochs != sorted(set(epochs)):
        return f"epochs at steps {epochs}"
    if state == TrialState.COMPLETE and (len(epochs), len(ends)) != (EPOCHS, 1):
        return f"{len(epochs)} epochs, ended {len(ends)} times"
    return ""
