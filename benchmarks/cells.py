"""What a run of a study costs beyond its training: against a plain loop over the same trainings, interleaved: A B A B ...

    python benchmarks/cells.py [cells=100] [epochs=10] [tracking=none]

A cell is `load` and `run` as a grid or a sweep calls them, each with a seed of its own: config, folder, journal, best weights
and last state, test, interval, predictions and exported model. "plain" is what one writes by hand for the same: the model of
dlframe, a fused optimizer and a schedule, batches by index, an accuracy after each epoch, a copy of the best weights, the
accuracy of the test; nothing is written. The overhead is the difference of a pair, in ms; of the pairs of a row the median.
"null" has one epoch of one batch, so that there is nothing but overhead. Memory is the resident set of the process.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from dlframe.config import Config, load
from dlframe.engine.fit import build_task
from dlframe.jobs.train import load_data, run
from dlframe.types import Dataset

NULL = ("epochs=1", "trainer.limit_batches=1")


def options(folder: str, seed: int, *more: str) -> list[str]:
    return ["model=mlp", "data=digits", f"seed={seed}", "trainer.num_threads=1", f"runs={folder}", *more]


def cell(arguments: list[str], pending: list[Any]) -> None:
    """A run as one of a grid."""
    with contextlib.redirect_stdout(io.StringIO()):
        run(load(arguments), pending=pending)


def plain(config: Config, dataset: Dataset) -> None:
    """The same training in a loop written by hand."""
    task = build_task(config, dataset)
    model, mean, std = task.model, *(torch.tensor(getattr(dataset.spec.input, name)).view(-1, 1, 1) for name in ("mean", "std"))
    columns = [
        (torch.from_numpy(split["image"].copy()), torch.from_numpy(split["label"].copy()))
        for split in (dataset.train, dataset.validation, dataset.test)
    ]
    limit, size = config.trainer.limit_batches, config.run.batch_size
    assert isinstance(size, int)
    batches = -(-len(columns[0][0]) // size)
    batches = min(batches, limit) if limit else batches
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.run.epochs * batches)

    def logits(images: torch.Tensor) -> torch.Tensor:
        return model((images.float() / 255 - mean) / std)

    @torch.inference_mode()
    def accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
        model.eval()
        parts = range(0, min(len(images), 256 * limit) if limit else len(images), 256)
        right = sum((logits(images[i : i + 256]).argmax(1) == labels[i : i + 256]).sum() for i in parts)
        model.train()
        return float(right) / len(images)

    best, weights = -1.0, {}
    for _ in range(config.run.epochs):
        order = torch.randperm(len(columns[0][0]))
        for index in order.split(size)[:batches]:
            images, labels = (column.index_select(0, index) for column in columns[0])
            optimizer.zero_grad()
            functional.cross_entropy(logits(images), labels).backward()
            optimizer.step()
            schedule.step()
        if (reached := accuracy(*columns[1])) > best:
            best, weights = reached, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    accuracy(*columns[2])


def measured(segment: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU milliseconds of a segment."""
    wall, cpu = time.perf_counter(), time.process_time()
    segment()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def resident() -> float:
    """MiB of memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(name: str, cells: int, more: list[str]) -> None:
    """Print a row for the first ten cells, and for the last ten of each tenth."""
    pending: list[Any] = []
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    step = max(10, cells // 10)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, cells + 1):
            arguments = options(folder, number, *more)
            own = measured(lambda arguments=arguments: cell(arguments, pending))
            config = load(arguments)
            dataset = load_data(config)
            pairs.append((own, measured(lambda config=config, dataset=dataset: plain(config, dataset))))
            if number % step == 0 or number in (10, cells):
                print(row(name, number, pairs[-10:]), flush=True)
        started = time.perf_counter()
        late = [said for tracker in pending if (said := tracker.wait(600))]
        if pending:
            print(f"{name:<6} all uploaded {time.perf_counter() - started:.1f} s after the last cell; pending: {len(late)}")


def row(name: str, number: int, pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> str:
    """Medians of pairs, of which the last one is cell `number`."""
    over, cpu = (statistics.median(own[i] - other[i] for own, other in pairs) for i in (0, 1))
    own, other = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    cells = f"{number - len(pairs) + 1}-{number}"
    return f"{name:<6}{cells:>12}{own:>13.1f}{other:>13.1f}{own / other:>13.2f}{over:>13.1f}{cpu:>13.1f}{resident():>13.0f}"


def main() -> None:
    given = dict(text.partition("=")[::2] for text in sys.argv[1:])
    cells, epochs, tracking = int(given.pop("cells", 100)), int(given.pop("epochs", 10)), given.pop("tracking", "none")
    assert not given, f"unknown: {', '.join(given)}"
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="dlframe-")  # not the list of the user's runs
    torch.set_num_threads(1)
    print(f"1 thread, torch {torch.__version__}, tracking={tracking}")
    heads = ("cell ms", "plain ms", "ratio", "overhead ms", "of it CPU", "memory MiB")
    print(f"{'case':<6}{'cells':>12}" + "".join(f"{head:>13}" for head in heads))
    measure("mlp", cells, [f"epochs={epochs}", f"tracking={tracking}"])
    measure("null", cells, [*NULL, f"tracking={tracking}"])


if __name__ == "__main__":
    main()
