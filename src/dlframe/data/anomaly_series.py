"""Series with labeled steps: a real one, the user's own, and one with planted events."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Interval

from dlframe.readers.splits import chronological_split
from dlframe.readers.tables.files import Options
from dlframe.readers.tables.series import Series, read_panel, windows_of
from dlframe.readers.tables.table import found_name, names_of
from dlframe.registry import data
from dlframe.statistics.metrics.events import numbered
from dlframe.storage.fetch import Package, expanded, members
from dlframe.types import DataError, Dataset, DataSpec, Field, Split, printable, say

AEON = Package(
    "pip",
    "aeon",
    "1.6.0",
    "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    6.4,
    "UCR Anomaly Archive (Wu and Keogh 2021), package BSD-3-Clause",
)
FILES = [f"aeon/datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_{part}.csv" for part in ("TEST", "TRAIN")]
TRAINED = 1200
"""Rows that the archive calls training, the first ones of the series."""

LABELS = ("is_anomaly", "anomaly", "label", "is_outlier", "outlier")
"""Names, lower case, of a column of labels."""

Window = Annotated[int, Interval(ge=2)]


@data.register(
    "internal_bleeding",
    inputs=("series",),
    targets=("class", "event"),
    files=("path",),
    tasks={"event": "series_anomaly_detection", "class": "series_anomaly_detection"},
)
def internal_bleeding(*, window: Window = 64, path: str | None = None) -> Dataset:
    """7,501 values of arterial blood pressure with one event of 12 steps (UCR Anomaly Archive, InternalBleeding16).

    Wu and Keogh 2021 (arXiv 2009.13807). The first 1,200 steps are for training, the last fifth of them for validation.

    Args:
        window: Steps of an input.
        path: Folder with the files of the archive's copy in aeon; null fetches the package.
    """
    names = [Path(file).name for file in FILES]
    files = [expanded(path) / name for name in names] if path else members(AEON, FILES)
    series = _labeled(files[0], (), None, "is_anomaly")[0]
    if len(series.ids) <= TRAINED + 2 * window:
        raise DataError(f"{files[0]}: must have more than {TRAINED + 2 * window:,} rows. Received: {len(series.ids):,}")
    cuts = [0, TRAINED * 4 // 5, TRAINED, len(series.ids)]
    return _dataset(
        "internal_bleeding",
        series,
        cuts,
        window,
        "pip aeon" if path is None else str(expanded(path)),
        "as the archive",
        ("value",),
    )


@data.register(
    "anomaly_series",
    inputs=("series",),
    targets=("class", "event"),
    files=("path",),
    tasks={"event": "series_anomaly_detection", "class": "series_anomaly_detection"},
)
def anomaly_series(
    *,
    path: str,
    window: Window = 64,
    values: tuple[str, ...] = (),
    label: str | None = None,
    time: str | None = None,
    separator: str = "auto",
    encoding: str = "auto",
    spec: DataSpec | None = None,
) -> Dataset:
    """Series of a CSV, TSV, JSON lines or Parquet file with a label for each row: 1 for an anomaly, 0 for a normal step.

    Rows are sorted by time. The splits are consecutive, 60/10/30. Training windows with an anomalous step are left out.

    Args:
        path: The file.
        window: Rows of an input; its score is that of the last one.
        values: Columns of the series; empty for all of numbers besides time and label.
        label: Column of labels; null for a usual name, such as is_anomaly.
        time: Column of times; null for the only one of dates or one of a usual name, such as timestamp.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.
        spec: Specification of a run whose model is scored on the steps of this file: all of them are the test set.
    """
    file = expanded(path)
    kept = _kept(spec) if spec else values
    series, notes, names = _labeled(file, kept, time, label, Options(separator=separator, encoding=encoding))
    for note in notes:
        say(f"anomaly_series: {note}", error=True)
    if spec:
        return _others(series, spec, str(file))
    parts = chronological_split(len(series.ids), (0.6, 0.1, 0.3))
    cuts = [part.start for part in parts] + [len(series.ids)]
    if (shortest := min(np.diff(cuts))) < 2 or cuts[1] < 2 * window:
        raise DataError(
            f"{file}: {len(series.ids):,} rows are too few for data.window={window}: a split has {shortest}, and training must "
            f"have {2 * window}"
        )
    name = printable(file.name.partition(".")[0]) or "series"
    return _dataset(name, series, cuts, window, str(file), "chronological 60/10/30", names)


@data.register("planted_events", inputs=("series",), targets=("class", "event"), files=(), sample={"steps": 3000, "window": 16})
def planted_events(*, steps: Annotated[int, Interval(ge=1500)] = 12_000, window: Window = 32) -> Dataset:
    """Synthetic: two periodic signals with noise; jumps, shifts, flat parts and faster periods are planted in the test part.

    Args:
        steps: Length of the series.
        window: Steps of an input.
    """
    random = np.random.default_rng(0)
    time = np.arange(steps)
    first = np.sin(2 * np.pi * time / 25) + 0.3 * np.sin(2 * np.pi * time / 7)
    second = 0.6 * first + 0.5 * np.cos(2 * np.pi * time / 50)
    values = np.stack([first, second], 1) + random.normal(0, 0.05, (steps, 2))
    inside = np.zeros(steps, bool)
    # In the validation and the test part; all kinds in turn.
    places = np.arange(int(0.62 * steps), steps - 60, max(150, steps // 60))
    for number, start in enumerate(places + random.integers(0, 40, len(places))):
        length = int(random.integers(4, 30))
        part = slice(start, start + length)
        match number % 4:
            case 0:
                part = slice(start, start + 2)
                values[part, 0] += random.choice([-1, 1]) * 1.2
            case 1:
                values[part] += 0.8
            case 2:
                values[part] = values[start]
            case _:
                values[part, 0] = np.sin(2 * np.pi * time[part] / 4) + random.normal(0, 0.05, length)
        inside[part] = True
    series = Series("", time.astype(str), time, np.c_[values, inside], np.zeros((len(values), 0)))
    cuts = [0, int(0.5 * steps), int(0.6 * steps), steps]
    return _dataset("planted_events", series, cuts, window, "synthetic", "chronological 50/10/40", ("first", "second"))


def _labeled(
    file: Path, values: Sequence[str], time: str | None, label: str | None, options: Options | None = None
) -> tuple[Series, list[str], tuple[str, ...]]:
    """Read a series whose last column is the label; its notes, and the names of its values.

    Raises:
        DataError: There is no column of labels, or a label is neither 0 nor 1.
    """
    options = options or Options()
    names = names_of(file, options)
    usual = {name.strip().casefold(): name for name in names}
    found = found_name(label, names, "data.label", str(file)) if label else next((usual[n] for n in LABELS if n in usual), None)
    if found is None:
        raise DataError(
            f"{file}: must have a column of labels, 1 for an anomaly and 0 for a normal step, such as is_anomaly. Columns: "
            f"{', '.join(names[:8])}. Say which: data.label=COLUMN. A series without labels can be trained on by "
            "task=forecasting"
        )
    wanted = [found_name(name, names, "data.values", str(file)) for name in values] or [
        name for name in names if name not in (found, time) and name.strip().casefold() not in TIMED
    ]
    if not wanted:
        raise DataError(f"{file}: must have a column of values besides '{found}'. Received: {', '.join(names[:8])}")
    panel = read_panel(file, options, time=time, target=wanted[:1], features=[*wanted[1:], found])
    (series,) = panel.series
    labels = series.values[:, -1]
    if not np.isin(labels, (0, 1)).all():
        row = int(np.argmin(np.isin(labels, (0, 1))))
        raise DataError(
            f"{file}: '{found}' must be 1 for an anomaly or 0. Received: {labels[row]:g} at {series.ids[row]}. Another "
            "column: data.label=COLUMN"
        )
    return series, panel.notes, tuple(wanted)


TIMED = ("timestamp", "time", "date", "datetime", "ds")
"""Names, lower case, of columns that are no values."""


def _dataset(
    name: str,
    one: Series,
    own: Sequence[int],
    window: int,
    source: str,
    splits: str,
    names: Sequence[str],
) -> Dataset:
    """Return the windows of a series whose last column is the label, as views; a window belongs to the split of its last step.

    Raises:
        DataError: No window of training or validation is normal.
    """
    values, inside = one.values[:, :-1], one.values[:, -1] == 1
    parts = _windows(one, window, own)
    # Whether a window that ends with a step has an anomaly.
    touched = (np.convolve(inside, np.ones(window))[: len(inside)] > 0)[max(own[0], window - 1) : own[1]]
    if touched.any():
        parts[0] = parts[0].take(np.flatnonzero(~touched))
        splits += f", {int(touched.sum()):,} training windows with an anomaly left out"
    for part, found in zip(("training", "validation"), parts, strict=False):
        if not len(found) or found["label"].all():
            raise DataError(f"{source}: must have a normal window for {part}. Try a smaller data.window, or more rows")
    seen = values[: own[1]][~inside[: own[1]]]
    std = np.where(seen.std(0) > 0, seen.std(0), 1)
    field = Field(
        kind="series",
        dtype="float64",
        shape=(window, values.shape[1]),
        names=tuple(names),
        mean=tuple(map(float, seen.mean(0))),
        std=tuple(map(float, std)),
    )
    targets = {
        "label": Field(kind="class", dtype="int64", names=("normal", "anomaly")),
        "event": Field(kind="event", dtype="int64"),
    }
    kept = {"targets": list(names[:1]), "features": list(names[1:])}
    spec = DataSpec(name, {"window": field}, targets, {"normal": ["normal"], "series": kept})
    return Dataset(spec, parts[0], parts[1], parts[2], f"{source}, {_events(parts[2]):,} events to test", splits)


def _windows(one: Series, window: int, cuts: Sequence[int]) -> list[Split]:
    """Return the windows, as views, that end with the steps from each cut to the next; the last column is the label."""
    values, inside = np.ascontiguousarray(one.values[:, :-1]), one.values[:, -1] == 1
    ids, events = np.asarray(one.ids), numbered(inside)
    parts = []
    for start, stop in itertools.pairwise(cuts):
        rows = np.arange(max(start, window - 1), stop)
        windows = windows_of(values, window, rows[0] + 1, stop + 1) if len(rows) else values[:0, None]
        parts.append(Split({"window": windows, "label": inside[rows].astype(np.int64), "event": events[rows]}, ids[rows]))
    return parts


def _events(split: Split) -> int:
    return len(np.unique(split["event"][split["event"] > 0]))


def _kept(spec: DataSpec) -> tuple[str, ...]:
    """Return the columns that a run has read; its file may be somebody else's.

    Raises:
        DataError: It holds no columns of a series.
    """
    kept = spec.fitted.get("series")
    parts = [kept.get(key) for key in ("targets", "features")] if isinstance(kept, dict) else [None]
    if {"window"} != spec.inputs.keys() or {"label", "event"} != spec.targets.keys():
        parts = [None]
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts):
        raise DataError("spec.json: holds no columns of a series")
    return tuple(name for part in parts for name in part or ())


def _others(one: Series, spec: DataSpec, source: str) -> Dataset:
    """Return the steps of a series that a run was not made from: all windows are the test set.

    Raises:
        DataError: It has no whole window.
    """
    window = spec.inputs["window"].shape[0] or 0
    if len(one.ids) < window:
        raise DataError(f"{source}: must have at least {window} rows, those of a window. Received: {len(one.ids)}")
    (found,) = _windows(one, window, [0, len(one.ids)])
    return Dataset(spec, found, found, found, f"{source}, {_events(found):,} events to test", "all steps")
