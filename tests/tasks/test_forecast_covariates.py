"""Columns beside the series: known in advance, past ones, and parts of the time; and that nothing of the future leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import dlframe
from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.readers.tables.series import following
from dlframe.registry import data, plugins
from dlframe.types import ConfigError, DataError, Dataset, Result

plugins.discover()
ROWS = 240


def written(folder: Path, *, rows: int = ROWS, change: int = 0, more: int = 0, **columns: np.ndarray) -> Path:
    """A walk that jumps by 5 on the days of a promotion; a noise beside it; from row `change` on, all values are others."""
    random = np.random.default_rng(0)
    promotion = (random.random(rows + more) < 0.3).astype(float)
    noise = random.normal(size=rows + more)
    y = 100 + random.normal(size=rows + more).cumsum() / 10 + 5 * promotion
    for values in (y, noise, promotion):
        if change:
            values[change:] = values[change:][::-1] * 3 + 7
    days = np.datetime64("2020-01-01") + np.arange(rows + more)
    folder.mkdir(exist_ok=True)
    lines = [f"{day},{y[i] if i < rows else ''},{noise[i] if i < rows else ''},{promotion[i]}" for i, day in enumerate(days)]
    file = folder / "days.csv"
    file.write_text("\n".join(["day,y,noise,promotion", *lines]) + "\n")
    return file


def read(file: Path, **options) -> Dataset:
    return data.build({"name": "series", "path": str(file), "window": 10, "horizon": 3, **options})


def test_columns_of_a_window(tmp_path):
    """A column that is known in advance is there twice: as it is, and as it is a horizon later."""
    dataset = read(written(tmp_path), past=("noise",), known_future=("promotion",), calendar=("weekday",))
    names = ("promotion", "sine of weekday", "cosine of weekday")
    field = dataset.spec.inputs["window"]
    assert field.names == ("y", "noise", *names, *(f"{name} ahead" for name in names))
    plain = read(written(tmp_path))
    windows, futures = dataset.train["window"], dataset.train["future"]
    assert np.array_equal(windows[:, :, :1], plain.train["window"])
    assert np.array_equal(futures, plain.train["future"])
    assert np.array_equal(windows[3:, :, 2], windows[:-3, :, 5])
    mondays = windows[:, :, 3:5][np.isclose(windows[:, :, 4], 1)]
    assert len(mondays) > 20
    assert field.mean[2:5] == field.mean[5:8]
    assert dataset.spec.fitted["season"] == 7


def trained(file: Path, model: str, *options: str) -> tuple[Result, np.ndarray]:
    """Result and forecasts of a short training."""
    result = run(
        load(
            [
                "task=forecasting",
                f"model={model}",
                "data=series",
                f"data.path={file}",
                "data.window=10",
                "data.horizon=3",
                *("tracking=none", "figures=none", f"runs={file.parent}", "epochs=2"),
                *options,
            ]
        )
    )
    assert result.folder
    table = pyarrow.parquet.read_table(result.folder / "predictions.parquet")
    return result, np.array(table["prediction"].to_pylist())


COLUMNS = ("data.past=[noise]", "data.known_future=[promotion]", "data.calendar=[weekday]")


@pytest.mark.parametrize("model", ["tcn", "lstm"])
def test_no_value_of_the_test_part_reaches_training_or_an_earlier_forecast(tmp_path, model):
    """All values from a row on are others: forecasts with an origin before it, less what is known in advance, are the same."""
    _, expected = trained(written(tmp_path / "a"), model, *COLUMNS)
    changed = ROWS - 20  # within the test part, which begins at row 192
    _, found = trained(written(tmp_path / "b", change=changed), model, *COLUMNS)
    before = changed - 192 - 2  # windows whose targets are all before the change
    assert len(expected) == 48 - 2
    assert np.array_equal(found[:before], expected[:before])
    assert not np.isclose(found[-10:], expected[-10:]).any()


def test_what_is_known_in_advance_helps(tmp_path):
    file = written(tmp_path)
    options = ("epochs=40", "optimizer.lr=0.01")
    without, _ = trained(file, "dlinear", *options)
    with_it, _ = trained(file, "dlinear", "data.known_future=[promotion]", *options)
    assert with_it.metrics["rmse"] < 0.6 * without.metrics["rmse"]
    past, _ = trained(file, "dlinear", "data.past=[promotion]", *options)
    assert past.metrics["rmse"] > 0.8 * without.metrics["rmse"]


def test_the_next_steps_are_predicted_from_rows_without_a_target(tmp_path):
    result, _ = trained(
        written(tmp_path), "dlinear", "data.known_future=[promotion]", "data.calendar=[weekday]", "task.output=quantile"
    )
    model = dlframe.load(result.folder)
    found = model.predict(written(tmp_path / "next", more=3))
    assert found["input"][0].endswith("to 2020-08-27")
    assert found["low"].shape == (1, 3)
    assert (found["low"] <= found["prediction"]).all()
    assert (found["prediction"] <= found["high"]).all()
    with pytest.raises(DataError, match=r"must have promotion of the 3 rows after the last value: .* Received: 2"):
        model.predict(written(tmp_path / "few", more=2))


def test_the_calendar_goes_on_by_itself(tmp_path):
    result, _ = trained(written(tmp_path), "dlinear", "data.calendar=[weekday,month]")
    assert dlframe.load(result.folder).predict(tmp_path / "days.csv")["prediction"].shape == (1, 3)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (["2020-01-31", "2020-02-29", "2020-03-31"], None),
        (["2020-11-01", "2020-12-01", "2021-01-01"], ["2021-02-01", "2021-03-01"]),
        (["2019-07-01", "2019-10-01", "2020-01-01"], ["2020-04-01", "2020-07-01"]),
        (["2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09", "2020-01-10", "2020-01-13", "2020-01-17"],
         ["2020-01-20", "2020-01-21"]),
        (["2020-02-26", "2020-02-27", "2020-02-28"], ["2020-02-29", "2020-03-01"]),
        (["2020-02-15", "2020-02-22"], ["2020-02-29", "2020-03-07"]),
    ],
)  # fmt: skip
def test_the_times_that_follow(days, expected):
    times = np.array(days, "datetime64[us]").astype(np.int64)
    found = following(times, 2).astype("datetime64[us]").astype("datetime64[D]").astype(str).tolist()
    if expected:
        assert found == expected
    else:
        assert [day[:7] for day in found] == ["2020-04", "2020-05"] or found[0] > days[-1]


def test_models_that_take_the_series_alone(tmp_path):
    file = written(tmp_path)
    for model in ("patch_tst", "seasonal_naive"):
        with pytest.raises(ConfigError, match=r"takes the series alone. Received: 3 columns"):
            trained(file, model, "data.known_future=[promotion]")


def test_columns_that_are_wrong(tmp_path):
    file = written(tmp_path)
    with pytest.raises(DataError, match=r"^data.known_future: must not be the target or in data.past. Received: noise$"):
        read(file, past=("noise",), known_future=("noise",))
    with pytest.raises(DataError, match=r"data.known_future must name a column. Received: 'promotoin'.*'promotion'"):
        read(file, known_future=("promotoin",))
    with pytest.raises(DataError, match=r"^data.window: must be at least data.horizon, 3, with columns that are known"):
        read(file, known_future=("promotion",), window=2)
    lines = file.read_text().splitlines()
    lines[50] = ",".join([*lines[50].split(",")[:3], ""])
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 51: 'promotion' is known in advance and must have a value in each row"):
        read(file, known_future=("promotion",))
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join(["y", *map(str, range(100))]))
    with pytest.raises(DataError, match=r"^data.calendar: requires a column of dates. Received: none"):
        read(rows, calendar=("month",))
