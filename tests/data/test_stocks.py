"""The real series where the package can be had, and files of the user."""

import numpy as np
import pytest

from dlframe.data.stocks import nasdaq, sp500
from dlframe.types import DataError


def real(load, **options):
    try:
        return load(**options)
    except DataError as error:
        pytest.skip(str(error))


def lines(days: int, *, header: str = "Date,Close", start: str = "2020-01-01") -> str:
    dates = np.datetime64(start) + np.arange(days)
    return "\n".join([header, *(f"{day},{100 + i}" for i, day in enumerate(dates))])


@pytest.mark.parametrize(("load", "rmse", "mape"), [(sp500, 19.98, 0.586), (nasdaq, 61.98, 0.720)])
def test_last_value_gives_the_known_error(load, rmse, mape):
    test = real(load).test
    last, truth = test["window"][:, -1, :1].astype(float), test["future"].astype(float)
    assert len(test) == 1007
    assert round(np.sqrt(np.mean((last - truth) ** 2)), 2) == rmse
    assert round(100 * np.mean(np.abs((last - truth) / truth)), 3) == mape


def test_series_as_it_is():
    dataset = real(sp500, window=30, horizon=5, features="ohlcv")
    assert dataset.spec.shape == (30, 5)
    assert dataset.spec.horizon == 5
    assert (dataset.source, dataset.splits) == ("pip arch, 1999-01-04 to 2018-12-31", "chronological 70/10/20")
    first = dataset.train["window"][0, 0]
    np.testing.assert_allclose(first, [1228.099976, 1229.22998, 1248.810059, 1219.099976, 877e6], rtol=1e-7)
    close, opening, high, low, volume = np.moveaxis(dataset.test["window"], 2, 0)
    assert (high >= np.maximum(opening, close)).all()
    assert (low <= np.minimum(opening, close)).all()
    assert volume.min() > 1e8
    assert dataset.test["future"][-1, -1] == 2506.850098
    assert {a.dtype for s in (dataset.train, dataset.test) for a in (s["window"], s["future"])} == {np.dtype("float64")}


def test_no_day_is_a_target_of_two_splits(tmp_path):
    path = tmp_path / "a = 'ü.csv"
    path.write_text(lines(100))
    dataset = sp500(path=str(path), window=7, horizon=3)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [61, 8, 18]
    ends = []
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split["window"][:, -1, 0] + 1 == split["future"][:, 0]).all()
        assert (np.diff(split["window"][:, :, 0]) == 1).all()
        assert (np.diff(split["future"]) == 1).all()
        ends += [split["future"].min(), split["future"].max()]
        days = (np.array(split.ids, "datetime64[D]") - np.datetime64("2020-01-01")).astype(int)
        assert (days + 100 == split["future"][:, 0]).all()
    assert ends == [107, 169, 170, 179, 180, 199]
    assert dataset.spec.input.mean == (np.arange(100, 170).mean(),)
    assert dataset.spec.input.std == (np.arange(100, 170).std(),)


def test_order_and_form_of_the_file_do_not_matter(tmp_path):
    ordered, turned = tmp_path / "a.csv", tmp_path / "b.csv"
    ordered.write_text(lines(60))
    header, *rows = lines(60, header=" close,DATE").splitlines()
    rows = [",".join(reversed(row.split(","))) for row in rows]
    turned.write_text("\n".join([header, *reversed(rows)]))
    assert sp500(path=str(ordered), window=5).fingerprint == sp500(path=str(turned), window=5).fingerprint


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "{path}: is empty: it has no header and no rows"),
        (
            "Date,Clos\n",
            {},
            "{path}: data.target must name a column. Received: 'close'. Did you mean 'Clos'? The options are those of "
            "data=series.",
        ),
        ("Date,Close\n2020-01-01,x\n", {}, "{path}, line 2: 'Close' must be a number. Received: 'x'. "),
        ("Date,Close\n2020-01-01,nan\n", {}, "{path}, line 2: 'Close' must be a number. Received: 'nan'. "),
        ("Date,Close\n2020-01-01\n", {}, "{path}, line 2: has 1 field under 2 names (Date, Close). Received: '2020-01-01'"),
        (
            "Date,Close\n2020-01-01,1\n1/1/2020,2\n",
            {},
            "{path}, line 3: 'Date' must be a date in one format (year-month-day), as 1 other values are. Received: "
            "'1/1/2020'.",
        ),
        ("Date,Close\n2020-01-01,1\n2020-01-01,2\n", {}, "{path}, line 3: times must be unique, and this one occurs twice, "),
        (
            lines(100),
            {"window": 70},
            "prices: 100 rows are too few for data.window=70 and data.horizon=1: a split has 70 of the 71 that it needs",
        ),
        (
            lines(100),
            {"window": 5, "horizon": 11},
            "prices: 100 rows are too few for data.window=5 and data.horizon=11: a split has 10 of the 11 that it needs",
        ),
        (
            lines(9),
            {"features": "ohlcv"},
            "{path}: data.past must name a column. Received: 'open'. Choose from: Close, Date.",
        ),
    ],
)
def test_files_that_are_refused(tmp_path, text, options, message):
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        nasdaq(path=str(path), **options)
    assert str(error.value).startswith(message.format(path=path))


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv: cannot be read: No such file or directory"):
        sp500(path=str(tmp_path / "gone.csv"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary.csv, line 1: is not utf-16-le"):
        sp500(path=str(tmp_path / "binary.csv"))
    (tmp_path / "text.csv.gz").write_text("Date,Close")
    with pytest.raises(DataError, match=r"text.csv.gz: is not a gz file, though its name ends so"):
        sp500(path=str(tmp_path / "text.csv.gz"))
