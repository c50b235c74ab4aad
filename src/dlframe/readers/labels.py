"""Labels of files from a table: CSV, TSV or Parquet with a row per file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dlframe.readers.listing import Folders, Listing, compare, few, keep_scored, split_of, text_of
from dlframe.types import DataError, nearest

TABLES = (".csv", ".tsv", ".txt", ".parquet")
LABEL = ("label", "labels", "class", "target", "category", "class_name", "y")
SPLIT = ("split", "set", "subset", "partition")
MISSING = ("", "nan", "null", "none", "na", "n/a")

Rows = dict[str, list[str]]
"""Columns of text by name."""


def table_in(root: Path) -> Path | None:
    """Return the only table directly in a folder; None where there is none, or several."""
    found = [file for file in Folders(root).entries(root)[1] if file.suffix.lower() in TABLES[:2] + TABLES[3:]]
    return found[0] if len(found) == 1 else None


def list_table(
    root: Path, table: Path, *, label: str | None = None, group: str | None = None, known: Sequence[str] | None = None
) -> Listing:
    """List the samples that a table names.

    The column of files is the one whose values all are files below `root`, by path, name or stem.

    Args:
        root: Folder of the files.
        table: The table.
        label: Column of classes; None for the only one, or one of a usual name.
        group: Column of groups.
        known: Classes of a trained model, which is scored on the files.

    Raises:
        DataError: The table is not readable or does not decide files and labels.
    """
    rows = _read(table)
    label, group = (text_of(name) if name is not None else None for name in (label, group))
    reader = Folders(root)
    files = [file for file in reader.below(root) if file.resolve() != table.resolve()]
    column, found = _files(table, rows, files, root)
    split = _split_column(table, rows, {column, group, label})
    if group is not None and group not in rows:
        raise DataError(f"data.group: must be a column of {table.name}. Received: '{group}'.{nearest(group, rows)}")
    labels, named = _labels(table, rows, {column, split, group}, label)
    listing = Listing()
    homes: dict[Path, int] = {}
    for i, file in enumerate(found):
        if labels[i].casefold() in MISSING:
            raise DataError(f"image_folder: {table.name}, row {i + 2}: {named} must not be empty. Received: '{labels[i]}'.")
        if (first := homes.setdefault(file, i)) != i:
            raise DataError(
                f"image_folder: {table.name}, rows {first + 2} and {i + 2} name one file, {rows[column][i]}. Keep one"
            )
        part = split_of(rows[split][i]) or "" if split else ""
        listing.parts.setdefault(part, []).append((file, labels[i]))
        if group:
            if (name := rows[group][i]).casefold() in MISSING:
                raise DataError(f"image_folder: {table.name}, row {i + 2}: {group} must not be empty. Received: '{name}'.")
            listing.groups[file] = rows[group][i]
    if known is not None:
        keep_scored(listing, root, known)
    elif len(set(labels)) < 2:
        raise DataError(
            f"image_folder: {table.name}: {named} must have at least two classes. Received: {few(sorted(set(labels)))}"
        )
    elif split and "train" not in listing.parts:
        raise DataError(
            f"image_folder: {table.name}: column '{split}' must name train. Received: {few(sorted(set(rows[split])))}"
        )
    if known is None:
        compare(root, listing)
    columns = ", ".join(f"{role} {name}" for role, name in (("splits", split), ("groups", group)) if name)
    listing.notes.append(f"labels from {text_of(table.name)}: files {column}, labels {named}{', ' * bool(columns)}{columns}")
    if rest := len(files) - len(homes):
        first = next(file for file in files if file not in homes)
        listing.notes.append(
            f"left out {rest:,} files that {text_of(table.name)} does not name: {text_of(first.relative_to(root))}"
            + " ..." * (rest > 1)
        )
    listing.notes += reader.left_out()
    return listing


def _split_column(table: Path, rows: Rows, used: set[str | None]) -> str | None:
    """Return the column whose values all are splits; `DataError` if some are."""
    for name in rows:
        if name.casefold() in SPLIT and name not in used:
            known = [*map(split_of, rows[name])]
            if all(known):
                return name
            if any(known):
                row = known.index(None)
                raise DataError(
                    f"image_folder: {table.name}, row {row + 2}: {name} must be train, validation or test, as in other rows. "
                    f"Received: '{rows[name][row]}'."
                )
    return None


def _read(table: Path) -> Rows:
    from dlframe.readers.tables.table import read_texts  # Arrow takes its time to import

    try:
        rows = read_texts(table)
    except DataError as error:
        raise DataError(f"data.labels: {error}") from None
    return {text_of(name): [text_of(value) for value in values] for name, values in rows.items()}


def _files(table: Path, rows: Rows, files: list[Path], root: Path) -> tuple[str, list[Path]]:
    """Return the column of files and the file of each row."""
    known: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        for name in {text_of(file.relative_to(root).as_posix()), text_of(file.name), text_of(file.stem)}:
            known[name].append(file)

    def places(value: str) -> list[Path]:
        return known.get(value.replace("\\", "/").removeprefix("./"), [])

    counts = {column: sum(bool(places(value)) for value in values) for column, values in rows.items()}
    column = max(counts, key=counts.__getitem__)
    if not counts[column]:
        raise DataError(f"data.labels: no column of {table} names files of {root}. Received: {few([*rows])}")
    found = []
    for i, value in enumerate(rows[column]):
        match places(value):
            case [file]:
                found.append(file)
            case []:
                raise DataError(f"image_folder: {table.name}, row {i + 2}: there is no file '{value}' in {root} ({column})")
            case several:
                both = few([text_of(file.relative_to(root)) for file in several], 2)
                raise DataError(f"image_folder: {table.name}, row {i + 2}: '{value}' is several files: {both}. Give paths")
    return column, found


def _labels(table: Path, rows: Rows, used: set[str | None], label: str | None) -> tuple[list[str], str]:
    """Return the label of each row, and the columns that hold them."""
    if label is not None:
        if label not in rows:
            raise DataError(f"data.label: must be a column of {table.name}. Received: '{label}'.{nearest(label, rows)}")
        return _single(table, rows[label], label), label
    rest = [name for name in rows if name not in used]
    if len(rest) == 1:
        return _single(table, rows[rest[0]], rest[0]), rest[0]
    if rest and all(set(rows[name]) <= {"0", "1", "0.0", "1.0", "False", "True"} for name in rest):
        marks = [[name for name in rest if rows[name][i] in ("1", "1.0", "True")] for i in range(len(rows[rest[0]]))]
        for i, classes in enumerate(marks):
            if len(classes) != 1:
                raise DataError(
                    f"image_folder: {table.name}, row {i + 2}: marks {len(classes)} of the classes {few(rest)}: pictures with "
                    f"several labels or none are not supported. Choose a column: data.label={rest[0]}"
                )
        return [classes[0] for classes in marks], few(rest)
    usual = [name for name in rest if name.casefold() in LABEL]
    if len(usual) != 1:
        raise DataError(
            f"data.label: must name the column of classes of {table.name}. Received: none. Choose from: {few(rest)}."
        )
    return _single(table, rows[usual[0]], usual[0]), usual[0]


def _single(table: Path, values: list[str], column: str) -> list[str]:
    """Return labels; `DataError` if some are lists of others."""
    known = set(values)
    for i, value in enumerate(values):
        for separator in "|;,":
            parts = [part.strip() for part in value.split(separator)]
            if len(parts) > 1 and known.intersection(parts):
                raise DataError(
                    f"image_folder: {table.name}, row {i + 2}: {column} '{value}' names several classes: pictures with several "
                    f"labels are not supported"
                )
    return values
