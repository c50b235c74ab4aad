"""Anomalies in rows: sensors of the space shuttle, and the user's own rows without labels."""

from __future__ import annotations

import gzip
import io

import numpy as np

from dlframe.readers.tables.files import Options
from dlframe.readers.tables.rows import cardinalities, encode, features_of, fields_of, hashes, parts_by_hash, stand_ins
from dlframe.readers.tables.table import read_table
from dlframe.registry import data
from dlframe.storage.fetch import BROKEN, Package, content, expanded, member
from dlframe.types import DataError, Dataset, DataSpec, Field, Split, printable, say

RIVER = Package(
    "pip",
    "river",
    "0.26.1",
    "6a11e1a9749beec3ea138efeb0205b2c5cea8d424e9deee306c8980faec01bef",
    2.7,
    "Statlog (Shuttle), UCI, CC BY 4.0",
    build="cp311-cp311-manylinux_2_28_x86_64",
)
MEMBER = "river/datasets/shuttle.csv.gz"
SHA256 = "1ed4bfa77233d95bff2c8ab2482725d2d800410daedf5919ad80ec6faf60ff59"

COLUMNS = [*(f"f{i}" for i in range(1, 10)), "anomaly"]
LARGEST = 2**26
"""Bytes of the file, unpacked; it has 1.3 million."""


@data.register("shuttle", inputs=("number",), targets=("class",), files=("path",), tasks={"class": "anomaly_detection"})
def shuttle(*, contaminated: bool = False, path: str | None = None) -> Dataset:
    """49,097 rows of 9 measurements of the space shuttle, 7.15 % of them anomalies (Statlog, UCI).

    Each class is split 60/20/20 at random, always alike. The training split has normal rows only.

    Args:
        contaminated: Whether the training split has its anomalies too, without labels.
        path: Copy of shuttle.csv.gz; null uses the cache or a download.
    """
    file = expanded(path) if path else member(RIVER, MEMBER, SHA256)
    try:
        with gzip.open(file) as opened:
            text = content(opened, file, LARGEST).decode("ascii")
        header, _, body = text.partition("\n")
        if header.strip().split(",") != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        table = np.loadtxt(io.StringIO(body), delimiter=",", ndmin=2)
    except (OSError, *BROKEN) as error:
        raise DataError(f"{file}: is not shuttle.csv.gz: {error}") from None
    values, labels = table[:, :-1], table[:, -1].astype(np.int64)
    if not np.isin(table[:, -1], (0, 1)).all() or min(np.bincount(labels, minlength=2)) < 5:
        raise DataError(f"{file}: 'anomaly' must be 0 or 1, each in 5 rows or more")
    train, validation, test = _parts(labels)
    if not contaminated:
        train = train[labels[train] == 0]
    seen = values[train]
    numbers = Field(
        kind="number",
        dtype="float64",
        shape=(9,),
        names=tuple(COLUMNS[:-1]),
        mean=tuple(map(float, seen.mean(0))),
        std=tuple(float(std) or 1.0 for std in seen.std(0)),
    )
    splits = tuple(Split({"numbers": values[rows], "target": labels[rows]}, rows) for rows in (train, validation, test))
    if contaminated:
        splits[0].labelled = np.zeros(len(train), bool)
    target = Field(kind="class", dtype="int64", names=("normal", "anomaly"))
    kept = {name: {"kind": "number", "mean": numbers.mean[i], "std": numbers.std[i]} for i, name in enumerate(numbers.names)}
    spec = DataSpec(
        "shuttle", {"numbers": numbers}, {"target": target}, {"cardinalities": [], "table": kept, "normal": ["normal"]}
    )
    counts = " + ".join(f"{int(split['target'].sum()):,}" for split in splits)
    what = f"with {counts} anomalies" + (", those to train without labels" if contaminated else "")
    return Dataset(
        spec, splits[0], splits[1], splits[2], str(file) if path else f"pip {RIVER.name}", f"60/20/20 by class, {what}"
    )


def _parts(labels: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each split, ascending: each class is permuted and cut."""
    random = np.random.default_rng(0)
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in (0, 1):
        rows = random.permutation(np.flatnonzero(labels == label))
        cuts = [int(0.6 * len(rows)), int(0.8 * len(rows))]
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(pieces)) for pieces in parts]


@data.register(
    "unlabeled_table", inputs=("number", "category"), targets=("class",), files=("path",), tasks={"class": "anomaly_detection"}
)
def unlabeled_table(
    *,
    path: str,
    drop: tuple[str, ...] = (),
    kinds: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    separator: str = "auto",
    encoding: str = "auto",
) -> Dataset:
    """Rows of a table without labels, for anomaly scores: all are taken for normal, and no metric is defined.

    Columns are read as by `table`, which reads tables with labels. The split is 60/20/20 by a hash of each row.

    Args:
        path: The file.
        drop: Columns to leave out.
        kinds: Kinds of columns as COLUMN:KIND: number, date, category, identifier, text.
        missing: Texts that mean a missing value, such as ?, of all columns, or of one as COLUMN:TEXT.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.
    """
    file = expanded(path)
    read = read_table(file, Options(separator=separator, encoding=encoding, missing=missing, kinds=kinds, drop=drop))
    features = features_of(read, [])
    parts = parts_by_hash(hashes(read, [*features.numbers, *features.categories]), (0.6, 0.2, 0.2))
    if not all(map(len, parts)):
        raise DataError(f"{read.file}: {read.rows:,} rows are too few for three splits")
    notes = [*read.notes, *features.notes]
    notes.append(
        "no labels: all rows are taken for normal, and no metric is defined. The scores of all rows: python -m dlframe predict "
        "RUN FILE. With labels: data=table data.target=COLUMN"
    )
    arrays, kept = encode(read, features, parts)
    notes += stand_ins(arrays, kept)
    for note in notes:
        say(f"unlabeled_table: {note}", error=True)
    train, validation, test = (
        Split({**array, "target": np.zeros(len(rows), np.int64)}, rows + 1) for array, rows in zip(arrays, parts, strict=True)
    )
    target = Field(kind="class", dtype="int64", names=("normal", "anomaly"))
    fitted = {"cardinalities": cardinalities(kept), "table": kept, "normal": ["normal"]}
    name = printable(file.name.partition(".")[0]) or "table"
    return Dataset(
        DataSpec(name, fields_of(kept), {"target": target}, fitted), train, validation, test, str(file), "60/20/20 by hash"
    )
