"""Recommenders on MovieLens-100K beside the figures of RecBole 1.2.1 on the same splits.

    OMP_NUM_THREADS=1 python benchmarks/recommendation.py [item_knn lightgcn ...] [--split ratio last] [--seeds 2]
    python benchmarks/recommendation.py RUN ...

Trains the experiments ml100k_* (hours for all on one thread), or reads finished runs, also those of a grid such as
`python -m dlframe -m experiment=ml100k_bpr data.split=ratio,last seed=0,1,2 data.accept_terms=true`.

Splits: the last fifth of each user's items (ratio), or the last item (last); counts and checksums of their pairs are those of
an independent program (tests/data/test_interactions.py). A row has means over seeds, with their standard deviation, at k = 10
among all items that the user has not seen. The "interval" is the 95 % interval of the NDCG, over seeds and users; of a single
seed, over users: it is wide, and does not exclude a difference that seeds would show. The twin is RecBole with the user's
history left out of the lists: BPR (rate .001) and LightGCN (rate .005) until 30 epochs have not improved the NDCG on the
validation split, NeuMF with its defaults (10 epochs), sequential models 2 epochs. The exit status is 1 if the NDCG of a twin
is above an interval.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet

from dlframe.config import load, load_saved
from dlframe.jobs.train import run
from dlframe.registry import plugins
from dlframe.runs.run_directory import read_result
from dlframe.statistics.comparison import differences
from dlframe.types import DataError

METRICS = ("ndcg", "precision", "recall", "mrr", "hit")


class Twin(NamedTuple):
    """Metrics in the order of METRICS, means over seeds, and the standard deviation of the NDCG over seeds."""

    seeds: int
    values: tuple[float, ...]
    deviation: float | None = None


TWINS = {
    ("ratio", "popular"): Twin(1, (0.1176, 0.1038, 0.0671, 0.2383, 0.5451)),
    ("ratio", "item_knn"): Twin(1, (0.1724, 0.1452, 0.1065, 0.3249, 0.6426)),
    ("ratio", "matrix_factorization"): Twin(3, (0.1695, 0.1437, 0.1076, 0.3176, 0.6490), 0.0021),
    ("ratio", "neumf"): Twin(1, (0.1576, 0.1336, 0.1033, 0.3053, 0.6543)),
    ("ratio", "lightgcn"): Twin(2, (0.1739, 0.1449, 0.1102, 0.3359, 0.6676), 0.0008),
    ("ratio", "gru4rec"): Twin(1, (0.2342, 0.1992, 0.1494, 0.4164, 0.7731)),
    ("ratio", "sasrec"): Twin(1, (0.2246, 0.1910, 0.1467, 0.3884, 0.7572)),
    ("last", "popular"): Twin(1, (0.0441, 0.0085, 0.0848, 0.0318, 0.0848)),
    ("last", "item_knn"): Twin(1, (0.0619, 0.0112, 0.1124, 0.0466, 0.1124)),
    ("last", "matrix_factorization"): Twin(3, (0.0676, 0.0129, 0.1287, 0.0492, 0.1287), 0.0026),
    ("last", "neumf"): Twin(1, (0.0566, 0.0117, 0.1166, 0.0385, 0.1166)),
    ("last", "lightgcn"): Twin(1, (0.0755, 0.0135, 0.1347, 0.0574, 0.1347)),
    ("last", "gru4rec"): Twin(1, (0.1030, 0.0214, 0.2142, 0.0694, 0.2142)),
    ("last", "sasrec"): Twin(1, (0.0966, 0.0192, 0.1919, 0.0680, 0.1919)),
}
"""RecBole's figures; `two_tower` has no counterpart there."""

RECIPES = {
    "popular": ("task=recommendation", "data=ml100k", "model=popular"),
    "item_knn": ("experiment=ml100k_item_knn",),
    "matrix_factorization": ("experiment=ml100k_bpr",),
    "lightgcn": ("experiment=ml100k_lightgcn",),
    "neumf": ("experiment=ml100k_neumf",),
    "two_tower": ("task=recommendation", "data=ml100k", "model=two_tower"),
    "gru4rec": ("experiment=ml100k_gru4rec",),
    "sasrec": ("experiment=ml100k_sasrec",),
}
CLOSED_FORMS = ("popular", "item_knn")


class Row(NamedTuple):
    """A run: its metrics, and the NDCG of each user by name."""

    metrics: dict[str, float]
    users: dict[str, float]


def read(folder: Path) -> tuple[tuple[str, str], Row]:
    """Return split and model of a finished run, and its row.

    Raises:
        DataError: It is no whole run on MovieLens-100K with k = 10 and binary gains.
    """
    result, values = read_result(folder), load_saved(folder / "config.yaml").values
    data, task = values["data"], values["task"]
    if data["name"] != "ml100k" or data["min_rating"] is not None or (task["k"], task["gain"]) != (10, "binary"):
        raise DataError(f"{folder}: must be a run on data=ml100k with all ratings, task.k=10 and task.gain=binary.")
    if result.limited:
        raise DataError(f"{folder}: must be a whole run. Received: {result.limited}")
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    row = Row(result.metrics, dict(zip(table["id"], table["ndcg"], strict=True)))
    return (data["split"], values["model"]["name"]), row


def interval(rows: list[Row]) -> differences.Mean:
    """Return the mean NDCG with its interval over seeds and users; of a single seed, over users."""
    users = sorted(rows[0].users)
    values = np.array([[row.users[user] for user in users] for row in rows])
    without = (values.sum(1, keepdims=True) - values) / (len(users) - 1)
    scores = differences.scores(values.mean(1), without, is_random=len(rows) > 1)
    return differences.mean(scores, over="both" if len(rows) > 1 else "examples")


def told(split: str, model: str, rows: list[Row]) -> bool:
    """Print a row and that of its twin; return whether the twin is within or below the interval."""
    values = np.array([[row.metrics[name] for name in METRICS] for row in rows])
    deviation = float(values[:, 0].std(ddof=1)) if len(rows) > 1 else None
    mean = interval(rows)
    line(split, model, "dlframe", len(rows), tuple(values.mean(0)), deviation, f"{short(mean.low)} to {short(mean.high)}")
    twin = TWINS.get((split, model))
    if twin is None:
        return True
    place = "above" if twin.values[0] > mean.high else "below" if twin.values[0] < mean.low else "within"
    line("", "", "twin", twin.seeds, twin.values, twin.deviation, place)
    return place != "above"


def line(split: str, model: str, name: str, seeds: int, values: tuple[float, ...], deviation: float | None, last: str) -> None:
    first, *others = map(short, values)
    spread = f"±{short(deviation)}" if deviation is not None else ""
    columns = "".join(f"{text:<11}" for text in others)
    print(f"{split:<7}{model:<22}{name:<9}{seeds:<7}{first + spread:<14}{columns}{last}", flush=True)


def short(value: float) -> str:
    """Return four decimals, without the zero before the point."""
    return f"{value:.4f}".removeprefix("0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="MODEL | RUN", help=f"models ({', '.join(RECIPES)}; all if absent), or runs"
    )
    parser.add_argument("--split", nargs="+", choices=("ratio", "last"), default=["ratio", "last"])
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    plugins.discover()
    folders = [Path(name) for name in options.names if name not in RECIPES]
    if folders and len(folders) < len(options.names):
        parser.error("models and runs cannot be mixed.")
    if options.seeds < 1:
        parser.error(f"--seeds: must be at least 1. Received: {options.seeds}")
    header = "".join(f"{name:<11}" for name in METRICS[1:])
    print(f"{'split':<7}{'model':<22}{'':<9}{'seeds':<7}{'ndcg':<14}{header}interval")
    if folders:
        found: dict[tuple[str, str], list[Row]] = {}
        for folder in folders:
            try:
                key, row = read(folder)
            except DataError as error:
                parser.error(str(error))
            found.setdefault(key, []).append(row)
        order = {name: place for place, name in enumerate(RECIPES)}
        keys = sorted(found, key=lambda key: (key[0] == "last", order.get(key[1], len(order)), key[1]))
        places = [told(*key, found[key]) for key in keys]  # all are printed
        return 0 if all(places) else 1
    good = True
    for split in options.split:
        for model in options.names or RECIPES:
            rows = []
            for seed in range(1 if model in CLOSED_FORMS else options.seeds):
                with tempfile.TemporaryDirectory() as runs:
                    more = ["data.accept_terms=true", f"data.split={split}", f"seed={seed}", f"runs={runs}"]
                    result = run(load([*RECIPES[model], *more, "tracking=none", "figures=none"]))
                    assert result.folder
                    rows.append(read(result.folder)[1])
            good &= told(split, model, rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
