"""Delimited text: separator, header and rows; Arrow parses, after a look at every byte."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from dlframe.readers.tables.files import Options, Source, pc
from dlframe.types import DataError

SAMPLE = 2**20
"""Bytes from which separator and header are decided; what they decide is then checked on all rows."""

RECORDS = 200
"""Records of the sample."""

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

NAMED = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " ", "\\t": "\t"}
"""Names of separators that are awkward on a command line."""

PIECE = 2**21
"""Bytes that one thread parses at once."""

LONGEST = 2**31 - 2**25
"""Maximum bytes of a row."""

FEW = 1_000
"""Distinct texts of a piece up to which it is kept as a dictionary."""

WIDEST = 100_000
"""Maximum columns."""

BLOCK = 2**17
"""Bytes of a scanned block: they and their masks stay in a core's cache."""

DATUM = re.compile(r"\s*[-+]?[$€£]?(\d[\d.,:/eE%+-]*( \d\d:\d\d(:\d\d)?)?|\.\d+)\s*")
"""A cell that is a number, a date or a time, not a name."""


@dataclass
class Layout:
    """How the text is divided.

    Attributes:
        names: Columns; those without a name are "".
        separator: Between fields.
        body: Byte of the first row.
        line: Its physical line.
        notes: What was assumed.
        extra: Number of empty fields that every row has beyond the names.
        unnamed: Whether the first column has no name.
        literal: Whether fields hold quotes that open nothing.
    """

    names: list[str]
    separator: str
    body: int
    line: int
    notes: list[str]
    extra: int = 0
    unnamed: bool = False
    literal: bool = False


def layout_of(source: Source, options: Options) -> Layout:
    """Decide separator, header and names from the beginning of the file.

    Raises:
        DataError: Nothing, or more than one way, divides it.
    """
    with source.stream(source.start) as file:
        sample = file.read(SAMPLE)
        whole = len(sample) < SAMPLE
    if b"\0" in sample:
        before = sample[: sample.index(b"\0")]
        pairs = sample[:400]
        hint = ". Two bytes per character? data.encoding=utf-16-le" if pairs.count(b"\0") >= len(pairs) // 3 else ""
        raise DataError(f"{source.name}, line {_line_ends(before) + 1}: holds a NUL byte, which no text has{hint}")
    lines = sample.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines.pop()
    separator, choice = _separator(source, lines, options)
    records = [*_records(lines, separator, RECORDS)]
    if not records:
        raise DataError(f"{source.name}: is empty: it has no header and no rows")
    notes = [choice] if choice else []
    records, skipped = _without_preamble(source, records, options)
    notes += skipped
    if not records:
        raise DataError(f"{source.name}: has no rows below the {options.skip} that data.skip leaves out")
    rows = _header_rows(records, options.header)
    if rows > len(records):
        raise DataError(f"{source.name}: has fewer than the {rows} lines of data.header")
    if not rows and skipped and not options.skip:
        # Such as one column with decimal commas below its name.
        raise DataError(
            f"{source.name}, line {records[0][0]}: has {len(records[0][4])} fields below a line of 1 field. Leave such lines "
            f"out: data.skip={records[0][0] - 1}; or name another separator: data.separator=semicolon"
        )
    _check_header(source, lines, records[rows - 1][1] if rows else 0)
    names, told = _names(records, rows)
    notes += told
    end, last = (records[rows - 1][2], records[rows - 1][1]) if rows else (records[0][3], records[0][0] - 1)
    found = Layout(names, separator, source.start + end, last + 1, notes)
    body = [record for _, _, _, _, record in records[rows:] if record]
    counts = Counter(map(len, body))
    if body and min(counts) > len(names) and all(not any(record[len(names) :]) for record in body) and len(counts) == 1:
        found.extra = len(body[0]) - len(names)
        notes.append(f"every row ends with {found.extra} empty {'field' if found.extra == 1 else 'fields'} beyond the header")
    if len(names) > WIDEST:
        raise DataError(f"{source.name}: must have at most {WIDEST:,} columns. Received: {len(names):,}")
    return found


def _check_header(source: Source, lines: list[bytes], last: int) -> None:
    """Raise for the first line of the header that is not UTF-8."""
    for number, line in enumerate(lines[:last], 1):
        _check_text(source, number, line)


Record = tuple[int, int, int, int, list[str]]
"""First and last physical line, byte after the last, byte before the first, and fields."""


def _records(lines: list[bytes], separator: str, limit: int) -> Iterator[Record]:
    """Yield the records of the sample. Bytes that are not UTF-8 are escaped: the check of all rows names them."""
    taken, consumed = 0, 0

    def pull() -> Iterator[str]:
        nonlocal taken, consumed
        for line in lines:
            taken += 1
            consumed += len(line)
            yield line.decode("utf-8", "backslashreplace")

    with _long_fields():
        reader = csv.reader(pull(), delimiter=separator)
        for _ in range(limit):
            first, before = taken + 1, consumed
            try:
                record = next(reader, None)
            except csv.Error:
                return
            if record is None:
                return
            if record:
                yield first, taken, consumed, before, record


class _long_fields:
    """Lift the limit of fields of Python's csv, which is global."""

    def __enter__(self) -> None:
        self.before = csv.field_size_limit(2**31 - 1)

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self.before)


def _separator(source: Source, lines: list[bytes], options: Options) -> tuple[str, str]:
    """Return the separator, and a sentence if it was found rather than told."""
    if options.separator != "auto":
        separator = NAMED.get(options.separator, options.separator)
        if len(separator) != 1 or separator in '"\r\n\0' or not separator.isascii():
            known = ", ".join([*NAMED][:4])
            raise DataError(f"data.separator: must be one character, or {known}. Received: {options.separator!r}")
        return separator, ""
    usual = "\t" if source.path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")) else ","
    header = [record[0] for *_, record in _records(lines, "\0", 1 + options.skip)][-1:] or [""]
    header = header[0]
    fits: dict[str, int] = {}
    widths: dict[str, int] = {}
    for separator in SEPARATORS:
        counts = Counter(len(record) for *_, record in [*_records(lines, separator, RECORDS)][options.skip :])
        width, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        if width > 1 or separator in header:
            # A line of another width is a preamble, or is refused later.
            fits[separator] = times if width > 1 else 0
            widths[separator] = width
    if not fits:
        return usual, ""
    steady = [s for s, times in fits.items() if times == max(fits.values())]
    named = [s for s in steady if s in header] or steady
    if len(named) > 1:
        named = [s for s in named if widths[s] == max(widths[s] for s in named)]
    if len(named) > 1:
        both = " and ".join(SEPARATORS[s] for s in named)
        raise DataError(
            f"{source.name}: the header {header[:60]!r} can be divided by {both}. Say which: "
            f"data.separator={SEPARATORS[named[0]]}"
        )
    (found,) = named
    return found, f"fields are separated by {SEPARATORS[found]}s" if found != usual else ""


def _without_preamble(source: Source, records: list[Record], options: Options) -> tuple[list[Record], list[str]]:
    """Leave out lines above the header: as many as told, or those of one field above a table of more."""
    if options.skip:
        kept = [record for record in records if record[0] > options.skip]
        return kept, [
            f"lines 1 to {options.skip} are skipped, as data.skip says"
            if options.skip > 1
            else "line 1 is skipped, as data.skip says"
        ]
    widths = [len(record) for *_, record in records]
    usual, times = Counter(widths).most_common(1)[0]
    first = next((i for i, width in enumerate(widths) if width >= min(usual, 2)), 0)
    if not first or first > 20 or usual < 2 or times < len(records) - first - 1:
        return records, []
    last = records[first - 1][1]
    told = f"line {last} has" if last == 1 else f"lines 1 to {last} have"
    return records[first:], [f"{told} 1 field and {'is' if last == 1 else 'are'} skipped: {records[0][4][0][:40]!r}"]


def _header_rows(records: list[Record], told: int | None) -> int:
    if told is not None:
        return told
    first = records[0][4]
    if all(DATUM.fullmatch(cell) or not cell for cell in first) and any(first):
        return 0
    if len(records) > 2 and len(first) > 1:
        second, third = records[1][4], records[2][4]
        words = second[0].strip().casefold() == "ticker" and len(second) == len(first)
        if words and third and third[0] and not any(third[1:]) and len(third) == len(first):
            return 3  # as yfinance writes: field, ticker, name of the index
    return 1


def _names(records: list[Record], rows: int) -> tuple[list[str], list[str]]:
    """Return stripped names, and what was assumed."""
    if rows == 0:
        count = len(records[0][4])
        return [f"column {i}" for i in range(1, count + 1)], [
            f"no header: the first line holds values; columns are called column 1 to column {count}"
        ]
    levels = [[cell.strip() for cell in record] for *_, record in records[:rows]]
    if rows == 1:
        return levels[0], []
    index = levels[-1][0] if not any(levels[-1][1:]) else ""
    levels = levels[:-1] if index else levels
    width = max(map(len, levels))
    levels = [level + [""] * (width - len(level)) for level in levels]
    varying = [level for level in levels if len(set(level[1:])) > 1] or levels[:1]
    names = [" ".join(dict.fromkeys(filter(None, parts))) for parts in zip(*varying, strict=True)]
    if index:
        names[0] = index
    fixed = sorted({level[1] for level in levels if level not in varying and width > 1 and level[1]})
    of = f" of {', '.join(fixed)}" if fixed else ""
    return names, [f"{rows} header rows{of}"]


# --- all rows


def read_delimited(
    source: Source, layout: Layout, words: set[str], names: list[str], *, marks: bool = False
) -> dict[str, pa.ChunkedArray]:
    """Read the columns, with Arrow's types where these lose nothing, else as text.

    The file is read in pieces of whole rows, each looked at byte by byte and parsed. Text of few values is a dictionary.

    Args:
        source: The file.
        layout: Its division.
        words: Columns that are read as text in any case.
        names: Unique names of the columns, without `layout.extra`.
        marks: Whether points are no decimal marks, so that fractions are read as text.

    Raises:
        DataError: A row is ragged, a quote open, a byte no text; with its line.
    """
    given = [*names, *(f"\0{i}" for i in range(layout.extra))]
    found, zeros = _pieces(source, layout, given, words, given)
    columns: dict[str, pa.ChunkedArray] = {}
    doubtful = []
    for name in given:
        joined = _joined(found.pop(name))
        if joined is None or (name not in words and _loses(joined, zeros, marks)):
            doubtful.append(name)
        else:
            columns[name] = joined
        del joined
    if doubtful:
        again, _ = _pieces(source, layout, given, set(doubtful), doubtful)
        for name in doubtful:
            column = _joined(again.pop(name))
            assert column is not None
            columns[name] = column
    for i in range(layout.extra):
        if len(column := columns.pop(f"\0{i}")) > column.null_count:
            row = int(np.flatnonzero(column.is_valid().to_numpy())[0])
            raise DataError(
                f"{source.name}, line {line_of(source, layout, row)}: has {len(given)} fields under {len(names)} names. "
                f"Received: {str(column[row].as_py())[:40]!r} beyond the header"
            )
    if not len(next(iter(columns.values()), ())):
        raise DataError(f"{source.name}: is empty: it has a header and no rows")
    return {name: columns[name] for name in names}


def _pieces(
    source: Source, layout: Layout, names: list[str], words: set[str], only: Sequence[str]
) -> tuple[dict[str, list[pa.ChunkedArray]], bool]:
    """Return the parsed pieces of some columns, and whether a field may begin with a zero and a digit."""
    found: dict[str, list[pa.ChunkedArray]] = {name: [] for name in only}
    zeros = False
    parse = partial(_piece, layout, names, words, only)
    threads = pa.cpu_count()
    with ThreadPoolExecutor(threads) as pool, source.stream(layout.body) as file:
        pieces = iter([file.read(LONGEST)]) if layout.literal else _whole_rows(source, file)
        if layout.literal and file.read(1):
            raise DataError(
                f"{source.name}: must quote fields that hold quotes, as the file is larger than {LONGEST / 1e9:.3g} GB"
            )
        ahead = deque(pool.submit(parse, piece) for piece in islice(pieces, 2 * threads))
        while ahead:
            piece = ahead.popleft().result()
            ahead.extend(pool.submit(parse, piece) for piece in islice(pieces, 1))
            if piece.nul:
                raise DataError(f"{source.name}, line {_line_of_byte(source, 0)}: holds a NUL byte, which no text has")
            if piece.table is None or not (piece.quoted or layout.literal):
                _refuse(source, layout, len(names), piece.fault)
                # Quotes within fields are signs like others, but where rows end is then for Arrow to say.
                layout.literal = True
                for other in ahead:
                    other.cancel()
                return _pieces(source, layout, names, words, only)
            zeros = zeros or piece.zeros
            for name in only:
                column = piece.table[name]
                kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
                if pa.types.is_binary(kind):
                    _refuse_bytes(source, layout, name)
                found[name].append(column)
    return found, zeros


@dataclass
class Piece:
    """Parsed rows, and what Arrow takes without a word.

    Attributes:
        table: The columns; None where Arrow has a fault.
        fault: Why there is no table.
        zeros: Whether a field may begin with a zero and a digit, or with 0x.
        nul: Whether there is a NUL byte.
        quoted: Whether quotes are as RFC 4180 says.
    """

    table: Any
    fault: Exception | None
    zeros: bool
    nul: bool
    quoted: bool


def _piece(layout: Layout, names: list[str], words: set[str], only: Sequence[str], content: bytes) -> Piece:
    """Parse a piece, and look at every byte."""
    table, fault = _parsed(content, layout, names, words, only)
    everything = np.frombuffer(content, np.uint8)
    separator = ord(layout.separator)
    quotes = b'"' in content
    zeros = _zeros(everything, (separator, 10, 13, 32, *(34,) * quotes))
    return Piece(table, fault, zeros, b"\0" in content, not quotes or _quoted(everything, separator))


def _zeros(everything: np.ndarray, starts: Sequence[int]) -> bool:
    """Return whether a field begins with 0 and a digit, or 0x."""
    if len(everything) > 1 and everything[0] == 48 and (48 <= everything[1] < 58 or everything[1] | 32 == 120):
        return True
    zero, mark, third = np.empty(BLOCK, bool), np.empty(BLOCK, bool), np.empty(BLOCK, np.uint8)
    for start in range(0, len(everything) - 2, BLOCK):
        block = everything[start : start + BLOCK + 2]
        size = len(block) - 2
        found = np.equal(block[1:-1], 48, out=zero[:size])
        digit = np.subtract(block[2:], 48, out=third[:size])
        follows = np.less(digit, 10, out=mark[:size])
        letter = np.bitwise_or(block[2:], 32, out=third[:size])
        follows |= np.equal(letter, 120, out=third[:size].view(bool))  # x or X
        found &= follows
        begins = np.equal(block[:-2], starts[0], out=mark[:size])
        for code in starts[1:]:
            begins |= np.equal(block[:-2], code, out=third[:size].view(bool))
        found &= begins
        if found.any():
            return True
    return False


def _quoted(everything: np.ndarray, separator: int) -> bool:
    """Return whether quotes open at the beginning of fields and close at their end, as RFC 4180 says."""
    places = np.flatnonzero(everything == 34)
    if len(places) % 2:
        return False
    ends = np.zeros(256, bool)
    ends[[separator, 10, 13, 34]] = True
    opening, closing = places[::2], places[1::2]
    first, last = int(opening[0] == 0), len(closing) - int(closing[-1] == len(everything) - 1)
    return bool(ends[everything[opening[first:] - 1]].all() and ends[everything[closing[:last] + 1]].all())


def _whole_rows(source: Source, file: BinaryIO) -> Iterator[bytes]:
    """Yield pieces that end with a row; a line end within quotes ends none."""
    rest, size = b"", PIECE
    while block := file.read(size):
        piece = rest + block if rest else block
        end = len(piece)
        quoted = b'"' in piece
        while True:
            end = max(piece.rfind(b"\n", 0, end), piece.rfind(b"\r", 0, max(0, min(end, len(piece) - 1)))) + 1
            if not end or not quoted or not piece.count(b'"', 0, end) % 2:
                break
            end -= 1
        if not end:  # a row longer than the piece
            rest, size = piece, min(size * 2, 2**30)
            if len(piece) > LONGEST:
                raise DataError(f"{source.name}: a row must have at most {LONGEST / 1e9:.3g} GB. Is a quote open?")
            continue
        rest = piece[end:]
        yield piece[:end] if rest else piece
        del piece, block
    if rest:
        yield rest


def _joined(pieces: list[pa.ChunkedArray]) -> pa.ChunkedArray | None:
    """Join the pieces of a column; None where their types differ, so that only text tells what they hold."""
    kinds = {piece.type for piece in pieces if not pa.types.is_null(piece.type)}
    if not pieces or not kinds:
        return pa.chunked_array([pa.nulls(sum(map(len, pieces)))])
    if len(kinds) > 1:
        if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
            if any(pa.types.is_integer(piece.type) and _beyond(piece) for piece in pieces):
                return None
            kinds = {pa.float64()}
        elif all(pa.types.is_string(kind) or pa.types.is_dictionary(kind) for kind in kinds):
            kinds = {pa.string()}
        elif all(pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and not kind.tz) for kind in kinds):
            kinds = {pa.timestamp("us")}
        else:
            return None
    (kind,) = kinds
    return pa.chunked_array([chunk for piece in pieces for chunk in pc.cast(piece, kind).chunks], kind)


def _beyond(column: pa.ChunkedArray) -> bool:
    extremes = pc.min_max(column).as_py()
    return max(abs(extremes["min"] or 0), abs(extremes["max"] or 0)) >= 2**53


def _parsed(
    content: bytes, layout: Layout, names: list[str], words: set[str], only: Sequence[str]
) -> tuple[Any, Exception | None]:
    """Parse a piece with Arrow; return the table, or why not."""
    try:
        # One block of one thread: the pieces are the blocks, and end where rows do.
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(column_names=names, block_size=len(content) + 1, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=layout.separator, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                null_values=[""],
                strings_can_be_null=True,
                true_values=[],
                false_values=[],
                auto_dict_encode=True,
                auto_dict_max_cardinality=FEW,
                column_types=dict.fromkeys(words, pa.string()),
                include_columns=list(only),
            ),
        ), None
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):  # empty lines alone
            return pa.table({name: pa.array([], pa.null()) for name in only}), None
        return None, error


def _loses(column: pa.ChunkedArray, zeros: bool, marks: bool) -> bool:
    """Return whether Arrow's type may not hold what the text says."""
    kind = column.type
    if pa.types.is_time(kind) or (pa.types.is_timestamp(kind) and kind.tz):
        return True  # a time of day, or a wall clock whose offset is lost
    if pa.types.is_integer(kind):
        return zeros
    if not pa.types.is_floating(kind):
        return False
    # Integers beyond 2**53 are identifiers, and words such as nan and inf are no numbers.
    return zeros or marks or _beyond(column) or not pc.all(pc.is_finite(column)).as_py()


# --- messages


def _refuse(source: Source, layout: Layout, width: int, fault: Exception | None) -> None:
    """Raise for the first row that is not right, found by reading line by line; return if all are and Arrow has no fault."""
    for first, record, error in _strict(source, layout):
        where = f"{source.name}, line {first}"
        if error:
            what = "a quote that is not closed" if "unexpected end" in error else "text behind a closed quote"
            raise DataError(
                f"{where}: must be quoted as in RFC 4180. Received: {what}. Double a quote within quotes, or separate "
                "by another sign: data.separator="
            )
        if len(record) != width:
            names = len(layout.names)
            shown = layout.separator.join(record)[:60]
            more = (
                ". Is a comma within a number, or another separator meant? Quote such fields, or: data.separator="
                if len(record) > width
                else ""
            )
            header = "" if names > 1 else f" The header is {layout.names[0][:60]!r}."
            raise DataError(
                f"{where}: has {len(record)} {'field' if len(record) == 1 else 'fields'} under {names} names "
                f"({', '.join(layout.names[:6])[:80]}). Received: {shown!r}{more}{header}"
            )
    if fault and "UTF8" in str(fault):  # of a column that is read as text in any case
        _refuse_bytes(source, layout, "the text")
    if fault:
        raise DataError(f"{source.name}: cannot be read: {' '.join(str(fault).split())[:200]}")


def _strict(source: Source, layout: Layout) -> Iterator[tuple[int, list[str], str]]:
    """Yield first physical line and fields of each row; an error ends them."""
    with source.stream(layout.body) as raw, _long_fields():
        text = io.TextIOWrapper(raw, "utf-8", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=layout.separator, strict=True)
        first = layout.line
        while True:
            try:
                record = next(reader, None)
            except csv.Error as error:
                yield first, [], str(error)
                return
            if record is None:
                return
            if record:
                yield first, record, ""
            first = layout.line + reader.line_num


def line_of(source: Source, layout: Layout, row: int) -> int:
    """Return the physical line on which a row begins."""
    return next((first for i, (first, _, _) in enumerate(_strict(source, layout)) if i == row), layout.line)


def _line_of_byte(source: Source, byte: int) -> int:
    line = 1
    with source.stream(source.start) as file:
        while block := file.read(2**20):
            if byte in block:
                return line + _line_ends(block[: block.index(byte)])
            line += _line_ends(block)
    return line


def _line_ends(block: bytes) -> int:
    return block.count(b"\n") or block.count(b"\r")


def _refuse_bytes(source: Source, layout: Layout, name: str) -> None:
    """Raise for the first line that is not UTF-8."""
    number = layout.line
    with source.stream(layout.body) as file:
        for line in file:
            _check_text(source, number, line)
            number += 1
    raise DataError(f"{source.name}: '{name}' must be UTF-8")


def _check_text(source: Source, number: int, line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        around = line[max(0, error.start - 10) : error.start + 10].decode("utf-8", "backslashreplace").strip()
        raise DataError(
            f"{source.name}, line {number}: must be UTF-8. Received: {around!r}. "
            f"Name its encoding, such as data.encoding=cp1252 for files of Windows"
        ) from None
