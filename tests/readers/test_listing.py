"""Splits or classes, decided from all names; nothing is left out without a line."""

import os
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest

from dlframe.readers.labels import list_table
from dlframe.readers.listing import compiled, list_folder, matched, natural, split_of
from dlframe.types import DataError


def made(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def classes(*folders: str, names: tuple[str, ...] = ("cat", "dog")) -> list[str]:
    return [f"{folder}/{name}/{i}.png" for folder in folders for name in names for i in range(2)]


def refused(root: Path, *args, **options) -> str:
    with pytest.raises(DataError) as error:
        list_folder(root, *args, **options)
    return str(error.value).replace(f"{root}", "set")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(
            (name, "train")
            for name in ("train", "Train", "TRAINING", "training_set", "seg_train", "train2017", "tr", "train-images")
        ),
        *((name, "validation") for name in ("val", "Valid", "validation", "dev", "val_set", "val2017")),
        *((name, "test") for name in ("test", "Testing", "eval", "test_set", "seg_test", "test1")),
        *((name, None) for name in ("trained", "contest", "cat", "tree", "value", "trains", "2017", "device", "tested")),
    ],
)
def test_names_of_splits(name, part):
    assert split_of(name) == part


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("TRAIN", "eval"), ("seg_train", "seg_test"), ("tr", "dev")]
)
def test_splits_in_any_words(train, test, tmp_path):
    found = list_folder(made(tmp_path, *classes(train, test)))
    assert {label for samples in found.parts.values() for _, label in samples} == {"cat", "dog"}
    assert [len(samples) for samples in found.parts.values()] == [4, 4]
    assert not found.notes


def test_layouts_that_could_be_both_are_refused(tmp_path):
    flat = made(tmp_path / "a", "train/cat.0.png", "train/dog.0.png", "test1/0.png")
    assert "train/ has no class folders" in refused(flat)
    assert "data.layout=classes" in refused(flat)
    assert {label for _, label in list_folder(flat, "classes").parts[""]} == {"train", "test1"}
    both = made(tmp_path / "b", *classes("train", "val", "valid", "test"))
    assert "val and valid of set are both validation" in refused(both)
    mixed = made(tmp_path / "c", *classes("train"), "car/0.png", "bus/0.png")
    assert "train of set is named like a split, bus and car like classes" in refused(mixed)
    assert "left out bus/ (no split): 1 files" in list_folder(mixed, "splits").notes
    alone = made(tmp_path / "d", *classes("test", "val"))
    assert "there is no train folder" in refused(alone)
    assert refused(made(tmp_path / "e", "cat/0.png", "dog/0.png"), "splits").startswith("data.layout: splits must have")


def test_what_is_left_out_is_named(tmp_path):
    root = made(
        tmp_path / "set",
        *classes("train", "test"),
        *(
            "extra/0.png",
            "readme.md",
            "train/loose.png",
            "train/cat/.cache/0.png",
            "test/dog/@eaDir/0.png",
            "train/cat/.DS_Store",
        ),
        *("val/0.png", "__MACOSX/0.png"),
    )
    found = list_folder(root)
    assert sum(map(len, found.parts.values())) == 8
    assert found.notes == [
        "left out extra/ (no split): 1 files",
        "left out val/ (no class folders): 1 files",
        "left out 1 file beside the splits: readme.md",
        "left out 1 file beside the class folders: train/loose.png",
        "left out hidden or system folders: __MACOSX, test/dog/@eaDir, train/cat/.cache",
    ]


def test_labels_of_splits_are_compared_both_ways(tmp_path):
    root = made(tmp_path / "set", *classes("train"), "test/cat/0.png")
    assert list_folder(root).notes == ["class only in train, not in test: dog"]
    assert refused(made(root, "test/dig/0.png")) == (
        "image_folder: class 'dig' of set/test is not in set/train (0.png). Did you mean 'dog'?"
    )


def test_linked_folders_are_treated_as_linked_files(tmp_path):
    root = made(tmp_path / "set", "cat/0.png", "dog/0.png", "dog/shared/1.png")
    made(tmp_path / "out", "2.png")
    (root / "cat" / "inside").symlink_to(root / "dog" / "shared")
    (root / "cat" / "outside").symlink_to(tmp_path / "out")
    (root / "cat" / "back").symlink_to(root / "cat")
    found = list_folder(root)
    names = {str(file.relative_to(root)) for file, _ in found.parts[""]}
    assert names == {"cat/0.png", "cat/inside/1.png", "cat/outside", "dog/0.png", "dog/shared/1.png"}
    assert found.notes == ["left out links to a folder above them: cat/back"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_a_folder_that_cannot_be_listed(tmp_path):
    root = made(tmp_path / "set", "cat/deep/0.png", "dog/0.png")
    (root / "cat" / "deep").chmod(0)
    try:
        assert refused(root) == "data.path: cannot read set/cat/deep: Permission denied"
    finally:
        (root / "cat" / "deep").chmod(0o755)


def test_numbers_are_ordered_by_value():
    names = ["10", "2", "1", "b", "A", "img12", "img9", "007"]
    assert sorted(names, key=natural) == ["1", "2", "007", "10", "A", "b", "img9", "img12"]


def test_nested_folders_and_labels_in_names(tmp_path):
    root = made(tmp_path / "set", "pets/cat/0.png", "pets/dog/0.png", "wild/cat/0.png")
    assert {label for _, label in list_folder(root, "nested").parts[""]} == {"pets/cat", "pets/dog", "wild/cat"}
    flat = made(tmp_path / "flat", "train/cat.0.png", "train/dog.0.png", "test/dog.7.png")
    found = list_folder(flat, label=re.compile(r"(\w+)\.\d"))
    assert [label for _, label in found.parts["train"]] == ["cat", "dog"]
    assert [label for _, label in found.parts["test"]] == ["dog"]
    made(flat, "test/8.png")
    assert "does not match 8.png" in refused(flat, label=re.compile(r"(cat|dog)\."))
    with pytest.raises(DataError, match=r"^data.label: must be a regular expression: "):
        compiled("(", "label")


def test_a_wrapped_folder_is_hinted_at(tmp_path):
    root = made(tmp_path / "set", *classes("inner"))
    assert refused(root).endswith("must have at least two classes. Received: 'inner'. Try: data.path=set/inner")


# --- tables

TABLE = "file,label,patient,split\na.png,cat,p1,train\nb.png,dog,p2,train\ndeep/c.png,cat,p3,Test\n"


def table(root: Path, text: str, **options):
    made(root, "images/a.png", "images/b.png", "images/deep/c.png")
    (root / "labels.csv").write_bytes(text.encode())
    return list_table(root, root / "labels.csv", **options)


@pytest.mark.parametrize("form", [str, lambda text: "\ufeff" + text.replace(",", ";").replace("\n", "\r\n")])
def test_labels_groups_and_splits_of_a_table(form, tmp_path):
    found = table(tmp_path, form(TABLE.replace("deep/", "")), group="patient")
    assert [(file.name, label) for file, label in found.parts["train"]] == [("a.png", "cat"), ("b.png", "dog")]
    assert [(file.name, label) for file, label in found.parts["test"]] == [("c.png", "cat")]
    assert [found.groups[file] for file, _ in found.parts["train"]] == ["p1", "p2"]
    assert found.notes == [
        "class only in train, not in test: dog",
        "labels from labels.csv: files file, labels label, splits split, groups patient",
    ]


def test_stems_and_what_a_table_does_not_name(tmp_path):
    found = table(tmp_path, "id,breed\na,cat\nc,dog\n")
    assert [(file.name, label) for file, label in found.parts[""]] == [("a.png", "cat"), ("c.png", "dog")]
    assert "left out 1 files that labels.csv does not name: images/b.png" in found.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,cat\nz.png,dog\n", "image_folder: labels.csv, row 3: there is no file 'z.png' in "),
        ("file,label\na.png,cat\na.png,dog\n", "image_folder: labels.csv, rows 2 and 3 name one file, a.png. Keep one"),
        ("file,label\na.png,cat\nb.png,\n", "image_folder: labels.csv, row 3: label must not be empty. Received: ''."),
        ("file,label\na.png,cat\nb.png,cat\n", "image_folder: labels.csv: label must have at least two classes. Received: cat"),
        ("file,x,y1\na.png,cat,3\nb.png,dog,4\n", "data.label: must name the column of classes of labels.csv. Received: none."),
        ("file,cat,dog\na.png,1,1\nb.png,0,1\n", "image_folder: labels.csv, row 2: marks 2 of the classes cat, dog: "),
        ("file,label\na.png,cat|dog\nb.png,dog\n", "image_folder: labels.csv, row 2: label 'cat|dog' names several classes"),
        ("file,label\na.png,cat,9\n", "data.labels: "),
        ("file,File\na.png,cat\n", "data.labels: "),
        ("file,label\n\"a.png,cat\n", "data.labels: "),
        ("name,label\nx,cat\ny,dog\n", "data.labels: no column of "),
        ("", "data.labels: "),
    ],
)  # fmt: skip
def test_tables_that_are_refused(text, message, tmp_path):
    with pytest.raises(DataError) as error:
        table(tmp_path, text)
    assert str(error.value).startswith(message)


def test_one_column_per_class(tmp_path):
    found = table(tmp_path, "file,cat,dog\na.png,1,0\nb.png,0,1\n")
    assert [label for _, label in found.parts[""]] == ["cat", "dog"]


def test_a_column_of_choice_and_parquet(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    made(tmp_path, "a.png", "b.png")
    content = pa.table({"path": ["a.png", "b.png"], "breed": [1, 2], "age": [3, 4]})
    parquet.write_table(content, tmp_path / "x.parquet")
    found = list_table(tmp_path, tmp_path / "x.parquet", label="age")
    assert [label for _, label in found.parts[""]] == ["3", "4"]
    with pytest.raises(
        DataError, match=r"^data.label: must be a column of x.parquet. Received: 'breeds'. Did you mean 'breed'\?"
    ):
        list_table(tmp_path, tmp_path / "x.parquet", label="breeds")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"^data.labels: .*x.parquet: cannot be read as Parquet"):
        list_table(tmp_path, tmp_path / "x.parquet")


def test_folders_a_thousand_deep_and_links_to_links(tmp_path, monkeypatch):
    made(tmp_path, "b/1.png")
    monkeypatch.chdir(tmp_path)
    os.mkdir("a")
    os.chdir("a")
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    Path("x.png").touch()
    monkeypatch.chdir(tmp_path)
    found = list_folder(tmp_path)
    subprocess.run(["rm", "-r", "a"], check=True)  # Python's own removal is not made for it
    assert [label for _, label in found.parts[""]] == ["a", "b"]
    made(tmp_path, "a/1.png")
    for i in range(20):
        (tmp_path / "b" / f"{i}").mkdir()
        for name in "xy":
            (tmp_path / "b" / f"{i}" / name).symlink_to(f"../{i + 1}")
    with pytest.raises(DataError, match=r"is behind more than 8 links to folders. Replace links by folders$"):
        list_folder(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,cat,p1,train\nb.png,dog,,train\nc.png,cat,p3,test\n", "labels.csv, row 3: patient must not be empty"),
        (
            "a.png,cat,p1,train\nb.png,dog,p2,extra\nc.png,cat,p3,test\n",
            "labels.csv, row 3: split must be train, validation or test, as in other rows. Received: 'extra'.",
        ),
        ("a.png,cat,p1,train\nb.png,dog,p2,train\nc.png,cow,p3,test\n", "class 'cow' of test is not in train (c.png)."),
    ],
)
def test_tables_whose_groups_and_splits_say_nothing(rows, message, tmp_path):
    with pytest.raises(DataError, match=f"^image_folder: {re.escape(message)}"):
        table(tmp_path, "file,label,patient,split\n" + rows, group="patient")


def test_names_that_are_typed_in_another_form_of_unicode(tmp_path):
    """An e with an accent as one character, and as two."""
    one, two = (unicodedata.normalize(form, "espèce") for form in ("NFC", "NFD"))
    assert one != two
    found = table(tmp_path, f"file,{one},x\na.png,{two},3\nb.png,dog,4\n", label=two)
    assert [label for _, label in found.parts[""]] == [one, "dog"]
    pattern = compiled(f"({two})", "label")
    assert pattern
    assert matched(pattern, Path(f"x/{one}.png"), "label") == one


def test_numbers_of_any_length_are_sorted():
    names = ["10" + "0" * 5000, "9" + "0" * 5000, "2", "010", "a10", "a9"]
    assert sorted(names, key=natural) == ["2", "010", names[1], names[0], "a9", "a10"]
