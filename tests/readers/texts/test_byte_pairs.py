"""Byte-pair encoding, with a vocabulary of a few tokens, and GPT-2's own against tiktoken where both are at hand."""

import pytest

from dlframe.readers.texts import byte_pairs
from dlframe.readers.texts.byte_pairs import BytePairs
from dlframe.storage import fetch
from dlframe.types import DataError

FEW = BytePairs([*(bytes([byte]) for byte in range(256)), b"he", b"ll", b"hell", b" w", b"or", b"hello"])


def test_earlier_pairs_are_merged_first():
    assert FEW.encode("hello") == [261]
    assert FEW.encode("hell") == [258]
    assert FEW.encode("ello") == [ord("e"), 257, ord("o")]
    assert FEW.encode(" word") == [259, 260, ord("d")]


@pytest.mark.parametrize("text", ["", " ", "hello  world\n", "it's 10:30_ok", "Größe ½ 日本", "\ufffd"])
def test_any_text_comes_back(text):
    assert FEW.decode(FEW.encode(text)) == text


def test_bytes_that_are_no_text_are_shown():
    assert FEW.decode([0xC3, ord("a")]) == "\ufffda"


def test_the_vocabulary_of_gpt2(monkeypatch):
    tiktoken = pytest.importorskip("tiktoken", reason="the reference")
    monkeypatch.setattr(fetch, "_fetch", lambda *_: pytest.skip("the vocabulary is not in the cache"))
    tokens = byte_pairs.read_vocabulary()
    assert (len(tokens), sum(map(len, tokens))) == (byte_pairs.SIZE, byte_pairs.BYTES)
    reference = tiktoken.Encoding(
        "gpt2",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={},
    )
    own = BytePairs(tokens)
    for text in ("Please enter your 4-digit PIN, followed by #.", " it's Größe  \n 日本 a_b ...", "I'll we've THEY'D"):
        assert own.encode(text) == reference.encode(text)


def test_a_damaged_vocabulary(monkeypatch, tmp_path):
    (tmp_path / "x").write_text("aGVsbG8= one\n")
    monkeypatch.setattr(byte_pairs, "member", lambda *_: tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read"):
        byte_pairs.read_vocabulary()
