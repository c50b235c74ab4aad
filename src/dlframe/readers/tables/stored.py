"""Tables with types of their own: Parquet and JSON lines."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dlframe.readers.tables.files import Source
from dlframe.types import DataError

CELLS = 2**28
"""Values that a Parquet file may hold in any case."""

GROWTH = 1_000
"""Otherwise, values per byte of the file at most: equal values take next to none."""

LINES = 50_000
"""JSON lines that are converted at once."""


def read_parquet(source: Source) -> dict[str, pa.ChunkedArray]:
    """Read the columns, without an index that pandas stored.

    Raises:
        DataError: The file is damaged, too large, or has nested columns.
    """
    try:
        with source.stream() as raw, pyarrow.parquet.ParquetFile(raw) as file:
            schema, facts = file.schema_arrow, file.metadata
            size = len(source.data) if source.data is not None else source.path.stat().st_size
            cells = facts.num_rows * max(1, len(schema))
            if cells > max(CELLS, GROWTH * size):
                raise DataError(f"{source.name}: must hold at most {max(CELLS, GROWTH * size):,} values. Received: {cells:,}")
            unpacked = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
            if unpacked > max(CELLS, GROWTH * size):
                raise DataError(
                    f"{source.name}: unpacks to {unpacked / 1e9:.3g} GB. If you trust it, write it without compression"
                )
            names = [field.name for field in schema if not _is_index(field)]
            for name in names:
                kind = schema.field(name).type if schema.names.count(name) == 1 else None
                if kind is not None and pa.types.is_nested(kind):
                    raise DataError(
                        f"{source.name}: '{name}' is a {str(kind).partition('<')[0]} of values, not one per row. "
                        "Leave it out of the file"
                    )
            if len(set(names)) < len(names):
                return {}
            table = file.read(columns=names)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{source.name}: cannot be read as Parquet: {said}") from None
    return {name: table[name] for name in names}


def parquet_names(source: Source) -> list[str]:
    """Return the names of the columns."""
    try:
        with source.stream() as raw:
            schema = pyarrow.parquet.read_schema(raw)
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{source.name}: cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None
    return [field.name for field in schema if not _is_index(field)]


def _is_index(field: pa.Field) -> bool:
    """Return whether pandas wrote a column for an index without a name; times are data."""
    return field.name.startswith("__index_level_") and field.name.endswith("__") and not pa.types.is_temporal(field.type)


def read_lines(source: Source) -> dict[str, pa.ChunkedArray]:
    """Read JSON lines as text by column; their kinds are decided like those of CSV.

    Raises:
        DataError: A line is no JSON object of single values, or repeats a name.
    """
    columns: dict[str, list[pa.Array]] = {}
    pending: dict[str, list[str | None]] = {}
    rows = done = 0

    def flush() -> None:
        nonlocal done
        for name, values in pending.items():
            parts = columns.setdefault(name, [pa.nulls(done, pa.string())] if done else [])
            values += [None] * (rows - done - len(values))
            parts.append(pa.array(values, pa.string()))
        for name, parts in columns.items():
            if name not in pending:
                parts.append(pa.nulls(rows - done, pa.string()))
        pending.clear()
        done = rows

    with source.stream(source.start) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            record = _object(source, number, line)
            for name, value in record.items():
                values = pending.setdefault(name, [])
                values += [None] * (rows - done - len(values))
                values.append(value)
            rows += 1
            if rows - done >= LINES:
                flush()
    flush()
    if not rows:
        raise DataError(f"{source.name}: is empty: it has no rows")
    return {name: pa.chunked_array(parts, pa.string()) for name, parts in columns.items()}


def _object(source: Source, number: int, line: bytes) -> dict[str, str | None]:
    where = f"{source.name}, line {number}"

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{where}: must have each name once. Received: '{twice}' twice")
        return found

    def refused(word: str) -> str:
        raise DataError(f"{where}: must hold numbers, text, true, false or null. Received: {word}")

    try:
        record = json.loads(line.decode(), object_pairs_hook=once, parse_int=str, parse_float=str, parse_constant=refused)
    except UnicodeDecodeError:
        raise DataError(f"{where}: must be UTF-8. Name its encoding, such as data.encoding=cp1252") from None
    except (ValueError, RecursionError) as error:
        shown = line[:40].decode("utf-8", "backslashreplace").strip()
        raise DataError(f"{where}: must be a JSON object. Received: {shown!r}: {error}") from None
    if not isinstance(record, dict):
        shown = line[:40].decode("utf-8", "backslashreplace").strip()
        raise DataError(f"{where}: must be a JSON object, one in each line. Received: {shown!r}")
    found: dict[str, str | None] = {}
    for name, value in record.items():
        if isinstance(value, (list, dict)):
            what = "list" if isinstance(value, list) else "object"
            raise DataError(f"{where}: '{name}' is a {what}, not one value")
        for text in (name, value):
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise DataError(
                    f"{where}: must be text of Unicode. Received: half of a surrogate pair in '{ascii(name)[1:-1]}'"
                )
        found[name] = None if value is None or value == "" else value if isinstance(value, str) else str(value).lower()
    return found


def line_of_object(source: Source, row: int) -> int:
    """Return the physical line of a row of JSON lines."""
    with source.stream(source.start) as file:
        found = -1
        for number, line in enumerate(file, 1):
            found += bool(line.strip())
            if found == row:
                return number
    return 1
