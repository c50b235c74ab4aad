"""Predictions of runs, paired by the ids of test samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlframe.comparisons.runs import Run
from dlframe.statistics.comparison.jackknife import groups_of
from dlframe.statistics.comparison.predicted import Form
from dlframe.types import ConfigError, DataError, opened

PREDICTIONS = "predictions.parquet"
LARGEST = 2**33
"""Bytes of a table of predictions that is read."""


class Values(NamedTuple):
    """A metric of a run.

    Attributes:
        value: The metric.
        deleted: (groups,) the metric without each group of test samples.
        losses: (samples,) the loss of each forecast, in order; None of other metrics and where samples are no series.
    """

    value: float
    deleted: np.ndarray
    losses: np.ndarray | None


class Paired:
    """The test samples that all runs on one data set have in common: all of them, in the order of the first run.

    Args:
        first: The run whose order and targets the others must have.

    Raises:
        DataError: Its predictions cannot be read, or an id is there twice.
    """

    def __init__(self, first: Run) -> None:
        self.first = first
        self.names: dict[str, int] = {}
        """Classes and other words, by number: numbers are compared faster."""
        table = _read(first)
        self.ids = _ids(table, first)
        target = self._column(table, "target", first)
        if target is None:
            raise DataError(f"{first.folder / PREDICTIONS}: targets must be classes or numbers")
        self.target = target
        groups = _values(table["group"]) if "group" in table.column_names else None
        blocks = 0 if groups is not None else first.result.blocks
        self.is_series = blocks > 0
        self.groups = groups_of(len(self.ids), groups, blocks)
        self.unit = "groups" if groups is not None else f"blocks of {len(self.ids) // blocks} neighbors" if blocks else ""

    def __len__(self) -> int:
        return len(self.ids)

    def values(self, run: Run, metrics: Sequence[str], *, baseline: bool = False) -> dict[str, Values] | None:
        """Return metrics of a run.

        Args:
            run: A run on the same test samples.
            metrics: Names.
            baseline: Of the trivial baseline in the table of the run; None where it has none.

        Raises:
            ConfigError: It was tested on other samples, or lacks a metric.
            DataError: Its predictions cannot be read, or do not give the metric in its result.
        """
        table = _read(run)
        if baseline and "baseline" not in table.column_names:
            return None
        order = self._order(table, run)
        columns: dict[str, Any] = {}
        for name in table.column_names:
            source = "baseline" if baseline and name == "prediction" else name
            if name not in ("id", "group", "probabilities", "baseline"):
                values = self._column(table, source, run)
                columns |= {} if values is None else {name: values[order]}
        if not _equal(columns.get("target"), self.target):
            raise ConfigError(f"compare: {run.folder} has other targets than {self.first.folder} for the same test samples")
        found = {}
        for metric in metrics:
            form = self.form(run, metric)
            try:
                value, deleted = form.values(columns, self.groups)
            except KeyError as error:
                raise DataError(f"{run.folder / PREDICTIONS}: has no column {error}, which {metric} requires") from None
            except (ValueError, TypeError) as error:
                raise DataError(f"{run.folder / PREDICTIONS}: does not give {metric}: {error}") from None
            told = run.result.baseline[1].get(metric) if baseline else run.result.metrics.get(metric)
            if told is not None and not np.isclose(value, told, rtol=1e-5, atol=1e-9, equal_nan=True):
                raise DataError(f"{run.folder / PREDICTIONS}: gives {metric} {value:.6g}. {run.folder} says {told:.6g}")
            if not np.isfinite(deleted).all() or not np.isfinite(value):
                raise ConfigError(f"compare: {metric} of {run.folder} is undefined, or is without some of the test samples")
            found[metric] = Values(value, deleted, form.losses(columns) if self.is_series else None)
        return found

    def form(self, run: Run, metric: str) -> Form:
        """Return how a metric of a run follows from its predictions.

        Raises:
            ConfigError: It does not.
            DataError: The result of the run is damaged.
        """
        forms = run.result.forms
        if metric not in forms:
            known = f"Choose from: {', '.join(forms)}" if forms else "It was trained by an earlier version: train it again"
            raise ConfigError(f"compare: no metric '{metric}' follows from the predictions of {run.folder}. {known}")
        options = dict(forms[metric])
        try:
            name = options.pop("form")
            if "positive" in options:
                options["positive"] = self.names.setdefault(options["positive"], len(self.names))
            return Form(name, options)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{run.folder}: its result is damaged: {error}") from None

    def _order(self, table: Any, run: Run) -> np.ndarray:
        """Return the rows of a table in the order of the first run."""
        ids = _ids(table, run)
        if len(ids) == len(self.ids) and (ids == self.ids).all():
            return np.arange(len(ids))
        mine, theirs = np.argsort(self.ids, kind="stable"), np.argsort(ids, kind="stable")
        if len(ids) != len(self.ids) or not (ids[theirs] == self.ids[mine]).all():
            only = len(np.setdiff1d(ids, self.ids)), len(np.setdiff1d(self.ids, ids))
            raise ConfigError(
                f"compare: {run.folder} was tested on other samples than {self.first.folder}: "
                f"{only[0]:,} are only in the first, {only[1]:,} only in the second"
            )
        order = np.empty(len(ids), dtype=np.int64)
        order[mine] = theirs
        return order

    def _column(self, table: Any, name: str, run: Run) -> np.ndarray | None:
        """Return a column as numbers: words by their place in `names`, lists of equal length as rows; None for others."""
        import pyarrow

        if name not in table.column_names:
            raise DataError(f"{run.folder / PREDICTIONS}: has no column '{name}'")
        column = table[name].combine_chunks()
        if isinstance(column, pyarrow.ChunkedArray):  # of an empty table
            column = pyarrow.concat_arrays(column.chunks)
        kind = column.type
        if column.null_count:
            raise DataError(f"{run.folder / PREDICTIONS}: column '{name}' lacks {column.null_count:,} values")
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            column = column.dictionary_encode()
            kind = column.type
        if pyarrow.types.is_dictionary(kind):
            places = [self.names.setdefault(word, len(self.names)) for word in column.dictionary.to_pylist()]
            return np.asarray(places, dtype=np.int64)[_values(column.indices)]
        if pyarrow.types.is_list(kind) and pyarrow.types.is_floating(kind.value_type):
            lengths = np.diff(_values(column.offsets))
            if len(lengths) and (lengths == lengths[0]).all():
                return _values(column.flatten()).reshape(len(lengths), -1)
        elif pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind):
            return _values(column)
        return None  # no form takes others


def _read(run: Run) -> Any:
    """Return the table of predictions of a run; words as dictionaries."""
    import pyarrow
    import pyarrow.parquet

    path = run.folder / PREDICTIONS
    try:
        with opened(path, inside=run.folder) as file:
            source = pyarrow.parquet.ParquetFile(file)
            schema = source.schema_arrow
            names = [name for name in schema.names if name != "probabilities"]
            words = [field.name for field in schema if pyarrow.types.is_string(field.type) and field.name != "id"]
            size = sum(source.metadata.row_group(i).total_byte_size for i in range(source.metadata.num_row_groups))
            if size > LARGEST:
                raise DataError(f"{path}: must unpack to at most {LARGEST:,} bytes. Received: {size:,}")
            file.seek(0)
            return pyarrow.parquet.ParquetFile(file, read_dictionary=words).read(names)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _ids(table: Any, run: Run) -> np.ndarray:
    """Return the ids of the test samples as text or integers.

    Raises:
        DataError: There are none, or one is there twice.
    """
    if "id" not in table.column_names or not len(table):
        raise DataError(f"{run.folder / PREDICTIONS}: has no ids of test samples")
    ids = _values(table["id"])
    if repeated := len(ids) - len(np.unique(ids)):
        raise DataError(f"{run.folder / PREDICTIONS}: {repeated:,} ids of test samples are there twice")
    return ids


def _values(column: Any) -> np.ndarray:
    """Return a column without missing values as an array; Arrow's own conversion imports pandas, which takes half a second."""
    import pyarrow

    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    if pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type):
        return np.from_dlpack(column)
    if pyarrow.types.is_boolean(column.type):
        return np.from_dlpack(column.cast(pyarrow.uint8())).astype(bool)
    return np.asarray([str(value) for value in column.to_pylist()])


def _equal(one: Any, other: np.ndarray) -> bool:
    if one is None or one.shape != other.shape:
        return False
    return bool((one == other).all()) if one.dtype.kind in "iub" else bool(np.allclose(one, other, rtol=1e-9, equal_nan=True))
