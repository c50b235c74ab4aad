"""Time series of the user, from the file to a forecast."""

from pathlib import Path

import numpy as np
import pytest

import dlframe
from dlframe.cli import main
from dlframe.data.series import series
from dlframe.data.stocks import sp500
from dlframe.types import DataError

FILES = Path(__file__).parent.parent / "readers" / "tables" / "series"


def test_windows_end_before_their_targets_and_splits_are_periods(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("t,noise,v\n" + "".join(f"{i},{i % 7},{100 + i}\n" for i in range(100)))
    dataset = series(path=str(file), time="t", target="v", past=("noise",), window=7, horizon=3)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [61, 8, 18]
    for split in (dataset.train, dataset.validation, dataset.test):
        first = split.ids.astype(int)
        assert (split["future"] == 100 + first[:, None] + np.arange(3)).all()
        assert (split["window"][:, :, 0] == 100 + first[:, None] + np.arange(-7, 0)).all()
        assert (split["window"][:, :, 1] == (first[:, None] + np.arange(-7, 0)) % 7).all()
    assert dataset.spec.inputs["window"].names == ("v", "noise")


def test_a_window_of_a_series_is_no_copy():
    dataset = series(path=str(FILES / "holidays-and-a-gap.csv"), window=5)
    assert dataset.train["window"].strides[:2] == (8, 8)
    assert dataset.test["window"].strides[:2] == (8, 8)


def test_the_fingerprint_holds_the_dates(tmp_path):
    text = (FILES / "trailing-comma.csv").read_text()
    prints = set()
    for year in ("2024", "2023", "2024"):
        (tmp_path / "a.csv").write_text(text.replace("2024-", f"{year}-"))
        prints.add(series(path=str(tmp_path / "a.csv"), window=3).fingerprint)
    assert len(prints) == 2


def test_what_was_found_and_assumed_is_said(capsys):
    series(path=str(FILES / "split-unadjusted-close.csv"), window=5)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "series: Close by Date, 40 rows, one row per weekday, season of 5 rows"
    assert said[1].startswith("series: Close falls from 364.68 to 91 on 2024-02-06")
    series(path=str(FILES / "nine-rows.csv"), window=5)
    assert "series: 2 test windows: an interval from them means little" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hourly", {"target": "price"}, "data.target must name a column. Received: 'price'. Choose from: Close, Date."),
        ("hourly", {"window": 70}, "hourly: 72 rows are too few for data.window=70 and data.horizon=1"),
        ("split-unadjusted-close", {"target": "Close", "id": "symbol"}, "data.id must name a column. Received: 'symbol'."),
        (
            "dollar-close-last",
            {},
            "must have one column of numbers, or say which is the series: data.target=COLUMN. Received: Close/Last,",
        ),
    ],
)
def test_what_is_refused(name, options, message):
    with pytest.raises(DataError) as error:
        series(path=str(FILES / f"{name}.csv"), **options)
    assert message in str(error.value)


def test_a_run_forecasts_each_series_of_a_file(tmp_path, monkeypatch, capsys):
    """No word on the task; the prediction of a series is that of the same window alone."""
    monkeypatch.chdir(tmp_path)
    file = FILES / "long-two-series.csv"
    options = ["data.id=unique_id", "data.time=ds", "data.target=y", "data.window=4", "epochs=1", "tracking=none"]
    assert main(["data=series", f"data.path={file}", *options]) == 0
    (folder,) = Path("runs").iterdir()
    model = dlframe.load(folder)
    found = model.predict(str(file))
    assert found["input"] == [f"{file} of A to 2024-02-26", f"{file} of B to 2024-02-26"]
    values = [float(line.split(",")[2]) for line in file.read_text().splitlines() if line.startswith("B,")]
    alone = model.predict(np.array(values[-4:])[None, :, None])
    np.testing.assert_allclose(found["prediction"][1], alone["prediction"][0])
    capsys.readouterr()
    Path("new.csv").write_text("unique_id,ds,y\n" + "".join(f"C,2024-03-0{day},{day}\n" for day in range(1, 4)))
    assert main(["predict", str(folder), "new.csv"]) == 2
    assert "new.csv must have at least 4 rows of C. Received: 3." in capsys.readouterr().err


def test_prices_of_an_index_are_read_the_same_way(capsys):
    file = str(FILES / "yf-three-header-rows.csv")
    one, other = sp500(path=file, window=5), series(path=file, window=5)
    assert one.fingerprint == other.fingerprint
    assert "sp500: 3 header rows of ZZA" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"data.decimal=,.* The options are those of data=series\."):
        sp500(path=str(FILES / "thousands-quoted.csv"), window=5)


def test_a_run_is_scored_on_another_series(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, other = FILES / "holidays-and-a-gap.csv", FILES / "trailing-comma.csv"
    assert main(["data=series", f"data.path={first}", "data.window=5", "epochs=1", "tracking=none"]) == 0
    (folder,) = Path("runs").iterdir()
    capsys.readouterr()
    assert main(["test", str(folder), f"data.path={other}"]) == 0
    said = capsys.readouterr().out
    values = np.array([float(line.split(",")[1]) for line in other.read_text().splitlines()[1:]])
    naive = np.sqrt(np.mean((values[5:] - values[4:-1]) ** 2))
    assert "35 samples, all scored" in said
    assert f"naive forecast {naive:.4g}" in said
