"""Daily prices of two stock indices, 1999 to 2018, split chronologically."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dlframe.readers.series import read_prices
from dlframe.readers.splits import chronological_split
from dlframe.registry import Count, data
from dlframe.storage.fetch import Package, expanded, members
from dlframe.types import DataError, Dataset, DataSpec, Field, Split, printable

ARCH = Package(
    "pip",
    "arch",
    "8.0.0",
    "975ec3bdf7926335742ac362251fafe32b448b8f194dead062f22a00beef772d",
    1,
    "NCSA, published market prices",
    build="cp311-cp311-manylinux2014_x86_64",
)

FILES = ["sp500.csv.gz", "nasdaq.csv.gz"]

COLUMNS = {"close": ("close",), "ohlcv": ("close", "open", "high", "low", "volume")}


@data.register("sp500", inputs=("series",), targets=("value",), files=("path",))
def sp500(
    *,
    window: Count = 60,
    horizon: Count = 1,
    features: Literal["close", "ohlcv"] = "close",
    path: str | None = None,
) -> Dataset:
    """Daily prices of the S&P 500 index, 5,031 days from 1999 to 2018.

    Inputs and targets are raw: index points, and shares for the volume. Each split is a period that contains all its
    targets; inputs may start before the period, as in use.

    Args:
        window: Trading days of an input.
        horizon: Trading days of a forecast.
        features: Closing price alone, or followed by open, high, low and volume (ohlcv).
        path: CSV file with the columns Date and Close, and Open, High, Low, Volume for ohlcv; null fetches a package.
    """
    return load("sp500", window, horizon, features, path)


@data.register("nasdaq", inputs=("series",), targets=("value",), files=("path",))
def nasdaq(
    *,
    window: Count = 60,
    horizon: Count = 1,
    features: Literal["close", "ohlcv"] = "close",
    path: str | None = None,
) -> Dataset:
    """Daily prices of the NASDAQ Composite index, 5,031 days from 1999 to 2018.

    As `sp500`. The volumes of 2015-05-12 and 2018-01-09 are 0 in the source.

    Args:
        window: Trading days of an input.
        horizon: Trading days of a forecast.
        features: Closing price alone, or followed by open, high, low and volume (ohlcv).
        path: CSV file with the columns Date and Close, and Open, High, Low, Volume for ohlcv; null fetches a package.
    """
    return load("nasdaq", window, horizon, features, path)


def load(name: str, window: int, horizon: int, features: str, path: str | None) -> Dataset:
    """Load the windows of a series, split by their targets.

    Raises:
        DataError: The file cannot be fetched or read, or is too short for a window and a horizon in every split.
    """
    file = expanded(path) if path is not None else members(ARCH, FILES)[FILES.index(f"{name}.csv.gz")]
    days, values = read_prices(file, COLUMNS[features])
    parts = chronological_split(len(days), (0.7, 0.1, 0.2))
    needed = [window + horizon, horizon, horizon]
    for part, rows in zip(parts, needed, strict=True):
        if part.stop - part.start < rows:
            raise DataError(
                f"{name}: {len(days):,} days are too few for data.window={window} and data.horizon={horizon}: "
                f"a split has {part.stop - part.start} of the {rows} that it needs"
            )
    train, validation, test = (_windows(days, values, part, window, horizon) for part in parts)
    # A constant feature, such as a missing volume, must not be divided by zero.
    seen = values[parts[0]]
    std = np.where(seen.std(0) > 0, seen.std(0), 1)
    spec = DataSpec(
        name if path is None else printable(file.name.partition(".")[0]) or name,
        inputs={
            "window": Field(
                kind="series",
                dtype="float64",
                shape=(window, values.shape[1]),
                names=COLUMNS[features],
                mean=tuple(map(float, seen.mean(0))),
                std=tuple(map(float, std)),
            )
        },
        targets={"future": Field(kind="value", dtype="float64", shape=(horizon,))},
    )
    source = f"{file if path is not None else 'pip arch'}, {days[0]} to {days[-1]}"
    return Dataset(spec, train, validation, test, source, "chronological 70/10/20")


def _windows(days: list[str], values: np.ndarray, part: slice, window: int, horizon: int) -> Split:
    """Return the samples whose targets, of horizon days, lie in `part`."""
    first = np.arange(max(part.start, window), part.stop - horizon + 1)
    inputs = values[first[:, None] + np.arange(-window, 0)]
    targets = values[first[:, None] + np.arange(horizon), 0]
    return Split({"window": inputs, "future": targets}, np.array(days)[first])
