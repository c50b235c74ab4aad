"""Daily prices of two stock indices, 1999 to 2018, split by time."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from datetime import date, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from dlframe.readers.splits import by_time
from dlframe.registry import Count, data
from dlframe.storage.fetch import Package, content, expanded, members
from dlframe.types import DataError, Dataset, DataSpec, Field, Split, nearest

ARCH = Package(
    "pip",
    "arch",
    "8.0.0",
    "975ec3bdf7926335742ac362251fafe32b448b8f194dead062f22a00beef772d",
    1,
    "NCSA, published market prices",
    build="cp311-cp311-manylinux2014_x86_64",
)

LARGEST = 10**8
"""Bytes of a file, unpacked: ten thousand years of prices."""

FILES = ["sp500.csv.gz", "nasdaq.csv.gz"]

COLUMNS = {"close": ("close",), "ohlcv": ("close", "open", "high", "low", "volume")}


@data.register("sp500", inputs=("series",), targets=("value",))
def sp500(
    *,
    window: Count = 60,
    horizon: Count = 1,
    features: Literal["close", "ohlcv"] = "close",
    path: str | None = None,
) -> Dataset:
    """Daily prices of the S&P 500 index, 5,031 trading days from 1999 to 2018.

    Inputs and targets are raw: index points, and shares for the volume. Each split is a stretch of time, in which every
    target lies; an input may reach back before it, as it would in use.

    Args:
        window: Trading days that a forecast sees.
        horizon: Trading days that it gives.
        features: The closing price alone, or with opening, highest, lowest and volume behind it.
        path: CSV file with the columns Date and Close, and Open, High, Low, Volume for ohlcv; null fetches a package.
    """
    return load("sp500", window, horizon, features, path)


@data.register("nasdaq", inputs=("series",), targets=("value",))
def nasdaq(
    *,
    window: Count = 60,
    horizon: Count = 1,
    features: Literal["close", "ohlcv"] = "close",
    path: str | None = None,
) -> Dataset:
    """Daily prices of the NASDAQ Composite index, 5,031 trading days from 1999 to 2018.

    As `sp500`. The volumes of 2015-05-12 and 2018-01-09 are 0 in the source, and left so.

    Args:
        window: Trading days that a forecast sees.
        horizon: Trading days that it gives.
        features: The closing price alone, or with opening, highest, lowest and volume behind it.
        path: CSV file with the columns Date and Close, and Open, High, Low, Volume for ohlcv; null fetches a package.
    """
    return load("nasdaq", window, horizon, features, path)


def load(name: str, window: int, horizon: int, features: str, path: str | None) -> Dataset:
    """The windows of one series, in the splits that their targets lie in.

    Raises:
        DataError: The file cannot be had or read, or is too short for a window and a horizon in every split.
    """
    file = expanded(path) if path is not None else members(ARCH, FILES)[FILES.index(f"{name}.csv.gz")]
    days, values = read_prices(file, COLUMNS[features])
    parts = by_time(len(days), (0.7, 0.1, 0.2))
    needed = [window + horizon, horizon, horizon]
    for part, rows in zip(parts, needed, strict=True):
        if part.stop - part.start < rows:
            raise DataError(
                f"{name}: {len(days):,} days are too few for data.window={window} and data.horizon={horizon}: "
                f"a split has {part.stop - part.start} of the {rows} that it needs"
            )
    train, validation, test = (_windows(days, values, part, window, horizon) for part in parts)
    # A constant feature, such as a volume that is nowhere given, must not be divided by zero.
    seen = values[parts[0]]
    std = np.where(seen.std(0) > 0, seen.std(0), 1)
    spec = DataSpec(
        name,
        inputs={
            "window": Field(
                kind="series",
                dtype="float32",
                shape=(window, values.shape[1]),
                names=COLUMNS[features],
                mean=tuple(map(float, seen.mean(0))),
                std=tuple(map(float, std)),
            )
        },
        targets={"future": Field(kind="value", dtype="float32", shape=(horizon,))},
    )
    source = f"{file if path is not None else 'pip arch'}, {days[0]} to {days[-1]}"
    return Dataset(spec, train, validation, test, source, "by time 70/10/20")


def _windows(days: list[str], values: np.ndarray, part: slice, window: int, horizon: int) -> Split:
    """Samples whose targets, the closing prices of days t to t + horizon - 1, all lie in `part`."""
    first = np.arange(max(part.start, window), part.stop - horizon + 1)
    inputs = values[first[:, None] + np.arange(-window, 0)]
    targets = values[first[:, None] + np.arange(horizon), 0]
    columns = {"window": inputs.astype(np.float32), "future": targets.astype(np.float32)}
    return Split(columns, np.array(days)[first])


def read_prices(file: Path, columns: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Days (ISO 8601) in ascending order, and (days, columns) float64, from a CSV file that may be gzipped."""
    rows = {}
    try:
        reader = csv.DictReader(io.StringIO(_text(file), newline=""))
        names = {name.strip().lower(): name for name in reader.fieldnames or ()}
        known = [name for name in names if name.isprintable() and len(name) <= 40]
        for column in ("date", *columns):
            if column not in names:
                raise DataError(f"{file}: there is no column '{column}'.{nearest(column, known)}")
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            day = _day(row[names["date"]], where)
            if day in rows:
                raise DataError(f"{where}: the day {day} occurs twice")
            rows[day] = [_number(row[names[column]], column, where) for column in columns]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    days = sorted(rows)
    return days, np.array([rows[day] for day in days]).reshape(-1, len(columns))


def _text(file: Path) -> str:
    if file.exists() and not file.is_file():  # a pipe would never end
        raise DataError(f"{file}: must be a file")
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        return content(stream, file, LARGEST).decode("utf-8-sig")


def _day(text: str, where: str) -> str:
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except (ValueError, TypeError):
        pass
    try:
        return datetime.strptime(text, "%m/%d/%Y").date().isoformat()
    except (ValueError, TypeError):
        raise DataError(f"{where}: the date must be 2018-12-31 or 12/31/2018. Received: {_short(text)}") from None


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except (ValueError, TypeError):
        value = math.nan
    if not abs(value) < 1e30:  # the square, which the deviation needs, would be no number
        raise DataError(f"{where}: '{column}' must be a number. Received: {_short(text)}")
    return value


def _short(text: object) -> str:
    return repr(text if len(str(text)) <= 40 else f"{str(text)[:40]}...")
