"""A trained model of texts in use."""

import io
import json
import sys

import pyarrow.parquet
import pytest

import dlframe
from dlframe.cli import main
from dlframe.config import load
from dlframe.contracts.samples import written
from dlframe.jobs.train import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a short run on lines of a table."""
    options = ["data=text_table", f"data.path={written() / 'lines.csv'}", "data.text=line", "data.target=of"]
    texts = ["task=text_classification", "model=fasttext", "epochs=3", "tracking=none", "figures=none"]
    result = run(load([*options, *texts, f"runs={tmp_path_factory.mktemp('runs')}"]))
    return result.folder


def test_the_column_of_a_table_is_predicted_as_the_test_split_was(trained):
    table = pyarrow.parquet.read_table(trained / "predictions.parquet").to_pydict()
    found = dlframe.load(trained).predict(written() / "lines.csv")
    for row, target, probabilities in zip(table["id"], table["prediction"], table["probabilities"], strict=True):
        assert found["input"][row - 1].endswith(f"row {row}")
        assert found["prediction"][row - 1] == target
        assert found["probabilities"][row - 1].tolist() == pytest.approx(probabilities, abs=1e-6)


def test_texts_lines_and_standard_input(trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("The wine data\nBreast cells = large\n", encoding="utf-8")
    assert main(["predict", str(trained), "The wine data", str(tmp_path / "a.txt")]) == 0
    out, error = capsys.readouterr()
    rows = [line.split("  ")[0] for line in out.splitlines()[1:]]
    assert rows == ["The wine data", "The wine data", "Breast cells = large"]
    assert "a text per line" in error
    monkeypatch.setattr(sys, "stdin", io.StringIO("The wine data\n\n"))
    assert main(["predict", str(trained), "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_name_of_a_file_is_no_text(trained, capsys):
    assert main(["predict", str(trained), "missing.csv"]) == 2
    assert "no such file or folder: missing.csv" in capsys.readouterr().err


def test_python_takes_texts(trained):
    found = dlframe.load(trained).predict(["good wine", ""])
    assert found["input"] == ["good wine", ""]
    assert found["probabilities"].sum(1).tolist() == pytest.approx([1, 1])


GUESS = "the prediction is a guess"


@pytest.mark.parametrize("text", ["", "  ", "\t", "\u3000"])
def test_an_empty_text_is_told(trained, text, capsys):
    assert main(["predict", str(trained), text]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert f"empty text, {GUESS}: 1 input, " in error


def test_texts_without_a_known_word_are_counted_and_stay_in_order(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("The wine data\n\nxyzzy plugh\n  \n"))
    assert main(["predict", str(trained), "-", f"out={tmp_path / 'out.jsonl'}"]) == 0
    assert [json.loads(line)["input"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        "The wine data",
        "",
        "xyzzy plugh",
        "  ",
    ]
    error = capsys.readouterr().err
    assert f"empty text, {GUESS}: 2 inputs, such as line 2 of standard input" in error
    assert f"no word that the model knows, {GUESS}: 1 input, line 3 of standard input" in error
    (tmp_path / "new.csv").write_text('id,line\n1,The wine\n2,\n3,"  "\n4,\u200b\n', encoding="utf-8")
    assert main(["predict", str(trained), str(tmp_path / "new.csv")]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 5
    assert f"empty text, {GUESS}: 2 inputs, such as {tmp_path / 'new.csv'} row 2" in error
    assert f"no word that the model knows, {GUESS}: 1 input, {tmp_path / 'new.csv'} row 4" in error
    assert main(["predict", str(trained), "The wine data"]) == 0
    assert GUESS not in capsys.readouterr().err


def test_the_columns_of_a_table_stay_beside_the_predictions(trained, tmp_path, capsys):
    import csv

    (tmp_path / "new.csv").write_text('id,line,score\n007,"The wine, data",x\n8,,\n', encoding="utf-8")
    assert main(["predict", str(trained), str(tmp_path / "new.csv"), "keep=true", f"out={tmp_path / 'out.csv'}"]) == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["id", "line", "score", "prediction", "predicted score", "probabilities"]
    assert [(row["id"], row["line"], row["score"]) for row in rows] == [("007", "The wine, data", "x"), ("8", "", "")]
    plain = dlframe.load(trained).predict(["The wine, data", " "])
    assert [row["prediction"] for row in rows] == plain["prediction"].tolist()
