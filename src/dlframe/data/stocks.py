"""Daily prices of two stock indices, 1999 to 2018, split chronologically."""

from __future__ import annotations

from typing import Literal

from dlframe.readers.tables.series import dataset_like, dataset_of, kept_of, name_of, read_panel
from dlframe.registry import Count, Natural, data
from dlframe.storage.fetch import Package, expanded, members
from dlframe.types import DataError, Dataset, DataSpec, say

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


@data.register("sp500", inputs=("series",), targets=("value",), files=("path",), tasks={"value": "forecasting"})
def sp500(
    *,
    window: Count = 60,
    horizon: Count = 1,
    features: Literal["close", "ohlcv"] = "close",
    path: str | None = None,
    fold: Natural = 0,
    spec: DataSpec | None = None,
) -> Dataset:
    """Daily prices of the S&P 500 index, 5,031 days from 1999 to 2018.

    Inputs and targets are raw: index points, and shares for the volume. Each split is a period that contains all its
    targets; inputs may start before the period, as in use.

    Args:
        window: Trading days of an input.
        horizon: Trading days of a forecast.
        features: Closing price alone, or followed by open, high, low and volume (ohlcv).
        path: Table with the columns Date and Close, and Open, High, Low, Volume for ohlcv; null fetches a package. Any other
            table is read by `data=series`.
        fold: Rolling origin: 0 tests on the last fifth of the days, 1 on the fifth before it, and so on.
        spec: Specification of a run whose model is scored on another table: all windows are the test set.
    """
    return load("sp500", window, horizon, features, path, fold, spec)


@data.register("nasdaq", inputs=("series",), targets=("value",), files=("path",), tasks={"value": "forecasting"})
def nasdaq(
    *,
    window: Count = 60,
    horizon: Count = 1,
    features: Literal["close", "ohlcv"] = "close",
    path: str | None = None,
    fold: Natural = 0,
    spec: DataSpec | None = None,
) -> Dataset:
    """Daily prices of the NASDAQ Composite index, 5,031 days from 1999 to 2018.

    As `sp500`. The volumes of 2015-05-12 and 2018-01-09 are 0 in the source.

    Args:
        window: Trading days of an input.
        horizon: Trading days of a forecast.
        features: Closing price alone, or followed by open, high, low and volume (ohlcv).
        path: Table with the columns Date and Close, and Open, High, Low, Volume for ohlcv; null fetches a package. Any other
            table is read by `data=series`.
        fold: Rolling origin: 0 tests on the last fifth of the days, 1 on the fifth before it, and so on.
        spec: Specification of a run whose model is scored on another table: all windows are the test set.
    """
    return load("nasdaq", window, horizon, features, path, fold, spec)


def load(name: str, window: int, horizon: int, features: str, path: str | None, fold: int, spec: DataSpec | None) -> Dataset:
    """Load the windows of a series, split by their targets.

    Raises:
        DataError: The file cannot be fetched or read, or is too short for a window and a horizon in every split.
    """
    file = expanded(path) if path is not None else members(ARCH, FILES)[FILES.index(f"{name}.csv.gz")]
    target, *more = COLUMNS[features]
    try:
        panel = read_panel(file, target=[target], features=more, known=kept_of(spec) if spec else None)
    except DataError as error:
        options = " The options are those of data=series." if path is not None and "data." in str(error) else ""
        raise DataError(f"{error}{options}") from None
    source = str(file) if path else "pip arch"
    if spec:
        dataset = dataset_like(panel, spec, source)
    else:
        dataset = dataset_of(panel, name if path is None else name_of(file, name), window, horizon, source, fold=fold)
    for note in panel.notes if path is not None else ():
        say(f"{name}: {note}", error=True)
    return dataset
