"""Edits against jiwer and against a table that is filled cell by cell."""

import random

import numpy as np
import pytest

from dlframe.statistics.transcripts.edits import aligned, characters, edits, words


def texts(letters: str, longest: int, count: int = 400) -> list[str]:
    generator = random.Random(longest)
    return [" ".join(generator.choices(letters, k=generator.randint(0, longest))) for _ in range(count)]


def distance(reference: list[str], hypothesis: list[str]) -> int:
    row = [*range(len(hypothesis) + 1)]
    for i, said in enumerate(reference, 1):
        before, row = row, [i]
        for j, heard in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (said != heard)))
    return row[-1]


@pytest.mark.parametrize(("letters", "longest"), [("ab", 3), ("abcde", 9), ("abc", 40)])
def test_fewest_edits(letters, longest):
    said, heard = ([words(text) for text in texts(letters, longest + extra)] for extra in (0, 1))
    found = edits(said, heard)
    assert found.sum(1).tolist() == [distance(*pair) for pair in zip(said, heard, strict=True)]
    inserted, deleted, _ = found.T
    assert (inserted - deleted == np.array([len(h) - len(s) for s, h in zip(said, heard, strict=True)])).all()


@pytest.mark.parametrize(("letters", "longest"), [("ab", 3), ("abcde", 9), ("abc", 40)])
def test_kinds_of_edits_are_those_of_jiwer(letters, longest):
    jiwer = pytest.importorskip("jiwer", reason="pip install 'dlframe[test]'")
    said, heard = texts(letters, longest), texts(letters, longest + 1)
    pairs = [(s, h) for s, h in zip(said, heard, strict=True) if s]
    found = edits([words(s) for s, _ in pairs], [words(h) for _, h in pairs])
    theirs = [jiwer.process_words(s, h) for s, h in pairs]
    assert found.tolist() == [[one.insertions, one.deletions, one.substitutions] for one in theirs]
    letters_of = edits([characters(s) for s, _ in pairs], [characters(h) for _, h in pairs])
    cer = letters_of.sum() / sum(len(characters(s)) for s, _ in pairs)
    assert cer == pytest.approx(jiwer.cer([s for s, _ in pairs], [h for _, h in pairs]), abs=1e-9)


def test_empty_texts():
    assert edits([[], ["a"], []], [["a", "b"], [], []]).tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert edits([], []).shape == (0, 3)


@pytest.mark.parametrize("blank", ["\t", "\n", "\u00a0", "\u202f", "\u3000", "\u2028", "  ", "\u200b \u00ad"])
def test_blanks_of_any_kind_separate_words(blank):
    assert words(f"{blank}one{blank}two") == ["one", "two"]
    assert characters(f"one{blank}two{blank}") == "one two"


def test_composed_and_decomposed_letters_are_one():
    assert edits([characters("caf\u00e9")], [characters("cafe\u0301")]).sum() == 0


def test_alignment_has_the_fewest_edits():
    for said, heard in zip(texts("abc", 7), texts("abc", 8), strict=True):
        pairs = aligned(words(said), words(heard))
        assert [s for s, _ in pairs if s] == words(said)
        assert [h for _, h in pairs if h] == words(heard)
        assert sum(s != h for s, h in pairs) == distance(words(said), words(heard))
