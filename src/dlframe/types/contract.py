"""Check of a data set against its spec."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlframe.types.columns import PARTS, Column, Dataset, Field, Lazy, Ragged, Split
from dlframe.types.errors import DataError, nearest


def check_dataset(dataset: Dataset) -> Dataset:
    """Return the data set if every column of every split matches its field.

    Values of lazy columns are checked when read.

    Raises:
        DataError: With data set, split, column, rule and received value.
    """
    spec = dataset.spec
    if not spec.inputs:
        raise DataError(f"data={spec.name}: must have an input. Received: none.")
    if both := spec.inputs.keys() & spec.targets.keys():
        raise DataError(f"data={spec.name}: '{min(both)}' must not be an input and a target.")
    for name, field in spec.fields.items():
        if name in ("inputs", "targets", "index"):
            raise DataError(f"data={spec.name}: '{name}' is a reserved name of columns.")
        if None in field.shape[1:] or field.shape[:1] == (0,):
            raise DataError(f"data={spec.name}: '{name}' has shape {field.shape}: only the first length may vary.")
        if field.along and field.along not in spec.fields:
            raise DataError(
                f"data={spec.name}: '{name}' is along '{field.along}', which is not declared."
                f"{nearest(field.along, spec.fields)}"
            )
    for part in PARTS:
        split: Split = getattr(dataset, part)
        if not len(split):
            raise DataError(f"data={spec.name}: the {part} split is empty.")
        for fault in _faults(dataset, split):
            raise DataError(f"data={spec.name}: {fault} (in the {part} split).")
    for part in PARTS[1:]:
        labelled = getattr(dataset, part).labelled
        if labelled is not None and not labelled.all():
            raise DataError(f"data={spec.name}: only training samples may be unlabeled (in the {part} split).")
    return dataset


def _faults(dataset: Dataset, split: Split) -> Iterator[str]:
    fields = dataset.spec.fields
    for name in fields.keys() - split.columns.keys():
        yield f"the declared column '{name}' is missing"
    for name in split.columns.keys() - fields.keys():
        yield f"the column '{name}' is not declared.{nearest(name, fields)}"
    for name, field in fields.items():
        column = split[name]
        if len(column) != len(split):
            yield f"'{name}' must have {len(split)} samples, one per id. Received: {len(column)}"
        yield from (f"'{name}' {fault}" for fault in _faults_of_column(field, column, split.ids))
        if field.along:
            lengths, others = _lengths(column), _lengths(split[field.along])
            if lengths is None or others is None or not np.array_equal(lengths, others):
                where = "" if lengths is None or others is None else f", sample {split.ids[np.argmax(lengths != others)]}"
                yield f"'{name}' must have the lengths of '{field.along}'{where}"
    for name, array in (("labelled", split.labelled), ("groups", split.groups)):
        if array is not None and len(array) != len(split):
            yield f"'{name}' must have {len(split)} samples, one per id. Received: {len(array)}"


def _lengths(column: Column) -> np.ndarray | None:
    return None if isinstance(column, np.ndarray) else column.lengths


def _faults_of_column(field: Field, column: Column, ids: np.ndarray) -> Iterator[str]:
    shape: tuple[int | None, ...] = field.shape
    match column:
        case Lazy(lengths=lengths):
            if (lengths is not None) != field.ragged:
                yield f"has shape {shape} and must {'have' if field.ragged else 'not have'} lengths"
            if lengths is not None and (lengths < 1).any():
                yield f"must have at least 1 element per sample. Received: none in sample {ids[np.argmax(lengths < 1)]}"
            return
        case Ragged(values=values, offsets=offsets):
            if not field.ragged:
                yield f"has shape {shape} and must be one array. Received: samples of varying length"
                return
            if offsets.dtype.kind != "i" or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values):
                yield f"must have integer offsets from 0 to {len(values)}. Received: {offsets.dtype} {_ends(offsets)}"
                return
            if (steps := np.diff(offsets)).size and steps.min() < 0:
                at = int(np.argmin(steps))
                yield f"must have ascending offsets. Received: {offsets[at]}, then {offsets[at + 1]}"
                return
            if field.kind not in EMPTY and (steps < 1).any():
                yield f"must have at least 1 element per sample. Received: none in sample {ids[np.argmax(steps < 1)]}"
            shape, inner = shape[1:], values.shape[1:]
        case _:
            if field.ragged:
                yield f"has shape {shape} and must be Ragged. Received: one array of shape {column.shape}"
                return
            values, inner = column, column.shape[1:]
    if values.dtype != np.dtype(field.dtype):
        yield f"must be {field.dtype}. Received: {values.dtype}"
    if inner != shape:
        yield f"must have samples of shape {shape}. Received: {inner}"
    if field.kind == "class" and values.dtype.kind in "iu" and values.size:
        wrong = (values < 0) | (values >= len(field.names))
        if wrong.any():
            element = int(np.argmax(wrong.reshape(len(values), -1).any(1)))
            sample = np.searchsorted(column.offsets, element, "right") - 1 if isinstance(column, Ragged) else element
            yield (
                f"must hold class indices from 0 to {len(field.names) - 1}. "
                f"Received: {values[wrong].flat[0]} in sample {ids[sample]}"
            )


EMPTY = ("box", "class", "value")
"""Kinds that allow empty samples, such as images without objects."""


def _ends(offsets: np.ndarray) -> str:
    return f"from {offsets[0]} to {offsets[-1]}" if len(offsets) else "(empty)"
