"""The command `predict`: what a trained model says to files, in the terminal or in a table."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dlframe.config import load_options
from dlframe.types import ConfigError, DataError, printable

SHOWN = 10
"""Rows in the terminal where all go to a file."""

Row = dict[str, Any]
Write = Callable[[list[Row]], None]


def predict(arguments: Sequence[str]) -> int:
    """`predict RUN INPUT ... [out=predictions.csv]`.

    Raises:
        DlframeError: There is no model or no input, an input cannot be read, or the table cannot be written.
    """
    given = [text for text in arguments if "=" not in text or Path(text).exists()]
    options = load_options("predict", [text for text in arguments if text not in given])
    if len(given) < 2:
        lacks = (
            "needs a run directory and what to predict from" if not given else "needs what to predict from: files or folders"
        )
        raise ConfigError(f"predict: {lacks}. Try: python -m dlframe predict {given[0] if given else 'runs/...'} photo.jpg")
    run, *inputs = given
    for text in inputs:
        if not Path(text).exists():
            raise DataError(f"predict: there is no file or folder '{text}'.")
    out = Path(options["out"]) if options["out"] else None
    if out:
        _check(out)
    from dlframe.serving.trained_model import TrainedModel, find_model

    find_model(Path(run))
    model = TrainedModel(run, checkpoint=options["checkpoint"], plugin_paths=options["plugin_paths"])
    if threads := model.config.trainer.threads:
        import torch

        torch.set_num_threads(threads)
    rows, shown, last = 0, 0, None
    show = _table()
    with _writer(out) if out else contextlib.nullcontext() as write:
        for last in model.stream(inputs, on_error=options["on_error"], every=options["every"]):
            found = last.rows(top=options["top"])
            rows += len(found)
            if write:
                write(found)
                found = found[: SHOWN - shown]
            show(found)
            shown += len(found)
    assert last
    for line in last.assumed:
        print(f"assumed: {line}", file=sys.stderr)
    for line in last.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    if out or last.skipped:
        left = f"; {len(last.skipped):,} inputs left out" if last.skipped else ""
        print(f"{rows:,} {'prediction' if rows == 1 else 'predictions'}{f' in {out}' if out else ''}{left}", flush=True)
    return 0


def _table() -> Write:
    """Prints rows below one another: what is wide in the first ones sets the widths."""
    widths: dict[str, int] = {}

    def show(rows: list[Row]) -> None:
        cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
        if not widths and cells:
            widths.update({name: max(len(name), *(len(row[name]) for row in cells)) for name in cells[0]})
            print(_line({name: name for name in widths}, widths))
        for row in cells:
            print(_line(row, widths), flush=True)

    return show


def _line(cells: dict[str, str], widths: dict[str, int]) -> str:
    return "  ".join(cells[name].ljust(width) for name, width in widths.items()).rstrip()


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def _check(out: Path) -> None:
    """That a table can be written there, before anything is predicted."""
    if out.suffix not in WRITERS:
        raise ConfigError(f"out: must end in {', '.join(WRITERS)}. Received: '{out}'.")
    if out.exists():
        raise ConfigError(f"out: '{out}' exists, and is not written over. Remove it, or choose another name.")
    if not out.parent.is_dir():
        raise ConfigError(f"out: there is no folder '{out.parent}'.")


@contextlib.contextmanager
def _writer(out: Path) -> Iterator[Write]:
    """Writes rows to a file that has its name when all are written, and is removed where they are not."""
    unfinished = out.with_name(f".{out.name}.part")
    try:
        with contextlib.ExitStack() as stack:
            yield WRITERS[out.suffix](unfinished, stack)
        unfinished.rename(out)
    except OSError as error:
        raise ConfigError(f"out: '{out}' cannot be written: {error.strerror or error}.") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _csv(path: Path, stack: contextlib.ExitStack) -> Write:
    file = stack.enter_context(path.open("w", newline="", encoding="utf-8"))
    names = csv.writer(file)
    first = itertools.count()

    def write(rows: list[Row]) -> None:
        if rows and next(first) == 0:
            names.writerow(rows[0])
        names.writerows([json.dumps(v) if isinstance(v, list) else v for v in row.values()] for row in rows)

    return write


def _jsonl(path: Path, stack: contextlib.ExitStack) -> Write:
    file = stack.enter_context(path.open("w", encoding="utf-8"))

    def write(rows: list[Row]) -> None:
        file.writelines(json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in rows)

    return write


def _finite(value: Any) -> Any:
    """With null in the place of NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parquet(path: Path, stack: contextlib.ExitStack) -> Write:
    import pyarrow
    import pyarrow.parquet

    writers: list[Any] = []

    def write(rows: list[Row]) -> None:
        table = pyarrow.Table.from_pylist(rows, schema=writers[0].schema if writers else None)
        if not writers:
            writers.append(stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema)))
        writers[0].write_table(table)

    return write


WRITERS: dict[str, Callable[[Path, contextlib.ExitStack], Write]] = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
"""By the ending of the file."""
