"""Texts as tokens: words or characters, with the vocabulary of the training split."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dlframe.readers.tables.rows import hash64, parts_by_hash
from dlframe.types import PARTS, DataError, Dataset, DataSpec, Field, Ragged, Split

PAD, UNKNOWN, FIRST = 0, 1, 2
"""Tokens: padding, a word that training has not seen (or a text without words), and the vocabulary's first word."""

WORD = re.compile(r"\w{1,64}(?:['\u2019]\w{1,64})?|[^\w\s]{1,16}")
"""A word, with an apostrophe inside, or a run of signs such as "!!!" or an emoji; bounded, as are the vocabulary's entries."""

CHARACTER = re.compile(r"\S|\s+")

LARGEST = 2**27
"""Maximum characters of the file of a text."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How texts become tokens.

    Attributes:
        level: Words, or characters for languages that write no spaces.
        vocabulary: Most frequent words that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; None for all.
        cut: Part of a longer text that is left out.
    """

    level: Literal["word", "character"] = "word"
    vocabulary: int = 50_000
    min_count: int = 2
    length: int | None = 512
    cut: Literal["end", "middle", "start"] = "middle"


@dataclass(frozen=True)
class Encoded:
    """Texts of each split as ranks of their words, by frequency in the training split, the most frequent first.

    Attributes:
        parts: By split, ranks (tokens of all texts,) int32, -1 for words that training does not have.
        words: Words by rank.
        counts: (words,) int64, occurrences in the training split.
    """

    parts: tuple[Ragged, ...]
    words: list[str]
    counts: np.ndarray


def split_text(text: str, level: str) -> list[str]:
    """Return the tokens of a text, in lower case, composed (NFC)."""
    lowered = unicodedata.normalize("NFC", text).lower()
    if level == "word":
        return WORD.findall(lowered)
    return [" " if token.isspace() else token for token in CHARACTER.findall(lowered.strip())]


def encode_texts(parts: Sequence[Iterable[str]], level: str) -> Encoded:
    """Split the texts of each part, the training texts first, and rank the words of these."""
    seen: dict[str, int] = {}
    samples = [
        [np.array([seen.setdefault(word, len(seen)) for word in split_text(text, level)], np.int32) for text in part]
        for part in parts
    ]
    ragged = [_joined(part) for part in samples]
    counts = np.bincount(ragged[0].values, minlength=len(seen))
    words = np.array(list(seen), dtype=object)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], words[i]))
    ranks = np.full(len(seen) or 1, -1, np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return Encoded(tuple(part.like(ranks[part.values]) for part in ragged), [str(words[i]) for i in order], counts[order])


def _joined(samples: list[np.ndarray]) -> Ragged:
    return Ragged.of(samples) if samples else Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))


def limited(encoded: Encoded, tokens: Tokens) -> tuple[list[Ragged], list[str], list[str]]:
    """Return the tokens of each part, the vocabulary, and what was cut."""
    size = min(tokens.vocabulary, int((encoded.counts >= tokens.min_count).sum()))
    parts, notes = [], []
    if not size:
        notes.append(f"no word occurs data.min_count={tokens.min_count} times in training: all are one token")
    for name, part in zip(PARTS, encoded.parts, strict=True):
        values = np.where((part.values >= 0) & (part.values < size), part.values + FIRST, UNKNOWN).astype(np.int32)
        whole = _filled(part.like(values))
        if tokens.length and (long := int((whole.lengths > tokens.length).sum())):
            notes.append(
                f"{name}: the {tokens.cut} of {long:,} of {len(whole):,} texts is left out: they have more than "
                f"data.length={tokens.length} tokens, the longest {int(whole.lengths.max()):,}"
            )
        if empty := int((part.lengths == 0).sum()):
            notes.append(f"{name}: {empty:,} {'text has' if empty == 1 else 'texts have'} no word")
        parts.append(shortened(whole, tokens.length, tokens.cut))
    return parts, encoded.words[:size], notes


def _filled(texts: Ragged) -> Ragged:
    """Give a text without tokens one that says so."""
    lengths = np.maximum(texts.lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if offsets[-1] == len(texts.values):
        return texts
    values = np.full(offsets[-1], UNKNOWN, np.int32)
    values[np.repeat(texts.lengths > 0, lengths)] = texts.values
    return Ragged(values, offsets)


def shortened(texts: Ragged, length: int | None, cut: str) -> Ragged:
    """Return texts of at most `length` tokens, without their end, middle or start."""
    whole = texts.lengths
    if not length or not (whole > length).any():
        return texts
    kept = np.minimum(whole, length)
    head = np.where(whole > length, {"end": length, "middle": (length + 1) // 2, "start": 0}[cut], kept)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], kept)
    late = place >= np.repeat(head, kept)
    source = np.repeat(texts.offsets[:-1], kept) + place + late * np.repeat(whole - kept, kept)
    return Ragged(texts.values[source], offsets)


# --- data sets


def folded(text: str) -> str:
    """Return a text without case and repeated blanks."""
    return " ".join(text.split()).casefold()


def parts_of(texts: Sequence[str], labels: np.ndarray, fractions: Sequence[float]) -> list[np.ndarray]:
    """Split texts by a hash: equal ones, apart from case and blanks, are in one part, and a new text moves no other."""
    hashed = np.array([hash64(folded(text)) for text in texts], np.uint64)
    return parts_by_hash(hashed, fractions, labels)


def overlap(texts: Mapping[str, Sequence[str]], labels: Mapping[str, np.ndarray]) -> list[str]:
    """Say how many texts of a split are in an earlier one too."""
    notes = []
    parts = list(texts)
    for number, part in enumerate(parts[1:], 1):
        before = parts[:number]
        exact = {text: label for name in before for text, label in zip(texts[name], labels[name].tolist(), strict=True)}
        alike = {folded(text) for text in exact}
        same = [exact.get(text) for text in texts[part]]
        equal = sum(label is not None for label in same)
        near = sum(folded(text) in alike for text in texts[part])
        other = sum(label not in (None, own) for label, own in zip(same, labels[part].tolist(), strict=True))
        if near:
            more = f", {near:,} apart from case and blanks" if near > equal else ""
            notes.append(
                f"{part}: {equal:,} of {len(same):,} texts are in {' or '.join(before)} too{more}"
                f"{f', {other:,} of them with another label' if other else ''}: the score partly measures memory"
            )
    return notes


def text_dataset(
    name: str,
    encoded: Encoded,
    labels: Sequence[np.ndarray],
    ids: Sequence[np.ndarray],
    classes: Sequence[str],
    tokens: Tokens,
    *,
    source: str,
    splits: str,
    column: str = "text",
    files: bool = False,
    groups: Sequence[np.ndarray] | None = None,
) -> tuple[Dataset, list[str]]:
    """Return texts with one class each, and notes.

    Args:
        name: Name of the data set.
        encoded: The texts of train, validation and test.
        labels: Class indices of each split.
        ids: Names of the texts of each split.
        classes: Names of the classes.
        tokens: How texts become tokens.
        source: Source, for the header.
        splits: Rule of the split, for the header.
        column: Column of the texts in a table, for predictions.
        files: Whether each file is one text, for predictions.
        groups: Groups of the texts of each split.
    """
    parts, words, notes = limited(encoded, tokens)
    for part, own in zip(PARTS, labels, strict=True):
        if absent := sorted(set(range(len(classes))) - set(np.unique(own).tolist())):
            named = ", ".join(classes[i] for i in absent[:6])
            notes.append(f"{part} has no text of {len(absent)} of {len(classes)} classes: {named}")
    fitted = {
        "vocabulary": words,
        "text": {**asdict(tokens), "column": column, "files": files},
        "counts": np.bincount(labels[0], minlength=len(classes)).tolist(),
    }
    spec = DataSpec(
        name,
        {"text": Field(kind="tokens", dtype="int32", shape=(None,))},
        {"label": Field(kind="class", dtype="int64", names=tuple(classes))},
        fitted,
    )
    columns = zip(parts, labels, ids, groups or (None, None, None), strict=True)
    train, validation, test = (
        Split({"text": text, "label": own.astype(np.int64)}, names, groups=group) for text, own, names, group in columns
    )
    return Dataset(spec, train, validation, test, f"{source}, {len(words):,} {tokens.level}s", splits), notes


class Encoder:
    """Encoder of new texts as those of a run.

    Args:
        fitted: What the run keeps of its data; may be somebody else's.

    Raises:
        DataError: It does not describe texts.
    """

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        try:
            kept = fitted["text"]
            self.place = {str(word): rank + FIRST for rank, word in enumerate(fitted["vocabulary"])}
            self.level, self.cut, self.column = (str(kept[key]) for key in ("level", "cut", "column"))
            self.length = None if kept["length"] is None else int(kept["length"])
            self.files = bool(kept["files"])
            if self.cut not in ("end", "middle", "start") or self.level not in ("word", "character"):
                raise ValueError(self.cut)
        except (KeyError, TypeError, ValueError):
            raise DataError("spec.json: holds no vocabulary of texts") from None

    def __call__(self, text: str) -> np.ndarray:
        """Return the tokens (length,) int32 of a text."""
        found = [self.place.get(word, UNKNOWN) for word in split_text(text, self.level)] or [UNKNOWN]
        return shortened(Ragged.of([np.array(found, np.int32)]), self.length, self.cut).values
