"""How often intervals of `compare` contain the truth, on real networks.

    python benchmarks/coverage.py [task=images] [seeds=30] [draws=2000] [folder=FOLDER]

Two networks that differ little are trained with many seeds (`folder` keeps the runs): on Fashion-MNIST (task=images: accuracy
of single images), on generated interactions (task=lists: NDCG of users), on the prices of sp500 (task=forecasts: RMSE in
blocks of 25 days). The difference over all test examples and all seeds counts as the truth. Then images, users or blocks and
seeds are drawn at random, as if there were no others, and the difference is estimated with its 95 % interval: by the analysis
of seeds and examples, and by Welch's t-test over the same seeds. One line a setting: how often each interval contains the
truth. What is drawn is a part of what the truth is of, so that intervals hold it somewhat too often; where half of it is
drawn, far too often.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet

from dlframe.runs.environment import python
from dlframe.statistics.comparison import jackknife
from dlframe.statistics.comparison.differences import Scores, difference, scores


@dataclass(frozen=True)
class Experiment:
    """Two models that are compared.

    Attributes:
        options: Of both.
        models: Option by which they differ.
        part: From the table of predictions to what each example adds, of which the metric is the mean.
        end: From that mean to the metric.
        units: Numbers of units that are drawn.
        block: Neighbors in a unit.
    """

    options: list[str]
    models: tuple[str, str]
    part: Callable[[dict[str, list]], np.ndarray]
    end: Callable[[np.ndarray], np.ndarray]
    units: tuple[int, ...]
    block: int = 1


def _same(mean: np.ndarray) -> np.ndarray:
    return mean


EXPERIMENTS = {
    "images": Experiment(
        ["model=mlp", "data=fashion_mnist", "epochs=1"],
        ("model.width=16", "model.width=24"),
        lambda table: np.array(table["target"]) == np.array(table["prediction"]),
        _same,
        (300, 1000, 3000),
    ),
    "lists": Experiment(
        ["task=recommendation", "model=matrix_factorization", "epochs=5"],
        ("model.width=16", "model.width=24"),
        lambda table: np.array(table["ndcg"]),
        _same,
        (40, 80, 160),
    ),
    "forecasts": Experiment(
        ["task=forecasting", "model=dlinear"],
        ("epochs=2", "epochs=3"),
        lambda table: (np.array(table["target"]) - np.array(table["prediction"])) ** 2,
        np.sqrt,
        (10, 20),
        block=25,
    ),
}


def trained(folder: Path, experiment: Experiment, model: str, seeds: int) -> np.ndarray:
    """What each example adds to the metric of each network, (seeds, examples); trained where they are missing."""
    name = model.replace("=", "-").replace(".", "-")
    options = [*experiment.options, model, f"seed=range({seeds})", f"vectorize={seeds}", f"name={name}"]
    done = subprocess.run(
        python("-m", "dlframe", "-m", *options, "tracking=none", "figures=none"), cwd=folder, capture_output=True
    )
    if done.returncode:
        sys.exit(done.stderr.decode()[-2000:])
    folders = [folder / "runs" / f"{name}-{number:04d}" for number in range(seeds)]
    tables = [pyarrow.parquet.ParquetFile(run / "predictions.parquet").read().to_pydict() for run in folders]
    return np.array([experiment.part(table) for table in tables], dtype=float)


def of(experiment: Experiment, sample: np.ndarray, groups: np.ndarray) -> Scores:
    """The metric of each seed, with its values without each group."""
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count)
    sums = np.stack([np.bincount(groups, row, count) for row in sample])
    rest = (sums.sum(1, keepdims=True) - sums) / (sample.shape[1] - sizes)
    return scores(experiment.end(sample.mean(1)), experiment.end(rest))


def main() -> None:
    options = {"task": "images", "seeds": "30", "draws": "2000", "folder": ""} | dict(t.split("=", 1) for t in sys.argv[1:])
    seeds, draws, experiment = int(options["seeds"]), int(options["draws"]), EXPERIMENTS[options["task"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options["folder"] or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        models = [trained(folder, experiment, model, seeds) for model in experiment.models]
    each = [experiment.end(model.mean(1)) for model in models]
    truth = each[1].mean() - each[0].mean()
    for model, values in zip(experiment.models, each, strict=True):
        print(f"{model}: {values.mean():.4f}, standard deviation of a seed {values.std(ddof=1):.4f}")
    block = np.arange(models[0].shape[1]) // experiment.block
    whole = int(block.max()) + 1
    print(f"{'units':>8}{'seeds':>8}{'both':>8}{'Welch':>8}   in % of {draws:,} draws, of {whole:,} units and {seeds} seeds")
    random = np.random.default_rng(0)
    for n in experiment.units:
        for count in (3, 5, 10):
            held = np.zeros(2)
            for _ in range(draws):
                units = random.choice(whole, n, replace=False)
                drawn = np.concatenate([np.flatnonzero(block == unit) for unit in units]) if experiment.block > 1 else units
                groups = jackknife.groups_of(len(drawn), block[drawn])
                chosen = [model[random.choice(seeds, count, replace=False)][:, drawn] for model in models]
                one, other = (of(experiment, sample, groups) for sample in chosen)
                for i, over in enumerate(("both", "seeds")):
                    found = difference(other, one, over=over)
                    held[i] += found.low <= truth <= found.high
            print(f"{n:>8,}{count:>8}{100 * held[0] / draws:>8.1f}{100 * held[1] / draws:>8.1f}", flush=True)
    print(f"on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
