"""Damaged tables: read right, or refused in one line; never anything else."""

import random
from contextlib import suppress
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from dlframe.readers.tables.series import read_panel
from dlframe.readers.tables.table import read_table
from dlframe.types import DataError

ROWS = [
    f'{i}.25,0{i % 900:03d},{i % 28 + 1:02d}/14/2024,"say ""{i}"",\n{i}",${i},{"no" if i % 2 else "yes"}' for i in range(1, 400)
]
TEXT = ("amount,zip,place,text,price,paid\n" + "\n".join(ROWS) + "\n").encode()
LINES = "".join(f'{{"a": {i}, "b": "x{i % 3}", "c": null, "d": true}}\n' for i in range(400)).encode()


def columns(folder: Path) -> bytes:
    table = pyarrow.table({"a": range(2000), "b": [f"x{i % 7}" for i in range(2000)], "c": [i / 7 for i in range(2000)]})
    pyarrow.parquet.write_table(table, folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


def outcome(file: Path) -> int | None:
    """Return the number of rows; None where the file is refused in one line with its name."""
    try:
        return read_table(file).rows
    except DataError as error:
        said = str(error)
    assert said.startswith(str(file))
    assert "\n" not in said
    return None


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_ends_early(tmp_path, name):
    content = {"a.csv": TEXT, "a.jsonl": LINES, "a.parquet": columns(tmp_path)}[name]
    file = tmp_path / name
    found = []
    for size in range(0, len(content), 1000):
        file.write_bytes(content[:size])
        found.append(outcome(file))
        # A cut through the last value of a row cannot be seen.
        if found[-1] is not None:
            whole = b',"say' if name == "a.csv" else b"}"
            assert (name, found[-1]) == (name, content.count(whole, 0, size))
            assert name != "a.parquet"
    assert found[0] is None
    file.write_bytes(content)
    assert outcome(file) == {"a.csv": 399, "a.jsonl": 400, "a.parquet": 2000}[name]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_bytes_that_change(tmp_path, name):
    content = {"a.csv": TEXT, "a.jsonl": LINES, "a.parquet": columns(tmp_path)}[name]
    rng = random.Random(0)
    file = tmp_path / name
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        file.write_bytes(changed)
        outcome(file)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".zip", ".jsonl", ".parquet"])
def test_other_formats_under_a_known_suffix(tmp_path, suffix):
    parquet = columns(tmp_path)
    for number, content in enumerate(
        (TEXT, LINES, parquet, b"\x89PNG\r\n\x1a\n" + bytes(99), b"\x00\x01" * 99, b"[1, 2]", b"<html>", b"\n\n", b"x")
    ):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(content)
        rows = outcome(file)
        # What is read in spite of its suffix is what the content says.
        assert rows in (None, 399, 400, 2000), (number, suffix)
        with suppress(DataError):
            read_panel(file)
