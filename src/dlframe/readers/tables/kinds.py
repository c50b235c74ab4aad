"""The kind of a column, decided from all of its values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dlframe.readers.tables.dates import Dates, dates_of, looks_like_dates, units_of
from dlframe.readers.tables.files import Options, pc
from dlframe.types import DataError, nearest

KINDS = ("number", "date", "category", "identifier", "text")
"""Kinds that a user may name."""

NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
"""What a number is: no 1_000, 0x1A, inf or digits of other scripts, which Python and Arrow take."""

SIGN = r"[$€£¥₹%]|USD|EUR|GBP|JPY|CHF"
"""Signs that may stand at the numbers of a column: currencies and per cent."""

GROUPED = r"^[+-]?(?:\d{1,3}(?:[.,' ]\d{3})+(?:[.,]\d+)?|\d+,\d+)$"
"""A number with marks between thousands, or with a decimal comma."""

CATEGORIES = 1_000
"""Maximum distinct values of a category that is not named as one."""

LIMIT = 1e30
"""Numbers beyond it are refused: the squares of their sums overflow."""

EXACT = 2**53
"""Integers beyond it are not distinct as floating-point numbers."""

LONGEST = 60
"""Maximum characters of a number."""

SAMPLE = 1_000
"""Distinct values that are looked at before all are tried as numbers or dates."""


@dataclass
class Column:
    """A column with its kind.

    Attributes:
        name: As in the header.
        kind: number, date, category, identifier, text, or empty.
        values: float64, int64, timestamps of microseconds, or text as a dictionary.
        how: How text became values, as JSON, to read other files the same way.
        notes: What was assumed.
    """

    name: str
    kind: str
    values: pa.ChunkedArray | pa.Array
    how: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Number of missing values."""
        return self.values.null_count


@dataclass(frozen=True)
class Rule:
    """What is said about one column, by options or by a run.

    Attributes:
        kind: Kind; "" decides by the values.
        format: Format of dates; "" decides by the values.
        missing: Texts that mean a missing value, beside the empty one.
        decimal: Decimal mark.
        thousands: Mark between thousands; "" for none.
        sign: Currency or per cent sign at each number; "" decides by the values, unless `kind` says number.
        strict: Whether all is known, from a run.
        numeric: Whether digits are a number, not an identifier, whatever their zeros and size.
    """

    kind: str = ""
    format: str = ""
    missing: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    sign: str = ""
    strict: bool = False
    numeric: bool = False


def rules_of(options: Options, names: list[str]) -> dict[str, Rule]:
    """Return the rule of each column from the options.

    Raises:
        DataError: An option names no column or no kind.
    """
    if options.decimal not in (".", ","):
        raise DataError(f"data.decimal: must be '.' or ','. Received: {options.decimal!r}")
    decimal, thousands = options.decimal, options.thousands
    if decimal == "," and not thousands:
        thousands = "."
    elif thousands == ".":
        decimal = ","
    if thousands and (len(thousands) != 1 or thousands.isalnum() or thousands in "+-" or thousands == decimal):
        raise DataError(f"data.thousands: must be one sign other than data.decimal. Received: {thousands!r}")
    kinds = _by_column("kinds", options.kinds, names)
    formats = _by_column("formats", options.formats, names)
    for name, kind in kinds.items():
        if kind not in KINDS:
            raise DataError(f"data.kinds: must be {', '.join(KINDS)}. Received: '{kind}' for '{name}'")
    everywhere: list[str] = []
    own: dict[str, list[str]] = {}
    for text in options.missing:
        column, colon, marker = text.partition(":")
        if colon and column in names:
            own.setdefault(column, []).append(marker)
        else:
            everywhere.append(text)
    return {
        name: Rule(
            kind="date" if name in formats else kinds.get(name, ""),
            format=formats.get(name, ""),
            missing=(*everywhere, *own.get(name, ())),
            decimal=decimal,
            thousands=thousands,
        )
        for name in names
    }


def _by_column(option: str, given: tuple[str, ...], names: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name = next((n for n in sorted(names, key=len, reverse=True) if text.startswith(f"{n}:")), None)
        if name is None:
            told = text.partition(":")[0]
            raise DataError(
                f"data.{option}: must be COLUMN:VALUE with a column of the table. Received: "
                f"{text!r}.{nearest(told[:40], names[:50])}"
            )
        found[name] = text[len(name) + 1 :]
    return found


def column_of(name: str, values: pa.ChunkedArray, rule: Rule, where: str, place: Callable[[int], str]) -> Column:
    """Decide the kind of a column and convert its values.

    Args:
        name: The column.
        values: Values as Arrow read them, or text.
        rule: What is said about it.
        where: The file, for messages.
        place: Function from a row to its place, "file, line 12".

    Raises:
        DataError: Most values are of a kind, and some are not; or nothing decides between two formats.
    """
    kind = values.type
    if pa.types.is_null(kind) or values.null_count == len(values):
        return Column(
            name,
            rule.kind if rule.strict else "empty",
            pa.nulls(len(values), _storage(rule)),
            _how(rule) if rule.strict else {},
        )
    if pa.types.is_dictionary(kind):
        if pa.types.is_string(kind.value_type):
            return _of_text(name, values, rule, where, place)
        values = pc.cast(values, kind.value_type)
        kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_text(name, values, rule, where, place)
    if pa.types.is_boolean(kind):
        return _words(name, pc.cast(values, pa.string()), rule)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        if rule.kind not in ("", "date"):
            raise DataError(f"{where}: '{name}' must be {rule.kind}. Received: dates")
        if getattr(kind, "tz", None):
            values = pc.cast(values, pa.timestamp(kind.unit, "UTC"))
        return Column(
            name,
            "date",
            pc.cast(values, pa.timestamp("us"), safe=False),
            {"kind": "date", "format": rule.format or "year-month-day"},
        )
    if pa.types.is_decimal(kind):
        values = pc.cast(values, pa.float64())
        kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(
            f"{where}: '{name}' holds values of the type {kind}, which is no number, text or date. Leave it out: "
            f"data.drop=[{name}]"
        )
    return _of_numbers(name, values, rule, where, place)


def _storage(rule: Rule) -> pa.DataType:
    return {"number": pa.float64(), "date": pa.timestamp("us")}.get(rule.kind, pa.string())


def _how(rule: Rule) -> dict[str, Any]:
    how: dict[str, Any] = {"kind": rule.kind}
    if rule.format:
        how["format"] = rule.format
    if rule.missing:
        how["missing"] = list(rule.missing)
    if rule.kind == "number":
        how |= {key: value for key in ("decimal", "thousands", "sign") if (value := getattr(rule, key)) and value != "."}
    return how


def _of_numbers(name: str, values: pa.ChunkedArray, rule: Rule, where: str, place: Callable[[int], str]) -> Column:
    for marker in rule.missing:
        if re.fullmatch(NUMBER, marker):
            values = pc.if_else(pc.equal(values, float(marker)), None, values)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values) if values.type != pa.float16() else values
    if rule.kind == "date":
        told = rule.format
        if not told:
            raise DataError(
                f"{where}: '{name}' holds numbers. Say their unit: data.formats=[{name}:unix], unix_ms for "
                "milliseconds or excel for serial days"
            )
        numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        dates = units_of(numbers, told) if told in ("unix", "unix_ms", "unix_us", "excel") else None
        if dates is None:
            return _of_text(name, pc.cast(values, pa.string()), rule, where, place)
        if (wrong := valid & ~dates.right).any():
            i = int(np.argmax(wrong))
            raise DataError(
                f"{place(i)}: '{name}' must be a time in the unit {told} from 1600 to 2200. Received: "
                f"{values[i].as_py()}. Are milliseconds (unix_ms) meant?"
            )
        return Column(
            name, "date", _moments(dates.micros, ~valid), {"kind": "date", "format": told, "missing": list(rule.missing)}
        )
    if rule.kind in ("category", "identifier", "text"):
        return _words(name, pc.cast(values, pa.string()), rule)
    if pa.types.is_integer(values.type):
        extremes = pc.min_max(values).as_py()
        if max(abs(extremes["min"] or 0), abs(extremes["max"] or 0)) >= EXACT and rule.kind != "number" and not rule.numeric:
            column = _words(name, pc.cast(values, pa.string()), rule)
            column.kind = column.how["kind"] = "identifier"
            column.notes.append(f"'{name}' has integers beyond 2**53: an identifier, not a number")
            return column
    elif not pc.all(pc.less(pc.abs(values), LIMIT), skip_nulls=True).as_py():
        i = int(np.flatnonzero(~(np.abs(pc.fill_null(values, 0).to_numpy(zero_copy_only=False)) < LIMIT))[0])
        raise DataError(f"{place(i)}: '{name}' must be a number below {LIMIT:g}. Received: {values[i].as_py()}")
    return Column(name, "number", values, _how(Rule(**{**vars(rule), "kind": "number"})))


def _moments(micros: np.ndarray, missing: np.ndarray) -> pa.Array:
    return pa.array(micros, pa.int64(), mask=missing).cast(pa.timestamp("us"))


def _of_text(name: str, values: Any, rule: Rule, where: str, place: Callable[[int], str]) -> Column:
    """Decide the kind of text from its distinct values."""
    if rule.kind in ("category", "identifier", "text") and not rule.missing:
        return _words(name, values, rule)
    coded = coded_of(values)
    texts, index = coded.dictionary, coded.indices
    trimmed = pc.utf8_trim_whitespace(texts)
    if rule.missing:
        marked = pc.is_in(trimmed, value_set=pa.array(list(rule.missing)))
        if pc.any(marked).as_py():
            texts = pc.if_else(marked, None, texts)
            trimmed = pc.if_else(marked, None, trimmed)
            if pc.all(pc.is_null(texts)).as_py():
                return Column(name, "empty", pa.nulls(len(index), pa.string()), {})
    if rule.kind in ("category", "identifier", "text"):
        return _words(name, _recoded(texts, index), rule)
    blank = pc.fill_null(pc.equal(trimmed, ""), False)
    trimmed = pc.if_else(blank, None, trimmed)
    counts = np.bincount(index.drop_null().to_numpy(zero_copy_only=False), minlength=len(texts))
    given = trimmed.is_valid().to_numpy(zero_copy_only=False)
    total = int(counts[given].sum())
    if not total:
        return Column(name, "empty", pa.nulls(len(index), pa.string()), {})
    shown = _spread(trimmed)
    if (
        rule.kind == "number"
        or rule.numeric
        or (not rule.kind and any(re.search(r"\d", text) and _numeric(text) for text in shown))
    ):
        numbers = _numbers(trimmed, rule)
        right = counts[given & numbers.right].sum()
        if (marked := _marked(trimmed, counts)) and not rule.kind and right * 2 < total and (marked + right) * 2 >= total:
            _refuse_marks(name, index, trimmed, counts, marked, place)
        if rule.kind or rule.numeric or right * 2 >= total:
            return _as_numbers(name, index, trimmed, numbers, given, counts, rule, place)
    if rule.kind == "date" or (not rule.kind and looks_like_dates(shown)):
        kept = pc.fill_null(trimmed, "")
        present = pc.filter(kept, pa.array(given))
        dates = dates_of(present, name, where, rule.format)
        if dates is not None and (rule.kind or counts[given][dates.right].sum() * 2 >= total):
            return _as_dates(name, index, trimmed, dates, given, counts, rule, place)
        if rule.kind:
            raise DataError(
                f"{where}: '{name}' must hold dates in one format. Received: {shown[0][:40]!r}. Try: "
                f"data.formats=[{name}:%Y-%m-%d]"
            )
    return _words(name, _recoded(texts, index), rule)


def coded_of(values: Any) -> Any:
    """Return the values as one dictionary array."""
    coded = (
        values.unify_dictionaries() if pa.types.is_dictionary(values.type) and isinstance(values, pa.ChunkedArray) else values
    )
    if not pa.types.is_dictionary(values.type):
        coded = values.dictionary_encode()  # all chunks get one dictionary
    if not isinstance(coded, pa.ChunkedArray):
        return coded
    if not coded.num_chunks:
        return pa.array([], coded.type)
    indices = pa.chunked_array([chunk.indices for chunk in coded.chunks]).combine_chunks()
    return pa.DictionaryArray.from_arrays(indices, coded.chunk(0).dictionary)


def _recoded(texts: pa.Array, index: pa.Array) -> pa.Array:
    """Return a dictionary array without missing values in its dictionary."""
    if texts.null_count:
        index = pc.if_else(pc.take(pc.is_null(texts), index), None, index)
    return pa.DictionaryArray.from_arrays(index, texts)


def _spread(texts: pa.Array) -> list[str]:
    """Return some distinct values, evenly spread."""
    known = texts.drop_null()
    places = np.unique(np.linspace(0, len(known) - 1, min(SAMPLE, len(known))).astype(np.int64))
    return pc.take(known, pa.array(places)).to_pylist()


def _numeric(text: str) -> bool:
    if len(text) > LONGEST:
        return False
    bare = re.sub(rf"^[+-]?\s*(?:{SIGN})\s*|\s*(?:{SIGN})$", "", text)
    return bool(re.fullmatch(r"[+-]?[\d.,' ]*\d[\d.,' ]*(?:[eE][+-]?\d+)?", bare, re.ASCII))


@dataclass
class Numbers:
    """Distinct texts as numbers.

    Attributes:
        values: float64, 0 where wrong.
        right: Mask of the texts that are numbers.
        sign: Currency or per cent sign of all.
        digits: Whether all are digits alone, and some begin with 0 or are beyond 2**53.
    """

    values: np.ndarray
    right: np.ndarray
    sign: str
    digits: bool


def _numbers(texts: pa.Array, rule: Rule) -> Numbers:
    """Read distinct trimmed texts as numbers."""
    sign = rule.sign
    if not rule.kind:
        signs = pc.extract_regex(texts, pattern=rf"^[+-]?\s*(?P<a>{SIGN})?[^$€£¥₹%A-Z]*(?P<b>{SIGN})?$")
        found = [pc.fill_null(pc.struct_field(signs, key), "").unique().to_pylist() for key in ("a", "b")]
        shown = {mark for marks in found for mark in marks} - {""}
        present = texts.is_valid().to_numpy(zero_copy_only=False)
        has = np.zeros(len(texts), bool)
        for key in ("a", "b"):
            has |= pc.not_equal(pc.fill_null(pc.struct_field(signs, key), ""), "").to_numpy(zero_copy_only=False)
        if len(shown) == 1 and has[present].all():
            (sign,) = shown
    bare = texts
    if sign:
        escaped = re.escape(sign)
        bare = pc.replace_substring_regex(bare, rf"^([+-]?)\s*{escaped}\s*", r"\1")
        bare = pc.replace_substring_regex(bare, rf"\s*{escaped}$", "")
    if rule.thousands or rule.decimal != ".":
        t, d = re.escape(rule.thousands), re.escape(rule.decimal)
        grouped = (
            rf"^[+-]?(?:\d+|\d{{1,3}}(?:{t}\d{{3}})+)(?:{d}\d*)?(?:[eE][+-]?\d+)?$"
            if t
            else rf"^[+-]?\d*(?:{d}\d*)?(?:[eE][+-]?\d+)?$"
        )
        fine = pc.match_substring_regex(bare, grouped)
        if rule.thousands:
            bare = pc.replace_substring(bare, rule.thousands, "")
        bare = pc.if_else(fine, pc.replace_substring(bare, rule.decimal, "."), None)
    right = pc.fill_null(pc.match_substring_regex(bare, f"^{NUMBER}$"), False)
    clean = pc.utf8_ltrim(pc.if_else(right, bare, "0"), "+")
    values = pc.cast(clean, pa.float64()).to_numpy(zero_copy_only=False)
    mask = right.to_numpy(zero_copy_only=False)
    digits = pc.fill_null(pc.match_substring_regex(texts, r"^\d+$"), False).to_numpy(zero_copy_only=False)
    leading = pc.fill_null(pc.match_substring_regex(texts, r"^0\d"), False).to_numpy(zero_copy_only=False)
    present = texts.is_valid().to_numpy(zero_copy_only=False)
    names = bool(digits[present].all()) and bool((leading | (values >= EXACT))[present].any())
    return Numbers(values, mask & (np.abs(values) < LIMIT), sign, names)


def _as_numbers(
    name: str,
    index: Any,
    texts: pa.Array,
    numbers: Numbers,
    given: np.ndarray,
    counts: np.ndarray,
    rule: Rule,
    place: Callable[[int], str],
) -> Column:
    if numbers.digits and not rule.kind and not rule.numeric:
        column = _words(name, _recoded(texts, index), rule)
        column.kind = column.how["kind"] = "identifier"
        column.notes.append(f"'{name}' has leading zeros or integers beyond 2**53: an identifier, not a number")
        return column
    wrong = given & ~numbers.right & (counts > 0)
    if wrong.any():
        row, text, count = _first(index, wrong, texts, counts)
        others = int(counts[given & numbers.right].sum())
        as_others = f", as {others:,} other {'value is' if others == 1 else 'values are'}" if others else ""
        raise DataError(
            f"{place(row)}: '{name}' must be a number{as_others}. "
            f"Received: {text[:40]!r}{f' and {count - 1:,} more' if count > 1 else ''}. {_way_out(name, text, rule)}"
        )
    how = _how(Rule(**{**vars(rule), "kind": "number", "sign": numbers.sign}))
    found = pc.take(pa.array(numbers.values, mask=~(given & numbers.right)), index)
    notes = []
    if numbers.sign and not rule.strict:
        notes.append(f"'{name}': {'per cent' if numbers.sign == '%' else numbers.sign} at every number")
    return Column(name, "number", found, how, notes)


def _marked(texts: pa.Array, counts: np.ndarray) -> int:
    """Count the values with marks of thousands or decimal commas."""
    return int(counts[pc.fill_null(pc.match_substring_regex(texts, GROUPED), False).to_numpy(zero_copy_only=False)].sum())


def _refuse_marks(name: str, index: Any, texts: pa.Array, counts: np.ndarray, marked: int, place: Callable[[int], str]) -> None:
    grouped = pc.fill_null(pc.match_substring_regex(texts, GROUPED), False).to_numpy(zero_copy_only=False)
    row, text, _ = _first(index, grouped, texts, counts)
    raise DataError(
        f"{place(row)}: '{name}' may hold numbers with other marks. Received: {text[:40]!r} and {marked - 1:,} more. "
        f"Say which: data.decimal=, for 1.234,5; data.thousands=, for 1,234.5; data.kinds=[{name}:category] for words"
    )


def _way_out(name: str, text: str, rule: Rule) -> str:
    """Return the option that would read a value that is no number; of a run, whose options stand, what it takes."""
    if rule.strict:
        return _of_training("numbers", rule)
    text = text[:LONGEST]
    if re.fullmatch(r"[-+$€£]?\d{1,3}(,\d{3})+(\.\d+)?", text) and not rule.thousands:
        return "If commas part thousands: data.thousands=,"
    if re.fullmatch(r"[-+]?[\d.]*\d,\d+", text) and rule.decimal == ".":
        return "If commas are decimal marks: data.decimal=,"
    bare = re.fullmatch(r"[\w./#?-]*[A-Za-z.?#/][\w./#?-]*", text) and text.casefold() not in ("null", "true", "false")
    marker = f"data.missing=[{text}]" if bare else f"'data.missing=[\"{text[:20]}\"]'"
    return f"If it means a missing value: {marker}; if these are words: data.kinds=[{name}:category]"


def _as_dates(
    name: str,
    index: Any,
    texts: pa.Array,
    dates: Dates,
    given: np.ndarray,
    counts: np.ndarray,
    rule: Rule,
    place: Callable[[int], str],
) -> Column:
    right = np.zeros(len(texts), bool)
    micros = np.zeros(len(texts), np.int64)
    right[given], micros[given] = dates.right, dates.micros
    wrong = given & ~right & (counts > 0)
    if wrong.any():
        row, text, count = _first(index, wrong, texts, counts)
        way_out = f"Remove it, or name the format, data.formats=[{name}:%Y-%m-%d], or missing values: data.missing=[...]"
        raise DataError(
            f"{place(row)}: '{name}' must be a date in one format ({dates.format}), as {int(counts[right].sum()):,} "
            "other values are. "
            f"Received: {text[:40]!r}{f' and {count - 1:,} more' if count > 1 else ''}. "
            f"{_of_training('dates', rule) if rule.strict else way_out}"
        )
    how = {"kind": "date", "format": dates.format} | ({"missing": list(rule.missing)} if rule.missing else {})
    found = pc.take(_moments(micros, ~right), index)
    return Column(
        name,
        "date",
        found,
        how,
        [dates.note if f"'{name}'" in dates.note else f"'{name}': {dates.note}"] if dates.note and not rule.strict else [],
    )


def _of_training(what: str, rule: Rule) -> str:
    """Return what a column of a run takes."""
    return f"Training had {what} in it, and for a missing value {' or '.join(['an empty field', *map(repr, rule.missing)])}"


def _first(index: Any, wrong: np.ndarray, texts: pa.Array, counts: np.ndarray) -> tuple[int, str, int]:
    """Return row and text of the first wrong value, and how many rows are wrong."""
    rows = pc.fill_null(pc.take(pa.array(wrong), index), False).to_numpy(zero_copy_only=False)
    row = int(np.argmax(rows))
    return row, str(texts[index[row].as_py()].as_py()), int(rows.sum())


def _words(name: str, values: Any, rule: Rule) -> Column:
    """Return a column of words: categories where few recur, else text."""
    coded = coded_of(values)
    kind = rule.kind
    if not kind:
        distinct, rows = len(coded.dictionary), len(coded) - coded.null_count
        kind = "category" if distinct <= CATEGORIES and (distinct * 2 <= rows or distinct <= 2) else "text"
    return Column(name, kind, coded, _how(Rule(**{**vars(rule), "kind": kind})))
