"""The table reader against `pyarrow.csv.read_csv` with its own types, interleaved in one process: A B A B ...

    python benchmarks/tables.py [--rows 2000000] [--rounds 7]

The file has a column of each kind: integers, prices, measurements, words, days and a class. "speed" is the median over rounds
of Arrow's seconds divided by the reader's, by wall clock and by processor time. "memory" is the growth of the memory of a
process of its own to its peak, divided by the size of the file. "data set" is `data=table`: features, split and statistics.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from dlframe.data.table import table
from dlframe.readers.tables.table import read_table

READERS: dict[str, Callable[[Path], object]] = {
    "arrow": pyarrow.csv.read_csv,
    "reader": read_table,
    "data set": lambda file: table(path=str(file), target="fraud"),
}


def write(file: Path, rows: int) -> None:
    """Write payments, made up."""
    generator = np.random.default_rng(0)
    days = np.datetime64("2020-01-01") + generator.integers(0, 1500, rows).astype("timedelta64[D]")
    columns = {
        "payment": np.arange(rows) + 10_000_000,
        "amount": np.round(generator.lognormal(3, 1, rows), 2),
        "age": generator.integers(18, 90, rows),
        "x": np.round(generator.normal(size=rows), 4),
        "y": np.round(generator.normal(size=rows), 6),
        "country": np.array(["DE", "US", "FR", "NA", "GB"])[generator.integers(0, 5, rows)],
        "shop": np.array([f"shop number {i}" for i in range(500)])[generator.integers(0, 500, rows)],
        "day": days,
        "fraud": generator.integers(0, 2, rows),
    }
    pyarrow.csv.write_csv(pa.table(columns), file)


def seconds(read: Callable[[Path], object], file: Path) -> tuple[float, float]:
    """Return wall-clock and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    read(file)
    return time.perf_counter() - wall, time.process_time() - processor


def peak() -> int:
    """Return the largest bytes of memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def growth(name: str, file: Path) -> int:
    """Return the bytes by which the memory of a process grows at its peak."""
    done = subprocess.run([sys.executable, __file__, "--measure", name, str(file)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", nargs=2)
    options = parser.parse_args()
    if options.measure:
        name, file = options.measure
        before = peak()
        READERS[name](Path(file))
        print(peak() - before)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "payments.csv"
        write(file, options.rows)
        size = file.stat().st_size
        print(f"{options.rows:,} rows, {size / 1e6:.0f} MB")
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
        for _ in range(options.rounds):
            for name, read in READERS.items():
                taken[name].append(seconds(read, file))
        for name in READERS:
            wall, processor = (
                statistics.median(a[clock] / b[clock] for a, b in zip(taken["arrow"], taken[name], strict=True))
                for clock in (0, 1)
            )
            best = min(wall for wall, _ in taken[name])
            memory = growth(name, file) / size
            print(f"{name:>9}: speed {wall:.2f} (processor {processor:.2f}), best {best:.2f} s, memory {memory:.2f}")


if __name__ == "__main__":
    main()
