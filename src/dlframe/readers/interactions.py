"""Reader of interactions of users and items."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.types import DataError, nearest, printable

NAMES = {
    "user": ("user", "user_id", "userid", "uid", "customer", "customer_id"),
    "item": ("item", "item_id", "itemid", "iid", "movie_id", "movieid", "product", "product_id"),
    "rating": ("rating", "score", "stars"),
    "time": ("time", "timestamp", "date", "datetime"),
}
"""Usual names of columns, in lower case."""


@dataclass
class Interactions:
    """Interactions in the order of a file.

    Attributes:
        users: (rows,) int64 positions in `user_names`.
        items: (rows,) int64 positions in `item_names`.
        user_names: In the order of the file, to the letter.
        item_names: In the order of the file, to the letter.
        ratings: (rows,) float64; None without ratings.
        times: (rows,) int64 or float64, exact; None without times.
        notes: What was assumed and left out.
    """

    users: np.ndarray
    items: np.ndarray
    user_names: tuple[str, ...]
    item_names: tuple[str, ...]
    ratings: np.ndarray | None = None
    times: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def take(self, index: np.ndarray) -> Interactions:
        """Return some rows, in this order; names without a row stay."""
        ratings, times = (None if column is None else column[index] for column in (self.ratings, self.times))
        return Interactions(self.users[index], self.items[index], self.user_names, self.item_names, ratings, times, self.notes)


def in_order(read: Interactions) -> Interactions:
    """Return rows by user and time, equal times in the order of the file; of a pair of user and item the first row only."""
    order = np.argsort(read.users, kind="stable") if read.times is None else np.lexsort((read.times, read.users))
    read = read.take(order)
    first = np.unique(read.users * len(read.item_names) + read.items, return_index=True)[1]
    return read.take(np.sort(first))


def read_interactions(
    path: Path, columns: Mapping[str, str | None] | None = None, *, separator: str = "auto", encoding: str = "auto"
) -> Interactions:
    """Read interactions from a table, or an atomic file of RecBole (.inter).

    Args:
        path: The file.
        columns: Names of the columns of user, item, rating and time; those without are found by their usual names.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.

    Raises:
        DataError: With file, line, rule and received value.
    """
    where = printable(str(path))
    texts, place, read = _texts(path, separator, encoding)
    given = {role: (columns or {}).get(role) for role in NAMES}
    found = {role: _column(role, name, [*texts], where) for role, name in given.items()}
    notes = read + [f"{role} is column '{name}'" for role, name in found.items() if name and not given[role] and name != role]
    ids = {}
    for role in ("user", "item"):
        column = texts[found[role]].dictionary_encode()
        if column.null_count or "" in column.dictionary.to_pylist():
            values = np.array(texts[found[role]].to_pylist(), dtype=object)
            row = int(np.argmax((values == "") | (values == None)))  # noqa: E711
            raise DataError(f"{place(row)}: '{found[role]}' must name a {role}. Received: an empty field")
        ids[role] = column.indices.to_numpy().astype(np.int64), tuple(map(str, column.dictionary.to_pylist()))
    ratings = _numbers(texts[found["rating"]], found["rating"], where, place) if found["rating"] else None
    times = _times(texts[found["time"]], found["time"], where, place) if found["time"] else None
    if times is None:
        notes.append("no column of times: the rows of a user are taken in the order of the file")
    (users, user_names), (items, item_names) = ids["user"], ids["item"]
    return Interactions(users, items, user_names, item_names, ratings, times, notes)


def _column(role: str, given: str | None, names: list[str], where: str) -> str:
    if given is not None:
        if given not in names:
            raise DataError(f"{where}: data.{role} must name a column. Received: '{given}'.{nearest(given, names)}")
        return given
    usual = [name for name in names if name.strip().lower() in NAMES[role]]
    if len(usual) == 1:
        return usual[0]
    if len(usual) > 1:
        raise DataError(f"{where}: several columns may be the {role}: {', '.join(usual)}. Choose: data.{role}={usual[0]}")
    if role in ("user", "item"):
        raise DataError(f"{where}: must have a column '{role}'. Received: {', '.join(names)[:200]}. Try: data.{role}=COLUMN")
    return ""


def _texts(path: Path, separator: str, encoding: str) -> tuple[dict[str, Any], Callable[[int], str], list[str]]:
    """Return the columns as Arrow arrays of texts, a function from a row to its place, and what was assumed."""
    from dlframe.readers.tables.files import Options  # Arrow takes its time to import
    from dlframe.readers.tables.table import names_of, read_table, texts_of

    options = Options(separator=separator, encoding=encoding)
    names = names_of(path, options)
    table = read_table(path, options, words=names, keep=names)
    found = {name: texts_of(column).cast("string") for name, column in table.columns.items()}
    if path.suffix == ".inter":
        found = {name.rpartition(":")[0] or name: column for name, column in found.items()}
    return found, table.place, table.notes


def _numbers(column: Any, name: str, where: str, place: Callable[[int], str]) -> np.ndarray:
    return _parsed(column, name, where, place, float, "a number").astype(np.float64)


def _times(column: Any, name: str, where: str, place: Callable[[int], str]) -> np.ndarray:
    """Return times as int64 where they are integers or dates, so that neighbors stay apart, else as float64."""
    words = column.fill_null("").dictionary_encode().dictionary.to_pylist()
    if all(re.fullmatch(r"[+-]?\d+", word.strip()) for word in words):
        return _parsed(column, name, where, place, int, "an integer").astype(np.int64)
    try:
        float(words[0])
    except (TypeError, ValueError):
        aware = {_instant(word).tzinfo is not None for word in words if _is_instant(word)}
        if len(aware) > 1:
            raise DataError(f"{where}: '{name}' has times with and without an offset from UTC") from None
        return _parsed(column, name, where, place, _microseconds, "a time (ISO 8601 or a number)").astype(np.int64)
    return _parsed(column, name, where, place, float, "a number").astype(np.float64)


def _instant(text: Any) -> datetime:
    return datetime.fromisoformat(str(text).strip())


def _is_instant(text: Any) -> bool:
    try:
        _instant(text)
    except ValueError:
        return False
    return True


def _microseconds(text: str) -> int:
    time = _instant(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    delta = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _parsed(
    column: Any, name: str, where: str, place: Callable[[int], str], parse: Callable[[str], Any], rule: str
) -> np.ndarray:
    """Return the parsed values of a column; each different text is parsed once."""
    texts = column.fill_null("").dictionary_encode()
    words, values = texts.dictionary.to_pylist(), []
    codes = texts.indices.to_numpy(zero_copy_only=False)
    for code, word in enumerate(words):
        try:
            if "_" in word:  # of Python's own syntax
                raise ValueError
            value = parse(word)
            if value != value or abs(value) > 2**63 - 1:
                raise ValueError
        except (ValueError, OverflowError, TypeError):
            row = int(np.argmax(codes == code))
            raise DataError(f"{place(row)}: '{name}' must be {rule}. Received: {printable(word[:60])!r}") from None
        values.append(value)
    return np.array(values)[codes]
