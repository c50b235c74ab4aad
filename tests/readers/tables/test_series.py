"""Files of series as people have them: what is read, what is said, what is refused."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from dlframe.readers.tables.files import Options
from dlframe.readers.tables.series import Panel, dataset_of, futures_of, read_panel, step_of, windows_of
from dlframe.types import DataError

FILES = Path(__file__).parent / "series"
READING = {"separator", "encoding", "decimal", "thousands", "skip", "header", "missing", "kinds", "formats"}


def panel_of(name: str, **given) -> Panel:
    file = next(FILES.glob(f"{name}.*"))
    options = Options(**{key: value for key, value in given.items() if key in READING})
    return read_panel(file, options, **{key: value for key, value in given.items() if key not in READING})


DAYS = np.datetime64("2024-01-01") + np.arange(400)
HOURS = np.datetime64("2024-01-01T00") + np.arange(400)

DAILY = (40, "2024-01-02", "2024-02-26", 3722.63)
"""Rows, first and last day, and the sum of the values; sums were computed apart, as the files were written."""

READ = {
    "blank-after-comma": ({}, DAILY, ""),
    "day-first-clear": ({}, DAILY, ""),
    "day-first-every-day-below-13": (
        {},
        (48, "2020-01-01", "2023-12-01", 4938.87),
        "'Date' is read as day/month/year, in which it is in order",
    ),
    "dollar-close-last": ({"target": ["Close/Last"]}, DAILY, "'Close/Last': $ at every number"),
    "dot-thousands-crossing": ({"thousands": "."}, (40, "2024-01-02", "2024-02-26", 40652), ""),
    "european-semicolon-bom": (
        {"decimal": ",", "target": ["Schlusskurs"]},
        (40, "2024-01-02", "2024-02-26", 646302.85),
        "fields are separated by semicolons",
    ),
    "fred-dot-missing": (
        {"on_missing": "drop"},
        (37, "2024-01-03", "2024-02-26", 3438.67),
        "3 of 40 values of DGS10 are missing: left out, first in line 2",
    ),
    "holidays-and-a-gap": (
        {},
        (47, "2024-01-02", "2024-03-25", 4394.27),
        "no rows from 2024-03-01 to 2024-03-15 (11 weekdays)",
    ),
    "hourly": ({}, (72, "2024-03-01T00:00:00", "2024-03-03T23:00:00", 7371.33), ""),
    "integer-index": ({"time": "t"}, (40, "1", "40", 3722.63), ""),
    "last-row-empty": ({}, (39, "2024-01-02", "2024-02-23", 3637.25), "line 41: Close is empty; the last row is left out"),
    "month-end": ({}, (36, "2021-01-31", "2023-12-31", 3730.72), ""),
    "months-by-name": ({}, (36, "2021-01-01", "2023-12-01", 3730.72), ""),
    "nine-rows": ({}, (9, "2024-01-02", "2024-01-12", 891.35), ""),
    "null-rows-in-the-middle": (
        {"on_missing": "drop"},
        (38, "2024-01-02", "2024-02-26", 3538.54),
        "2 of 40 values of Close are missing: left out, first in line 22",
    ),
    "parquet": ({}, DAILY, ""),
    "preamble-line": ({}, DAILY, "line 1 has 1 field and is skipped: 'Data from a site of charts'"),
    "slashes-year-first": ({}, DAILY, ""),
    "split-unadjusted-close": (
        {},
        (40, "2024-01-02", "2024-02-26", 10984.34),
        "Close falls from 364.68 to 91 on 2024-02-06, by the factor 4.007 (a split that is not adjusted?); "
        "'Adj Close' may be adjusted: data.target=Adj Close",
    ),
    "thousands-quoted": ({"thousands": ","}, (40, "2024-01-02", "2024-02-26", 39853.29), ""),
    "trailing-comma": ({}, DAILY, "every row ends with 1 empty field beyond the header"),
    "two-digit-years": ({}, (60, "1966-01-03", "1970-11-08", 5657.82), "'Date': years of two digits are read as 1966 to 1970"),
    "unnamed-index": ({}, DAILY, ""),
    "utf16-tab": ({}, DAILY, "encoding utf-16-le, as its byte order mark says"),
    "windows-1252-euro": ({"encoding": "cp1252", "target": ["Close (€)"]}, DAILY, ""),
    "year-month": ({}, (36, "2021-01-01", "2023-12-01", 3730.72), ""),
    "yf-three-header-rows": ({}, DAILY, "3 header rows of ZZA"),
    "yf-tz-midnight-dst": (
        {},
        (40, "2024-02-20", "2024-04-15", 3722.63),
        "'Date': times are midnights with an offset from UTC: read as local days",
    ),
    "zip-of-one-csv": ({}, DAILY, "read data.csv of the archive"),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_and_what_was_assumed_is_said(name):
    options, (rows, first, last, total), note = READ[name]
    panel = panel_of(name, **options)
    (series,) = panel.series
    assert (len(series.ids), series.ids[0], series.ids[-1]) == (rows, first, last)
    assert series.values[:, 0].sum() == pytest.approx(total, abs=1e-6)
    if note:
        assert note in panel.notes
    elif not options:
        assert panel.notes in ([], [f"the series is '{panel.features[0]}', the only column of numbers"])


REFUSED = {
    "blank-and-total-rows": ["line 45: ", "'Total'"],
    "day-with-a-tail": ["line 7: ", "'2024-01-097'"],
    "dot-thousands-crossing": ["from 999 to 1.001 on 2024-01-08", "data.thousands=."],
    "fred-dot-missing": ["line 2: ", "'.' and 2 more", "data.missing=[.]"],
    "header-only": ["has a header and no rows"],
    "last-day-twice": ["line 42: ", "occurs twice, first in line 41", "2024-02-26"],
    "null-rows-in-the-middle": ["line 22: ", "'Close'", "'null' and 1 more", "data.missing="],
    "thousands-quoted": ["line 2: ", "'1,016.90'", "data.thousands=,"],
    "thousands-unquoted": ["line 2: ", "has 3 fields under 2 names"],
    "two-columns-one-name": ["'Close' occurs twice, in columns 2 and 3"],
    "two-columns-one-name-case": ["'close' and 'Close'", "in columns 2 and 4"],
    "windows-1252-euro": ["line 1: ", "must be UTF-8", "Close (\\\\x80)", "data.encoding=cp1252"],
    "long-two-series": ["line 42: ", "occurs twice", "data.id=unique_id"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_with_its_line_and_the_way_out(name):
    with pytest.raises(DataError) as error:
        panel_of(name)
    assert [text for text in REFUSED[name] if text not in str(error.value)] == []


def test_an_index_of_days_that_pandas_stored_is_the_time(tmp_path):
    days = pandas.date_range("2024-01-01", periods=5)
    pandas.DataFrame({"v": range(5)}, index=days).to_parquet(tmp_path / "a.parquet")
    assert read_panel(tmp_path / "a.parquet").series[0].ids.tolist() == days.strftime("%Y-%m-%d").tolist()


def test_several_series_of_one_file():
    panel = panel_of("long-two-series", id="unique_id", time="ds", target=["y"])
    found = {series.key: (len(series.ids), series.ids[0], round(float(series.values.sum()), 6)) for series in panel.series}
    assert found == {"A": (40, "2024-01-02", 3722.63), "B": (30, "2024-01-16", 1465.57)}
    dataset = dataset_of(panel, "two", 3, 1, "here")
    # Targets of both series are before the instant at which validation begins.
    days = [max(name.split()[1] for name in split.ids) for split in (dataset.train, dataset.validation, dataset.test)]
    starts = [min(name.split()[1] for name in split.ids) for split in (dataset.validation, dataset.test)]
    assert days[0] < starts[0] <= days[1] < starts[1]
    assert set(dataset.test.groups) == {"block 1", "block 2"}  # of both series: they depend on each other at one time


def test_columns_that_are_a_series_each(tmp_path):
    file = tmp_path / "wide.csv"
    file.write_text("day,a,b\n" + "".join(f"2024-01-{day:02d},{day},{100 * day}\n" for day in range(1, 29)))
    panel = read_panel(file, target=["a", "b"])
    assert [(series.key, series.values[-1, 0]) for series in panel.series] == [("a", 28), ("b", 2800)]


def test_a_missing_value_takes_the_one_before_if_told(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("day,a,note\n2024-01-01,1,x\n2024-01-02,,x\n2024-01-03,3,x\n")
    with pytest.raises(DataError, match=r"a.csv, line 3: 'a' must have a value in each row. .*data.on_missing=drop"):
        read_panel(file, target=["a"])
    panel = read_panel(file, target=["a"], on_missing="previous")
    assert panel.series[0].values[:, 0].tolist() == [1, 1, 3]
    assert panel.notes == ["1 missing value of a is replaced by the one before, first in line 3"]


@pytest.mark.parametrize(
    ("header", "rows", "options", "ids"),
    [
        ("t", ["1700000000", "1700003600"], {"formats": ("t:unix",)}, ["2023-11-14T22:13:20", "2023-11-14T23:13:20"]),
        (
            "t",
            ["1700000000000", "1700000000500"],
            {"formats": ("t:unix_ms",)},
            ["2023-11-14T22:13:20.000000", "2023-11-14T22:13:20.500000"],
        ),
        ("t", ["45292", "45293"], {"formats": ("t:excel",)}, ["2024-01-01", "2024-01-02"]),
        ("t", ["20240131", "20240201"], {"formats": ("t:%Y%m%d",)}, ["2024-01-31", "2024-02-01"]),
        ("time", ["2024-03-31T02:30:00+02:00", "2024-03-31T00:45:00Z"], {}, ["2024-03-31T00:30:00", "2024-03-31T00:45:00"]),
        ("time", ["3/31/2024 1:05 PM", "3/31/2024 12:05 PM"], {}, ["2024-03-31T12:05:00", "2024-03-31T13:05:00"]),
    ],
)
def test_clocks(tmp_path, header, rows, options, ids):
    file = tmp_path / "clock.csv"
    file.write_text(f"{header},v\n" + "".join(f"{row},{i}\n" for i, row in enumerate(rows)))
    panel = read_panel(file, Options(**options), time=header, target=["v"])
    assert panel.series[0].ids.tolist() == ids


@pytest.mark.parametrize("values", [["1700000000", "1700003600"], ["45292", "45293"], ["20240131", "20240201"]])
def test_numbers_that_may_be_times_are_refused_with_the_units(tmp_path, values):
    file = tmp_path / "clock.csv"
    file.write_text("time,v\n" + "".join(f"{value},1\n" for value in values))
    with pytest.raises(DataError, match=r"may be times. Say their unit: data.formats=\[time:unix\]"):
        read_panel(file, target=["v"])


@pytest.mark.parametrize(
    ("times", "notes", "step"),
    [
        (
            DAYS[[*range(20), *range(26, 160, 7)]],
            ["the step changes from 1 day to 7 days about 2024-01-20"],
            "a row every 7 days",
        ),
        # Twelve days, and then the hours of a day.
        (
            np.concatenate([HOURS[: 12 * 24 : 24], HOURS[12 * 24 : 13 * 24]]),
            ["the step changes from 1 day to 1 hour about 2024-01-13T00:00:00"],
            "one row per hour",
        ),
        (
            HOURS[[*range(50), *range(80, 130)]],
            ["no rows between 2024-01-03T01:00:00 and 2024-01-04T08:00:00 (30 steps)"],
            "one row per hour",
        ),
        # Hours in which nothing is traded are no gap.
        (HOURS[[24 * day + hour for day in range(9) for hour in range(9, 17)]], [], "one row per hour"),
        (HOURS[np.cumsum(np.arange(60) % 7 + 1)], [], "irregular steps, 1 hour to 7 hours"),
    ],
)
def test_gaps_and_changes_of_the_step_are_said(tmp_path, times, notes, step):
    file = tmp_path / "steps.csv"
    file.write_text("date,v\n" + "".join(f"{time},{5 + i % 3}\n" for i, time in enumerate(times)))
    panel = read_panel(file, target=["v"])
    assert panel.notes == notes
    assert step_of(panel.series[0]) == step


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("hourly", "one row per hour"),
        ("month-end", "one row per month"),
        ("holidays-and-a-gap", "one row per weekday"),
        ("two-digit-years", "a row every 30 days"),
        ("integer-index", ""),
    ],
)
def test_the_step_in_words(name, step):
    assert step_of(panel_of(name, time="t" if name == "integer-index" else None).series[0]) == step


def test_windows_are_views_and_hold_what_a_loop_copies():
    values = np.arange(60.0).reshape(30, 2)
    windows, futures = windows_of(values, 4, 5, 9), futures_of(values, 3, 5, 9)
    assert np.shares_memory(windows, values)
    assert np.shares_memory(futures, values)
    for i, row in enumerate(range(5, 9)):
        assert (windows[i] == values[row - 4 : row]).all()
        assert (futures[i] == values[row : row + 3, 0]).all()


def test_many_series_are_units_of_their_own(tmp_path):
    """Of ten series, whole ones are resampled; and what is odd in many is told of the first few."""
    lines = [f"2024-01-{day:02},{name},{day}" for name in "abcdefghij" for day in range(30, 0, -1) if name > "a" or day > 5]
    (tmp_path / "many.csv").write_text("\n".join(["day,id,y", *(line if ",20" not in line else line[:-2] for line in lines)]))
    panel = read_panel(tmp_path / "many.csv", id="id", target=["y"], on_missing="previous")
    assert sum("replaced by the one before" in note for note in panel.notes) <= 6
    assert any(note.endswith("more notes on single series") for note in panel.notes)
    dataset = dataset_of(panel, "many", 3, 1, "here", season=7)
    assert set(dataset.test.groups) == set("abcdefghij")
    assert dataset.spec.fitted["scales"]["b"] == pytest.approx((13 * 7 + 6) / 14)  # of days 1 to 21
    assert dataset.spec.fitted["season"] == 7
