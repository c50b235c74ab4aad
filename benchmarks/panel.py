"""Many short series: seconds and memory of reading them, of their windows, and of a training epoch.

    python benchmarks/panel.py [--series 10000] [--rows 60]

The file is long: a row per series and day. "read" is `pyarrow.csv.read_csv` of the same file, for comparison. "data set" is
`data=series` with windows of 24 and forecasts of 6 rows; "epoch" is one of `dlinear` with batches of 256 windows, after the
first one. "memory" is the growth of the memory of a process of its own, from its imports to its peak.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv


def write(file: Path, series: int, rows: int) -> None:
    """Write series with a week, made up."""
    random = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(rows)
    level = random.lognormal(3, 1, series)
    week = 1 + 0.3 * np.sin(2 * np.pi * np.arange(rows) / 7)
    values = level[:, None] * week * random.lognormal(0, 0.1, (series, rows))
    names = np.repeat([f"shop {i}" for i in range(series)], rows)
    pyarrow.csv.write_csv(pa.table({"day": np.tile(days, series), "shop": names, "sold": values.ravel().round(2)}), file)


def peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(file: Path) -> None:
    """Read, train an epoch, and print what it takes."""
    from dlframe.config import load
    from dlframe.engine.fit import fit
    from dlframe.jobs.train import load_data
    from dlframe.registry import plugins
    from dlframe.runs.recorder import InMemoryRecorder

    plugins.discover()
    options = ["task=forecasting", "model=dlinear", "data=series", f"data.path={file}", "data.id=shop", "data.target=sold"]
    options += ["data.window=24", "data.horizon=6", "batch_size=256", "augmentation=[]"]
    start = time.perf_counter()
    pyarrow.csv.read_csv(file)
    print(f"read       {time.perf_counter() - start:8.2f} s")
    before, start = peak(), time.perf_counter()
    dataset = load_data(load([*options, "epochs=1"]))
    seconds, memory = time.perf_counter() - start, peak() - before
    print(f"data set   {seconds:8.2f} s {memory:8.0f} MiB, file {file.stat().st_size / 2**20:.0f} MiB")
    taken = []
    for epochs in (1, 2):
        start = time.perf_counter()
        fit(load([*options, f"epochs={epochs}"]), dataset, InMemoryRecorder(), Path())
        taken.append(time.perf_counter() - start)
    print(f"epoch      {taken[1] - taken[0]:8.2f} s, {len(dataset.train):,} windows; memory {peak() - before:,.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        measure(options.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "panel.csv"
        write(file, options.series, options.rows)
        subprocess.run([sys.executable, __file__, "--file", str(file)], check=True)


if __name__ == "__main__":
    main()
