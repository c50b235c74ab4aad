"""Tables as people have them: separators, encodings, kinds of columns, targets."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from dlframe.readers.tables import files
from dlframe.readers.tables.files import Options
from dlframe.readers.tables.rows import classes_of, codes_of, disguised, features_of
from dlframe.readers.tables.table import Table, read_table, texts_of
from dlframe.types import DataError

ROWS = Path(__file__).parent / "rows"


def table_of(name: str, **options) -> Table:
    return read_table(ROWS / name, Options(**options))


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def rows(table: Table) -> list[tuple]:
    return [*zip(*(texts_of(column).to_pylist() for column in table.columns.values()), strict=True)]


def refusal(read, *given, **options) -> str:
    with pytest.raises(DataError) as error:
        read(*given, **options)
    return str(error.value)


# --- text


def test_quotes_line_ends_and_blanks_are_kept_to_the_letter():
    found = rows(table_of("csv-quoting-reviews.csv"))
    assert found == [
        ("Good, really good", "pos"),
        ("First line\r\nsecond line", "pos"),
        ('He said "never again"', "neg"),
        ("  spaces kept ", "neg"),
        ("last without line end", "pos"),
    ]


def test_a_refusal_names_the_physical_line():
    assert "csv-quoting-broken.csv, line 6: has 3 fields under 2 names" in refusal(table_of, "csv-quoting-broken.csv")


def test_separator_is_the_one_that_divides_every_line(tmp_path):
    table = table_of("delimiter-reviews.csv")
    assert rows(table) == [("Good, cheap", "pos"), ("Slow, loud, dear", "neg"), ("Fine", "pos")]
    assert table.notes == ["fields are separated by semicolons"]
    both = written(tmp_path, "a;b,c\n1;x,3\n4;y,6\n")
    assert "can be divided by comma and semicolon. Say which: data.separator=comma" in refusal(read_table, both)
    assert list(read_table(both, Options(separator="semicolon")).columns) == ["a", "b,c"]


def test_encodings():
    found = [("plain", "pos"), ("It\u2019s gréat — 5 €", "pos"), ("café", "neg")]
    assert rows(table_of("encoding-windows.csv", encoding="cp1252")) == found
    assert rows(table_of("encoding-utf16.csv")) == [("plain", "pos"), ("café — 5 €", "neg")]
    said = refusal(table_of, "encoding-windows.csv")
    assert "encoding-windows.csv, line 3: must be UTF-8." in said
    assert "data.encoding=cp1252" in said
    assert "data.encoding: must be a text encoding" in refusal(table_of, "encoding-windows.csv", encoding="zip")


def test_words_that_elsewhere_mean_missing_are_words():
    table = table_of("null-words-reviews.csv")
    assert [row[0] for row in rows(table)] == ["null", "None", "NA", "N/A", "nan", "-", "n/a", "#N/A"]
    labels, names, _ = classes_of(table.columns["label"])
    assert dict(zip(names, np.bincount(labels).tolist(), strict=True)) == {"NA": 3, "pos": 5}


def test_unicode_comes_back_as_it_was():
    texts = [row[0] for row in rows(table_of("unicode-texts.csv"))]
    assert texts[0] == "👩\u200d👩\u200d👧\u200d👦 family"
    assert "zero\u200bwidth" in texts
    assert "Tom &amp; Jerry &lt;br /&gt;" in texts
    assert len({text for text in texts if text.startswith("caf")}) == 2


def test_a_field_may_be_long(tmp_path):
    lengths = [5, 200_000, 2_000_000, 4]
    file = written(tmp_path, "text,label\n" + "".join(f"{'x' * size},{size % 2}\n" for size in lengths))
    assert [len(text) for text, _ in rows(read_table(file))] == lengths


def test_nul_bytes_and_open_quotes_are_refused(tmp_path):
    assert "nul-byte-reviews.csv, line 3: holds a NUL byte" in refusal(table_of, "nul-byte-reviews.csv")
    for content in ('a,b\n1,"x\n2,y\n', 'a,b\n"x\n2,y\n', 'a,b\n1,"x"y\n', 'a,b\n1,"x\n2,"y\n'):
        assert ", line 2: must be quoted as in RFC 4180." in refusal(read_table, written(tmp_path, content)), content


def test_a_quote_within_a_field_is_a_sign_like_others(tmp_path):
    assert rows(read_table(written(tmp_path, 'a,b\n12" vinyl,1\n7" vinyl,2\n12" vinyl,3\n7" vinyl,4\n')))[1] == (
        '7" vinyl',
        "2",
    )


@pytest.mark.parametrize(
    ("content", "names", "note"),
    [
        (
            "1,2\n3,4\n",
            ["column 1", "column 2"],
            "no header: the first line holds values; columns are called column 1 to column 2",
        ),
        ("# from a tool\n\na,b\n1,2\n3,4\n", ["a", "b"], "line 1 has 1 field and is skipped: '# from a tool'"),
        ("a,,b\n1,2,3\n4,5,6\n", ["a", "column 2", "b"], "column 2 has no name: it is called 'column 2'"),
        ("a,b,\n1,2,\n3,4,\n", ["a", "b"], ""),
        ("a\tb\n1\t2\n3\t4\n", ["a", "b"], "fields are separated by tabs"),
        ("a,b\r1,2\r3,4\r", ["a", "b"], ""),
        ("\n\na,b\n\n1,2\n\n3,4\n\n", ["a", "b"], ""),
        ("a,b\n1,2\n,\n3,4\n", ["a", "b"], "left out 1 row of empty fields"),
    ],
)
def test_headers(tmp_path, content, names, note):
    table = read_table(written(tmp_path, content))
    assert list(table.columns) == names
    assert float(rows(table)[0][0]) == 1
    assert table.rows == 2
    assert (note in table.notes) == bool(note)


def test_a_column_with_decimal_commas_is_not_two(tmp_path):
    file = written(tmp_path, "value\n1,5\n2,5\n")
    assert "line 2: has 2 fields below a line of 1 field" in refusal(read_table, file)
    options = Options(separator="semicolon", decimal=",")
    assert read_table(file, options).columns["value"].values.to_pylist() == [1.5, 2.5]
    assert "has fewer than the 9 lines of data.header" in refusal(read_table, file, Options(header=9))


def test_lines_of_messages_count_empty_lines_too(tmp_path):
    file = written(tmp_path, "a,b\n\n1,2\n\n\n" + "3,4\n" * 5 + "x,5\n")
    assert ", line 11: 'a' must be a number, as 6 other values are. Received: 'x'" in refusal(read_table, file)


# --- kinds


def test_names_occur_once():
    assert "'amount' occurs twice, in columns 1 and 2" in refusal(table_of, "duplicate-columns-same.csv")
    assert "'Amount' and 'amount' differ by case or blanks only" in refusal(table_of, "duplicate-columns-case.csv")


def test_leading_zeros_are_no_numbers(tmp_path):
    table = table_of("leading-zeros-payments.csv")
    assert {name: column.kind for name, column in table.columns.items()} == {
        "zip": "identifier",
        "mcc": "identifier",
        "amount": "number",
        "is_fraud": "number",
    }
    assert list(dict.fromkeys(texts_of(table.columns["zip"]).to_pylist())) == ["01234", "1234", "00501", "501", "10001"]
    assert list(dict.fromkeys(texts_of(table.columns["mcc"]).to_pylist())) == ["0742", "5411", "0008"]
    late = written(tmp_path, "zip,v\n" + "".join(f"{i},1\n" for i in range(1, 300_000)) + "007,1\n")
    assert read_table(late).columns["zip"].kind == "identifier"
    assert read_table(written(tmp_path, "v,w\n0.5,0\n-0.25,00\n0,0\n")).columns["v"].kind == "number"


@pytest.mark.parametrize(
    ("name", "distinct", "missing"),
    [
        ("big-ids-payments.csv", ["9007199254740992", "9007199254740993", "9007199254740994"], 1),
        ("big-ids-long.csv", ["18446744073709551616", "18446744073709551617"], 0),
    ],
)
def test_integers_beyond_double_precision_are_identifiers(name, distinct, missing):
    column = table_of(name).columns["account"]
    values = texts_of(column).to_pylist()
    assert column.kind == "identifier"
    assert [value for value in dict.fromkeys(values) if value] == distinct
    assert (values.count(None), column.missing) == (missing, missing)


TOKENS = {"12.5": 12.5, "-3": -3.0, "+4": 4.0, "1e3": 1000.0, ".5": 0.5, "5.": 5.0, " 12 ": 12.0, "0012": 12.0}
NONE = ["1_000", "0x1A", "12%", "$5", "1,234.50", "1.234,50", "١٢", "inf", "-Infinity", "1e400", "1e31", "?", "True", "nan"]


@pytest.mark.parametrize("text", [*TOKENS, *NONE])
def test_what_a_number_is(tmp_path, text):
    file = written(tmp_path, f'x,k\n"{text}",1\n')
    if text in TOKENS:
        assert read_table(file, Options(kinds=("x:number",))).columns["x"].values.to_pylist() == [TOKENS[text]]
    else:
        assert "line 2: 'x' must be a number" in refusal(read_table, file, Options(kinds=("x:number",)))


@pytest.mark.parametrize("text", ["0x1A", "0X1A", "1_0", "--5", "nan", "-inf"])
def test_words_that_other_readers_take_for_numbers(tmp_path, text):
    rows = "".join(f"{i},{i}\n" for i in range(40_000))
    assert f"line 40002: 'a' must be a number, as 40,000 other values are. Received: '{text}'" in refusal(
        read_table, written(tmp_path, f"a,b\n{rows}{text},1\n")
    )


def test_one_bad_value_among_numbers_is_refused():
    said = refusal(table_of, "number-tokens-payments.csv")
    assert "line 4: 'amount' must be a number, as 4 other values are. Received: '1,234.50' and 1 more." in said
    column = table_of("number-tokens-payments.csv", missing=("?",), thousands=",").columns["amount"]
    assert (column.kind, column.missing) == ("number", 1)
    assert sum(value for value in column.values.to_pylist() if value) == 1334.5
    by_column = table_of("number-tokens-payments.csv", missing=("amount:?",), thousands=",").columns["amount"]
    assert by_column.missing == 1


def test_only_an_empty_field_is_missing_unless_told():
    for missing, counts, empty in (((), {"DE": 1, "NA": 3, "US": 2}, 1), (("NA",), {"DE": 1, "US": 2}, 4)):
        codes, words = codes_of(table_of("na-country-payments.csv", missing=missing).columns["country"])
        found = dict(zip(words, np.bincount(codes[codes >= 0], minlength=len(words)).tolist(), strict=True))
        assert {word: count for word, count in found.items() if count} == counts
        assert (codes < 0).sum() == empty


def test_truth_in_words():
    table = table_of("bool-words-accounts.csv")
    found = {}
    for name in "abcde":
        codes, words = codes_of(table.columns[name])
        counts = zip(words, np.bincount(codes[codes >= 0]).tolist(), strict=True)
        found[name] = dict(counts) | {"missing": int((codes < 0).sum())}
    assert found == {
        "a": {"True": 2, "False": 4, "missing": 0},
        "b": {"yes": 3, "no": 3, "missing": 0},
        "c": {"1": 2, "0": 3, "missing": 1},
        "d": {"bot": 4, "human": 2, "missing": 0},
        "e": {"t": 1, "f": 4, "missing": 1},
    }


def test_dates_have_one_format():
    days = table_of("dates-provable.csv").columns["day"].values.to_numpy(zero_copy_only=False).astype("datetime64[D]")
    assert days.astype(str).tolist() == ["2024-04-03", "2024-04-13", "2024-06-05"]
    said = refusal(table_of, "dates-open.csv")
    assert "'day' is ambiguous, day or month first: '03/04/2024' is 2024-04-03 or 2024-03-04." in said
    assert "data.formats=[day:%d/%m/%Y]" in said
    told = table_of("dates-open.csv", formats=("day:%m/%d/%Y",)).columns["day"].values.to_numpy(zero_copy_only=False)
    assert told.astype("datetime64[D]").astype(str).tolist() == ["2024-03-04", "2024-05-06", "2024-07-08"]
    times = table_of("dates-offsets.csv").columns["time"].values.to_numpy(zero_copy_only=False)
    assert times.astype("datetime64[s]").astype(int).tolist() == [1711845000, 1711845900, 1711848600]
    said = refusal(table_of, "dates-units.csv", formats=("time:unix",))
    assert "line 3: 'time' must be a time in the unit unix from 1600 to 2200. Received: 1700000000000." in said


@pytest.mark.parametrize(
    ("text", "day"),
    [("29 Feb 2024", "2024-02-29"), ("Feb 29, 2024", "2024-02-29"), ("2024.02.29", "2024-02-29"), ("29-Feb-24", "2024-02-29")],
)
def test_shapes_of_dates(tmp_path, text, day):
    file = written(tmp_path, f'd,k\n"{text}",1\n"{text}",2\n')
    found = read_table(file).columns["d"].values.to_numpy(zero_copy_only=False).astype("datetime64[D]")
    assert found.astype(str).tolist() == [day, day]


def test_a_day_that_does_not_exist_is_refused(tmp_path):
    said = refusal(read_table, written(tmp_path, "d,k\n28/02/2023,1\n29/02/2023,1\n27/02/2023,1\n"))
    assert "line 3: 'd' must be a date in one format (day/month/year), as 2 other values are. Received: '29/02/2023'" in said


def test_row_numbers_are_left_out():
    table = table_of("index-column-payments.csv")
    assert list(table.columns) == ["amount", "is_fraud"]
    assert table.notes == ["the first column, which has no name, numbers the rows: left out"]


def test_columns_that_know_the_class_are_named():
    table = table_of("label-in-disguise-payments.csv")
    labels, *_ = classes_of(table.columns["is_fraud"])
    assert sorted(disguised(table, features_of(table, ["is_fraud"]), labels)) == ["chargeback_code", "status"]


# --- classes


def test_classes_are_names_in_their_order():
    for name, column, names, counts in (
        ("labels-from-one-stars.csv", "stars", ("1", "2", "3", "4", "5"), [3, 1, 2, 1, 4]),
        ("labels-from-one-points.csv", "points", ("1", "2", "9", "10"), [1, 2, 1, 3]),
        ("label-spellings-floats.csv", "label", ("0", "1"), [2, 3]),
    ):
        labels, found, _ = classes_of(table_of(name).columns[column])
        assert (found, np.bincount(labels).tolist()) == (names, counts)
    _, found, notes = classes_of(table_of("label-spellings-spellings.csv").columns["label"])
    assert found == ("negative", "Positive", "positive", "positive ")
    assert notes == ["classes 'Positive' and 'positive' and 'positive ' differ by case or blanks only, and stay apart"]


# --- other formats


def test_parquet_is_read_by_meaning_not_by_storage():
    table = table_of("parquet-reviews.parquet")
    assert rows(table) == [("good", "pos"), ("bad", "neg"), (None, "pos"), ("fine", "pos")]
    assert list(table.columns) == ["text", "label"]
    assert "'text' is a list of values, not one per row" in refusal(table_of, "parquet-nested.parquet")


def test_json_lines_are_read_as_csv_is(tmp_path):
    lines = [
        '{"zip": "01234", "amount": 1.5, "paid": true, "day": "2024-01-02"}',
        '{"amount": null, "zip": "501", "day": "2024-01-03", "paid": false}',
        "",
        '{"zip": "501", "amount": 9007199254740993, "paid": true, "day": "2024-01-04"}',
    ]
    table = read_table(written(tmp_path, "\n".join(lines), "a.jsonl"))
    assert {name: column.kind for name, column in table.columns.items()} == {
        "zip": "identifier",
        "amount": "number",
        "paid": "category",
        "day": "date",
    }
    assert table.columns["amount"].missing == 1
    for line, said in (
        ('{"a": 1, "a": 2}', "line 5: must have each name once. Received: 'a' twice"),
        ('{"a": [1]}', "line 5: 'a' is a list, not one value"),
        ('{"a": NaN}', "line 5: must hold numbers, text, true, false or null. Received: NaN"),
        (r'{"a": "\ud800"}', "line 5: must be text of Unicode."),
        ("[1]", "line 5: must be a JSON object, one in each line."),
        ('{"a": 1', "line 5: must be a JSON object."),
    ):
        assert said in refusal(read_table, written(tmp_path, "\n".join([*lines, line]), "a.jsonl"))


def test_packed_files(tmp_path):
    plain = (ROWS / "delimiter-reviews.csv").read_bytes()
    expected = rows(table_of("delimiter-reviews.csv"))
    assert rows(read_table(written(tmp_path, gzip.compress(plain), "a.csv.gz"))) == expected
    assert rows(read_table(written(tmp_path, gzip.compress(plain), "without-its-suffix.csv"))) == expected
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/._a.csv", b"\0")
        archive.writestr("a.csv", plain)
    assert rows(read_table(tmp_path / "a.zip")) == expected
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("b.csv", plain)
    assert "must hold one table. Received: 2 files (a.csv, b.csv)" in refusal(read_table, tmp_path / "a.zip")


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ALWAYS", 10**6)
    bomb = written(tmp_path, gzip.compress(b"a,b\n" + bytes(2 * 10**6)), "a.csv.gz")
    assert "unpacks to more than 1 MB" in refusal(read_table, bomb)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", bytes(2 * 10**6))
    assert "unpacks to more than 1 MB" in refusal(read_table, tmp_path / "a.zip")
    table = pyarrow.table({"a": pyarrow.array(np.zeros(10**6, np.int8))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    monkeypatch.setattr("dlframe.readers.tables.stored.CELLS", 10**4)
    monkeypatch.setattr("dlframe.readers.tables.stored.GROWTH", 1)
    assert "must hold at most 10,000 values. Received: 1,000,000" in refusal(read_table, tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\x89PNG\r\n\x1a\n", "is a PNG image"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Office document"),
        ("a.parquet", b"a,b\n1,2\n", "is not a Parquet file, though its name ends so"),
        ("a.parquet", b"PAR1" + bytes(40), "cannot be read as Parquet"),
        ("a.csv.gz", b"a,b\n1,2\n", "is not a gz file, though its name ends so"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:30], "cannot be unpacked"),
        ("a.zip", b"PK\x03\x04" + bytes(40), "cannot be unpacked"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "Two bytes per character? data.encoding=utf-16-le"),
    ],
)
def test_files_of_other_formats(tmp_path, name, content, said):
    assert said in refusal(read_table, written(tmp_path, content, name))


def test_pieces_of_a_large_file_are_one_table(tmp_path, monkeypatch):
    """Kinds change in the last of many pieces: integers, then a fraction; words, then more; days, then a clock."""
    monkeypatch.setattr("dlframe.readers.tables.delimited.PIECE", 1000)
    lines = [f'{i},w{i % 3},2024-01-{i % 28 + 1:02d},"a ""b""\n{i}",' for i in range(500)]
    content = "n,w,d,q,late\n" + "\n".join([*lines, '0.5,zz,2024-02-01 10:30,"last",7'])
    table = read_table(written(tmp_path, content))
    assert {name: column.kind for name, column in table.columns.items()} == {
        "n": "number",
        "w": "category",
        "d": "date",
        "q": "text",
        "late": "number",
    }
    assert table.rows == 501
    assert table.columns["n"].values.to_pylist()[-2:] == [499, 0.5]
    assert texts_of(table.columns["q"]).to_pylist()[1:3] == ['a "b"\n1', 'a "b"\n2']
    assert table.columns["late"].values.to_pylist()[-2:] == [None, 7]
    assert "line 1003: 'n' must be a number" in refusal(read_table, written(tmp_path, content + "\nx,a,2024-01-01,b,1\n"))
