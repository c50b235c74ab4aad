"""Seconds of a trial whose training costs nothing, in one process and in two: dlframe, a plain loop, joblib, Ray Tune.

    python benchmarks/trials.py [trials=20] [rounds=1] [python=OTHER/bin/python]

The training is one step of an MLP on 64 of the digits, and its validation: a few milliseconds. A trial of dlframe also
composes its config, reads its data, and writes a whole run (journal, checkpoints, predictions, figures, exported model); the
others train a hand-written network on random numbers of the same shape and keep a number. "s/trial" is the mean time between
the ends of two trials, from the first to the last; "beyond training" is that minus the plain loop's, "first" the seconds
until the first trial has ended (imports and start-up), "late/early" the ratio of the last third of the trials to the first:
1 where a trial costs the same at the end, and "2 workers" the speed of two workers relative to one.

joblib and Ray Tune are run by `python`, an interpreter that has joblib, ray[tune] and torch (default: this one); what it
cannot import is left out with a line. All processes have one thread.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MARK = "ended "
RUN = ["model=mlp", "data=digits", "epochs=1", "trainer.limit_batches=1", "batch_size=64", "tracking=none"]
SPACE = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def train(lr: float) -> float:
    """The hand-written training; returns when it has ended."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    images, labels = torch.rand(1797, 64), torch.randint(0, 10, (1797,))
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    functional.cross_entropy(network(images[:64]), labels[:64]).backward()
    optimizer.step()
    with torch.inference_mode():
        (network(images[-256:]).argmax(1) == labels[-256:]).float().mean().item()
    return time.time()


def rates(trials: int) -> list[float]:
    return [1e-4 * 100 ** (number / trials) for number in range(trials)]


def plain(trials: int, workers: int) -> list[float]:
    return [train(lr) for lr in rates(trials)]


def loop(trials: int, workers: int) -> list[float]:
    """The training function of dlframe, called once a trial."""
    from dlframe.config import load
    from dlframe.jobs.train import run

    ends = []
    for lr in rates(trials):
        with contextlib.redirect_stdout(None):
            run(load([*RUN, f"optimizer.lr={lr}"]), pending=[])
        ends.append(time.time())
    return ends


def joblib(trials: int, workers: int) -> list[float]:
    from joblib import Parallel, delayed

    return Parallel(n_jobs=workers)(delayed(train)(lr) for lr in rates(trials))


def ray(trials: int, workers: int) -> list[float]:
    import ray
    from ray import tune

    ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR")

    def trainable(config: dict) -> None:
        tune.report({"ended": train(config["lr"])})

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"lr": tune.loguniform(1e-4, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=workers),
        run_config=tune.RunConfig(storage_path=os.getcwd(), verbose=0),
    )
    return [result.metrics["ended"] for result in tuner.fit()]


CHILDREN: dict[str, Callable[[int, int], list[float]]] = {"plain": plain, "loop": loop, "joblib": joblib, "ray": ray}


def ends(command: list[str], folder: Path) -> list[float]:
    """Run a command; the seconds from its start to the end of each of its trials, in order."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    start, found = time.time(), []
    with (folder / "errors").open("w+b") as errors:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        for line in process.stdout:
            if line.startswith(MARK):
                found = json.loads(line.removeprefix(MARK))
            elif re.match(r"\[\d+/\d+\] trial ", line):
                found.append(time.time())
        if process.wait():
            errors.seek(0)
            sys.exit(f"error: {' '.join(command)}: status {process.returncode}\n{errors.read().decode()[-2000:]}")
    return sorted(end - start for end in found)


def has(python: str, module: str) -> bool:
    if python == sys.executable:
        return importlib.util.find_spec(module) is not None
    return subprocess.run([python, "-P", "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def main() -> None:
    options = {"trials": "20", "rounds": "1", "python": sys.executable, "child": "", "workers": "1"}
    for text in sys.argv[1:]:
        key, _, value = text.partition("=")
        if key not in options or (key in ("trials", "rounds", "workers") and not (value.isdecimal() and int(value))):
            sys.exit(f"error: must be trials=N, rounds=N or python=FILE. Received: {text!r}")
        options[key] = value
    trials = int(options["trials"])
    if options["child"]:
        print(MARK + json.dumps(CHILDREN[options["child"]](trials, int(options["workers"]))), flush=True)
        return
    if trials < 6:
        sys.exit(f"error: trials must be at least 6. Received: {trials}")
    from dlframe.runs.environment import python

    sweep = python("-m", "dlframe", "sweep", *RUN, SPACE, "sampler=random", "search.fresh_seeds=0", f"trials={trials}")
    own = [sys.executable, str(Path(__file__).resolve()), f"trials={trials}"]
    other = [options["python"], *own[1:]]
    commands = {("plain loop", 1): [*own, "child=plain"], ("dlframe, train.run in a loop", 1): [*own, "child=loop"]}
    commands |= {("dlframe sweep", workers): [*sweep, f"workers={workers}"] for workers in (1, 2)}
    for name, module in (("joblib.Parallel", "joblib"), ("Ray Tune", "ray")):
        if has(options["python"], module):
            commands |= {(name, w): [*other, f"child={module}", f"workers={w}"] for w in (1, 2)}
        else:
            print(f"{name}: left out, {options['python']} cannot import {module}. Try: python=FILE")
    measured: dict[tuple[str, int], list[list[float]]] = {key: [] for key in commands}
    for _ in range(int(options["rounds"])):
        for key, command in commands.items():
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                measured[key].append(ends(command, Path(folder)))
            if len(measured[key][-1]) != trials:
                sys.exit(f"error: {' '.join(command)}: {len(measured[key][-1])} of {trials} trials have ended")
    print(f"{trials} trials, median of {options['rounds']} rounds, {os.cpu_count()} CPUs")
    print(f"{'':<30}{'workers':>8}{'s/trial':>10}{'beyond training':>17}{'first':>8}{'late/early':>12}{'2 workers':>11}")
    cost = {key: statistics.median((r[-1] - r[0]) / (trials - 1) for r in rounds) for key, rounds in measured.items()}
    third = trials // 3
    for (name, workers), rounds in measured.items():
        each = cost[name, workers]
        drift = statistics.median((r[-1] - r[-1 - third]) / (r[third] - r[0]) for r in rounds)
        gain = f"{cost[name, 1] / each:.2f}" if workers == 2 else ""
        first = statistics.median(r[0] for r in rounds)
        said = f"{each:>10.4f}{each - cost['plain loop', 1]:>17.4f}{first:>8.1f}{drift:>12.2f}{gain:>11}"
        print(f"{name:<30}{workers:>8}{said}")


if __name__ == "__main__":
    main()
