"""Tables of the user: features, splits, tasks, predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine

import dlframe
from dlframe.cli import main
from dlframe.data.own_texts import text_table
from dlframe.data.table import table
from dlframe.readers.tables.rows import read_rows
from dlframe.registry import GROUPS
from dlframe.serving.inputs import Inputs
from dlframe.types import ConfigError, DataError, DataSpec, Field

ROWS = Path(__file__).parent.parent / "readers" / "tables" / "rows"


def written(file: Path, header: list[str], rows) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([header, *rows])
    return file


def wines(folder: Path, **columns) -> Path:
    source = load_wine()
    names = [str(source.target_names[label]) for label in source.target]
    rows = [
        [*values, name, *(of[i] for of in columns.values())]
        for i, (values, name) in enumerate(zip(source.data, names, strict=True))
    ]
    return written(folder / "wines.csv", [*source.feature_names, "grower", *columns], rows)


def test_numbers_are_those_of_the_file_and_fitted_on_training_alone(tmp_path):
    dataset = table(path=str(wines(tmp_path)), target="grower")
    source = load_wine()
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [102, 42, 34]
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split["numbers"] == source.data[split.ids - 1]).all()
        assert [dataset.spec.classes[i] for i in split["target"]] == [
            source.target_names[i] for i in source.target[split.ids - 1]
        ]
    seen = source.data[dataset.train.ids - 1]
    np.testing.assert_allclose(dataset.spec.inputs["numbers"].mean, seen.mean(0))
    np.testing.assert_allclose(dataset.spec.inputs["numbers"].std, seen.std(0))


def test_statistics_and_vocabulary_of_a_given_split_are_those_of_training():
    dataset = table(
        path=str(ROWS / "leak-statistics-payments.csv"), target="is_fraud", split="part", kinds=("country:category",)
    )
    kept = dataset.spec.fitted["table"]
    assert (kept["amount"]["mean"], kept["amount"]["std"]) == (3.5, pytest.approx(1.707825127659933))
    assert kept["country"]["words"] == ["DE", "US"]
    assert dataset.test["categories"][:, 0].tolist() == [1, 2, 3]  # FR was not seen
    assert np.isnan(dataset.test["numbers"][2, 0])
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [6, 2, 3]


def test_a_new_row_moves_no_other_and_equal_rows_are_together(tmp_path):
    generator = np.random.default_rng(0)
    rows = [[*np.round(generator.normal(size=2), 3), generator.integers(2)] for _ in range(300)]
    rows += rows[:40]  # each of these rows is there twice

    def homes(rows) -> dict[tuple, str]:
        dataset = table(path=str(written(tmp_path / "a.csv", ["x", "y", "label"], rows)), target="label")
        found: dict[tuple, str] = {}
        for part in ("train", "validation", "test"):
            for values in getattr(dataset, part)["numbers"]:
                assert found.setdefault(tuple(values), part) == part
        return found

    before, after = homes(rows), homes([[9, 9, 1], *rows[::-1], [8, 8, 0]])
    assert {key: after[key] for key in before} == before


def test_groups_stay_in_one_split_and_times_do_not_cross(tmp_path):
    customers = [f"c{i % 30}" for i in range(178)]
    days = [str(np.datetime64("2024-01-01") + (i * 7) % 178) for i in range(178)]
    file = str(wines(tmp_path, customer=customers, day=days))
    dataset = table(path=file, target="grower", group="customer", drop=("day",))
    groups = [set(split.groups) for split in (dataset.train, dataset.validation, dataset.test)]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    dataset = table(path=file, target="grower", time="day", drop=("customer",))
    ends = [sorted(days[i - 1] for i in split.ids) for split in (dataset.train, dataset.validation, dataset.test)]
    assert ends[0][-1] < ends[1][0] <= ends[1][-1] < ends[2][0]
    assert dataset.splits == "60/20/20 by day"


def test_the_fingerprint_changes_with_a_value_a_name_and_a_group(tmp_path):
    prints = set()
    for customers in ([f"c{i % 30}" for i in range(178)], [f"d{i % 30}" for i in range(178)]):
        prints.add(table(path=str(wines(tmp_path, customer=customers)), target="grower", group="customer").fingerprint)
    assert len(prints) == 2


def test_a_file_of_test_rows_is_read_as_the_others_are(tmp_path, capsys):
    source = load_wine()
    names = [*source.feature_names, "grower"]
    rows = [[*values, source.target_names[label]] for values, label in zip(source.data, source.target, strict=True)]
    train, test = written(tmp_path / "train.csv", names, rows[::2]), tmp_path / "test.csv"
    written(test, names[::-1], [row[::-1] for row in [*rows[1::2], rows[0], rows[2]]])
    dataset = table(path=str(train), target="grower", test=str(test))
    assert dataset.splits == "test as given, 80/20 by hash"
    assert [len(dataset.train) + len(dataset.validation), len(dataset.test)] == [89, 91]
    assert (dataset.test["numbers"][:89] == source.data[1::2]).all()
    assert dataset.test["target"][:89].tolist() == source.target[1::2].tolist()
    said = capsys.readouterr().err
    assert "table: test: 2 of 91 rows are in training or validation too: not unseen" in said
    assert "table: test: columns are in another order than in training: read by name" in said
    written(test, names, [*rows[1::2], [*rows[0][:-1], "class_3"]])
    with pytest.raises(DataError, match=r"test.csv: 'grower' must hold classes of training .*Received: 'class_3'"):
        table(path=str(train), target="grower", test=str(test))


def test_what_is_left_out_is_said(tmp_path, capsys):
    names = [f"wine number {i}" for i in range(178)]
    file = wines(tmp_path, name=names, code=[f"{i % 9:03d}" for i in range(178)], nothing=[""] * 178)
    dataset = table(path=str(file), target="Grower", missing=("alcohol:13.2",))
    said = capsys.readouterr().err
    assert "left out, as the model has no use for them: 'name' (text, 178 different values)" in said
    assert "'nothing' has no values: left out" in said
    assert "'code' has leading zeros or integers beyond 2**53: an identifier, not a number" in said
    assert dataset.spec.inputs["categories"].names == ("code",)
    assert dataset.source.endswith("wines.csv, target grower, 13 numbers, 1 categories")


def test_missing_and_unseen_values_are_counted(tmp_path, capsys):
    parts = ["train"] * 120 + ["val"] * 30 + ["test"] * 28
    towns = [["a", "b", ""][i % 3] for i in range(175)] + ["c", "c", "d"]
    table(path=str(wines(tmp_path, part=parts, town=towns)), target="grower", split="part", missing=("ash:2.43",))
    said = capsys.readouterr().err
    ash = int((load_wine().data[:, 2] == 2.43).sum())  # type: ignore[attr-defined]
    assert f"table: missing values in 178 rows: town 58, ash {ash}; a model sees that they are missing\n" in said
    assert "table: values that training does not have, in 58 other rows: town 3; all are read as one\n" in said
    table(path=str(wines(tmp_path)), target="grower")
    assert not capsys.readouterr().err


def test_rows_without_a_label_are_left_out_and_counted(tmp_path, capsys):
    file = wines(tmp_path)
    lines = file.read_text().splitlines()
    lines[5] = lines[5].rpartition(",")[0] + ","
    file.write_text("\n".join(lines))
    dataset = table(path=str(file), target="grower")
    assert "1 row without a label is left out: " in (said := capsys.readouterr().err)
    assert "wines.csv, line 6" in said
    assert sorted([*dataset.train.ids, *dataset.validation.ids, *dataset.test.ids]) == [i for i in range(1, 179) if i != 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "growr"}, "data.target must name a column. Received: 'growr'. Did you mean 'grower'?"),
        ({"target": "grower", "group": "customer"}, "data.group must name a column. Received: 'customer'."),
        (
            {"target": "grower", "kinds": ("ash:float",)},
            "data.kinds: must be number, date, category, identifier, text. Received: 'float'",
        ),
        ({"target": "grower", "kinds": ("ahs:number",)}, "data.kinds: must be COLUMN:VALUE with a column of the table."),
        ({"target": "grower", "decimal": ";"}, "data.decimal: must be '.' or ','. Received: ';'"),
        ({"target": "grower", "separator": "ab"}, "data.separator: must be one character, or tab, comma, semicolon, space."),
        ({"target": "grower", "split": "ash"}, "data.split: 'ash' must hold train, validation and test."),
        (
            {"target": "grower", "time": "grower"},
            "data.time: must be a column of dates or numbers. Received: 'grower' (category)",
        ),
    ],
)
def test_options_that_are_refused(tmp_path, options, message):
    with pytest.raises(DataError) as error:
        table(path=str(wines(tmp_path)), **options)
    assert message in str(error.value)


def test_a_column_gives_the_split(tmp_path):
    """In any words for the three splits; rows without a label may have others."""
    words = ["train", "Training", "val", "dev", "test", "eval"]
    lines = ["sum,of,part", *(f"{i},{'ab'[i % 2]},{words[i % 6]}" for i in range(60)), "7,,unlabeled"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    dataset = table(path=str(tmp_path / "rows.csv"), target="of", split="part")
    for split, places in ((dataset.train, (0, 1)), (dataset.validation, (2, 3)), (dataset.test, (4, 5))):
        assert split.ids.tolist() == [i + 1 for i in range(60) if i % 6 in places]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("train", "train", "test"),
            "data.split: 'part' must hold train, validation and test. Missing: validation. Received: train (40 rows), test "
            "(20 rows). Name some rows of training 'val'; or leave it out and put the test rows into a file of their own, "
            "data.test=FILE: a fifth of the others is then for validation",
        ),
        (
            ("train", "val", "val"),
            "data.split: 'part' must hold train, validation and test. Missing: test. Received: train (20 rows), val (40 rows). "
            "Leave it out: rows are then split by hash",
        ),
        (("train", "vla", "test"), "must hold train, validation and test. Received: 'vla'."),
        (("train", "val", ""), "line 4: 'part' must name a split. Received: an empty field"),
    ],
)
@pytest.mark.parametrize("read", [table, text_table])
def test_a_column_without_all_splits_is_answered_with_what_would_do(tmp_path, read, words, message):
    lines = ["text,of,part", *(f"word {i},{'ab'[i % 2]},{words[i % 3]}" for i in range(60))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    options = {"text": "text"} if read is text_table else {"kinds": ("text:category",)}
    with pytest.raises(DataError) as error:
        read(path=str(tmp_path / "rows.csv"), target="of", split="part", **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("row", "received"),
    [
        ("2024-01-05,much", "Received: 'much'. Training had numbers in it, and for a missing value an empty field or '?'"),
        ("yesterday,3", "Received: 'yesterday'. Training had dates in it, and for a missing value an empty field"),
    ],
)
def test_a_wrong_value_of_new_rows_is_answered_with_what_training_had(tmp_path, row, received):
    """No option of the data decides here, which a prediction does not have."""
    lines = ["day,sum,of", *(f"2024-01-{1 + i % 28:02},{'?' if i == 7 else i % 5},{'ab'[i % 2]}" for i in range(60))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    kept = table(path=str(tmp_path / "train.csv"), target="of", missing=("?",)).spec.fitted["table"]
    (tmp_path / "new.csv").write_text(f"day,sum\n2024-01-02,4\n{row}\n")
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / "new.csv", kept)
    assert str(error.value).startswith(f"{tmp_path / 'new.csv'}, line 3: ")
    assert str(error.value).endswith(received)


def test_a_run_from_the_file_to_predictions(tmp_path, capsys, monkeypatch):
    """No word but the file and the target: the task follows from the column."""
    monkeypatch.chdir(tmp_path)
    file = wines(tmp_path, stopper=["cork", "screw"] * 89)
    assert main(["data=table", f"data.path={file}", "data.target=grower", "tracking=none", "epochs=40"]) == 0
    (folder,) = Path("runs").iterdir()
    assert json.loads((folder / "result.json").read_text())["metrics"]["accuracy"] > 0.9
    capsys.readouterr()
    source = load_wine()
    header = [*source.feature_names, "stopper", "note"]
    order = np.random.default_rng(0).permutation(len(header))
    rows = [[*source.data[i], "crown" if i else "cork", ""] for i in (0, 60, 150)]
    written(tmp_path / "new.csv", [header[i] for i in order], [[row[i] for i in order] for row in rows])
    model = dlframe.load(folder)
    found = model.predict("new.csv")
    assert found["prediction"].tolist() == ["class_0", "class_1", "class_2"]
    assert found["input"][2] == "new.csv row 3"
    assert main(["predict", str(folder), "new.csv"]) == 0
    said = capsys.readouterr().err
    assert "columns are in another order than in training: read by name" in said
    assert "columns that training did not have are not used: note" in said
    assert "'stopper' has values that training did not have: 'crown'" in said
    written(tmp_path / "less.csv", header[1:], [row[1:] for row in rows])
    assert main(["predict", str(folder), "less.csv"]) == 2
    assert "less.csv: must have the columns of training. Missing: alcohol." in capsys.readouterr().err
    assert main(["predict", str(folder), str(file)]) == 0
    assert "in another order" not in capsys.readouterr().err
    whole = model.predict(str(file))["probabilities"]
    table_of = dlframe.load(folder).spec.fitted["table"]
    assert list(table_of) == [*source.feature_names, "stopper"]
    assert whole.shape == (178, 3)


def test_a_target_of_numbers_is_regression(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = load_diabetes()
    file = written(
        tmp_path / "d.csv", [*source.feature_names, "y"], [[*x, y] for x, y in zip(source.data, source.target, strict=True)]
    )
    options = ["data=table", f"data.path={file}", "data.target=y", "tracking=none", "epochs=30"]
    assert main(options) == 0
    assert "'y' is a number: regression. For classes: data.kinds=[y:category]" in capsys.readouterr().err
    (folder,) = Path("runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["metrics"]["rmse"] < result["baseline"]["training mean"]["rmse"]
    assert result["metrics"]["r2"] > 0.25
    assert main([*options, "task=table_classification"]) == 2
    assert (
        "the target of d is a value, which task=classification does not take. Try: task=table_regression"
        in capsys.readouterr().err
    )


def test_the_task_of_data_is_chosen_where_none_is_named():
    assert GROUPS["data"].get("table").facts["tasks"] == {"class": "table_classification", "value": "table_regression"}
    config = dlframe.check("data=table", "data.path=a.csv", "data.target=b")
    assert (config.values["task"]["name"], config.values["model"]["name"]) == ("classification", "tabular_mlp")
    assert dlframe.check("data=sp500").values["task"]["name"] == "forecasting"
    assert dlframe.check("data=digits").values["task"]["name"] == "classification"
    with pytest.raises(ConfigError, match=r"data\.target: must be given"):
        dlframe.check("data=table", "data.path=a.csv")


@pytest.mark.parametrize(
    "change",
    [
        lambda fitted: fitted.update(table=[1]),
        lambda fitted: fitted["table"]["alcohol"].update(missing=5),
        lambda fitted: fitted["table"]["alcohol"].update(decimal=""),
        lambda fitted: fitted["table"]["alcohol"].update(kind="code"),
        lambda fitted: fitted["table"]["stopper"].update(words=["a", "b", "c", "d"]),
        lambda fitted: fitted["table"].pop("ash"),
        lambda fitted: fitted["table"].update(x={"kind": "number"}),
    ],
)
def test_what_a_run_says_of_its_columns_may_be_somebody_elses(tmp_path, change):
    inputs = {
        "numbers": Field(kind="number", dtype="float64", shape=(2,)),
        "categories": Field(kind="category", dtype="int32", shape=(1,)),
    }
    kept: dict = {"alcohol": {"kind": "number"}, "ash": {"kind": "number"}, "stopper": {"kind": "category", "words": ["cork"]}}
    fitted = {"table": kept, "cardinalities": [3]}
    reader = Inputs(DataSpec("x", inputs, {}, fitted))
    file = wines(tmp_path, stopper=["cork", "screw"] * 89)
    assert len(list(reader.read([file]))) == 178
    change(fitted)
    with pytest.raises(DataError, match=r"spec.json: holds|must have the columns of training"):
        list(reader.read([file]))


def test_a_run_is_scored_on_another_table(tmp_path, monkeypatch, capsys):
    """All rows, with the statistics and classes of the run: the accuracy is that of its predictions."""
    monkeypatch.chdir(tmp_path)
    file = wines(tmp_path)
    assert main(["data=table", f"data.path={file}", "data.target=grower", "tracking=none", "epochs=10"]) == 0
    (folder,) = Path("runs").iterdir()
    lines = file.read_text().splitlines()
    Path("other.csv").write_text("\n".join([lines[0], *lines[1::3]]))
    capsys.readouterr()
    assert main(["test", str(folder), "data.path=other.csv"]) == 0
    found = dlframe.load(folder).predict("other.csv")["prediction"]
    right = np.mean(found == [line.rpartition(",")[2] for line in lines[1::3]])
    said = capsys.readouterr().out
    assert "60 samples, all scored" in said
    assert f"test accuracy {100 * right:.2f} %" in said
    Path("other.csv").write_text("\n".join([lines[0], lines[1].replace("class_0", "class_9")]))
    assert main(["test", str(folder), "data.path=other.csv"]) == 2
    assert "other.csv: 'grower' must hold classes of training" in capsys.readouterr().err
