"""Interactions of files, and their split by time."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from dlframe.data.interactions import interactions, ml100k
from dlframe.readers.interactions import in_order, read_interactions
from dlframe.types import DataError, Dataset, Split, check_dataset


def ml100k_or_skip(**options) -> Dataset:
    try:
        return ml100k(accept_terms=True, **options)
    except DataError as error:
        pytest.skip(f"MovieLens-100K is not in the cache and cannot be fetched: {error}")


def pairs(dataset: Dataset, split: Split) -> list[tuple[int, int]]:
    users, items = dataset.spec.inputs["user"].names, dataset.spec.inputs["history"].names
    found = [(int(users[u]), int(items[i])) for u, own in zip(split["user"], split["items"], strict=True) for i in own]
    return sorted(found)


CHECKSUMS = {
    "ratio": {
        "train": (72_755, 1_585, 29_247_876, "64e1076334c6"),
        "validation": (7_612, 1_220, 3_567_195, "7a739d8b4413"),
        "test": (19_633, 1_499, 9_737_942, "cc2d5bf7d78b"),
    },
    "last": {
        "train": (98_114, 1_678, 41_654_322, "08ff46a2e255"),
        "validation": (943, 534, 446_654, "0ec0b159387d"),
        "test": (943, 529, 452_037, "cb48974ab9c3"),
    },
}
"""Of MovieLens-100K split by an independent program: interactions, items, sum of item ids, SHA-256 of sorted pairs."""


@pytest.mark.parametrize("split", CHECKSUMS)
def test_splits_are_those_of_an_independent_program(split):
    dataset = check_dataset(ml100k_or_skip(split=split))
    seen: dict[int, set[int]] = {}
    for part, (count, items, total, digest) in CHECKSUMS[split].items():
        own = getattr(dataset, part)
        found = pairs(dataset, own)
        text = "\n".join(f"{user} {item}" for user, item in found)
        assert len(found) == count
        assert len({item for _, item in found}) == items
        assert sum(item for _, item in found) == total
        assert hashlib.sha256(text.encode()).hexdigest()[:12] == digest
        for user, history, targets in zip(own["user"].tolist(), own["history"], own["items"], strict=True):
            if part == "train":
                assert history.tolist() == targets.tolist()
            else:  # the history is all that comes before, in the order of time
                assert set(history.tolist()) == seen[user]
                assert not seen[user] & set(targets.tolist())
            seen.setdefault(user, set()).update(targets.tolist())


def written(tmp_path, text: str, name: str = "log.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def sequences(path) -> dict[str, list[str]]:
    read = in_order(read_interactions(path))
    found: dict[str, list[str]] = {}
    for user, item in zip(read.users, read.items, strict=True):
        found.setdefault(read.user_names[user], []).append(read.item_names[item])
    return found


def test_names_are_kept_to_the_letter(tmp_path):
    text = 'user,item,time\n"7","x,1",0\n"007","x;1",1\n"7.0","x 1",2\n"7","x,1",3\n'
    text += '"A B","None",4\n"a b","none",5\n"NA","1e3",6\n"null","1000",7\n'
    read = read_interactions(written(tmp_path, text))
    assert read.user_names == ("7", "007", "7.0", "A B", "a b", "NA", "null")
    assert read.item_names == ("x,1", "x;1", "x 1", "None", "none", "1e3", "1000")


@pytest.mark.parametrize(
    "times",
    [
        ("978300760", "978300710", "978300736"),
        ("1700000000900", "1700000000100", "1700000000500"),
        ("2024-03-31T03:00:00+02:00", "2024-03-31T00:30:00+00:00", "2024-03-31T00:45:00Z"),
        ("1700000000.9", "1700000000.1", "1700000000.5"),
        ("2024-03-03", "2024-03-01", "2024-03-02 12:00"),
        ("9007199254740995", "9007199254740993", "9007199254740994"),
    ],
    ids=["seconds", "milliseconds", "offsets", "fractions", "days", "beyond float64"],
)
def test_times_are_exact(tmp_path, times):
    text = "user,item,time\n" + "".join(
        f"u,{item},{time}\n" for item, time in zip(("late", "early", "middle"), times, strict=True)
    )
    assert sequences(written(tmp_path, text)) == {"u": ["early", "middle", "late"]}


@pytest.mark.parametrize(("split", "borders"), [("ratio", (9, 10)), ("last", (10, 11))])
def test_equal_times_are_in_the_order_of_the_file(tmp_path, split, borders):
    """Also on both sides of a border; the rows of two users alternate, and names and positions of items fall."""
    times = [20, 20, 20, 20, 10, *[20] * 7]
    rows = "".join(f"{user},i{11 - place},{time}\n" for place, time in enumerate(times) for user in "ba")
    dataset = interactions(path=str(written(tmp_path, "user,item,time\n" + rows)), split=split)
    order = ["i7", *(f"i{item}" for item in (11, 10, 9, 8, 6, 5, 4, 3, 2, 1, 0))]
    names = np.array(dataset.spec.inputs["history"].names)
    for part, begin, end in (("train", 0, borders[0]), ("validation", *borders), ("test", borders[1], 12)):
        own = getattr(dataset, part)
        assert [names[items].tolist() for items in own["items"]] == [order[begin:end]] * 2
        assert [names[items].tolist() for items in own["history"]] == [order[: begin or end]] * 2


def test_of_a_repeated_pair_the_first_sight_counts(tmp_path, capsys):
    text = "user,item,time\nu,a,1\nu,b,2\nu,a,3\nu,c,4\nu,b,5\nv,a,1\nv,a,1\nv,c,2\nv,d,3\n"
    dataset = interactions(path=str(written(tmp_path, text)), split="last")
    names = np.array(dataset.spec.inputs["history"].names)
    assert [names[items].tolist() for items in dataset.test["items"]] == [["c"], ["d"]]
    assert dataset.test.ids.tolist() == ["u", "v"]
    assert "3 rows repeat an item that the user has had before" in capsys.readouterr().err


def test_a_rating_below_the_threshold_does_not_count(tmp_path, capsys):
    rows = "".join(f"{user},{item},{5 - item % 3},{item}\n" for user in "ab" for item in range(12))
    path = str(written(tmp_path, "user,item,rating,time\n" + rows))
    kept = interactions(path=path, min_rating=4, split="last")
    names = kept.spec.inputs["history"].names
    assert [names[i] for i in kept.test["history"][0]] == ["0", "1", "3", "4", "6", "7", "9"]
    assert kept.test["rating"].values.tolist() == [4, 4]
    assert "8 rows with a rating below 4 left out" in capsys.readouterr().err
    interactions(path=path)
    assert (
        "ratings select nothing, every row is relevant; to keep those of 4 or more: data.min_rating=4"
        in capsys.readouterr().err
    )
    with pytest.raises(DataError, match=r"^data\.min_rating: needs a column of ratings"):
        interactions(min_rating=4)


def test_users_with_few_items_are_counted(tmp_path, capsys):
    rows = "".join(f"{user},{item},{item}\n" for user, count in (("one", 1), ("two", 2), ("many", 20)) for item in range(count))
    dataset = interactions(path=str(written(tmp_path, "user,item,time\n" + rows)), split="last")
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [3, 1, 1]
    assert "2 of 3 users have too few items for the test split" in capsys.readouterr().err


def test_atomic_files_and_parquet_are_read_alike(tmp_path):
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t0302\t3\t891717742\n"
    read = read_interactions(written(tmp_path, inter, "log.inter"))
    assert (read.user_names, read.item_names) == (("196", "186"), ("242", "0302"))
    assert read.times is not None
    assert read.times.tolist() == [881250949, 891717742]
    pyarrow.parquet.write_table(
        pa.table({"userId": [196, 186], "item": ["242", "0302"], "rating": [3.0, 3.0], "time": [881250949, 891717742]}),
        tmp_path / "log.parquet",
    )
    other = read_interactions(tmp_path / "log.parquet")
    assert (other.user_names, other.item_names) == (read.user_names, read.item_names)
    assert other.times is not None
    assert other.times.tolist() == read.times.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,time\n7,x,1\n,y,2\n", r"log\.csv, line 3: 'user' must name a user\. Received: an empty field"),
        ("user,item,time\n7,x,1\n8,y,soon\n", r"log\.csv, line 3: 'time' must be a number\. Received: 'soon'"),
        ("user,item,rating\n7,x,1\n8,y,\n", r"log\.csv, line 3: 'rating' must be a number\. Received: ''"),
        ("user,item,rating\n7,x,1\n8,y,nan\n", r"log\.csv, line 3: 'rating' must be a number\. Received: 'nan'"),
        ("user,film\n7,x\n", r"log\.csv: must have a column 'item'\. Received: user, film"),
        ("user,user_id,item\n7,7,x\n", r"log\.csv: several columns may be the user: user, user_id"),
        ("user,item\n", r"log\.csv: is empty: it has a header and no rows"),
        ("user,item\n7\n", r"log\.csv, line 2: has 1 field under 2 names \(user, item\)"),
        ("", r"log\.csv: "),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        interactions(path=str(written(tmp_path, text)))
    assert "\n" not in str(error.value)


def test_windows_text_is_read_where_it_is_said(tmp_path):
    rows = "".join(f"u;café {i};{i}\n" for i in range(20))
    (tmp_path / "log.csv").write_bytes(("user;item;time\n" + rows).encode("cp1252"))
    with pytest.raises(DataError, match=r"log\.csv, line 2: must be UTF-8\."):
        interactions(path=str(tmp_path / "log.csv"))
    dataset = interactions(path=str(tmp_path / "log.csv"), encoding="cp1252", split="last")
    assert dataset.spec.inputs["history"].names[3] == "café 3"


def test_terms_must_be_accepted(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"^data\.accept_terms: must be true for recbole"):
        ml100k()
