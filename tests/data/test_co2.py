import numpy as np
import pytest

from dlframe.data.co2 import co2, monthly, weekly
from dlframe.types import DataError


def test_the_series_is_the_known_one(capsys):
    """Sums as published for statsmodels' monthly means: 420 months before the test, and 106 in it."""
    dataset = co2()
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [len(part) for part in parts] == [360 - 36 - 11, 60 - 11, 106 - 11]
    test = np.concatenate([dataset.test["future"][:, 0], dataset.test["future"][-1, 1:]])
    assert test.sum() == pytest.approx(38622.6)
    assert (test[0], test[-1]) == (358.425, 371.02)
    before = np.concatenate(
        [dataset.train["window"][0, :, 0]]
        + [piece for part in parts[:2] for piece in (part["future"][:, 0], part["future"][-1, 1:])]
    )
    assert before.sum() == pytest.approx(140017.1)
    assert dataset.spec.fitted["season"] == 12
    assert dataset.spec.fitted["scales"][""] == pytest.approx(np.abs(before[12:360] - before[:348]).mean())
    assert "co2: 5 months without a value are interpolated, 1958-06" in capsys.readouterr().err


def test_months_are_those_of_pandas():
    import pandas

    frame = pandas.read_csv(weekly(), parse_dates=["date"], date_format="%Y%m%d").set_index("date")
    months, values = monthly(weekly())
    expected = frame["co2"].resample("MS").mean()
    np.testing.assert_allclose(values, expected)
    assert months.astype(str).tolist() == expected.index.strftime("%Y-%m").tolist()


def test_folds_are_test_periods_one_before_the_other():
    last, before = co2(), co2(fold=1)
    assert before.splits == "chronological, 1 test period back"
    assert len(before.test) == len(last.test)
    assert before.test.ids[-1] < last.test.ids[0]
    assert before.train.ids[-1] < before.validation.ids[0] < before.validation.ids[-1] < before.test.ids[0]
    assert len(before.train) == len(last.train) - 106
    with pytest.raises(DataError, match=r"^co2: data.fold=7 leaves 0 of the 48 rows that training needs. The largest is 2$"):
        co2(fold=7)
