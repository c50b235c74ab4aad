"""Reader of time series from tables."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.storage.fetch import content
from dlframe.types import DataError, nearest

LARGEST = 10**8
"""Maximum unpacked bytes of a file."""


Rows = Iterator[tuple[str, dict[str, Any]]]
"""Position of a row, for messages, and its values by column."""


def read_prices(file: Path, columns: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Read ascending days (ISO 8601) and values (days, columns), float64."""
    names, rows = _table(file)
    found = _found(file, ("date", *columns), names)
    return _by_day(rows, found)


def read_series(file: Path, columns: tuple[str, ...], features: int) -> tuple[list[str], np.ndarray]:
    """Read as `read_prices`; rows without dates must be chronological.

    Args:
        file: A .csv, .csv.gz or .parquet file.
        columns: Names of the features; empty for all columns except the date.
        features: Number of features.
    """
    names, rows = _table(file)
    columns = columns or tuple(name for name in names if name != "date")
    if len(columns) != features:
        raise DataError(f"{file}: must have {features} columns besides the date. Received: {len(columns)}")
    if "date" in names:
        return _by_day(rows, _found(file, ("date", *columns), names))
    found = _found(file, columns, names)
    values = [[_number(row[column], name, where) for name, column in found.items()] for where, row in rows]
    return [f"row {i}" for i in range(1, len(values) + 1)], np.array(values).reshape(-1, features)


def _found(file: Path, columns: tuple[str, ...], names: dict[str, str]) -> dict[str, str]:
    """Return the columns in the spelling of the table."""
    known = [name for name in names if name.isprintable() and len(name) <= 40]
    for column in columns:
        if column not in names:
            raise DataError(f"{file}: must have a column '{column}'.{nearest(column, known)}")
    return {column: names[column] for column in columns}


def _by_day(rows: Rows, columns: dict[str, str]) -> tuple[list[str], np.ndarray]:
    found = {}
    _, *numbers = columns
    for where, row in rows:
        day = _day(row[columns["date"]], where)
        if day in found:
            raise DataError(f"{where}: dates must be unique. Received: {day} twice")
        found[day] = [_number(row[columns[column]], column, where) for column in numbers]
    days = sorted(found)
    return days, np.array([found[day] for day in days]).reshape(-1, len(numbers))


def _table(file: Path) -> tuple[dict[str, str], Rows]:
    """Return the columns, lower case -> spelling of the table, and the rows.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        if file.suffix.lower() == ".parquet":
            names, rows = _parquet(file)
        else:
            reader = csv.DictReader(io.StringIO(_text(file), newline=""))
            names, rows = reader.fieldnames or (), ((f"{file}, line {reader.line_num}", row) for row in reader)
        return {name.strip().lower(): name for name in names}, _readable(file, rows)
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None


def _readable(file: Path, rows: Rows) -> Rows:
    try:
        yield from rows
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None


def _parquet(file: Path) -> tuple[list[str], Rows]:
    import pyarrow.parquet

    if file.exists() and not file.is_file():
        raise DataError(f"{file}: must be a file")
    table = pyarrow.parquet.ParquetFile(file)
    metadata = table.metadata
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if max(size, metadata.num_rows) > LARGEST:
        raise DataError(f"{file}: holds more than {LARGEST / 1e9:.3g} GB")
    rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
    return table.schema_arrow.names, ((f"{file}, row {i}", row) for i, row in enumerate(rows, 1))


def _text(file: Path) -> str:
    if file.exists() and not file.is_file():  # pipes block forever
        raise DataError(f"{file}: must be a file")
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        return content(stream, file, LARGEST).decode("utf-8-sig")


def _day(text: Any, where: str) -> str:
    if isinstance(text, date):
        return text.isoformat()[:10]
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except (ValueError, TypeError):
        pass
    try:
        return datetime.strptime(text, "%m/%d/%Y").date().isoformat()
    except (ValueError, TypeError):
        raise DataError(f"{where}: the date must be 2018-12-31 or 12/31/2018. Received: {_short(text)}") from None


def _number(text: Any, column: str, where: str) -> float:
    try:
        value = float(text)
    except (ValueError, TypeError):
        value = math.nan
    if not abs(value) < 1e30:  # larger values overflow the standard deviation
        raise DataError(f"{where}: '{column}' must be a number. Received: {_short(text)}")
    return value


def _short(text: object) -> str:
    return repr(text if len(str(text)) <= 40 else f"{str(text)[:40]}...")
