"""Dates of a column: one format for all values, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from dlframe.readers.tables.files import pc
from dlframe.types import DataError

MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)

CLOCK = (
    r"(?P<clock>(?:[T ]\s*)(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?: ?(?P<p>[AaPp])\.?[Mm]\.?)?)?(?: ?(?P<z>Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
)
"""A time of day and its offset, if there are any."""

SHAPES = {
    "year-month-day": r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})" + CLOCK,
    "numbers": r"(?P<a>\d{1,2})(?P<s>[-/.])(?P<b>\d{1,2})[-/.](?P<y>\d{4}|\d{2})" + CLOCK,
    "year-month": r"(?P<y>\d{4})[-/](?P<m>\d{1,2})",
    "month year": r"(?P<n>[A-Za-z]{3,9})[-. ]{1,2}(?P<y>\d{4})",
    "day month year": r"(?P<d>\d{1,2})[-. ]{1,2}(?P<n>[A-Za-z]{3,9})[-,. ]{1,2}(?P<y>\d{4}|\d{2})" + CLOCK,
    "month day year": r"(?P<n>[A-Za-z]{3,9})\.? (?P<d>\d{1,2}),? (?P<y>\d{4})" + CLOCK,
}
"""Shapes of dates; "numbers" has two readings, days or months first."""

LONGEST = 60
"""Maximum characters of a date with its clock."""

UNITS = {"unix": 10**6, "unix_ms": 10**3, "unix_us": 1}
"""Microseconds of the units of Unix times, by the name of the format."""

EXCEL = 25_569
"""Days from 1899-12-30, from which spreadsheets count, to 1970-01-01."""

LEAST, MOST = (np.datetime64(day, "us").astype(np.int64) for day in ("1600-01-01", "2200-01-01"))
"""Range of times in units; others are probably in another unit."""


@dataclass
class Dates:
    """Values of a column of dates.

    Attributes:
        micros: Microseconds since 1970, int64, in UTC where offsets are known; 0 where wrong.
        right: Mask of the values that are dates.
        format: Name of the format, to read other files the same way.
        note: What was assumed.
    """

    micros: np.ndarray
    right: np.ndarray
    format: str
    note: str = ""


def dates_of(texts: pa.Array, name: str, where: str, told: str = "") -> Dates | None:
    """Read distinct trimmed texts as dates in the format that fits most of them; None if fewer than half are dates.

    Raises:
        DataError: Two formats fit all values alike.
    """
    if told:
        return _told(texts, told, name)
    best: tuple[int, str, Any] | None = None
    for shape, pattern in SHAPES.items():
        parts = pc.extract_regex(texts, pattern=f"^{pattern}$")
        count = len(parts) - parts.null_count
        if count * 2 >= len(texts) and count and (best is None or count > best[0]):
            best = count, shape, parts
    if best is None:
        return None
    _, shape, parts = best
    if shape == "numbers":
        return _numbers(texts, parts, name, where)
    return _read(parts, shape)


def looks_like_dates(texts: list[str]) -> bool:
    """Return whether at least one of some texts has the shape of a date."""
    short = [text for text in texts if len(text) <= LONGEST]
    return any(re.fullmatch(pattern, text) for text in short for pattern in SHAPES.values())


def _numbers(texts: pa.Array, parts: Any, name: str, where: str) -> Dates:
    """Decide between days first and months first from all values."""
    readings = {order: _read(parts, order) for order in ("day/month/year", "month/day/year")}
    days, months = readings.values()
    if days.right.sum() != months.right.sum():
        return days if days.right.sum() > months.right.sum() else months
    if (days.micros == months.micros).all():
        return months
    sorted_ones = [order for order, reading in readings.items() if _is_sorted(reading)]
    if len(sorted_ones) == 1:
        found = readings[sorted_ones[0]]
        found.note = f"'{name}' is read as {sorted_ones[0]}, in which it is in order"
        return found
    i = int(np.flatnonzero(days.micros != months.micros)[0])
    first, second = (
        str(reading.micros[i : i + 1].astype("datetime64[us]").astype("datetime64[D]")[0]) for reading in (days, months)
    )
    raise DataError(
        f"{where}: '{name}' is ambiguous, day or month first: {texts[i].as_py()!r} is {first} or {second}. "
        f"Say which format: data.formats=[{name}:%d/%m/%Y] or data.formats=[{name}:%m/%d/%Y], or leave it out: "
        f"data.drop=[{name}]"
    )


def _is_sorted(dates: Dates) -> bool:
    steps = np.diff(dates.micros)
    return len(steps) > 1 and bool((steps > 0).all() or (steps < 0).all())


def _ints(parts: Any, key: str) -> np.ndarray | None:
    if parts.type.get_field_index(key) < 0:
        return None
    texts = pc.struct_field(parts, key)
    texts = pc.if_else(pc.equal(pc.fill_null(texts, ""), ""), "0", texts)
    return pc.cast(texts, pa.int64()).to_numpy(zero_copy_only=False)


def _read(parts: Any, format: str) -> Dates:  # noqa: A002
    """Compute times from the parts of a pattern."""
    right = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    zero = np.zeros(len(right), np.int64)
    year = _ints(parts, "y")
    assert year is not None
    note = ""
    if (
        parts.type.get_field_index("y") >= 0
        and (
            short := pc.fill_null(pc.less(pc.utf8_length(pc.struct_field(parts, "y")), 3), False).to_numpy(zero_copy_only=False)
            & right
        ).any()
    ):
        now = datetime.now(UTC).year
        year = np.where(short, np.where(year + 2000 <= now, year + 2000, year + 1900), year)
        note = f"years of two digits are read as {year[right].min()} to {year[right].max()}"
    if format == "day/month/year":
        day, month = _ints(parts, "a"), _ints(parts, "b")
    elif format == "month/day/year":
        month, day = _ints(parts, "a"), _ints(parts, "b")
    else:
        day = _ints(parts, "d")
        day = zero + 1 if day is None else day
        month = _ints(parts, "m") if parts.type.get_field_index("n") < 0 else _named(pc.struct_field(parts, "n"))
    assert day is not None
    assert month is not None
    right = right & (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1)
    safe = np.where(right, (year - 1970) * 12 + month - 1, 0)
    first = safe.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    length = (safe + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - first
    right &= day <= length
    micros = (first + np.where(right, day, 1) - 1) * 86_400_000_000
    if (hours := _ints(parts, "H")) is not None:
        micros, right, note = _with_clock(parts, micros, right, hours, note)
    micros = np.where(right, micros, 0)
    return Dates(micros, right, format, note)


def _with_clock(
    parts: Any, micros: np.ndarray, right: np.ndarray, hours: np.ndarray, note: str
) -> tuple[np.ndarray, np.ndarray, str]:
    minutes, seconds = _ints(parts, "M"), _ints(parts, "S")
    assert minutes is not None
    assert seconds is not None
    half = pc.fill_null(pc.utf8_lower(pc.struct_field(parts, "p")), "").to_numpy(zero_copy_only=False)
    twelve = half != ""
    right = right & (~twelve | ((hours >= 1) & (hours <= 12)))
    hours = np.where(twelve, hours % 12 + 12 * (half == "p"), hours)
    right = right & (hours <= 23) & (minutes <= 59) & (seconds <= 59)
    fraction = pc.fill_null(pc.struct_field(parts, "f"), "")
    fraction = pc.cast(pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, 6, "0"), 0, 6), pa.int64()).to_numpy(zero_copy_only=False)
    clock = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction
    zone = pc.fill_null(pc.struct_field(parts, "z"), "")
    zoned = pc.not_equal(zone, "").to_numpy(zero_copy_only=False) & right
    if not zoned.any():
        return micros + clock, right, note
    if not zoned[right].all():
        right = zoned  # of one column either all clocks have an offset, or none has
    signs = pc.replace_substring_regex(zone, r"^(Z|UTC|GMT|)$", "+00:00").to_numpy(zero_copy_only=False).astype(str)
    known, index = np.unique(signs, return_inverse=True)
    shift = np.array([(1 if s[0] == "+" else -1) * (int(s[1:3]) * 60 + int(s[-2:])) * 60_000_000 for s in known])
    used = np.unique(index[right])
    if len(known[used]) > 0 and (shift[used] != 0).any() and not clock[right].any():
        return micros, right, note or "times are midnights with an offset from UTC: read as local days"
    if (shift[used] != 0).any():
        note = f"times have offsets ({', '.join(known[used][:3])}): read in UTC"
    return micros + clock - shift[index], right, note


def _named(names: Any) -> np.ndarray:
    """Return the month of English names, whole or three letters; 0 for others."""
    lower = pc.utf8_lower(names)
    known = [month for name in MONTHS for month in {name, name[:3]}] + ["sept"]
    numbers = [i for i, name in enumerate(MONTHS, 1) for _ in {name, name[:3]}] + [9]
    index = pc.index_in(lower, value_set=pa.array(known))
    return pc.fill_null(pc.take(pa.array(numbers, pa.int64()), index), 0).to_numpy(zero_copy_only=False)


def _told(texts: pa.Array, told: str, name: str) -> Dates:
    """Read in a format of the option, of strptime or of a kept column."""
    if told in UNITS or told == "excel":
        numbers = pc.if_else(pc.match_substring_regex(texts, r"^[+-]?\d+(\.\d*)?$"), texts, None)
        return units_of(pc.cast(numbers, pa.float64()).to_numpy(zero_copy_only=False), told)
    if told in (*SHAPES, "day/month/year", "month/day/year"):
        shape = "numbers" if "/" in told else told
        return _read(pc.extract_regex(texts, pattern=f"^{SHAPES[shape]}$"), told)
    if "%" not in told:
        known = ", ".join((*UNITS, "excel", "%d/%m/%Y"))
        raise DataError(f"data.formats: must be {known} or the like. Received: '{told}' for '{name}'")
    found = np.zeros(len(texts), np.int64)
    right = np.zeros(len(texts), bool)
    for i, text in enumerate(texts.to_pylist()):
        try:
            moment = datetime.strptime(text, told)
        except (ValueError, TypeError):
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        found[i], right[i] = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6), True
    return Dates(found, right, told)


def units_of(numbers: np.ndarray, told: str) -> Dates:
    """Read numbers as Unix times or days of a spreadsheet; numbers of another unit are wrong."""
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (numbers - EXCEL) * 86_400_000_000 if told == "excel" else numbers * float(UNITS[told])
        right = (scaled >= LEAST) & (scaled <= MOST)
    return Dates(np.where(right, np.where(right, scaled, 0), 0).round().astype(np.int64), right, told)
