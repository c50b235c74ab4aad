"""Columns of tables of predictions, as numbers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.statistics.comparison.boxes import VOCABULARY
from dlframe.statistics.comparison.predicted import Form
from dlframe.types import DataError, Ragged

BASELINE = "baseline"
"""Column of the predictions of the trivial baseline, and beginning of the names of its others."""
SHARED = ("target", "classes", "probabilities", "event")
"""Beginnings of names of columns that a baseline need not bring: facts, and probabilities, equal where it brings none."""


def needed(forms: Collection[Form]) -> list[str]:
    """Return the columns that forms take, or take where they are there."""
    return [*dict.fromkeys(("target", *(name for form in forms for name in (*form.needs, *form.may_lack))))]


class Columns:
    """Reads columns of tables, which share the numbers of their words: numbers are compared faster."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        """Classes and other words, by number."""

    def of(
        self, table: Any, forms: Sequence[Form], where: Path, order: np.ndarray | None = None, *, baseline: bool = False
    ) -> dict[str, Any] | None:
        """Return the columns that forms take.

        Args:
            table: Arrow table of predictions.
            forms: What is computed from them.
            where: Its file, for messages.
            order: (samples,) rows; None for all in their order.
            baseline: Those of the trivial baseline; None where the table does not have them.

        Raises:
            DataError: A column lacks values, or the classes are not named.
        """
        names = needed(forms)
        if baseline and not all(name.startswith(SHARED) or _of(name) in table.column_names for f in forms for name in f.needs):
            return None
        is_ragged = any(form.is_ragged for form in forms)
        found: dict[str, Any] = {}
        if "classes" in names and "probabilities" in table.column_names:
            found["classes"] = self.classes(table, where)
        for name in names:
            source = _of(name) if baseline and _of(name) in table.column_names else name
            if baseline and source == name == "probabilities":
                found[name] = np.zeros((len(table), 1))  # it knows no class from another
            elif name != "classes" and source in table.column_names:
                values = self.column(table, source, where, is_ragged=is_ragged)
                if values is not None:
                    found[name] = values
        if order is not None:
            rows = {name: values for name, values in found.items() if name != "classes"}
            found |= {name: v.take(order) if isinstance(v, Ragged) else v[order] for name, v in rows.items()}
        return {**found, VOCABULARY: [*self.words]}

    def classes(self, table: Any, where: Path) -> np.ndarray:
        """Return the classes of the probabilities, by number.

        Raises:
            DataError: They are not named.
        """
        try:
            names = json.loads((table.schema.field("probabilities").metadata or {})[b"names"])
            return np.array([self.words.setdefault(str(name), len(self.words)) for name in names], dtype=np.int64)
        except (KeyError, ValueError, TypeError, RecursionError):
            raise DataError(f"{where}: the classes of its probabilities are not named") from None

    def column(self, table: Any, name: str, where: Path, *, is_ragged: bool = False) -> np.ndarray | Ragged | None:
        """Return a column as numbers: words by their place in `words`, lists of equal length as rows; None for others."""
        import pyarrow

        if name not in table.column_names:
            raise DataError(f"{where}: has no column '{name}'")
        column = table[name].combine_chunks()
        if isinstance(column, pyarrow.ChunkedArray):  # of an empty table
            column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
        if column.null_count:
            raise DataError(f"{where}: column '{name}' lacks {column.null_count:,} values")
        if not pyarrow.types.is_list(column.type):
            return self.numbers(column)
        lengths = np.diff(values_of(column.offsets))
        values = column.flatten()
        if values.null_count:
            raise DataError(f"{where}: column '{name}' lacks {values.null_count:,} values")
        if pyarrow.types.is_list(values.type):  # boxes, each of four numbers
            sides = np.diff(values_of(values.offsets))
            found = self.numbers(values.flatten())
            if found is None or (len(sides) and (sides != sides[0]).any()):
                return None
            found = found.reshape(len(sides), -1)
        elif pyarrow.types.is_null(values.type):
            found = np.zeros(0)
        else:
            found = self.numbers(values)
        if found is None:
            return None
        if not is_ragged and pyarrow.types.is_floating(values.type) and len(lengths) and (lengths == lengths[0]).all():
            return found.reshape(len(lengths), -1)
        return Ragged(found, np.r_[0, lengths.cumsum()].astype(np.int64))

    def numbers(self, column: Any) -> np.ndarray | None:
        """Return an Arrow array without missing values as numbers; words by their place in `words`; None for others."""
        import pyarrow

        kind = column.type
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            column = column.dictionary_encode()
            kind = column.type
        if pyarrow.types.is_dictionary(kind):
            places = [self.words.setdefault(word, len(self.words)) for word in column.dictionary.to_pylist()]
            return np.asarray(places, dtype=np.int64)[values_of(column.indices)]
        if pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind):
            return values_of(column)
        return None  # no form takes others


def _of(name: str) -> str:
    return BASELINE if name == "prediction" else f"{BASELINE}_{name}"


def values_of(column: Any) -> np.ndarray:
    """Return a column without missing values as an array; Arrow's own conversion imports pandas, which takes half a second."""
    import pyarrow

    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    if pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type):
        return np.from_dlpack(column)
    if pyarrow.types.is_boolean(column.type):
        return np.from_dlpack(column.cast(pyarrow.uint8())).astype(bool)
    return np.asarray([str(value) for value in column.to_pylist()])
