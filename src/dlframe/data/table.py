"""Tables of the user: classification and regression of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.tables.files import Options
from dlframe.readers.tables.rows import (
    FEW,
    Features,
    cardinalities,
    classes_of,
    codes_of,
    disguised,
    encode,
    features_of,
    fields_of,
    floats_of,
    hashes,
    is_class,
    occurrences,
    parts_by_hash,
    parts_by_time,
    parts_given,
    rows_of,
    stand_ins,
)
from dlframe.readers.tables.table import Table, read_table
from dlframe.registry import Natural, data
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, DataSpec, Field, Split, printable, say


@data.register(
    "table",
    inputs=("number", "category"),
    targets=("class", "value"),
    files=("path", "test"),
    tasks={"class": "table_classification", "value": "table_regression"},
)
def table(
    *,
    path: str,
    target: str,
    drop: tuple[str, ...] = (),
    group: str | None = None,
    time: str | None = None,
    split: str | None = None,
    test: str | None = None,
    kinds: tuple[str, ...] = (),
    formats: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    decimal: str = ".",
    thousands: str = "",
    separator: str = "auto",
    encoding: str = "auto",
    header: Natural | None = None,
    skip: Natural = 0,
    spec: DataSpec | None = None,
) -> Dataset:
    """Rows of a CSV, TSV, JSON lines or Parquet file, also in .gz or .zip.

    The kind of a column is decided from all of its values: numbers and dates are standardized, words that recur are
    categories; identifiers and other texts are left out. A hash of each row's inputs draws the split, 60/20/20, so that equal
    rows are in one split and a new row moves no other.

    Args:
        path: The file.
        target: Column to predict.
        drop: Columns to leave out.
        group: Column of groups (a customer, a patient). Each stays in one split and is resampled as a whole.
        time: Column of times; the last fifth of the rows is for the test, the fifth before it for validation.
        split: Column of train, validation and test.
        test: File of the test rows, with the same columns; the others are then split 80/20.
        kinds: Kinds of columns as COLUMN:KIND: number, date, category, identifier, text.
        formats: Formats of dates as COLUMN:FORMAT, such as day:%d/%m/%Y; also unix, unix_ms, excel.
        missing: Texts that mean a missing value, such as ?, of all columns, or of one as COLUMN:TEXT.
        decimal: Decimal mark.
        thousands: Mark between thousands.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.
        header: Lines of the header; 0 for none, null decides by the first lines.
        skip: Lines above the header.
        spec: Specification of a run whose model is scored on the rows of this file: all of them are the test set.
    """
    options = Options(
        separator=separator,
        encoding=encoding,
        skip=skip,
        header=header,
        decimal=decimal,
        thousands=thousands,
        missing=missing,
        kinds=kinds,
        formats=formats,
        drop=drop,
    )
    file = expanded(path)
    if spec is not None:
        return _others(file, options, spec)
    read = read_table(file, options)
    goal = _target(read, target, kinds)
    roles = {
        role: read.column(name, f"data.{role}").name
        for role, name in (("group", group), ("time", time), ("split", split))
        if name
    }
    if test and split:
        raise DataError("data.test: the test rows are in a file or in a column of the table. Leave out data.split or data.test")
    features = features_of(read, [goal.name, *roles.values()])
    notes = [*read.notes, *goal.notes, *features.notes]
    if goal.classes and (leaks := disguised(read, features, goal.values)):
        names = ", ".join(leaks)
        notes.append(
            f"each value of {names} has one class of '{goal.name}': known only afterwards? Leave out: data.drop=[{names}]"
        )
    parts, groups, said = _parts(read, features, roles, goal, (0.8, 0.2) if test else (0.6, 0.2, 0.2))
    read.columns.pop(goal.name)
    arrays, kept = encode(read, features, parts)
    notes += stand_ins(arrays, kept)
    splits = [
        Split({**array, "target": goal.values[index]}, index + 1, groups=None if groups is None else groups[index])
        for array, index in zip(arrays, parts, strict=True)
    ]
    if test:
        splits.append(_given_test(expanded(test), options, kept, goal, splits, notes))
        said = f"test as given, {said}"
    for part, rows in zip(PARTS, splits, strict=True):
        if not len(rows):
            raise DataError(f"{read.file}: the {part} split is empty: {read.rows:,} rows are too few")
        if absent := sorted(set(range(len(goal.classes))) - set(np.unique(rows["target"]).tolist())):
            names = ", ".join(goal.classes[i] for i in absent[:6])
            notes.append(f"{part} has no row of {len(absent)} of {len(goal.classes)} classes: {names}")
    for line in notes:
        say(f"table: {line}", error=True)
    fitted = {"cardinalities": cardinalities(kept), "table": kept, "target": {**goal.how, "name": goal.name}}
    if goal.classes:
        fitted["counts"] = np.bincount(splits[0]["target"], minlength=len(goal.classes)).tolist()
    own = DataSpec(printable(file.name.partition(".")[0]) or "table", fields_of(kept), {"target": goal.field}, fitted)
    used = f"{len(features.numbers)} numbers, {len(features.categories)} categories"
    return Dataset(own, splits[0], splits[1], splits[2], f"{read.file}, target {goal.name}, {used}", said)


@dataclass(frozen=True)
class Target:
    """The column to predict.

    Attributes:
        name: As in the header.
        how: How it was read.
        values: (rows,) class indices, or (rows, 1) numbers.
        known: (rows,) whether there is a value.
        field: Its declaration.
        notes: What was assumed and left out.
    """

    name: str
    how: dict[str, Any]
    values: np.ndarray
    known: np.ndarray
    field: Field
    notes: list[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty for numbers."""
        return self.field.names


def _target(read: Table, name: str, kinds: Sequence[str]) -> Target:
    """Return the target: classes, or a number for a regression."""
    column = read.column(name, "data.target")
    if column.kind == "date":
        raise DataError(f"data.target: must be a column of numbers or words. Received: '{column.name}' (dates)")
    if is_class(column, decided=any(text.startswith(f"{column.name}:") for text in kinds)):
        values, classes, notes = classes_of(column)
        known = values >= 0
        if len(classes) > max(FEW, int(known.sum()) // 2):
            raise DataError(
                f"data.target: must be a column of classes or numbers. Received: '{column.name}', with "
                f"{len(classes):,} different values in {int(known.sum()):,} rows"
            )
        if len(classes) < 2:
            raise DataError(f"{read.file}: '{column.name}' must have two classes. Received: one class, '{', '.join(classes)}'")
        field = Field(kind="class", dtype="int64", names=classes)
    else:
        values = floats_of(column)[:, None]
        known = ~np.isnan(values[:, 0])
        field = Field(kind="value", dtype="float64", shape=(1,))
        notes = [f"'{column.name}' is a number: regression. For classes: data.kinds=[{column.name}:category]"]
    return Target(column.name, column.how, values, known, field, [*notes, *_unlabeled(read, known)])


def _unlabeled(read: Table, known: np.ndarray) -> list[str]:
    if known.all():
        return []
    row, count = int(np.argmin(known)), int((~known).sum())
    told = "1 row without a label is" if count == 1 else f"{count:,} rows without a label are"
    return [f"{told} left out: {read.place(row)}"]


def _given_test(
    file: Path, options: Options, kept: dict[str, Any], goal: Target, seen: Sequence[Split], notes: list[str]
) -> Split:
    """Return the rows of a file as the test split; rows that training has too are counted."""
    read = read_table(file, options, known={**kept, goal.name: goal.how})
    arrays, said = rows_of(read, kept)
    column = read.column(goal.name, "data.target")
    if goal.classes:
        codes, words = codes_of(column)
        place = {word: i for i, word in enumerate(goal.classes)}
        if new := [word for word in words if word not in place]:
            raise DataError(
                f"{read.file}: '{goal.name}' must hold classes of training ({', '.join(goal.classes[:6])}). "
                f"Received: '{new[0]}'"
            )
        values = np.array([place[word] for word in words] + [-1], np.int64)[codes]
        known = values >= 0
    else:
        values = floats_of(column)[:, None]
        known = ~np.isnan(values[:, 0])
    notes += [f"test: {note}" for note in (*said, *_unlabeled(read, known))]
    index = np.flatnonzero(known)
    test = Split({**{name: array[index] for name, array in arrays.items()}, "target": values[index]}, index + 1)
    before = {row for split in seen for row in _bytes_of(split, arrays)}
    if equal := sum(row in before for row in _bytes_of(test, arrays)):
        notes.append(f"test: {equal:,} of {len(test):,} rows are in training or validation too: not unseen")
    return test


def _others(file: Path, options: Options, spec: DataSpec) -> Dataset:
    """Return all rows of a file in the columns, kinds and classes of a run."""
    try:
        kept, how = dict(spec.fitted["table"]), dict(spec.fitted["target"])
        name, (field,) = str(how.pop("name")), spec.targets.values()
        if cardinalities(kept) != spec.fitted["cardinalities"]:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise DataError("spec.json: holds no columns of a table") from None
    notes: list[str] = []
    nothing = np.empty(0)
    rows = _given_test(file, options, kept, Target(name, how, nothing, nothing, field, []), (), notes)
    for line in notes:
        say(f"table: {line.removeprefix('test: ')}", error=True)
    if not len(rows):
        raise DataError(f"{file}: must have a row with a value of '{name}'. Received: none")
    return Dataset(spec, rows, rows, rows, f"{file}, target {name}", "all rows")


def _bytes_of(split: Split, names: Iterable[str]) -> list[bytes]:
    """Return the inputs of each row as bytes."""
    return [b"".join(parts) for parts in zip(*([row.tobytes() for row in split[name]] for name in names), strict=True)]


def _parts(
    read: Table, features: Features, roles: dict[str, str], goal: Target, fractions: Sequence[float]
) -> tuple[list[np.ndarray], np.ndarray | None, str]:
    """Return the rows of each split, the groups, and a description."""
    rows, shown = np.flatnonzero(goal.known), "/".join(f"{100 * fraction:g}" for fraction in fractions)
    groups = None
    if "group" in roles:
        codes, words = codes_of(read.columns[roles["group"]])
        groups = np.array([str(word) for word in words] + [""])[codes]
        if (codes[rows] < 0).any():
            row = int(rows[codes[rows] < 0][0])
            raise DataError(f"{read.place(row)}: '{roles['group']}' must name a group. Received: an empty field")
    if "split" in roles:
        return [rows[part] for part in parts_given(read, roles["split"], rows)], groups, f"as column {roles['split']} says"
    if "time" in roles:
        column = read.columns[roles["time"]]
        if column.kind not in ("date", "number"):
            raise DataError(f"data.time: must be a column of dates or numbers. Received: '{column.name}' ({column.kind})")
        times = floats_of(column)
        if np.isnan(times[rows]).any():
            row = int(rows[np.isnan(times[rows])][0])
            raise DataError(f"{read.place(row)}: '{column.name}' must be a time. Received: an empty field")
        return [rows[part] for part in parts_by_time(times[rows], fractions)], groups, f"{shown} by {column.name}"
    if groups is not None:
        hashed = hashes(read, [roles["group"]])[rows]
        said = f"{shown} by hash, by groups of {roles['group']}"
        return [rows[part] for part in parts_by_hash(hashed, fractions)], groups, said
    hashed = hashes(read, [*features.numbers, *features.categories])[rows]
    ordered = np.sort(hashed)
    if (ordered[1:] != ordered[:-1]).sum() * 2 < len(hashed):
        # Where few combinations exist, equal rows are no copies of one another.
        hashed = hashed ^ (occurrences(hashed) * np.uint64(0x9E3779B97F4A7C15))
    labels = goal.values[rows] if goal.classes else None
    return [rows[part] for part in parts_by_hash(hashed, fractions, labels)], None, f"{shown} by hash"
