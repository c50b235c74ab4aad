"""Monthly carbon dioxide at Mauna Loa, 1958 to 2001, split chronologically."""

from __future__ import annotations

import csv
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dlframe.readers.tables.series import Panel, Series, dataset_of
from dlframe.registry import Count, Natural, data
from dlframe.types import DataError, Dataset, MissingPackageError, say

SHA256 = "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"

CUTS = (360, 420)
"""Months at which validation and test period begin."""


@data.register("co2", inputs=("series",), targets=("value",), files=(), tasks={"value": "forecasting"})
def co2(*, window: Count = 36, horizon: Count = 12, fold: Natural = 0) -> Dataset:
    """Carbon dioxide at Mauna Loa in ppm, means of 526 months from 1958-03 to 2001-12.

    Keeling and Whorf 2004, weekly values of the package statsmodels (public domain). Months without a value are interpolated
    linearly. The first 360 months are for training, the next 60 for validation, the last 106 for testing.

    Args:
        window: Months of an input.
        horizon: Months of a forecast.
        fold: Rolling origin: 0 tests on the last 106 months, 1 on the 106 before, and so on.
    """
    months, values = monthly(weekly())
    gaps = np.isnan(values)
    values[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), values[~gaps])
    say(f"co2: {gaps.sum()} months without a value are interpolated, {', '.join(months[gaps].astype(str))}", error=True)
    times = months.astype("datetime64[us]").astype(np.int64)
    ids = months.astype("datetime64[D]").astype(str)
    series = Series("", ids, times, values[:, None], np.empty((len(values), 0)))
    kept = {"time": "date", "id": "", "targets": ["co2"], "features": [], "columns": {}}
    panel = Panel([series], ("co2",), [], kept)
    return dataset_of(panel, "co2", window, horizon, "statsmodels, offline", season=12, fold=fold, cuts=CUTS)


def weekly() -> Path:
    """Return the file of weekly values in the installed package.

    Raises:
        DataError: The package is missing, or its file is another one.
    """
    found = find_spec("statsmodels")
    if not found or not found.origin:
        raise MissingPackageError("data=co2: requires the package statsmodels. Try: python -m pip install statsmodels")
    file = Path(found.origin).parent / "datasets" / "co2" / "co2.csv"
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    if digest != SHA256:
        raise DataError(f"{file}: must have the SHA-256 {SHA256[:16]}... Received: {digest[:16]}... Install statsmodels again")
    return file


def monthly(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return all months and their mean values; NaN for a month without any."""
    with file.open(encoding="ascii", newline="") as lines:
        rows = [(row["date"], float(row["co2"] or "nan")) for row in csv.DictReader(lines)]
    of = np.array([f"{day[:4]}-{day[4:6]}" for day, _ in rows], dtype="datetime64[M]")
    values = np.array([value for _, value in rows])
    known = ~np.isnan(values)
    place = (of - of[0]).astype(np.int64)
    counts, sums = np.bincount(place[known], minlength=place[-1] + 1), np.bincount(place[known], values[known], place[-1] + 1)
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return of[0] + np.arange(len(sums)), means
