"""Regret of random search, TPE and TPE with pruning at equal compute, for the cnn on Fashion-MNIST: a replay of real trainings.

    python benchmarks/search.py [repeats=50] [folder=FOLDER]

First it trains a table: 96 configurations of learning rate x width from a low-discrepancy sequence, each for 9 epochs of
12 batches of 128 images, validated on 3,072 images after each (`dlframe sweep ... sampler=qmc`, about 20 minutes of
one core and 1.3 GB meanwhile). An interrupted table is continued; a complete one is kept in `folder` (default:
benchmarks/search in the cache of dlframe) for later calls, without its runs.
Then Optuna searches over the same space are replayed: a trial reads the curve of the table's nearest point (in the logarithms,
each scaled to [0, 1]) instead of training, and is charged for each epoch that it reads. Samplers and pruners have the defaults
of `dlframe sweep`, so their first 10 trials are random. Regret is the difference in validation accuracy, in points, between
the best point of the table and the best complete trial; the same values select and judge, one seed each, so it is of the
search and not of the networks.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import yaml

from dlframe.runs.environment import python
from dlframe.runs.journal import ended, history
from dlframe.statistics.intervals import bootstrap
from dlframe.storage.private import cache

EPOCHS = 9
POINTS = 96
LR, WIDTH = (1e-4, 1e-1), (4, 32)
COMMAND = [
    *("model=cnn", "data=fashion_mnist", f"epochs={EPOCHS}", "batch_size=128", "augmentation=[]", "tracking=none"),
    *("trainer.limit_batches=12", f"optimizer.lr=tag(log,interval({LR[0]},{LR[1]}))"),
    *(f"model.width=tag(log,interval({WIDTH[0]},{WIDTH[1]}))", "sampler=qmc", f"trials={POINTS}", "name=table"),
]
BUDGETS = (15, 20, 30)
"""Compute, in complete trainings."""
WARMUP_TRIALS, WARMUP_EPOCHS = 10, 3


@dataclass(frozen=True)
class Table:
    """Points (points, 2), scaled to [0, 1], and their validation accuracies (points, epochs)."""

    points: np.ndarray
    curves: np.ndarray

    def curve(self, lr: float, width: int) -> np.ndarray:
        """Return the curve of the nearest point."""
        return self.curves[np.square(self.points - scaled(lr, width)).sum(1).argmin()]


def scaled(lr: float, width: float) -> np.ndarray:
    return np.array([math.log(v / low) / math.log(high / low) for v, (low, high) in ((lr, LR), (width, WIDTH))])


def load(folder: Path) -> Table:
    """Train the table, or what is missing of it."""
    file = folder / "table.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"training the table in {folder}: dlframe sweep {shlex.join(COMMAND)}", flush=True)
        start = time.perf_counter()
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        done = subprocess.run(python("-m", "dlframe", "sweep", *COMMAND), cwd=folder, env=environment, check=False)
        rows = []
        for run in sorted((folder / "runs").glob("table-*")):
            if ended(run) == "FINISHED":
                config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
                curve = [value for _, value in history(run)["val/accuracy"]]
                rows.append({"lr": config["optimizer"]["lr"], "width": config["model"]["width"], "curve": curve})
        if len(rows) < POINTS or any(len(row["curve"]) != EPOCHS for row in rows):
            sys.exit(f"error: {len(rows)} of {POINTS} trainings are complete (status {done.returncode}); run this again")
        seconds = round(time.perf_counter() - start)
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps({"command": COMMAND, "seconds": seconds, "rows": rows}), encoding="utf-8")
        unfinished.replace(file)
        shutil.rmtree(folder / "runs")
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["command"] != COMMAND:
        sys.exit(f"error: {file} is of another command: {shlex.join(found['command'])}. Try: folder=FOLDER")
    rows = found["rows"]
    return Table(np.array([scaled(row["lr"], row["width"]) for row in rows]), np.array([row["curve"] for row in rows]))


def random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=WARMUP_TRIALS, multivariate=True, group=True, constant_liar=True
    )


def median() -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=WARMUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS)


def hyperband() -> optuna.pruners.BasePruner:
    return optuna.pruners.HyperbandPruner(min_resource=WARMUP_EPOCHS, max_resource=EPOCHS)


SEARCHES: dict[str, tuple[Callable[[int], optuna.samplers.BaseSampler], Callable[[], optuna.pruners.BasePruner]]] = {
    "random": (random, optuna.pruners.NopPruner),
    "TPE": (tpe, optuna.pruners.NopPruner),
    "random + median": (random, median),
    "TPE + median": (tpe, median),
    "TPE + hyperband": (tpe, hyperband),
}


def replay(name: str, table: Table, seed: int) -> tuple[list[float], int]:
    """Return the best value of complete trials at each budget, and the number of trials begun."""
    sampler, pruner = SEARCHES[name]
    study = optuna.create_study(
        study_name=f"{name} {seed}", direction="maximize", sampler=sampler(seed), pruner=pruner()
    )  # hyperband draws brackets by the name
    best, spent, at = -math.inf, 0, dict.fromkeys(BUDGETS, -math.inf)
    while spent < max(BUDGETS) * EPOCHS:
        trial = study.ask()
        lr = trial.suggest_float("optimizer.lr", *LR, log=True)
        curve = table.curve(lr, trial.suggest_int("model.width", *WIDTH, log=True))
        pruned = False
        for epoch, value in enumerate(curve, 1):
            spent += 1
            trial.report(float(value), epoch)
            if epoch < EPOCHS and trial.should_prune():
                pruned = True
                break
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        study.tell(trial, float(curve.max()))
        best = max(best, float(curve.max()))
        at |= {budget: best for budget in BUDGETS if spent <= budget * EPOCHS}
    return [at[budget] for budget in BUDGETS], len(study.trials)


def main() -> None:
    options = {"repeats": "50", "folder": ""}
    for text in sys.argv[1:]:
        key, _, value = text.partition("=")
        if key not in options or (key == "repeats" and not (value.isdecimal() and int(value) > 1)):
            sys.exit(f"error: must be repeats=N (2 or more) or folder=FOLDER. Received: {text!r}")
        options[key] = value
    table = load(Path(options["folder"]) if options["folder"] else cache() / "benchmarks" / "search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    values, repeats = np.sort(table.curves.max(1))[::-1], int(options["repeats"])
    low, middle, second, high = (100 * value for value in (values[-1], np.median(values), values[1], values[0]))
    print(f"replay of {len(values)} real trainings of the cnn on Fashion-MNIST: validation accuracy", end=" ")
    print(f"{low:.2f} to {high:.2f} %, median {middle:.2f} %, second best {second:.2f} %")
    print(f"mean regret in points, {repeats} repeats, 95 % bootstrap interval; 'less' is random's regret minus its own")
    columns = "".join(f"{f'{budget} trainings':>24}" for budget in BUDGETS)
    print(f"{'':<17}{columns}{f'less, {BUDGETS[-1]} trainings':>26}{'trials begun':>14}")
    baseline = np.empty(0)
    for name in SEARCHES:
        found = [replay(name, table, seed) for seed in range(repeats)]
        regret = 100 * (values[0] - np.array([best for best, _ in found]))
        if not np.isfinite(regret).all():
            sys.exit(f"error: {name}: no complete trial within {BUDGETS[0]} trainings")
        baseline = baseline if len(baseline) else regret[:, -1]
        columns = [*regret.T, baseline - regret[:, -1]]
        shown = []
        for column in columns:
            interval = bootstrap(np.mean, column)
            shown.append(f"{column.mean():.2f} ({interval.low:.2f} to {interval.high:.2f})")
        line = "".join(f"{text:>24}" for text in shown[:-1]) + f"{shown[-1]:>26}"
        print(f"{name:<17}{line}{np.mean([count for _, count in found]):>14.0f}", flush=True)


if __name__ == "__main__":
    main()
