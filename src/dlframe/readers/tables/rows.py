"""Rows of tables as arrays: features, targets, splits, and what is kept of them for predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dlframe.readers.listing import split_of
from dlframe.readers.tables.files import pc
from dlframe.readers.tables.kinds import CATEGORIES, Column
from dlframe.readers.tables.table import Table, read_table, texts_of
from dlframe.types import PARTS, DataError, Field, nearest, printable

MISSING, UNSEEN = 0, 1
"""Codes of categories: no value, and a value that training has not seen; those of the vocabulary follow."""

SOME = 10_000
"""Rows that are looked at before all are."""

FEW = 20
"""Distinct integers up to which a target is taken for classes."""

DAY = 86_400_000_000
"""Microseconds; dates are features in days."""


@dataclass
class Features:
    """The columns that a model gets.

    Attributes:
        numbers: Columns of numbers and dates.
        categories: Columns with a vocabulary.
        notes: Columns that are left out, and why.
    """

    numbers: list[str]
    categories: list[str]
    notes: list[str]


def features_of(table: Table, without: Sequence[str]) -> Features:
    """Choose the features: numbers, dates, and columns whose values recur.

    Raises:
        DataError: There is none.
    """
    found = Features([], [], [])
    left: list[str] = []
    for name, column in table.columns.items():
        if name in without:
            continue
        if column.kind in ("number", "date"):
            found.numbers.append(name)
            continue
        distinct = len(column.values.dictionary)
        if column.kind == "category" or (column.kind == "identifier" and distinct <= CATEGORIES and distinct * 2 <= table.rows):
            found.categories.append(name)
        else:
            left.append(f"'{name}' ({column.kind}, {distinct:,} different values)")
    if left:
        found.notes.append(
            "left out, as the model has no use for them: "
            f"{', '.join(left[:6])}{f' and {len(left) - 6} more' if len(left) > 6 else ''}"
        )
    if not found.numbers and not found.categories:
        raise DataError(
            f"{table.file}: must have a column of numbers, dates or categories besides the target. "
            f"Received: {', '.join(left[:6]) or 'none'}. Name a kind: data.kinds=[COLUMN:category]"
        )
    return found


# --- arrays


def floats_of(column: Column) -> np.ndarray:
    """Return numbers, or days since 1970, as float64 with NaN for missing values."""
    values = column.values
    if column.kind == "date":
        return pc.divide(pc.cast(pc.cast(values, pa.int64()), pa.float64()), float(DAY)).to_numpy(zero_copy_only=False)
    return pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def codes_of(column: Column) -> tuple[np.ndarray, list[str]]:
    """Return codes of the values (-1 for missing ones) and the distinct values."""
    coded = texts_of(column)
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    words = coded.dictionary
    if words.null_count:  # values that an option calls missing
        codes = np.where(words.is_null().to_numpy(zero_copy_only=False)[codes] & (codes >= 0), -1, codes)
    return codes, words.to_pylist()


def parts_given(table: Table, name: str, rows: np.ndarray) -> list[np.ndarray]:
    """Return the places in `rows` of train, validation and test, as a column names them.

    Args:
        table: The table.
        name: The column.
        rows: Rows with a label.

    Raises:
        DataError: A field is empty or names no split, or a split has no row.
    """
    codes, words = codes_of(table.columns[name])
    codes = codes[rows]
    if (codes < 0).any():
        raise DataError(f"{table.place(int(rows[np.argmax(codes < 0)]))}: '{name}' must name a split. Received: an empty field")
    counts = np.bincount(codes, minlength=len(words)).tolist()
    of = [split_of(str(word)) for word in words]
    for part, word, count in zip(of, words, counts, strict=True):
        if part is None and count:
            raise DataError(
                f"data.split: '{name}' must hold train, validation and test. Received: '{printable(str(word))}'."
                f"{nearest(str(word), PARTS)}"
            )
    found = [np.flatnonzero(np.array([part == p for p in of])[codes]) for part in PARTS]
    if lacking := [part for part, own in zip(PARTS, found, strict=True) if not len(own)]:
        held = ", ".join(f"{word} ({count:,} rows)" for word, count in zip(words, counts, strict=True) if count)
        way = "Leave it out: rows are then split by hash"
        if lacking == ["validation"]:
            way = (
                "Name some rows of training 'val'; or leave it out and put the test rows into a file of their own, "
                "data.test=FILE: a fifth of the others is then for validation"
            )
        raise DataError(
            f"data.split: '{name}' must hold train, validation and test. Missing: {', '.join(lacking)}. Received: {held}. {way}"
        )
    return found


def encode(table: Table, features: Features, parts: Sequence[np.ndarray]) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Return the arrays of each part, and what is kept of each column; the first part fits it.

    The columns of the table are released one by one.

    Args:
        table: The table.
        features: Its features.
        parts: Rows of each part, the training rows first.

    Returns:
        By part, "numbers" (rows, columns) float64 with NaN for missing values, and "categories" (rows, columns) int32.
    """
    arrays = [_room(len(features.numbers), len(features.categories), len(part)) for part in parts]
    order = list(table.columns)
    kept: dict[str, Any] = {}
    for j, name in enumerate(features.numbers):
        column = table.columns.pop(name)
        values = floats_of(column)
        seen = values[parts[0]]
        seen = seen[~np.isnan(seen)]
        mean, std = (float(seen.mean()), float(seen.std())) if len(seen) else (0.0, 1.0)
        # Of equal values, rounding may leave a tiny deviation.
        kept[name] = {**column.how, "mean": mean, "std": std if std > 1e-12 * max(1.0, abs(mean)) else 1.0}
        for array, part in zip(arrays, parts, strict=True):
            array["numbers"][:, j] = values[part]
    for j, name in enumerate(features.categories):
        column = table.columns.pop(name)
        codes, words = codes_of(column)
        seen = np.bincount(codes[parts[0]][codes[parts[0]] >= 0], minlength=len(words)) > 0
        known = sorted((word for word, given in zip(words, seen, strict=True) if given))
        kept[name] = {**column.how, "words": known}
        table_of = _codes_for(words, known)
        for array, part in zip(arrays, parts, strict=True):
            array["categories"][:, j] = table_of[codes[part]]
    return arrays, {name: kept[name] for name in order if name in kept}


def stand_ins(arrays: Sequence[Mapping[str, np.ndarray]], kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return sentences on missing values, and on categories that only other parts than the first have; see `encode`."""
    numbers = [name for name, how in kept.items() if "words" not in how]
    categories = [name for name in kept if name not in numbers]

    def counts(names: Sequence[str], found: Sequence[np.ndarray]) -> dict[str, int]:
        total = np.sum([part.sum(0) for part in found], 0) if names and found else ()
        return {name: int(count) for name, count in zip(names, total, strict=False) if count}

    missing = counts(numbers, [np.isnan(array["numbers"]) for array in arrays if numbers])
    missing |= counts(categories, [array["categories"] == MISSING for array in arrays if categories])
    unseen = counts(categories, [array["categories"] == UNSEEN for array in arrays[1:] if categories])
    rows = [len(next(iter(array.values()))) for array in arrays]
    notes = []
    if missing:
        notes.append(f"missing values in {sum(rows):,} rows: {_counted(missing)}; a model sees that they are missing")
    if unseen:
        notes.append(
            f"values that training does not have, in {sum(rows[1:]):,} other rows: {_counted(unseen)}; all are read as one"
        )
    return notes


def _counted(found: Mapping[str, int]) -> str:
    """Return the largest counts, "city 12, age 3"."""
    ordered = sorted(found.items(), key=lambda pair: -pair[1])
    more = f" and {len(ordered) - 6} more columns" if len(ordered) > 6 else ""
    return ", ".join(f"{name} {count:,}" for name, count in ordered[:6]) + more


def _room(numbers: int, categories: int, rows: int) -> dict[str, np.ndarray]:
    arrays = {}
    if numbers:
        arrays["numbers"] = np.empty((rows, numbers), np.float64)
    if categories:
        arrays["categories"] = np.empty((rows, categories), np.int32)
    return arrays


def _codes_for(words: Sequence[str | None], known: Sequence[str]) -> np.ndarray:
    """Return the code of each word, and of a missing value at the end."""
    place = {word: i + 2 for i, word in enumerate(known)}
    return np.array([MISSING if word is None else place.get(word, UNSEEN) for word in words] + [MISSING], np.int32)


def fields_of(kept: Mapping[str, Mapping[str, Any]]) -> dict[str, Field]:
    """Return the declaration of the arrays."""
    numbers = {name: how for name, how in kept.items() if "words" not in how}
    categories = [name for name in kept if name not in numbers]
    fields = {}
    if numbers:
        mean, std = (tuple(float(how[key]) for how in numbers.values()) for key in ("mean", "std"))
        fields["numbers"] = Field(
            kind="number", dtype="float64", shape=(len(numbers),), names=tuple(numbers), mean=mean, std=std
        )
    if categories:
        fields["categories"] = Field(kind="category", dtype="int32", shape=(len(categories),), names=tuple(categories))
    return fields


def cardinalities(kept: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Return the number of codes of each category."""
    return [len(how["words"]) + 2 for how in kept.values() if "words" in how]


def read_rows(file: Path, kept: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the rows of a new file as those of training: columns by name, with the kinds and vocabularies of the run.

    Returns:
        The arrays, and sentences on columns and values that training did not have.

    Raises:
        DataError: A column is missing, or holds values of another kind.
    """
    try:
        known = {str(name): dict(how) for name, how in kept.items()}
        for how in known.values():
            if "words" in how:
                how["words"] = [str(word) for word in how["words"]]
    except (TypeError, ValueError, AttributeError, KeyError):
        raise DataError("spec.json: holds no columns of a table") from None
    return rows_of(read_table(file, known=known), known)


def rows_of(table: Table, known: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the rows of a table that was read with the `known` columns of a run; see `read_rows`."""
    vocabularies = {name: how["words"] for name, how in known.items() if "words" in how}
    names = [name for name in table.columns if name in known]
    if missing := [name for name in known if name not in table.columns]:
        hint = nearest(missing[0], table.others[:50])
        raise DataError(f"{table.file}: must have the columns of training. Missing: {', '.join(missing[:6])}.{hint}")
    notes = []
    if table.others:
        notes.append(f"columns that training did not have are not used: {', '.join(table.others[:6])}")
    if names != [name for name in known if name in names]:
        notes.append("columns are in another order than in training: read by name")
    numbers = [name for name in known if name not in vocabularies]
    arrays = _room(len(numbers), len(vocabularies), table.rows)
    for j, name in enumerate(numbers):
        arrays["numbers"][:, j] = floats_of(table.columns[name]) if table.columns[name].missing < table.rows else np.nan
    for j, (name, words) in enumerate(vocabularies.items()):
        codes, found = codes_of(table.columns[name])
        lookup = _codes_for(found, words)
        arrays["categories"][:, j] = lookup[codes]
        if new := [word for word, code in zip(found, lookup, strict=False) if code == UNSEEN]:
            notes.append(
                f"'{name}' has values that training did not have: {', '.join(map(repr, new[:3]))}{' ...' * (len(new) > 3)}"
            )
    return arrays, notes


# --- targets


def classes_of(column: Column) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Return class indices (-1 for missing ones), names and notes; numbers are in their order."""
    codes, words = codes_of(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    given = [word for word, count in zip(words, counts, strict=True) if count]
    number = column.kind == "number"
    ordered = sorted(given, key=(lambda word: (float(word), word)) if number else (lambda word: (word.casefold(), word)))
    place = {word: i for i, word in enumerate(ordered)}
    lookup = np.array([place.get(word, -1) for word in words] + [-1], np.int64)
    notes = []
    spellings: dict[str, list[str]] = {}
    for word in ordered:
        spellings.setdefault(word.strip().casefold(), []).append(word)
    for same in spellings.values():
        if len(same) > 1:
            notes.append(f"classes {' and '.join(map(repr, same))} differ by case or blanks only, and stay apart")
    return lookup[codes], tuple(ordered), notes


def is_class(column: Column, *, decided: bool = False) -> bool:
    """Return whether a target is a class: words, or a few integers that recur unless its kind is `decided` to be number."""
    if column.kind != "number" or decided:
        return column.kind != "number"
    values = pc.drop_null(column.values)
    if pc.count_distinct(values.slice(0, SOME)).as_py() > FEW:
        return False
    distinct = pc.count_distinct(values).as_py()
    whole = pa.types.is_integer(values.type) or pc.all(pc.equal(pc.floor(values), values)).as_py()
    return bool(whole) and distinct <= FEW and distinct * 2 <= len(values)


def disguised(table: Table, features: Features, targets: np.ndarray) -> list[str]:
    """Return the features whose every value has one class, though values recur; a missing value counts as one."""
    found = []
    for name in (*features.categories, *features.numbers):
        column = table.columns[name]
        if column.kind == "date":
            continue
        some = Column(name, column.kind, column.values.slice(0, SOME))
        if _decides(some, targets[:SOME]) == (True, True) and _decides(column, targets) == (True, True):
            found.append(name)
    return found


def _decides(column: Column, targets: np.ndarray) -> tuple[bool, bool]:
    """Return whether each value has one class, and whether values recur."""
    codes, words = codes_of(column)
    codes, labels = codes[targets >= 0].astype(np.int64) + 1, targets[targets >= 0]
    last = np.full(len(words) + 1, -1)
    last[codes] = labels
    used = int((last >= 0).sum())
    return bool((last[codes] == labels).all()), used > 1 and used * 2 <= len(codes)


# --- splits


def hashes(table: Table, names: Sequence[str]) -> np.ndarray:
    """Return a hash (rows,) uint64 of the values of some columns, whatever their order and that of the rows."""
    total = np.zeros(table.rows, np.uint64)
    for name in names:
        column = table.columns[name]
        salt = np.uint64(hash64(name))
        if column.kind in ("number", "date"):
            values = floats_of(column)
            values = np.where(np.isnan(values), np.nan, values) + 0.0  # one NaN, one zero
            own = values.view(np.uint64)
        else:
            codes, words = codes_of(column)
            own = np.array([hash64(word or "") for word in words] + [0], np.uint64)[codes]
        total += mixed(own ^ salt)
    return mixed(total)


def hash64(text: str) -> int:
    """Return 64 bits of a hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def mixed(values: np.ndarray) -> np.ndarray:
    """Scatter bits; the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def occurrences(hashed: np.ndarray) -> np.ndarray:
    """Return how many equal values precede each."""
    order = np.argsort(hashed, kind="stable")
    ordered = hashed[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    found = np.empty(len(hashed), np.uint64)
    found[order] = np.arange(len(hashed)) - np.repeat(first, np.diff(np.append(first, len(hashed))))
    return found


def parts_by_hash(hashed: np.ndarray, fractions: Sequence[float], labels: np.ndarray | None = None) -> list[np.ndarray]:
    """Split rows by their hash, so that another row moves none of these.

    Equal hashes are in one part. A class that a part lacks, though it has hashes enough, gives that part the hash that is
    nearest to it; a class with fewer hashes than parts is in the first.

    Args:
        hashed: (rows,) uint64.
        fractions: Fractions of the parts; sum to one.
        labels: (rows,) class indices.

    Returns:
        Ascending rows of each part.
    """
    drawn = (hashed >> np.uint64(11)).astype(np.float64) / 2.0**53
    cuts = np.cumsum([0.0, *fractions])
    part = np.searchsorted(cuts[1:-1], drawn, side="right")
    labels = np.zeros(len(part), np.int64) if labels is None else labels
    held = np.bincount(labels * len(fractions) + part, minlength=(int(labels.max(initial=0)) + 1) * len(fractions))
    for label in np.flatnonzero((held.reshape(-1, len(fractions)) == 0).any(1)):
        rows = np.flatnonzero(labels == label)
        values, first = np.unique(hashed[rows], return_index=True)
        home, place = part[rows][first], drawn[rows][first]
        if len(values) < len(fractions):
            part[np.isin(hashed, values)] = 0
            continue
        fixed = np.zeros(len(values), bool)
        for i in range(len(fractions)):
            held = np.bincount(home, minlength=len(fractions))
            free = ~fixed & (held[home] > 1)
            if held[i] or not free.any():
                continue
            distance = np.where(free, np.maximum(cuts[i] - place, place - cuts[i + 1]), np.inf)
            nearest_one = int(np.argmin(distance))
            home[nearest_one], fixed[nearest_one] = i, True
            part[hashed == values[nearest_one]] = i
    return [np.flatnonzero(part == i) for i in range(len(fractions))]


def parts_by_time(times: np.ndarray, fractions: Sequence[float]) -> list[np.ndarray]:
    """Split rows by time; rows of one time are in one part."""
    order = np.sort(times, kind="stable")
    cuts = [order[min(len(order) - 1, int(len(order) * end + 1e-6))] for end in np.cumsum(fractions)[:-1]]
    part = np.searchsorted(np.array(cuts), times, side="right")
    return [np.flatnonzero(part == i) for i in range(len(fractions))]
