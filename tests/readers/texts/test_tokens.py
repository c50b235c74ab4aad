"""Texts as tokens, against plain Python."""

from collections import Counter

import numpy as np
import pytest

from dlframe.contracts.samples import lines
from dlframe.readers.texts.tokens import (
    FIRST,
    UNKNOWN,
    Encoder,
    Tokens,
    encode_texts,
    limited,
    overlap,
    parts_of,
    shortened,
    split_text,
)
from dlframe.types import DataError, Ragged


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop!!! It\u2019s 5.30 :-)", ["don't", "stop", "!!!", "it\u2019s", "5", ".", "30", ":-)"]),
        ("Cafe\u0301 CAFÉ", ["café", "café"]),
        ("👩\u200d👩\u200d👧 שלום (abc)", ["👩\u200d👩\u200d👧", "שלום", "(", "abc", ")"]),
        (" \u200b ", ["\u200b"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert split_text(text, "word") == words


def test_characters():
    assert split_text(" Aß  c\n", "character") == ["a", "ß", " ", "c"]


def test_a_word_without_end_is_cut():
    assert {len(word) for word in split_text("x" * 1000 + "!" * 100, "word")} <= set(range(1, 65))


def test_the_vocabulary_is_that_of_training():
    texts, _ = lines()
    train, other = texts[::2], texts[1::2]
    tokens = Tokens(vocabulary=30, min_count=2, length=None)
    (first, second, _), words, notes = limited(encode_texts([train, other, other], tokens), tokens)
    counts = Counter(word for text in train for word in split_text(text, "word"))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:30]
    assert words == expected
    assert notes == []
    place = {word: i + FIRST for i, word in enumerate(expected)}
    for part, given in ((first, train), (second, other)):
        for found, text in zip(part, given, strict=True):
            assert found.tolist() == [place.get(word, UNKNOWN) for word in split_text(text, "word")]


@pytest.mark.parametrize("cut", ["end", "middle", "start"])
@pytest.mark.parametrize("length", [1, 4, 5])
def test_long_texts_lose_one_part(cut, length):
    samples = [np.arange(n, dtype=np.int32) + 100 * n for n in (1, 9, 4, 5, 12)]
    found = shortened(Ragged.of(samples), length, cut)
    for short, whole in zip(found, samples, strict=True):
        kept = whole.tolist()
        if len(whole) > length:
            head = {"end": length, "middle": (length + 1) // 2, "start": 0}[cut]
            kept = kept[:head] + kept[len(kept) - (length - head) :]
        assert short.tolist() == kept


def test_new_texts_are_encoded_as_those_of_training():
    texts, _ = lines()
    tokens = Tokens(length=6, min_count=1)
    (train, *_), words, notes = limited(encode_texts([texts, texts[:1], texts[:1]], tokens), tokens)
    assert "the middle of" in notes[0]
    kept = {"level": "word", "length": 6, "cut": "middle", "column": "line", "files": False}
    encoder = Encoder({"vocabulary": words, "text": kept})
    for text, expected in zip(texts, train, strict=True):
        assert encoder(text).tolist() == expected.tolist()
    assert encoder("").tolist() == [UNKNOWN]


@pytest.mark.parametrize("change", [{"cut": "all"}, {"length": "x"}, {"level": "byte"}])
def test_what_a_run_keeps_may_be_wrong(change):
    kept = {"level": "word", "length": 6, "cut": "middle", "column": "line", "files": False} | change
    with pytest.raises(DataError, match="holds no vocabulary"):
        Encoder({"vocabulary": ["a"], "text": kept})


def test_equal_texts_are_in_one_part():
    texts = [text for i in range(40) for text in (f"Good thing {i}", f"good  THING {i} ")]
    labels = np.arange(80) // 2 % 2
    parts, _ = parts_of(texts, labels, (0.6, 0.2, 0.2))
    home = {i: number for number, part in enumerate(parts) for i in part.tolist()}
    assert all(home[2 * i] == home[2 * i + 1] for i in range(40))
    assert all(len(part) for part in parts)


def test_texts_of_two_splits_are_counted():
    texts = {"train": ["a b", "c"], "test": ["a b", "A  b", "d", "d"]}
    labels = {"train": np.array([0, 1]), "test": np.array([1, 0, 0, 0])}
    (note,) = overlap(texts, labels)
    assert note.startswith("test: 1 of 4 texts are in train too, 2 nearly, 1 of them with another label")
