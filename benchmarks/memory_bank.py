"""A memory bank of 100,000 vectors: seconds of the nearest-neighbor search beside others, interleaved: A B C A B C ...

    python benchmarks/memory_bank.py [--rows 100000] [--queries 2048] [--dimensions 128] [--rounds 3]

"dlframe" is `nearest`, exact to rounding of single precision. "cdist" is torch.cdist in parts of the same size, which rounds
more; "scikit-learn" is its brute-force search. The coreset of 2,000 vectors is timed alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from sklearn.neighbors import NearestNeighbors

from dlframe.models.nearest import PRODUCTS, coreset, nearest


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100_000), ("queries", 2048), ("dimensions", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(options.rows, options.dimensions, generator=generator)
    queries = torch.randn(options.queries, options.dimensions, generator=generator)
    twin = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows.numpy())
    part = max(1, PRODUCTS // options.rows)
    ways: dict[str, Callable[[], object]] = {
        "dlframe": lambda: nearest(queries, rows, 1),
        "cdist": lambda: [torch.cdist(some, rows).min(1) for some in queries.split(part)],
        "scikit-learn": lambda: twin.kneighbors(queries.numpy()),
    }
    taken = [{name: seconds(way) for name, way in ways.items()} for _ in range(options.rounds + 1)][1:]
    print(f"{torch.get_num_threads()} threads, {options.queries:,} queries, {options.rows:,} x {options.dimensions} vectors")
    for name in ways:
        own = statistics.median(each[name] for each in taken)
        ratio = statistics.median(each[name] / each["dlframe"] for each in taken)
        print(f"{name:<14}{own:>8.2f} s{ratio:>8.2f} times dlframe's")
    print(f"coreset of 2,000{seconds(lambda: coreset(rows, 2000)):>8.2f} s")


if __name__ == "__main__":
    main()
