"""Readers of the standard sets of texts, on small copies of their files."""

import json

import numpy as np
import pytest

from dlframe.data import texts
from dlframe.data.texts import newsgroups, read_imdb, read_newsgroups, read_spam, sms_spam
from dlframe.types import DataError


def test_messages_keep_what_is_in_further_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    file = tmp_path / "spam.csv"
    rows = [f"ham,see you at {i},,,\r\nspam,win prize {i}, PO Box {i},,\r\n" for i in range(30)]
    file.write_bytes(("v1,v2,,,\r\n" + "".join(rows)).encode("cp1252") + "ham,caf\xe9 \x93,,,\r\n".encode("latin-1"))
    (found, labels), (later, _) = read_spam([file])
    assert found[1] == "win prize 0, PO Box 0"
    assert found[-1] == "café “"
    assert (labels[:2], later) == (["ham", "spam"], [])
    data = sms_spam(path=str(file), min_count=1)
    assert data.spec.classes == ("ham", "spam")
    assert sum(map(len, (data.train, data.validation, data.test))) == 61
    assert data.splits == "60/20/20 by hash"
    assert data.spec.fitted["counts"] == np.bincount(data.train["label"]).tolist()


def test_posts_have_two_lines_below_the_header(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    for part, count in (("train", 40), ("test", 4)):
        rows = "".join(f"{'alt.x' if i % 2 else 'sci.y'}\tword{i % 2} text {part} {i}\n" for i in range(count))
        (tmp_path / f"20newsgroups-{part}.tab").write_text(f"Category\tText\nd\tstring\nclass\t\n{rows}", encoding="utf-8")
    files = [tmp_path / f"20newsgroups-{part}.tab" for part in ("train", "test")]
    (train, _), (test, names) = read_newsgroups(files)
    assert (len(train), len(test), names[0], test[1]) == (40, 4, "sci.y", "word1 text test 1")
    data = newsgroups(path=str(tmp_path))
    assert len(data.test) == 4
    assert data.spec.classes == ("alt.x", "sci.y")


def test_reviews_are_in_quarters(tmp_path, monkeypatch):
    reviews = [{"t": f"review {i}", "s": int(i >= 25_000)} for i in range(50_000)]
    file = tmp_path / "reviews.json"
    file.write_text(json.dumps(reviews), encoding="utf-8")
    (train, labels), (test, _) = read_imdb([file])
    assert (train[0], train[-1], test[0], test[-1]) == ("review 12500", "review 49999", "review 0", "review 37499")
    assert labels.count("negative") == labels.count("positive") == 12_500
    file.write_text(json.dumps(reviews[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="must have 12,500 reviews of each class and split"):
        read_imdb([file])


@pytest.mark.parametrize("validation", [0.0, 1.0])
def test_validation_must_not_be_empty(validation):
    with pytest.raises(DataError, match="must be above 0 and below 1"):
        texts.imdb(validation=validation)
