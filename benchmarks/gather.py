"""Gathering samples of varying length, against a dense batch of the same elements.

    python benchmarks/gather.py [--rounds 30]

Ratios are medians over rounds, each of which times both; 1.3 is the budget.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.types import DataSpec, Field, Ragged, Split

CASES = {"letters": (12, ()), "tokens": (120, ()), "sound": (16_000, ()), "frames": (200, (80,))}
"""Mean length of a sample, and the shape of an element."""
BATCH, BATCHES = 64, 20


def loader(column: np.ndarray | Ragged, shape: tuple[int | None, ...]) -> BatchLoader:
    spec = DataSpec("x", {"x": Field(kind="series", dtype="float32", shape=shape)}, {})
    context = ProcessContext(torch.device("cpu"))
    order = Order(BATCH, seed=0, limit=BATCHES)
    return BatchLoader(Split({"x": column}, np.arange(len(column))), spec, order, context=lambda: context)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    random = np.random.default_rng(0)
    print(f"{'case':<10}{'length':>8}{'ratio':>8}")
    for name, (length, element) in CASES.items():
        samples = BATCH * BATCHES
        lengths = random.integers(length // 2, length * 3 // 2 + 1, samples)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ragged = Ragged(random.random((offsets[-1], *element), np.float32), offsets)
        dense = random.random((samples, int(lengths.mean()), *element), np.float32)
        first, second = loader(ragged, (None, *element)), loader(dense, dense.shape[1:])
        # The order of batches is not what is timed.
        plans = [(each, each.plan()) for each in (first, second)]
        for each, plan in plans:
            each.plan = lambda *_, plan=plan: plan  # type: ignore[method-assign]
        ratios = []
        for number in range(rounds + 2):
            ratio = seconds(lambda first=first: [*first]) / seconds(lambda second=second: [*second])
            ratios += [ratio] if number > 1 else []
        print(f"{name:<10}{length:>8}{statistics.median(ratios):>8.2f}", flush=True)


if __name__ == "__main__":
    main()
