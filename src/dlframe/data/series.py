"""Time series of the user."""

from __future__ import annotations

from typing import Literal

from dlframe.readers.tables.files import Options
from dlframe.readers.tables.series import dataset_like, dataset_of, kept_of, name_of, read_panel, step_of
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
    features: tuple[str, ...] = (),
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
        features: Further columns of the windows.
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
    panel = read_panel(file, options, time=time, target=targets, features=features, id=id, on_missing=on_missing, known=known)
    if spec:
        dataset = dataset_like(panel, spec, str(file))
    else:
        dataset = dataset_of(panel, name_of(file, "series"), window, horizon, str(file))
    rows = sum(len(one.ids) for one in panel.series)
    found = ", ".join(
        filter(
            None,
            (
                f"{', '.join(panel.kept['targets'])} by {panel.kept['time'] or 'row'}",
                f"{rows:,} rows",
                step_of(panel.series[0]),
            ),
        )
    )
    for note in (found, *panel.notes):
        say(f"series: {note}", error=True)
    return dataset
