"""Time series in tables: order, duplicates, gaps, steps and jumps; windows that are views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dlframe.readers.splits import chronological_split
from dlframe.readers.tables.files import Options
from dlframe.readers.tables.kinds import Column
from dlframe.readers.tables.rows import codes_of, floats_of
from dlframe.readers.tables.table import Table, found_name, names_of, read_table
from dlframe.types import DataError, Dataset, DataSpec, Field, Split, printable

TIMES = ("date", "datetime", "time", "timestamp", "ds", "day", "month", "observation_date", "datum", "period")
"""Names, lower case, of a column of times."""

TARGETS = ("close", "y", "value", "target")
"""Names, lower case, of a target."""

MARKERS = (".", "-", "null", "NULL", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "None", "none", "")
"""Words for a missing value, where a rule for missing values is given."""

ADJUSTED = ("adj close", "adj_close", "adjclose", "adjusted close", "adjusted_close")
"""Names, lower case, of prices that are free of splits."""

KEYS = ("unique_id", "id", "series", "series_id", "item_id", "symbol", "ticker", "name")
"""Names, lower case, of a column that names the series of a row."""

DAY = 86_400_000_000

UNITS = {"day": DAY, "hour": DAY // 24, "minute": 60_000_000, "second": 1_000_000, "microsecond": 1}

LONGEST = 5
"""Steps that are a gap; fewer are holidays."""

SEASONS = {
    "one row per month": 12,
    "one row per quarter": 4,
    "one row per weekday": 5,
    "one row per day": 7,
    "a row every 7 days": 52,
    "one row per hour": 24,
    "one row per minute": 60,
}
"""Usual step in words -> rows of a season."""

MANY = 10
"""Series from which on whole series are the unit of resampling; of fewer, blocks of time across all series are."""

OnMissing = Literal["raise", "drop", "previous"]

Calendar = Literal["month", "day", "weekday", "hour"]


@dataclass
class Series:
    """One series in the order of time.

    Attributes:
        key: Name; "" for the only one.
        ids: (rows,) times as text: days where all are midnights, else ISO 8601, or numbers.
        times: (rows,) int64: microseconds since 1970, or the numbers of the rows.
        values: (rows, features) float64, the target first.
        known: (rows + more, columns) float64, columns that are known in advance, also of rows after the last value.
    """

    key: str
    ids: np.ndarray
    times: np.ndarray
    values: np.ndarray
    known: np.ndarray


@dataclass
class Panel:
    """The series of a file.

    Attributes:
        series: In the order of their names.
        features: Names of the features, the target first.
        notes: What was assumed, left out or is odd.
        kept: What is kept in a run to read another file the same way, as JSON.
    """

    series: list[Series]
    features: tuple[str, ...]
    notes: list[str]
    kept: dict[str, Any]


def read_panel(
    file: Path,
    options: Options | None = None,
    *,
    time: str | None = None,
    target: Sequence[str] = (),
    features: Sequence[str] = (),
    id: str | None = None,  # noqa: A002  # the name of the option
    known_future: Sequence[str] = (),
    calendar: Sequence[Calendar] = (),
    horizon: int = 0,
    on_missing: OnMissing = "raise",
    known: Mapping[str, Any] | None = None,
) -> Panel:
    """Read one or several series.

    Args:
        file: See `read_table`.
        options: What the user says about the table.
        time: Column of times; None for the only column of dates, or one of a usual name.
        target: Columns to forecast; several are a series each. Empty for a usual name, or the only column of numbers.
        features: Further columns of the windows.
        id: Column that names the series of each row.
        known_future: Columns of numbers that are known in advance. Rows after the last target may have them alone.
        calendar: Parts of the time that are columns known in advance, each as sine and cosine.
        horizon: Rows after the last one for which the calendar is computed.
        on_missing: Action on a missing value: raise, drop the row, or take the previous value. The last rows are left out in
            any case.
        known: `Panel.kept` of a run.

    Raises:
        DataError: With the physical line and the option that decides.
    """
    options = options or Options()
    if known is not None:
        time, id = known.get("time") or None, known.get("id") or None  # noqa: A001
        target, features = known["targets"], known["features"]
        known_future, calendar = known.get("known_future", ()), known.get("calendar", ())
    if on_missing != "raise":
        options = replace(options, missing=(*options.missing, *MARKERS))
    names = names_of(file, options)
    if known is not None and time and time.casefold() not in {name.strip().casefold() for name in names}:
        time = None
    time = _time_by_name(names) if time is None else found_name(time, names, "data.time", str(file))
    if not target and (usual := _usual(names, TARGETS)):
        target = (usual,)
    wanted = [found_name(name, names, "data.target", str(file)) for name in target]
    more = [found_name(name, names, "data.past", str(file)) for name in features]
    ahead = [found_name(name, names, "data.known_future", str(file)) for name in known_future]
    if twice := [name for name in ahead if name in (*wanted, *more)]:
        raise DataError(f"data.known_future: must not be the target or in data.past. Received: {', '.join(twice)}")
    series_id = found_name(id, names, "data.id", str(file)) if id else None
    if time and wanted:  # other columns may hold anything
        chosen = {time, *wanted, *more, *ahead, series_id}
        options = replace(options, drop=tuple(name for name in names if name not in chosen))
    hows = known.get("columns", {}) if known is not None else None
    table = read_table(
        file,
        options,
        hints=hows,
        words=[series_id] if series_id else [],
        numbers=(*wanted, *more, *ahead),
        keep=[name for name in (time, *wanted, *more, *ahead) if name],
    )
    notes = [note for note in table.notes if not note.startswith("left out by data.drop")]
    if time is None:
        time = _time_by_kind(table, [*wanted, *more, *ahead, series_id])
    if time is not None and time not in table.columns:
        raise DataError(f"{table.file}: '{time}' must hold times. Received: no values")
    if not wanted:
        wanted = [_only_number(table, [time, series_id, *more, *ahead])]
        notes.append(f"the series is '{wanted[0]}', the only column of numbers")
    for name in (*wanted, *more, *ahead):
        if name not in table.columns or table.columns[name].kind != "number":
            kind = table.columns[name].kind if name in table.columns else "empty"
            raise DataError(f"{table.file}: '{name}' must hold numbers. Received: {kind}")
    times, ids = _times(table, time, notes)
    keys, labels = _keys(table, series_id)
    if calendar and (time is None or table.columns[time].kind != "date"):
        raise DataError(f"data.calendar: requires a column of dates. Received: {time or 'none'}. Name it: data.time=COLUMN")
    values = {name: floats_of(table.columns[name]) for name in (*wanted, *more, *ahead)}
    found: list[Series] = []
    said: list[str] = []
    of_series = np.split(np.argsort(keys, kind="stable"), np.cumsum(np.bincount(keys, minlength=len(labels)))[:-1])
    for label, rows in zip(labels, of_series, strict=True):
        for name in wanted:
            columns = [name, *more]
            matrix = np.stack([values[column][rows] for column in columns], 1)
            beside = np.stack([values[column][rows] for column in ahead], 1) if ahead else np.empty((len(rows), 0))
            part = _ordered(table, rows, times[rows], matrix, columns, on_missing, said, time, names, beside)
            later = part[2]
            kept = np.concatenate([part[0], later])
            columns = np.stack([values[column][kept] for column in ahead], 1) if ahead else np.empty((len(kept), 0))
            _check_known(table, kept, columns, ahead)
            if calendar:
                moments = times[kept]
                if not ahead:
                    moments = np.concatenate([moments, following(moments, horizon)])
                columns = np.concatenate([columns, _calendar(moments, calendar)], 1) if ahead else _calendar(moments, calendar)
            rank = " ".join(filter(None, (label, name if len(wanted) > 1 else "")))
            found.append(Series(rank, ids[part[0]], times[part[0]], part[1], columns))
    notes += said[:6]
    if len(said) > 6:
        notes.append(f"{len(said) - 6:,} more notes on single series")
    for series in found:
        _check_thousands(table, series, wanted[0])
    odd = [note for series in found for note in _oddities(series, wanted[0], time is not None)]
    if (adjusted := _usual(names, ADJUSTED)) and adjusted not in wanted:
        odd = [
            note + f"; '{adjusted}' may be adjusted: data.target={adjusted}" if "not adjusted" in note else note for note in odd
        ]
    notes += odd[:6]
    kept = {
        "time": time or "",
        "id": series_id or "",
        "targets": list(wanted),
        "features": list(more),
        "columns": {
            name: column.how for name, column in table.columns.items() if name in (*wanted, *more, *ahead) or _told(column)
        },
    }
    if ahead or calendar:
        kept |= {"known_future": list(ahead), "calendar": list(calendar)}
    return Panel(found, (wanted[0] if len(wanted) == 1 else "value", *more), notes, kept)


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the column that has the first of some usual names."""
    folded = {name.strip().casefold(): name for name in names}
    return next((folded[name] for name in usual if name in folded), None)


def _time_by_name(names: Sequence[str]) -> str | None:
    return _usual(names, TIMES)


def _time_by_kind(table: Table, without: Sequence[str | None]) -> str | None:
    dates = [name for name, column in table.columns.items() if column.kind == "date" and name not in without]
    if len(dates) > 1:
        raise DataError(f"{table.file}: has several columns of dates, {', '.join(dates[:6])}. Say which: data.time={dates[0]}")
    return dates[0] if dates else None


def _only_number(table: Table, without: Sequence[str | None]) -> str:
    numbers = [name for name, column in table.columns.items() if column.kind == "number" and name not in without]
    if len(numbers) != 1:
        shown = ", ".join(numbers[:8]) or "none"
        raise DataError(
            f"{table.file}: must have one column of numbers, or say which is the series: data.target=COLUMN. Received: {shown}"
        )
    return numbers[0]


def _times(table: Table, name: str | None, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return times as int64 and as text."""
    if name is None:
        notes.append("no column of times: rows are read in chronological order")
        rows = np.arange(1, table.rows + 1)
        return rows, np.char.add("row ", rows.astype(str))
    column = table.columns[name]
    if column.kind not in ("date", "number"):
        raise DataError(
            f"{table.file}: '{name}' must hold times in one format. Received: {column.kind}. Try: "
            f"data.formats=[{name}:%Y-%m-%d]"
        )
    if column.missing:
        row = int(np.flatnonzero(np.isnan(floats_of(column)))[0])
        raise DataError(f"{table.place(row)}: '{name}' must be a time. Received: an empty field")
    if column.kind == "number":
        numbers = floats_of(column)
        if (numbers != np.floor(numbers)).any():
            row = int(np.flatnonzero(numbers != np.floor(numbers))[0])
            raise DataError(f"{table.place(row)}: '{name}' must be a date or an integer. Received: {numbers[row]}")
        if name not in table.decided and (numbers.min() > 1e7 or (numbers.min() > 20_000 and numbers.max() < 80_000)):
            first = f"{numbers[0]:.0f}"
            raise DataError(
                f"{table.file}: '{name}' holds numbers such as {first}, which may be times. Say their unit: "
                f"data.formats=[{name}:unix], unix_ms, excel (serial days) or %Y%m%d; or data.kinds=[{name}:number] "
                "for a mere order"
            )
        whole = numbers.astype(np.int64)
        return whole, whole.astype(str)
    micros = _micros(column)
    unit = "D" if not (micros % DAY).any() else "s" if not (micros % 1_000_000).any() else "us"
    return micros, micros.astype("datetime64[us]").astype(f"datetime64[{unit}]").astype(str)


def _micros(column: Column) -> np.ndarray:
    return column.values.cast("int64").to_numpy(zero_copy_only=False)


def _keys(table: Table, name: str | None) -> tuple[np.ndarray, list[str]]:
    """Return the index of each row's series, and the names of the series."""
    if name is None:
        return np.zeros(table.rows, np.int64), [""]
    codes, words = codes_of(table.columns[name])
    if (codes < 0).any():
        raise DataError(f"{table.place(int(np.argmax(codes < 0)))}: '{name}' must name a series. Received: an empty field")
    order = sorted(range(len(words)), key=lambda i: words[i])
    place = np.empty(len(words), np.int64)
    place[order] = np.arange(len(words))
    return place[codes], [words[i] for i in order]


def _ordered(
    table: Table,
    rows: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    columns: Sequence[str],
    on_missing: OnMissing,
    notes: list[str],
    time: str | None,
    names: Sequence[str],
    known: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows and values in the order of time, without missing values, and the rows after them that have `known` values.

    Raises:
        DataError: A time occurs twice, or a value is missing.
    """
    steps = np.diff(times)
    if len(steps) and (steps < 0).any():
        down = bool((steps <= 0).all())
        told = "in descending order" if down else f"not in order ({int((steps < 0).sum()):,} steps back)"
        if (note := f"rows are {told}: sorted by {time}") not in notes:
            notes.append(note)
    order = np.argsort(times, kind="stable")
    rows, times, values = rows[order], times[order], values[order]
    if len(twice := np.flatnonzero(np.diff(times) == 0)):
        first, second = sorted((int(rows[twice[0]]), int(rows[twice[0] + 1])))
        hint = _several(table, names, rows, times)
        raise DataError(
            f"{table.place(second)}: times must be unique, and this one occurs twice, first in {_line(table, first)}. "
            f"Received: {_time_text(table, time, second)}.{hint}"
        )
    missing = np.asarray(np.isnan(values).any(1))
    if missing.all():
        raise DataError(f"{table.file}: '{columns[0]}' must have values. Received: none")
    last = len(missing) - int(np.argmin(missing[::-1]))
    later = rows[:0]
    if last < len(missing):
        count = len(missing) - last
        where = _line(table, int(rows[last]))
        if known.shape[1]:
            have = np.asarray(~np.isnan(known[order][last:]).any(1))
            later = rows[last:][: len(have) if have.all() else int(np.argmin(have))]
        if not len(later):
            notes.append(
                f"{where}: {columns[0]} is empty; the last {'row is' if count == 1 else f'{count:,} rows are'} left out"
            )
        rows, values, missing = rows[:last], values[:last], missing[:last]
    if not missing.any():
        return rows, values, later
    count, row = int(missing.sum()), int(rows[np.argmax(missing)])
    name = columns[int(np.argmax(np.isnan(values[np.argmax(missing)])))]
    if on_missing == "raise":
        raise DataError(
            f"{table.place(row)}: '{name}' must have a value in each row. Received: an empty field, in {count:,} "
            f"{'row' if count == 1 else 'rows'}. Leave such rows out: data.on_missing=drop; or take the value before: "
            "data.on_missing=previous"
        )
    if on_missing == "drop" or missing[0]:
        kept = ~missing if on_missing == "drop" else np.arange(len(missing)) >= np.argmin(missing)
        notes.append(
            f"{int((~kept).sum()):,} of {len(missing):,} values of {name} are missing: left out, first in {_line(table, row)}"
        )
        rows, values, missing = rows[kept], values[kept], missing[kept]
    if missing.any():
        index = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))[:, None]), 0)
        values = np.take_along_axis(values, index, 0)
        told = "1 missing value of {} is" if count == 1 else f"{count:,} missing values of {{}} are"
        notes.append(f"{told.format(name)} replaced by the one before, first in {_line(table, row)}")
    return rows, values, later


def _check_known(table: Table, rows: np.ndarray, values: np.ndarray, names: Sequence[str]) -> None:
    missing = np.isnan(values)
    if missing.any():
        row, column = (int(place[0]) for place in np.nonzero(missing))
        raise DataError(
            f"{table.place(int(rows[row]))}: '{names[column]}' is known in advance and must have a value in each row. "
            f"Received: an empty field, in {int(missing.any(1).sum()):,} rows"
        )


def _calendar(times: np.ndarray, calendar: Sequence[Calendar]) -> np.ndarray:
    """Return sine and cosine of each part of the time, (rows, 2 * parts)."""
    moments = times.astype("datetime64[us]")
    months, days = moments.astype("datetime64[M]"), moments.astype("datetime64[D]")
    phases = {
        "month": months.astype(np.int64) % 12 / 12,
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) / 31,
        "weekday": (days.astype(np.int64) + 3) % 7 / 7,
        "hour": (times % DAY) / DAY,
    }
    angles = [2 * np.pi * phases[part] for part in calendar]
    return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], 1)


def following(times: np.ndarray, count: int) -> np.ndarray:
    """Return the times of the `count` rows after the last one, by the usual step: calendar months, weekdays, or a fixed one."""
    steps = np.diff(times)
    if not len(steps):
        return times[-1] + DAY * np.arange(1, count + 1)
    days = steps // DAY
    last = times[-1:].astype("datetime64[us]")
    for months, (low, high) in {1: (28, 31), 3: (89, 92), 12: (365, 366)}.items():
        if ((days >= low) & (days <= high)).mean() > 0.9:
            month = last.astype("datetime64[M]")
            within = last - month.astype("datetime64[us]")
            return ((month + months * np.arange(1, count + 1)).astype("datetime64[us]") + within).astype(np.int64)
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[np.argmax(counts)])
    if usual == DAY and ((times // DAY + 3) % 7 < 5).all() and len(times) > 5:
        ahead = np.busday_offset(last.astype("datetime64[D]"), np.arange(1, count + 1), roll="forward")
        return ahead.astype("datetime64[us]").astype(np.int64) + times[-1] % DAY
    return times[-1] + usual * np.arange(1, count + 1)


def _line(table: Table, row: int) -> str:
    return table.place(row).rpartition(", ")[2]


def _time_text(table: Table, name: str | None, row: int) -> str:
    if name is None:
        return f"row {row}"
    column = table.columns[name]
    if column.kind == "number":
        return str(int(floats_of(column)[row]))
    micros = _micros(column)[row : row + 1]
    return str(micros.astype("datetime64[us]").astype("datetime64[D]" if not (micros % DAY).any() else "datetime64[s]")[0])


def _several(table: Table, names: Sequence[str], rows: np.ndarray, times: np.ndarray) -> str:
    """Return a hint at a column that tells several series apart, or may do so by its name."""
    if (usual := _usual(names, KEYS)) and usual not in table.columns:
        return f" Several series? data.id={usual}"
    for name, column in table.columns.items():
        if column.kind == "category":
            codes = codes_of(column)[0][rows]
            pairs = np.unique(np.stack([codes.astype(np.int64), times]), axis=1)
            if pairs.shape[1] == len(rows):
                return f" Several series? data.id={name}"
    return ""


def _oddities(series: Series, target: str, dated: bool) -> Iterator[str]:
    """Yield sentences on gaps, a change of the step, and jumps."""
    of = f" of {series.key}" if series.key else ""
    steps = np.diff(series.times)
    if dated and len(steps) > 2 and abs(series.times).max() > 1e6:
        yield from _gaps(series, steps, of)
    values = series.values[:, 0]
    if len(values) > 2 and (values > 0).all():
        ratio = np.log(values[1:] / values[:-1])
        usual = np.median(np.abs(ratio[ratio != 0])) if (ratio != 0).any() else 0.0
        jumps = np.flatnonzero((np.abs(ratio) > np.log(1.8)) & (np.abs(ratio) > 10 * usual))
        if usual and 0 < len(jumps) <= max(3, len(ratio) // 100):
            i = int(jumps[0])
            factor = np.exp(abs(ratio[i]))
            guess = "a mark between thousands? data.thousands=." if 500 < factor < 2000 else "a split that is not adjusted?"
            verb = "falls" if ratio[i] < 0 else "rises"
            yield (
                f"{target}{of} {verb} from {values[i]:g} to {values[i + 1]:g} on {series.ids[i + 1]}, by the factor "
                f"{factor:.4g} ({guess})" + (f"; {len(jumps) - 1} more such steps" if len(jumps) > 1 else "")
            )


def step_of(series: Series) -> str:
    """Return the usual step in words, "one row per weekday"; empty without times."""
    steps = np.diff(series.times)
    if not len(steps) or series.ids[0].startswith("row ") or series.ids[0].isdecimal():
        return ""
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[np.argmax(counts)])
    days = steps // DAY
    for unit, (low, high) in {"month": (28, 31), "quarter": (89, 92), "year": (365, 366)}.items():
        if len(sizes) > 1 and ((days >= low) & (days <= high)).mean() > 0.9:
            return f"one row per {unit}"
    if usual == DAY and ((series.times // DAY + 3) % 7 < 5).all() and len(series.times) > 5:
        return "one row per weekday"
    if len(steps) > 5 and _is_irregular(counts):
        return f"irregular steps, {_span(int(sizes[0]))} to {_span(int(sizes[-1]))}"
    unit, size = next((unit, size) for unit, size in UNITS.items() if not usual % size)
    return f"one row per {unit}" if usual == size else f"a row every {usual // size:,} {unit}s"


def _is_irregular(counts: np.ndarray) -> bool:
    """Return whether no length of a step is that of half of them, from the count of each length."""
    return 2 * int(counts.max()) < int(counts.sum())


def _span(micros: float) -> str:
    """Return a length of time in words, "12 hours"."""
    unit, size = next(((unit, size) for unit, size in UNITS.items() if micros >= size), ("microsecond", 1))
    return f"{micros / size:.3g} {unit}{'s' * (micros != size)}"


def _gaps(series: Series, steps: np.ndarray, of: str) -> Iterator[str]:
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[np.argmax(counts)])
    starts, days = series.times // DAY, not (series.times % DAY).any()
    business = bool(((starts + 3) % 7 < 5).all())
    what = "steps"
    if days and usual == DAY:
        # Weekends are no gap where no value is of a weekend.
        begin, end = starts[:-1].astype("datetime64[D]"), starts[1:].astype("datetime64[D]")
        between = np.busday_count(begin, end) - 1 if business else steps // DAY - 1
        what = "weekdays" if business else "days"
    else:
        between = np.zeros_like(steps) if _is_irregular(counts) else steps // usual - 1
    long = np.flatnonzero(between >= LONGEST)
    if len(long) and len(long) <= max(3, len(steps) // 50):
        i = int(long[0])
        first, last = (starts[i] + 1), (starts[i + 1] - 1)
        if what == "weekdays":
            first = np.busday_offset(starts[i].astype("datetime64[D]"), 1, roll="forward").astype(np.int64)
            last = np.busday_offset(starts[i + 1].astype("datetime64[D]"), -1, roll="backward").astype(np.int64)
        shown = [str(np.datetime64(int(day), "D")) for day in (first, last)]
        where = f"from {shown[0]} to {shown[1]}" if days else f"between {series.ids[i]} and {series.ids[i + 1]}"
        more = f"; {len(long) - 1} more gaps" if len(long) > 1 else ""
        yield f"no rows{of} {where} ({int(between[i])} {what}){more}"
        return
    end = max(6, len(steps) // 10)
    early, late = float(np.median(steps[:end])), float(np.median(steps[-end:]))
    steady = np.mean(steps[:end] == early) >= 0.5 and np.mean(steps[-end:] == late) >= 0.5
    if len(steps) >= 2 * end and steady and max(early, late) >= 2 * min(early, late):
        i = int(np.flatnonzero(np.abs(steps - late) < np.abs(steps - early))[0])
        yield f"the step{of} changes from {_span(early)} to {_span(late)} about {series.ids[i]}"


def _told(column: Column) -> bool:
    """Return whether a format of dates must be kept: one that the values of another file may leave open."""
    return column.kind == "date" and column.how["format"] in (
        "day/month/year",
        "month/day/year",
        "unix",
        "unix_ms",
        "unix_us",
        "excel",
    )


def _check_thousands(table: Table, series: Series, target: str) -> None:
    """Raise where 999 is followed by 1.001: then the point may part thousands, and not be a decimal mark."""
    values = series.values[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.abs(values[1:] / values[:-1])
    falls = np.flatnonzero((factor > 1 / 1100) & (factor < 1 / 900))
    if len(falls) == 0 or target in table.decided:
        return
    low = np.abs(values) < 1000 / 900 * abs(values[falls[0] + 1]) * 10
    if (values[~low] == np.floor(values[~low])).all() and (np.round(values[low], 3) == values[low]).all():
        i = int(falls[0])
        raise DataError(
            f"{table.file}: '{target}' falls from {values[i]:g} to {values[i + 1]:g} on {series.ids[i + 1]}, by the "
            f"factor {1 / factor[i]:.4g}. "
            f"If points part thousands: data.thousands=.; if they are decimal marks: data.kinds=[{target}:number]"
        )


# --- windows


def name_of(file: Path, default: str) -> str:
    """Return the name of a data set from that of its file."""
    return printable(file.name.partition(".")[0]) or default


def season_of(panel: Panel, given: int | None = None) -> int:
    """Return the rows of a season: the given number, or that of the usual step of the first series; 1 for none."""
    return given or SEASONS.get(step_of(panel.series[0]), 1)


def dataset_of(
    panel: Panel,
    name: str,
    window: int,
    horizon: int,
    source: str,
    *,
    season: int = 1,
    fold: int = 0,
    cuts: Sequence[int] = (),
) -> Dataset:
    """Return the windows of series, split by the time of their targets: 70/10/20.

    The windows of one series are views. Of several series, a target "scale" has the scale of the series of each window.

    Args:
        panel: The series.
        name: Name of the data set.
        window: Rows of an input.
        horizon: Rows of a forecast.
        source: What is shown as the origin of the data.
        season: Rows of a season, for the scales and for models.
        fold: How many test periods the end of the data is moved back: the test period is the one before that of the fold
            before, with the rows before it to train and validate.
        cuts: Rows at which validation and test period begin; empty for 70/10/20.

    Raises:
        DataError: A series is too short for a window and a horizon in every split.
    """
    if panel.series[0].known.shape[1] and window < horizon:
        raise DataError(
            f"data.window: must be at least data.horizon, {horizon}, with columns that are known in advance. Received: {window}"
        )
    series = [with_known(one, horizon) for one in panel.series]
    instants = series[0].times if len(series) == 1 else np.unique(np.concatenate([one.times for one in series]))
    split = "chronological" if cuts else "chronological 70/10/20"
    parts = chronological_split(len(instants), (0.7, 0.1, 0.2))
    if cuts:
        edges = (0, *cuts, len(instants))
        parts = [slice(edges[i], edges[i + 1]) for i in range(3)]
    if fold:
        back = fold * (parts[2].stop - parts[2].start)
        if parts[0].stop - back < window + horizon:
            raise DataError(
                f"{name}: data.fold={fold} leaves {max(0, parts[0].stop - back):,} of the {window + horizon} rows that "
                f"training needs. The largest is {max(0, parts[0].stop - window - horizon) // (back // fold)}"
            )
        split += f", {fold} test period{'s' * (fold > 1)} back"
        parts = [slice(max(0, part.start - back), part.stop - back) for part in parts]
    needed = [window + horizon, horizon, horizon]
    for part, rows in zip(parts, needed, strict=True):
        if part.stop - part.start < rows:
            raise DataError(
                f"{name}: {len(instants):,} rows are too few for data.window={window} and data.horizon={horizon}: "
                f"a split has {part.stop - part.start} of the {rows} that it needs"
            )
    scales = {one.key: _scale(one.values[: np.searchsorted(one.times, instants[parts[0].stop]), 0], season) for one in series}
    splits, short = [], set()
    for part in parts:
        pieces = []
        for one in series:
            begin = int(np.searchsorted(one.times, instants[part.start]))
            end = len(one.times) if part.stop == len(instants) else int(np.searchsorted(one.times, instants[part.stop]))
            first, stop = max(begin, window), end - horizon + 1
            if first >= stop:
                short.add(one.key)
                continue
            ids = one.ids[first:stop]
            pieces.append(
                (
                    windows_of(one.values, window, first, stop),
                    futures_of(one.values, horizon, first, stop),
                    np.char.add(f"{one.key} ", ids) if one.key else ids,
                    _units(one, first, stop, instants[part], horizon, len(series)),
                    np.full((stop - first, 1), scales[one.key]),
                )
            )
        if not pieces:
            raise DataError(f"{name}: no series has data.window={window} and data.horizon={horizon} rows in every split")
        inputs, targets, ids, units, scale = (of[0] if len(of) == 1 else np.concatenate(of) for of in zip(*pieces, strict=True))
        columns = {"window": inputs, "future": targets}
        if len(series) > 1:
            splits.append(Split({**columns, "scale": scale}, ids, groups=units))
        else:
            splits.append(Split(columns, ids))
    if short:
        panel.notes.append(
            f"{len(short):,} of {len(series):,} series are too short for some splits: {', '.join(sorted(short)[:3])}"
        )
    if len(splits[2]) < 10:
        panel.notes.append(f"{len(splits[2])} test windows: an interval from them means little")
    seen = np.concatenate([one.values[: np.searchsorted(one.times, instants[parts[0].stop])] for one in series])
    # A constant feature, such as a missing volume, must not be divided by zero.
    mean, std = seen.mean(0), np.where(seen.std(0) > 0, seen.std(0), 1)
    if known := panel.series[0].known.shape[1]:
        # What is known ahead has the statistics of what is known now: rows after the training period are not seen.
        mean[-known:], std[-known:] = mean[-2 * known : -known], std[-2 * known : -known]
    field = Field(
        kind="series",
        dtype="float64",
        shape=(window, seen.shape[1]),
        names=_names(panel),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
    )
    targets = {"future": Field(kind="value", dtype="float64", shape=(horizon,))}
    if len(series) > 1:
        targets["scale"] = Field(kind="value", dtype="float64", shape=(1,))
    spec = DataSpec(name, {"window": field}, targets, {"series": panel.kept, "season": season, "scales": scales})
    train, validation, test = splits
    first, last = (str(end(one.ids[place] for one in series)) for end, place in ((min, 0), (max, -1)))
    return Dataset(spec, train, validation, test, f"{source}, {first} to {last}", split)


def _names(panel: Panel) -> tuple[str, ...]:
    """Return the names of the columns of a window."""
    calendar = [f"{wave} of {part}" for part in panel.kept.get("calendar", ()) for wave in ("sine", "cosine")]
    known = (*panel.kept.get("known_future", ()), *calendar)
    return (*panel.features, *known, *(f"{name} ahead" for name in known))


def with_known(series: Series, horizon: int) -> Series:
    """Append to each row what is known in advance: its own values, and those of the row `horizon` later.

    The last `horizon` rows of a window then have the values of the rows that are forecast. Rows whose later one is not known
    have zeros: no window of training or testing ends at them.
    """
    if not series.known.shape[1]:
        return series
    count = len(series.values)
    later = series.known[horizon : count + horizon]
    later = np.concatenate([later, np.zeros((count - len(later), later.shape[1]))])
    return replace(series, values=np.concatenate([series.values, series.known[:count], later], 1))


def _scale(values: np.ndarray, season: int) -> float:
    """Return the scale of the MASE: the mean absolute difference of a season (Hyndman and Koehler 2006); 0 if unknown."""
    return float(np.abs(values[season:] - values[:-season]).mean()) if len(values) > season else 0.0


def _units(series: Series, first: int, stop: int, instants: np.ndarray, horizon: int, count: int) -> np.ndarray:
    """Return the unit of resampling of each window: its series, or of a few series the block of time, across all of them.

    Series depend on each other at one time; up to 20 blocks, none shorter than the horizon.
    """
    if count >= MANY:
        return np.full(stop - first, series.key)
    length = max(5, horizon, -(-len(instants) // 20))
    return np.char.mod("block %d", 1 + np.searchsorted(instants, series.times[first:stop]) // length)


def keys_of(ids: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Return the name of the series of each window (samples,) from its id; empty for the only one."""
    words = 1 if spec.fitted.get("series", {}).get("time") else 2  # a time, or "row 7"
    parts = [str(name).rsplit(" ", words) for name in ids.tolist()]
    return np.array([found[0] if len(found) > words else "" for found in parts])


def kept_of(spec: DataSpec) -> dict[str, Any]:
    """Return what a run kept of its series; its file may be somebody else's.

    Raises:
        DataError: It holds no columns of a series.
    """
    kept = spec.fitted.get("series")
    if not isinstance(kept, dict) or {"window"} != spec.inputs.keys() or spec.targets.keys() - {"scale"} != {"future"}:
        raise DataError("spec.json: holds no columns of a series")
    lists = [kept.get(key) for key in ("targets", "features")] + [kept.get(key, []) for key in ("known_future", "calendar")]
    texts = [kept.get("time", ""), kept.get("id", "")]
    if not all(isinstance(found, list) and all(isinstance(name, str) for name in found) for found in lists):
        raise DataError("spec.json: holds no columns of a series")
    if not all(isinstance(text, str) for text in texts) or not isinstance(kept.get("columns", {}), dict):
        raise DataError("spec.json: holds no columns of a series")
    scales = spec.fitted.get("scales", {})
    sound = isinstance(scales, dict) and all(isinstance(scale, int | float) for scale in scales.values())
    if not sound or set(kept.get("calendar", ())) - set(get_args(Calendar)):
        raise DataError("spec.json: holds no columns of a series")
    return kept


def known_columns(spec: DataSpec) -> int:
    """Return how many of the last columns of a window are known in advance."""
    kept = spec.fitted.get("series")
    if not isinstance(kept, dict):
        return 0
    return 2 * (len(kept.get("known_future", ())) + 2 * len(kept.get("calendar", ())))


def dataset_like(panel: Panel, spec: DataSpec, source: str) -> Dataset:
    """Return all windows of series, as those of a run, in each split.

    Raises:
        DataError: No series is long enough.
    """
    (window, features), (horizon,) = spec.inputs["window"].shape, spec.targets["future"].shape
    assert window is not None
    assert horizon is not None
    scales = spec.fitted.get("scales", {})
    pieces = [
        (
            windows_of(one.values, window, window, len(one.ids) - horizon + 1),
            futures_of(one.values, horizon, window, len(one.ids) - horizon + 1),
            np.char.add(f"{one.key} ", one.ids)[window : len(one.ids) - horizon + 1]
            if one.key
            else one.ids[window : len(one.ids) - horizon + 1],
            np.full((len(one.ids) - horizon + 1 - window, 1), float(scales.get(one.key, 0.0))),
        )
        for one in (with_known(one, horizon) for one in panel.series)
        if len(one.ids) >= window + horizon and one.values.shape[1] == features
    ]
    if not pieces:
        rows = max(len(one.ids) for one in panel.series)
        raise DataError(f"{source}: must have {window + horizon} rows of {features} columns. Received: {rows} rows")
    inputs, targets, ids, scale = (of[0] if len(of) == 1 else np.concatenate(of) for of in zip(*pieces, strict=True))
    columns = {"window": inputs, "future": targets}
    split = Split({**columns, "scale": scale} if "scale" in spec.targets else columns, ids)
    return Dataset(spec, split, split, split, source, "all rows")


def windows_of(values: np.ndarray, window: int, first: int, stop: int) -> np.ndarray:
    """Return the windows before the rows from `first` to `stop` as a view (samples, window, features)."""
    views = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)
    return views[first - window : stop - window].transpose(0, 2, 1)


def futures_of(values: np.ndarray, horizon: int, first: int, stop: int) -> np.ndarray:
    """Return the targets of the rows from `first` to `stop` on as a view (samples, horizon)."""
    return np.lib.stride_tricks.sliding_window_view(values[:, 0], horizon)[first:stop]
