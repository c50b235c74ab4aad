"""Tables: columns with kinds, from any file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dlframe.readers.tables.delimited import Layout, layout_of, line_of, read_delimited
from dlframe.readers.tables.files import Options, Source, open_table, pc
from dlframe.readers.tables.kinds import KINDS, Column, Rule, coded_of, column_of, rules_of
from dlframe.readers.tables.stored import line_of_object, parquet_names, read_lines, read_parquet
from dlframe.types import DataError, nearest, printable

ROW_NUMBERS = re.compile(
    r"^$|(?:^|[a-z_. -])I[dD]$|(?:^|[_. -])id$|(?i:^(?:unnamed: 0|index|level_0|row|row.?(?:id|number|nr|no)))$"
)
"""Names of a column that holds row numbers, if it counts up."""


@dataclass
class Table:
    """Columns of a file, all of equal length.

    Attributes:
        file: Name for messages.
        columns: Name -> column, in the order of the file.
        rows: Number of rows.
        notes: What was assumed and left out, one sentence each.
        places: Function from a row to its place.
        others: Columns that a run does not know.
        decided: Columns whose kind an option says.
    """

    file: str
    columns: dict[str, Column]
    rows: int
    notes: list[str]
    places: Callable[[int], str]
    others: tuple[str, ...] = ()
    decided: frozenset[str] = frozenset()

    def place(self, row: int) -> str:
        """Return "file, line 12" for a row, or "file, row 12" of Parquet."""
        return self.places(row)

    def column(self, name: str, option: str) -> Column:
        """Return a column that an option names, in any case.

        Raises:
            DataError: There is none.
        """
        return self.columns[found_name(name, list(self.columns), option, self.file)]


def found_name(name: str, names: Sequence[str], option: str, file: str) -> str:
    """Return the spelling in the table of a column that an option names."""
    if name in names:
        return name
    folded = {known.strip().casefold(): known for known in names}
    if (known := folded.get(name.strip().casefold())) is not None:
        return known
    shown = [printable(known) for known in names if len(known) <= 40]
    alone = (
        f" The table has one column, {names[0][:60]!r}: is its separator another? data.separator=semicolon"
        if len(names) == 1
        else ""
    )
    raise DataError(f"{file}: {option} must name a column. Received: '{name}'.{alone or nearest(name, shown[:50])}")


def read_table(
    path: Path,
    options: Options | None = None,
    *,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    hints: Mapping[str, Mapping[str, Any]] | None = None,
    words: Sequence[str] = (),
    numbers: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Table:
    """Read a table: each column gets the kind that all its values have.

    Args:
        path: CSV, TSV, JSON lines or Parquet file, also in .gz or .zip.
        options: What the user says about it.
        known: Column -> how it was read in a run (`Column.how`); other columns are left out, and told.
        hints: As `known`, of some columns; the kinds of others are decided.
        words: Columns whose text is kept to the letter.
        numbers: Columns whose digits are numbers, never identifiers.
        keep: Columns that are kept though they may number the rows.

    Raises:
        DataError: With file, physical line, value, and the option that would read it.
    """
    options = options or Options()
    source = open_table(path, options.encoding)
    layout: Layout | None = None
    notes = list(source.notes)
    if source.form == "delimited":
        layout = layout_of(source, options)
        notes += layout.notes
        names = _named(source, layout, notes)
        forced = _forced(names, options, known, words)
        marks = "," in (options.decimal, *(how.get("decimal") for how in (known or hints or {}).values()))
        marks = marks or options.thousands == "."
        found = read_delimited(source, layout, forced, names, marks=marks)
    elif source.form == "lines":
        found = read_lines(source)
        names = _checked(source, list(found))
    else:
        names = _checked(source, parquet_names(source))
        found = read_parquet(source)
    if not found:
        raise DataError(f"{source.name}: has no columns")
    kept = _kept_rows(found)
    places = partial(_place, source, layout, kept)
    rows = len(next(iter(found.values())))
    if kept is not None:
        empty, rows = rows - len(kept), len(kept)
        found = {name: values.take(pa.array(kept)) for name, values in found.items()}
        notes.append(f"left out {empty:,} {'row' if empty == 1 else 'rows'} of empty fields")
    if not rows:
        raise DataError(f"{source.name}: has no rows: it is empty but for its header")
    table = Table(source.name, {}, rows, notes, places)
    table.decided = frozenset(name for name in names if any(text.startswith(f"{name}:") for text in options.kinds))
    rules = rules_of(options, names) if known is None else {}
    rules |= {
        found_name(name, names, "data", source.name): _rule(how)
        for name, how in (known or hints or {}).items()
        if _has(names, name)
    }
    if known is not None:
        table.others = tuple(name for name in names if name not in known)
    dropped = {found_name(name, names, "data.drop", source.name) for name in options.drop}
    for name in names:
        values = found.pop(name)
        if name in dropped or name not in rules:
            continue
        rule = rules[name]
        if name in words and not rule.kind:
            rule = replace(rule, kind="category")
        if name in numbers:
            rule = replace(rule, numeric=True)
        unnamed = layout is not None and layout.unnamed and name == names[0]
        if (
            (unnamed or ROW_NUMBERS.search(name))
            and name not in keep
            and not rule.kind
            and known is None
            and _counts_up(values)
        ):
            told = "the first column, which has no name," if unnamed else f"'{name}'"
            notes.append(f"{told} numbers the rows: left out")
            continue
        column = column_of(name, values, rule, source.name, places)
        if column.kind == "empty":
            if name:
                notes.append(f"'{name}' has no values: left out")
            continue
        notes += column.notes
        table.columns[column.name] = column
    if known is None and dropped:
        notes.append(f"left out by data.drop: {', '.join(sorted(dropped))}")
    return table


def read_texts(path: Path) -> dict[str, list[str]]:
    """Read all columns as text without blanks around it; missing values are "".

    Raises:
        DataError: As `read_table`.
    """
    table = read_table(path, words=names_of(path, Options()))
    return {
        name: ["" if text is None else text.strip() for text in texts_of(column).to_pylist()]
        for name, column in table.columns.items()
    }


def _has(names: Sequence[str], name: str) -> bool:
    return name.strip().casefold() in {known.strip().casefold() for known in names}


def names_of(path: Path, options: Options) -> list[str]:
    """Return the names of the columns, of JSON lines after reading all."""
    source = open_table(path, options.encoding)
    if source.form == "delimited":
        return _named(source, layout_of(source, options), [])
    return list(read_lines(source)) if source.form == "lines" else parquet_names(source)


def _rule(how: Mapping[str, Any]) -> Rule:
    """Return the rule that a run kept; its file may be somebody else's."""
    texts = {key: how[key] for key in ("kind", "format", "decimal", "thousands", "sign") if key in how}
    missing = how.get("missing", [])
    fits = isinstance(missing, (list, tuple)) and all(isinstance(text, str) for text in (*texts.values(), *missing))
    if not fits or texts.get("kind") not in KINDS or texts.get("decimal", ".") not in (".", ","):
        raise DataError("spec.json: holds no columns of a table")
    if len(texts.get("thousands", "")) > 1 or len(texts.get("sign", "")) > 3:
        raise DataError("spec.json: holds no columns of a table")
    return replace(Rule(**texts), missing=tuple(missing), strict=True)  # type: ignore[arg-type]


def _forced(
    names: list[str], options: Options, known: Mapping[str, Mapping[str, Any]] | None, words: Sequence[str]
) -> set[str]:
    """Return the columns that are read as text in any case."""
    if known is not None:
        return {name for name in names if name in known and known[name].get("kind") not in ("number", "date")} | (
            set(names) & set(words)
        )
    rules = rules_of(options, names)
    chosen = {name for name, rule in rules.items() if rule.kind in ("category", "identifier", "text") or "%" in rule.format}
    return chosen | (set(names) & set(words))


def _named(source: Source, layout: Layout, notes: list[str]) -> list[str]:
    """Return unique names of a header; columns without a name are numbered, but for the first."""
    names = list(layout.names)
    layout.unnamed = not names[0]
    while len(names) > 1 and not names[-1]:
        names.pop()
        layout.extra += 1
    for i, name in enumerate(names):
        if not name:
            names[i] = f"column {i + 1}"
        if not name and i:
            notes.append(f"column {i + 1} has no name: it is called '{names[i]}'")
    layout.names = names
    return _checked(source, names)


def _checked(source: Source, names: list[str]) -> list[str]:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if (before := first.setdefault(name.strip().casefold(), i)) != i:
            both = f"'{names[before]}' and '{name}'" if names[before] != name else f"'{name}'"
            told = "occurs twice" if names[before] == name else "differ by case or blanks only, so one name occurs twice"
            raise DataError(f"{source.name}: {both} {told}, in columns {before + 1} and {i + 1}. Rename one of the two columns")
    return names


def _kept_rows(found: dict[str, pa.ChunkedArray]) -> np.ndarray | None:
    """Return the rows with a value; None for all."""
    if any(not values.null_count for values in found.values()):
        return None
    some = np.zeros(len(next(iter(found.values()))), bool)
    for values in found.values():
        some |= values.is_valid().to_numpy()
    return None if some.all() else np.flatnonzero(some)


def _place(source: Source, layout: Layout | None, kept: np.ndarray | None, row: int) -> str:
    row = int(kept[row]) if kept is not None else row
    if layout is not None:
        return f"{source.name}, line {line_of(source, layout, row)}"
    if source.form == "lines":
        return f"{source.name}, line {line_of_object(source, row)}"
    return f"{source.name}, row {row + 1}"


def _counts_up(values: pa.ChunkedArray) -> bool:
    """Return whether integers count the rows, from any number."""
    if not pa.types.is_integer(values.type) or values.null_count or len(values) < 2:
        return False
    numbers = values.to_numpy()
    return bool((np.diff(numbers) == 1).all())


def texts_of(column: Column) -> pa.Array:
    """Return the values of a column as text, missing ones as null."""
    values = column.values
    if pa.types.is_dictionary(values.type):
        return values
    coded = coded_of(values)
    words = coded.dictionary
    if column.kind == "number" and pa.types.is_floating(words.type):
        # 1.0, as pandas writes integers beside a missing value, is 1.
        whole = pc.all(pc.equal(pc.floor(words), words)).as_py() and pc.max(pc.abs(words)).as_py() < 2**53
        words = pc.cast(words, pa.int64()) if whole else words
    words = pc.strftime(words, format="%Y-%m-%dT%H:%M:%S") if column.kind == "date" else pc.cast(words, pa.string())
    return pa.DictionaryArray.from_arrays(coded.indices, words)
