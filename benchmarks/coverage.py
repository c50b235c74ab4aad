"""How often intervals of `compare` contain the truth, on real networks.

    python benchmarks/coverage.py [seeds=30] [draws=2000] [folder=FOLDER]

Two MLPs are trained with many seeds on Fashion-MNIST for an epoch (grids with `vectorize`; `folder` keeps the runs). The
difference over all 10,000 test images and all seeds counts as the truth. Then images and seeds are drawn at random, as if there
were no others, and the difference of the two models is estimated with its 95 % interval: by the analysis of seeds and
examples, and by Welch's t-test over the same seeds. One line a setting: how often each interval contains the truth.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet

from dlframe.runs.environment import python
from dlframe.statistics.comparison import jackknife
from dlframe.statistics.comparison.differences import Scores, difference, scores

WIDTHS = (16, 24)


def right(folder: Path, width: int, seeds: int) -> np.ndarray:
    """Whether each network is right on each test image, (seeds, images); trained where they are missing."""
    name = f"width-{width}"
    options = [
        "model=mlp",
        f"model.width={width}",
        "data=fashion_mnist",
        "epochs=1",
        f"seed=range({seeds})",
        f"vectorize={seeds}",
    ]
    done = subprocess.run(
        python("-m", "dlframe", "-m", *options, "tracking=none", "figures=none", f"name={name}"),
        cwd=folder,
        capture_output=True,
    )
    if done.returncode:
        sys.exit(done.stderr.decode()[-2000:])
    rows = []
    for number in range(seeds):
        table = pyarrow.parquet.ParquetFile(folder / "runs" / f"{name}-{number:04d}" / "predictions.parquet").read()
        rows.append(np.array(table["target"].to_pylist()) == np.array(table["prediction"].to_pylist()))
    return np.array(rows, dtype=float)


def of(sample: np.ndarray, groups: np.ndarray) -> Scores:
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count)
    sums = np.stack([np.bincount(groups, row, count) for row in sample])
    n = sample.shape[1]
    return scores(sample.mean(1), (sums.sum(1, keepdims=True) - sums) / (n - sizes))


def main() -> None:
    options = {"seeds": "30", "draws": "2000", "folder": ""} | dict(text.split("=", 1) for text in sys.argv[1:])
    seeds, draws = int(options["seeds"]), int(options["draws"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options["folder"] or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        models = [right(folder, width, seeds) for width in WIDTHS]
    truth = models[1].mean() - models[0].mean()
    spread = [100 * model.mean(1).std(ddof=1) for model in models]
    means = [100 * model.mean() for model in models]
    print(
        f"accuracy {means[0]:.2f} and {means[1]:.2f} %, standard deviation of a seed {spread[0]:.2f} and {spread[1]:.2f} points"
    )
    print(f"{'images':>8}{'seeds':>8}{'both':>8}{'Welch':>8}   in % of {draws:,} draws, on {os.cpu_count()} CPUs")
    random = np.random.default_rng(0)
    for n in (300, 1000, 3000):
        groups = jackknife.groups_of(n)
        for count in (3, 5, 10):
            held = np.zeros(2)
            for _ in range(draws):
                images = random.choice(models[0].shape[1], n, replace=False)
                chosen = [model[random.choice(seeds, count, replace=False)][:, images] for model in models]
                one, other = (of(sample, groups) for sample in chosen)
                for i, over in enumerate(("both", "seeds")):
                    found = difference(other, one, over=over)
                    held[i] += found.low <= truth <= found.high
            print(f"{n:>8,}{count:>8}{100 * held[0] / draws:>8.1f}{100 * held[1] / draws:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
