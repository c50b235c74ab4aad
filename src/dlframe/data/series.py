"""Time series of the user."""

from __future__ import annotations

from typing import Literal

from dlframe.readers.tables.files import Options
from dlframe.readers.tables.series import dataset_like, dataset_of, kept_of, name_of, read_panel, season_of, step_of
from dlframe.registry import Count, Natural, data
from dlframe.storage.fetch import expanded
from dlframe.types import Dataset, DataSpec, say


@data.register("series", inputs=("series",), targets=("value",), files=("path",), tasks={"value": "forecasting"})
def series(
    *,
    path: str,
    window: Count = 60,
    horizon: Count = 1,
    target: str | None = None,
    wide: tuple[str, ...] = (),
    time: str | None = None,
    id: str | None = None,  # noqa: A002  # the name of the option
    past: tuple[str, ...] = (),
    known_future: tuple[str, ...] = (),
    calendar: tuple[Literal["month", "day", "weekday", "hour"], ...] = (),
    season: Count | None = None,
    fold: Natural = 0,
    on_missing: Literal["raise", "drop", "previous"] = "raise",
    kinds: tuple[str, ...] = (),
    formats: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    decimal: str = ".",
    thousands: str = "",
    separator: str = "auto",
    encoding: str = "auto",
    header: Natural | None = None,
    skip: Natural = 0,
    spec: DataSpec | None = None,
) -> Dataset:
    """Time series of a CSV, TSV, JSON lines or Parquet file, also in .gz or .zip.

    Rows are sorted by time. Duplicates are refused; gaps, a change of the step and jumps are reported. The windows are split
    by the time of their targets, 70/10/20; inputs may start before the period, as in use.

    Args:
        path: The file.
        window: Rows of an input.
        horizon: Rows of a forecast.
        target: Column to forecast; null for close, y, value or target, or the only number.
        wide: Columns that are a series each, in place of `target`.
        time: Column of times; null for the only one of dates or one of a usual name, such as date.
        id: Column that names the series of each row, of a file with several.
        past: Further columns of the windows, whose later values are not known.
        known_future: Columns that are known in advance, such as holidays or planned prices: a window has them for its own rows
            and for those that are forecast. After the last target, rows may have them alone, for `predict`.
        calendar: Parts of the time that are columns known in advance: month, day (of the month), weekday, hour.
        season: Rows of a season, for MASE and seasonal models; null for that of the usual step (month 12, quarter 4, week 52,
            weekday 5, day 7, hour 24, minute 60, else 1).
        fold: Rolling origin: 0 tests on the last fifth of the rows, 1 on the fifth before it, trained on what comes before,
            and so on. A grid over it is a backtest.
        on_missing: Action on a missing value: raise, drop the row, or take the previous value.
        kinds: Kinds of columns as COLUMN:KIND: number, date, category, identifier, text.
        formats: Formats of dates as COLUMN:FORMAT, such as day:%d/%m/%Y; also unix, unix_ms, excel.
        missing: Texts that mean a missing value, such as ?, of all columns, or of one as COLUMN:TEXT.
        decimal: Decimal mark.
        thousands: Mark between thousands.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.
        header: Lines of the header; 0 for none, null decides by the first lines.
        skip: Lines above the header.
        spec: Specification of a run whose model is scored on the series of this file: all windows are the test set.
    """
    options = Options(
        separator=separator,
        encoding=encoding,
        skip=skip,
        header=header,
        decimal=decimal,
        thousands=thousands,
        missing=missing,
        kinds=kinds,
        formats=formats,
    )
    file = expanded(path)
    targets = wide or ((target,) if target else ())
    known = kept_of(spec) if spec else None
    panel = read_panel(
        file,
        options,
        time=time,
        target=targets,
        features=past,
        id=id,
        known_future=known_future,
        calendar=calendar,
        horizon=spec.targets["future"].shape[0] or 0 if spec else horizon,
        on_missing=on_missing,
        known=known,
    )
    rows_of_season = season_of(panel, season)
    if spec:
        dataset = dataset_like(panel, spec, str(file))
    else:
        dataset = dataset_of(panel, name_of(file, "series"), window, horizon, str(file), season=rows_of_season, fold=fold)
    rows = sum(len(one.ids) for one in panel.series)
    found = ", ".join(
        filter(
            None,
            (
                f"{', '.join(panel.kept['targets'])} by {panel.kept['time'] or 'row'}",
                f"{rows:,} rows",
                step_of(panel.series[0]),
                f"season of {rows_of_season} rows" if rows_of_season > 1 and not spec else "",
            ),
        )
    )
    for note in (found, *panel.notes):
        say(f"series: {note}", error=True)
    return dataset
