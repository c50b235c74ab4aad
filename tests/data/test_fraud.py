"""Payments by card: repeated rows and the split by time."""

import numpy as np
import pytest

from dlframe.data.fraud import COLUMNS, creditcard, synthetic_fraud
from dlframe.types import DataError


def write(path, rows):
    path.write_text(",".join(COLUMNS) + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def payments():
    """100 payments in the order of time, every tenth a fraud."""
    random = np.random.default_rng(0)
    values = random.normal(size=(100, 29)).round(6)
    return [[float(i // 2), *values[i], int(i % 10 == 9)] for i in range(100)]


def test_repeated_rows_are_left_out_before_the_split(payments, tmp_path, capsys):
    data = creditcard(path=write(tmp_path / "c.csv", [*payments[:50], payments[49], payments[3], *payments[50:]]))
    assert "left out 2 repeated rows, 1 of them frauds" in capsys.readouterr().err
    assert [len(split) for split in (data.train, data.validation, data.test)] == [72, 8, 20]
    assert data.train["numbers"].tolist() == [row[1:-1] for row in payments[:72]]
    assert data.test["target"].tolist() == [row[-1] for row in payments[80:]]
    train = np.array([row[1:-1] for row in payments[:72]])
    assert data.spec.inputs["numbers"].mean == pytest.approx(train.mean(0))
    assert data.spec.inputs["numbers"].std == pytest.approx(train.std(0))
    assert data.spec.fitted["counts"] == [65, 7]


def test_other_tables_are_refused(payments, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("Time,V1,Class\n1,2,0\n", encoding="utf-8")
    with pytest.raises(DataError, match="must have the columns Time, V1"):
        creditcard(path=str(file))


def test_synthetic_rows_have_the_asked_rate():
    data = synthetic_fraud(rows=4000, rate=0.05)
    labels = np.concatenate([split["target"] for split in (data.train, data.validation, data.test)])
    assert len(labels) == 4000
    assert labels.mean() == pytest.approx(0.05, abs=0.01)


def test_what_is_fitted_depends_on_training_rows_alone(payments, tmp_path):
    """Other amounts and labels of validation and test, a thousand times as large: what is fitted is the same."""
    changed = [row if i < 72 else [row[0], *(1000 * v + i for v in row[1:-1]), 1 - row[-1]] for i, row in enumerate(payments)]
    one, two = (creditcard(path=write(tmp_path / f"{n}.csv", rows)) for n, rows in (("a", payments), ("b", changed)))
    assert one.spec == two.spec
    assert not np.array_equal(one.test["numbers"], two.test["numbers"])
