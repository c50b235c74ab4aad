"""Texts of the user, from tables and folders."""

from pathlib import Path

import numpy as np
import pytest

from dlframe.data.own_texts import text_folder, text_table
from dlframe.types import DataError

CASES = Path(__file__).parent / "texts"


def read(name: str, **options):
    return text_table(path=str(CASES / name), text="text", target="label", **options)


def test_a_given_split_is_kept_and_its_overlap_said(capsys):
    data = read("duplicates-across-splits-train.csv", test=str(CASES / "duplicates-across-splits-test.csv"))
    assert len(data.test) == 7
    assert sorted([*data.train.ids, *data.validation.ids]) == list(range(1, 7))
    said = capsys.readouterr().err
    assert "test: 2 of 7 texts are in train or validation too, 3 nearly, 1 of them with another" in said


def test_long_texts_are_counted_and_keep_their_end(capsys):
    data = read("truncation-tail-reviews.csv", length=512)
    said = capsys.readouterr().err
    texts = [tuple(text.tolist()) for split in (data.train, data.validation, data.test) for text in split["text"]]
    cut = [part.split("the middle of ")[1] for part in said.splitlines() if "the middle of " in part]
    assert sum(int(part.split(" of")[0]) for part in cut) == 8
    assert "the longest 524" in said
    assert max(map(len, texts)) == 512
    shortened = read("truncation-tail-reviews.csv", length=512, cut="end")
    shorter = {
        tuple(text.tolist()) for split in (shortened.train, shortened.validation, shortened.test) for text in split["text"]
    }
    assert len(shorter) == len(set(texts)) - 1  # the verdict was in the last words


def test_a_text_without_words_is_a_text(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("text,label\n" + "".join(f"good {i},a\nbad {i},b\n" for i in range(9)) + '"   ",a\n', encoding="utf-8")
    data = text_table(path=str(file), text="text", target="label", min_count=1)
    parts = [(split["text"], split.ids) for split in (data.train, data.validation, data.test)]
    (blank,) = [texts[ids.tolist().index(19)] for texts, ids in parts if 19 in ids]
    assert blank.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "lable"}, "data.target must name a column. Received: 'lable'. Did you mean 'label'"),
        ({"test": str(CASES / "unseen-class-test.csv")}, "line 3: 'neutral' must be a class of the training rows"),
        ({"test": str(CASES / "unseen-class-test.csv"), "split": "label"}, "data.split: must be null"),
    ],
)
def test_refused(options, message):
    given = {"path": str(CASES / "unseen-class-train.csv"), "text": "text", "target": "label"} | options
    with pytest.raises(DataError, match=message):
        text_table(**given)


def test_bytes_of_another_encoding_are_refused_with_their_line():
    file = Path(__file__).parents[1] / "readers" / "tables" / "rows" / "encoding-windows.csv"
    with pytest.raises(DataError, match="line 3: must be UTF-8"):
        text_table(path=str(file), text="text", target="label")


@pytest.fixture
def reviews(tmp_path):
    """Reviews of two classes in two splits, with unlabeled ones beside the training texts."""
    for part, label, count in (
        ("train", "neg", 12),
        ("train", "pos", 12),
        ("train", "unsup", 4),
        ("test", "neg", 2),
        ("test", "pos", 2),
    ):
        folder = tmp_path / "reviews" / part / label
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{i}.txt").write_text(f"{label} text {part} {i}\nof two lines", encoding="utf-8")
    return tmp_path / "reviews"


def test_a_folder_without_counterpart_is_refused_and_can_be_left_out(reviews, capsys):
    with pytest.raises(DataError, match=r"class 'unsup' of train is not in test.*data.drop=\[unsup\]"):
        text_folder(path=str(reviews))
    data = text_folder(path=str(reviews), drop=("unsup",))
    assert data.spec.classes == ("neg", "pos")
    assert np.bincount(data.test["label"]).tolist() == [2, 2]
    assert np.bincount(np.concatenate([data.train["label"], data.validation["label"]])).tolist() == [12, 12]
    assert "left out by data.drop: unsup" in capsys.readouterr().err


def test_links_out_of_the_folder_are_refused(reviews, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (reviews / "train" / "pos" / "x.txt").symlink_to(secret)
    with pytest.raises(DataError, match="is a link out of the folder"):
        text_folder(path=str(reviews), drop=("unsup",))


@pytest.mark.parametrize("level", ["word", "character"])
def test_what_is_fitted_depends_on_training_texts_alone(level, tmp_path):
    """Other validation and test texts, with words of their own: the vocabulary and the training tokens are the same."""
    texts = [f"{'good' if i % 2 else 'bad'} film number {i} of many" for i in range(40)]
    found = []
    for other in ("nothing", "unheard Ünseen things 99 ?!"):
        rows = [
            f"{'train' if i < 24 else 'val' if i < 32 else 'test'},{text if i < 24 else f'{other} {i}'},{'ab'[i % 2]}"
            for i, text in enumerate(texts)
        ]
        file = tmp_path / f"{len(found)}.csv"
        file.write_text("\n".join(["split,text,label", *rows]), encoding="utf-8")
        found.append(text_table(path=str(file), text="text", target="label", split="split", level=level, min_count=1))
    one, two = found
    assert one.spec.fitted == two.spec.fitted
    assert one.train["text"].values.tolist() == two.train["text"].values.tolist()
    assert one.test["text"].values.tolist() != two.test["text"].values.tolist()
