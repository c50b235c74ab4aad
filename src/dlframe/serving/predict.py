"""Command `predict RUN INPUT...`: predictions in the terminal or a file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.config import load_options
from dlframe.registry import Count, Place
from dlframe.serving.boxes import CocoFile, Pictures
from dlframe.serving.inputs import Sample
from dlframe.types import ConfigError, nearest, quoted, say

SHOWN = 20
"""Maximum rows in the terminal."""

SEE = "See: python -m dlframe predict --help"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `predict`.

    Args:
        out: File for the predictions, ending in .parquet, .jsonl or .csv, or of boxes in .json (COCO); empty shows the first
            ones in the terminal.
        draw: Of boxes, empty folder for pictures of the images with their boxes; empty draws none.
        top: Of classes, how many of the most probable ones are listed.
        every: Of a series, predict from every window instead of the last one.
        keep: Of a table, write all its columns beside the predictions, which are named "predicted ..." where a name is taken.
        on_error: Whether a file that cannot be read ends the prediction, or is named and left out.
        plugin_paths: Files and folders of plugins that the run used. Its own config is data and has none loaded.
    """

    out: Place = ""
    draw: str = ""
    top: Count = 1
    every: bool = False
    keep: bool = False
    on_error: Literal["raise", "skip"] = "raise"
    plugin_paths: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Predict with the model of a run, and show the predictions or write them to a file.

    RUN is the run directory; each INPUT is a file, a folder of files, a file of arrays (.npy, .npz), or for a model of texts
    a text, or - for the lines of standard input; for a model of speech, - is a WAV file from standard input, transcribed as
    it comes. Inputs are prepared as in training.

    Raises:
        DlframeError: The run has no trained model, an option is wrong, or an input cannot be read.
    """
    known = [field.name for field in fields(Options)]
    given = [a for a in arguments if a.partition("=")[1] and a.partition("=")[0] in known]
    # The way in which data are named to train and test.
    run, *paths = [a.removeprefix("data.path=") for a in arguments if a not in given] or [""]
    if not run or not paths:
        raise ConfigError("predict: requires a run directory and inputs. Try: python -m dlframe predict runs/... photo.png")
    for path in paths:
        key, equals, _ = path.partition("=")
        if equals and key.isidentifier() and not Path(path).exists():
            raise ConfigError(f"predict: '{key}' is neither an option nor a file.{nearest(key, known)} {SEE}")
    options = load_options("predict", Options, given)
    classes: list[str] = []
    with writer(options.out, classes) as write:
        from dlframe.serving.model import Model

        model = Model(Path(run), options.plugin_paths)
        if threads := model.config.trainer.num_threads:
            import torch

            torch.set_num_threads(threads)  # for results bitwise identical to the run's test
        declared = model.task.outputs()
        boxes = "box" in declared and declared["box"].ragged
        for key, written in (("draw", options.draw), ("out", options.out if options.out.endswith(".json") else "")):
            if written and not boxes:
                way = "Leave it out" if key == "draw" else f"Try: out={quoted(Path(written).with_suffix('.jsonl'))}"
                raise ConfigError(
                    f"{key}: is for boxes. Received: {written!r} for a model of {', '.join(declared)}. {way}", key
                )
        pictures = Pictures(options.draw) if options.draw else None
        classes += model.spec.classes
        inputs = model.inputs(on_error=options.on_error, every=options.every, keep=options.keep)
        count = 0
        for samples, outputs in model.batches(inputs.read(paths)):
            rows = [*_rows(samples, outputs, model.spec.classes, options.top)]
            count += len(rows)
            write([*_each_box(rows)] if boxes and not options.out else rows)
            if pictures:
                pictures.write(samples, outputs)
    say(*inputs.assumed, error=True)
    if inputs.skipped:
        say(f"skipped: {inputs.skipped} of {inputs.skipped + count}", error=True)
    if not count:
        raise ConfigError(f"predict: nothing to predict in {', '.join(paths)}.")
    if pictures:
        say(f"{pictures.count:,} pictures in {options.draw}")
    if options.out:
        say(f"{count:,} predictions in {options.out}")
    elif count > SHOWN:
        say(f"... {count - SHOWN:,} more; write all: out=predictions.parquet")
    return 0


def _rows(samples: list[Sample], outputs: dict[str, Any], classes: Sequence[str], top: int) -> Iterator[Row]:
    """Yield a row per sample: input, prediction, score and further outputs."""
    probabilities = outputs.get("probabilities")
    for i, sample in enumerate(samples):
        row: Row = {"input": sample.name}
        if sample.size and "box" in outputs:
            row |= {"width": sample.size[0], "height": sample.size[1]}
        for output, values in outputs.items():
            value = values[i]
            if output == "probabilities":
                chosen = outputs["prediction"][i] if "prediction" in outputs else None
                row["score"] = float(value[classes.index(chosen)] if chosen in classes else value.max())
                row["probabilities"] = value.tolist()
            else:
                row |= _columns(output, value.tolist(), steps=isinstance(values, np.ndarray) and values.ndim == 2)
        if top > 1 and probabilities is not None:
            order = np.argsort(-probabilities[i], kind="stable")[:top].tolist()
            row["top"] = [[classes[k], float(probabilities[i][k])] for k in order]
        if sample.given is not None:
            new = {name: value for name, value in row.items() if name != "input"}
            row = sample.given | {f"predicted {name}" if name in sample.given else name: value for name, value in new.items()}
        yield row


def _each_box(rows: list[Row]) -> Iterator[Row]:
    """Yield a row for each box, and one for each image without any."""
    for row in rows:
        if not row["box"]:
            yield {"input": row["input"], "prediction": "nothing found", "confidence": "", "box": ""}
        for box, prediction, confidence in zip(row["box"], row["prediction"], row["confidence"], strict=True):
            place = ", ".join(f"{side:.1f}" for side in box)
            yield {"input": row["input"], "prediction": prediction, "confidence": f"{confidence:.3f}", "box": place}


def _columns(output: str, value: Any, *, steps: bool) -> Row:
    """Return one column, or one per step: prediction_1, prediction_2."""
    if not steps:
        return {output: value}
    return {output: value[0]} if len(value) == 1 else {f"{output}_{i}": step for i, step in enumerate(value, 1)}


@contextmanager
def writer(out: str, classes: Sequence[str] = ()) -> Iterator[Callable[[list[Row]], None]]:
    """Yield a function that writes rows to the terminal or a file.

    The file is renamed to its name at the end.

    Args:
        out: Path of the file; empty for the terminal.
        classes: Names of the classes, for COCO's JSON; read when it is closed.

    Raises:
        ConfigError: The file exists, is not writable, or has an unknown suffix.
    """
    if not out:
        yield _Terminal().write
        return
    path = Path(out)
    if path.suffix not in FORMATS:
        raise ConfigError(f"out: must end in {', '.join(FORMATS)}. Received: {out!r}.", "out")
    if path.exists():
        raise ConfigError(f"out: must not exist. Received: {out!r}. Choose another name, or remove the file.", "out")
    unfinished = path.with_name(f".{path.name}.part")
    try:
        target = FORMATS[path.suffix](unfinished)
        target.classes = classes
    except OSError as error:
        raise ConfigError(f"out: cannot write {out!r}: {error.strerror}.", "out") from None
    try:
        yield target.write
        target.close()
        if unfinished.exists():
            unfinished.replace(path)
    except OSError as error:  # a full disk
        raise ConfigError(f"out: cannot write {out!r}: {error.strerror or error}.", "out") from None
    finally:
        with suppress(OSError):
            target.close()
        unfinished.unlink(missing_ok=True)


class _Terminal:
    """Writer of the first rows to the terminal."""

    def __init__(self) -> None:
        self.shown = 0

    def write(self, rows: list[Row]) -> None:
        texts = [
            {key: _text(value) for key, value in row.items() if key != "probabilities"} for row in rows[: SHOWN - self.shown]
        ]
        if not texts:
            return
        widths = {key: max(len(key), *(len(row[key]) for row in texts)) for key in texts[0]}
        if not self.shown:
            say("  ".join(f"{key:<{width}}" for key, width in widths.items()).rstrip())
        for row in texts:
            say("  ".join(f"{row[key]:<{width}}" for key, width in widths.items()).rstrip())
        self.shown += len(texts)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


class _Lines:
    """Writer of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, rows: list[Row]) -> None:
        self.file.writelines(json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in rows)

    def close(self) -> None:
        self.file.close()


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Csv:
    """Writer of CSV, with lists as JSON."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.writer: Any = None

    def write(self, rows: list[Row]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(rows[0]))
            self.writer.writeheader()
        self.writer.writerows(
            {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows
        )

    def close(self) -> None:
        self.file.close()


class _Parquet:
    """Writer of Parquet, with a row group per batch."""

    def __init__(self, path: Path) -> None:
        path.open("wb").close()
        self.path = path
        self.writer: Any = None

    def write(self, rows: list[Row]) -> None:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pylist(rows, schema=self.writer.schema if self.writer else None)
        if self.writer is None:
            self.writer = pyarrow.parquet.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


FORMATS: dict[str, Any] = {".parquet": _Parquet, ".jsonl": _Lines, ".csv": _Csv, ".json": CocoFile}
